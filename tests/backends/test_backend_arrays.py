"""How arrays come to a backend, are made there, and come back."""

from typing import TYPE_CHECKING, Any

import array_api_strict
import numpy as np
import pytest

from nnkit.backends import get_backend
from nnkit.backends.dtypes import dtype_name

if TYPE_CHECKING:
    from tests.conftest import Arrays

FLOATS = ["float32", "float64"]


class OnlyDLPack:
    """An array that nothing but DLPack can read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


SOURCES: dict[str, tuple[Any, Any]] = {
    "list": ([[1, 2.5], [3, 4]], [[1, 2.5], [3, 4]]),
    "tuple": ((1.0, 2.0), [1, 2]),
    "number": (1.5, 1.5),
    "NumPy number": (np.float32(1.5), 1.5),
    "integers": (np.arange(3), [0, 1, 2]),
    "float32": (np.array([1, 2], np.float32), [1, 2]),
    "Fortran order": (np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [[1, 2], [3, 4]]),
    "strided": (np.arange(6.0)[::-2], [5, 3, 1]),
    "empty": (np.empty((0, 3)), np.empty((0, 3))),
    "DLPack": (OnlyDLPack(np.array([1.0, 2.0])), [1, 2]),
    "array-api-strict": (array_api_strict.asarray([1.0, 2.0]), [1, 2]),
    "another device": (array_api_strict.asarray([1.0, 2.0], device=array_api_strict.Device("device1")), [1, 2]),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("source", SOURCES)
def test_asarray(arrays: "Arrays", source: str, dtype: str) -> None:
    values, expected = SOURCES[source]
    result = arrays.numpy(arrays.backend.asarray(values, dtype), dtype)
    assert result.shape == np.shape(expected)
    np.testing.assert_array_equal(result, expected)


def test_asarray_keeps_dtypes_and_its_own_arrays(arrays: "Arrays") -> None:
    backend = arrays.backend
    assert dtype_name(backend.asarray(np.ones(1, np.float32)).dtype) == "float32"
    assert dtype_name(backend.asarray(np.arange(3)).dtype) == "int64"
    assert dtype_name(backend.asarray([1.0]).dtype) == "float64"
    here = arrays([1.0, 2.0])
    same = backend.asarray(here)
    backend.copy(arrays([3.0, 4.0]), same) if not arrays.read_only else None
    np.testing.assert_array_equal(arrays.numpy(here), [1.0, 2.0] if arrays.read_only else [3.0, 4.0])


def test_empty_zeros_and_dtype(arrays: "Arrays") -> None:
    backend = arrays.backend
    for shape in [(), (0,), (3,), (2, 3, 4)]:
        assert arrays.numpy(backend.empty(shape, "float32"), "float32").shape == shape
        zeros = backend.zeros(shape, backend.dtype("float64"))
        np.testing.assert_array_equal(arrays.numpy(zeros, "float64"), np.zeros(shape))
    assert dtype_name(backend.empty([2], backend.dtype("int32")).dtype) == "int32"


def test_copy_converts_and_broadcasts(arrays: "Arrays") -> None:
    backend = arrays.backend
    out = backend.zeros((2, 2), "float32")
    assert backend.copy(arrays([[1.0, 2.0], [3.0, 1e300]]), out) is out  # the overflow is no warning
    np.testing.assert_array_equal(arrays.numpy(out, "float32"), [[1, 2], [3, np.inf]])


def test_to_numpy_after_synchronize_and_describe(arrays: "Arrays") -> None:
    arrays.backend.synchronize()
    assert all(isinstance(text, str) and text for item in arrays.backend.describe().items() for text in item)


@pytest.mark.parametrize("namespace", ["array_api_strict", "array_api_compat.torch"])
def test_converted_arrays_share_no_memory_with_numpy(namespace: str) -> None:
    """Neither is it changed by what is done to the array made of it, nor the other way round."""
    pytest.importorskip(namespace, reason=f"{namespace} is not installed")
    backend, source = get_backend(f"standard:{namespace}"), np.ones(2)
    made = backend.asarray(source)
    source[...] = 5
    np.testing.assert_array_equal(backend.to_numpy(made), [1, 1])
    made[...] = 7
    np.testing.assert_array_equal(source, [5, 5])
