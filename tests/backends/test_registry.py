"""A backend of one's own: registered, selected, recognised by its arrays, forgotten."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnkit.backends import (
    Backend,
    BackendMismatchError,
    UnknownBackendError,
    backend_names,
    backend_of,
    get_backend,
    register_backend,
    unregister_backend,
    using_backend,
)


class Wrapped:
    """A third party's array: it has a namespace of its own, as the standard asks."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np


class WrappingBackend(Backend):
    name, xp = "wrapping", np

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        return Wrapped(np.asarray(getattr(values, "values", values), dtype))

    def to_numpy(self, array: Any) -> np.ndarray:
        return np.asarray(array.values)

    def empty(self, shape: Any, dtype: Any) -> Any:
        return Wrapped(np.empty(shape, dtype))


def owner(array: Any) -> str | None:
    return "wrapping" if isinstance(array, Wrapped) else None


@pytest.fixture
def wrapping() -> Iterator[Backend]:
    register_backend("wrapping", lambda detail: WrappingBackend(), owner)
    yield get_backend("wrapping")
    unregister_backend("wrapping")


def test_a_custom_backend_is_selected_and_owns_its_arrays(wrapping: Backend) -> None:
    assert "wrapping" in backend_names()
    mine = Wrapped([1.0, 2.0])
    assert backend_of(x=mine) is wrapping
    assert backend_of(x=np.ones(2)).name == "numpy"
    with using_backend("wrapping"):
        assert backend_of(x=1.0) is wrapping
    for name in ("numpy", "standard"):
        backend = get_backend(name)
        np.testing.assert_array_equal(backend.to_numpy(backend.asarray(mine)), [1.0, 2.0])
    with pytest.raises(BackendMismatchError, match="'wrapping' and y on 'numpy'"):
        backend_of(x=mine, y=np.ones(2))


def test_an_unregistered_backend_is_unknown(wrapping: Backend) -> None:
    unregister_backend("wrapping")
    try:
        assert "wrapping" not in backend_names()
        with pytest.raises(UnknownBackendError, match="unknown backend 'wrapping'"):
            get_backend("wrapping")
        with pytest.raises(KeyError):
            unregister_backend("wrapping")
    finally:
        register_backend("wrapping", lambda detail: WrappingBackend(), owner)
    assert get_backend("wrapping") is not wrapping


@pytest.mark.parametrize("name", ["numpy", "standard", "wrapping"])
def test_a_taken_name_is_refused(wrapping: Backend, name: str) -> None:
    with pytest.raises(ValueError, match=f"backend name '{name}' is taken; unregister_backend"):
        register_backend(name, lambda detail: WrappingBackend(), owner)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "auto", "a.b", "-"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"backend name '{name}': expected letters"):
        register_backend(name, lambda detail: WrappingBackend(), owner)
    assert name not in backend_names()


def test_a_backend_with_another_name_is_refused() -> None:
    """Else a subclass that kept the name of NumPy's backend would silently be NumPy's."""
    register_backend("misnamed", lambda detail: WrappingBackend(), lambda array: None)
    try:
        with pytest.raises(ValueError, match="backend made for 'misnamed' has the name 'wrapping'"):
            get_backend("misnamed")
    finally:
        unregister_backend("misnamed")
