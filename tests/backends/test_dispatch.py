"""Arrays decide which backend computes; what is no array, and what belongs to two backends, is refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import array_api_strict
import numpy as np
import pytest

import nnkit
from nnkit.backends import BackendMismatchError, backend_of, get_backend, using_backend

if TYPE_CHECKING:
    from tests.conftest import Arrays

STRICT = "standard:array_api_strict"


def test_arrays_decide_whatever_is_selected(arrays: "Arrays") -> None:
    x = arrays([1.0, 2.0])
    for selected in ("numpy", STRICT):
        with using_backend(selected):
            assert backend_of(x=x) is arrays.backend
            assert backend_of(z=None, y=[1.0], x=x, slope=0.5) is arrays.backend
            assert backend_of(x=[1.0], out=x) is arrays.backend
            assert backend_of(x=1.0, out=(x, x)) is arrays.backend
            np.testing.assert_array_equal(arrays.numpy(nnkit.relu(x), "float64"), [1.0, 2.0])


@pytest.mark.parametrize(
    "value", [1, 1.5, True, None, [1.0, 2.0], (1.0, 2.0), np.float32(1), np.float64(1), np.int64(1), np.bool_(True)]
)
def test_numbers_and_lists_have_no_owner(value: Any) -> None:
    for selected in ("numpy", STRICT, f"{STRICT}:device1"):
        with using_backend(selected) as backend:
            assert backend_of(x=value) is backend


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)])
def test_numbers_join_arrays_of_every_backend(arrays: "Arrays", number: Any) -> None:
    result = nnkit.kernels.updates.gradient_descent(arrays([1.0, 2.0], "float32"), [1.0, 3.0], number)
    np.testing.assert_array_equal(arrays.numpy(result, "float32"), [-1.0, -4.0])


def test_memory_maps_are_numpy_arrays(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3,))
    mapped[:] = [0, 1, -1]
    with using_backend(STRICT):
        assert backend_of(x=mapped).name == "numpy"
    np.testing.assert_array_equal(nnkit.relu(mapped), [0, 1, 0])
    assert nnkit.relu(mapped, out=mapped) is mapped
    np.testing.assert_array_equal(np.fromfile(tmp_path / "x", np.float32), [0, 1, 0])


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    for use in (nnkit.sigmoid, get_backend("numpy").asarray, get_backend(STRICT).asarray):
        with pytest.raises(TypeError, match=r"masked arrays are not supported; fill the mask first"):
            use(masked)


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}, object(), 1 + 2j, {1.0}, range(3), np.sin])
def test_objects_that_are_not_arrays_are_named(value: Any) -> None:
    with pytest.raises(TypeError, match=f"z is a {type(value).__name__}; expected an array, a list or a number"):
        nnkit.sigmoid(value)


def test_arrays_of_two_backends_name_both() -> None:
    strict, device1 = get_backend(STRICT), get_backend(f"{STRICT}:device1")
    x, y, z = np.ones(2), strict.asarray([1.0, 2.0]), device1.asarray([1.0, 2.0])
    with pytest.raises(BackendMismatchError, match=f"s is on backend 'numpy' and delta on '{STRICT}'; ") as error:
        nnkit.sigmoid_grad(x, y)
    assert isinstance(error.value, TypeError)
    with pytest.raises(BackendMismatchError, match=f"s is on backend '{STRICT}' and delta on 'numpy'"):
        nnkit.sigmoid_grad(y, x)
    with pytest.raises(BackendMismatchError, match=f"s is on backend '{STRICT}' and delta on '{STRICT}:device1'"):
        nnkit.sigmoid_grad(y, z)
    with pytest.raises(BackendMismatchError, match=f"z is on backend '{STRICT}' and out on 'numpy'"):
        nnkit.sigmoid(y, out=x)
    with pytest.raises(BackendMismatchError, match=f"x is on backend 'numpy' and out on '{STRICT}'"):
        backend_of(x=x, out=(x, y))  # each array of the tuple counts
    with pytest.raises(BackendMismatchError, match="W"):
        nnkit.dense_forward(np.ones((2, 2)), strict.zeros((2, 2), "float64"), np.ones(2))


def test_the_hint_for_mixed_backends_works(arrays: "Arrays") -> None:
    """The message says get_backend(...).asarray(...): it moves arrays between any two backends."""
    here = arrays([1.0, 2.0])
    for name in ("numpy", STRICT, f"{STRICT}:device1"):
        backend = get_backend(name)
        moved = backend.asarray(here)
        assert backend_of(x=moved) is backend
        np.testing.assert_array_equal(backend.to_numpy(moved), [1.0, 2.0])
        back = arrays.backend.asarray(moved, "float32")
        np.testing.assert_array_equal(arrays.numpy(back, "float32"), [1.0, 2.0])


def test_each_device_is_a_separate_backend() -> None:
    devices = array_api_strict.__array_namespace_info__().devices()
    backends = [backend_of(x=array_api_strict.ones(2, dtype=array_api_strict.float32, device=d)) for d in devices]
    assert len(set(backends)) == len(devices) >= 3
    assert {STRICT, f"{STRICT}:device1", f"{STRICT}:device2"} <= {backend.name for backend in backends}
    for backend, device in zip(backends, devices, strict=True):
        assert backend.asarray([1.0], "float32").device == device
        assert backend.zeros((1,), "float32").device == device
    default = get_backend(f"{STRICT}:CPU_DEVICE")
    assert default is get_backend(STRICT)
    assert backend_of(x=default.asarray([1.0])) is default


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [nnkit.sigmoid, nnkit.softmax, nnkit.gelu])
def test_torch_tensors_give_torch_tensors(function: Callable[..., Any], dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    z = torch.tensor([[-1.0, 2.0]], dtype=getattr(torch, dtype))
    assert backend_of(z=z).name == "standard:array_api_compat.torch"
    result = function(z)
    assert type(result) is torch.Tensor
    assert result.dtype == z.dtype
    np.testing.assert_allclose(result.numpy(), function(z.numpy()), rtol=4 * float(np.finfo(dtype).eps))


def test_a_dense_layer_of_torch_tensors() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    x, W, b = (rng.normal(size=shape) for shape in ((5, 3), (4, 3), (4,)))
    tensor_x, tensor_W, tensor_b = map(torch.tensor, (x, W, b))
    h = nnkit.dense_forward(tensor_x, tensor_W, tensor_b, activation="sigmoid")
    expected = torch.sigmoid(torch.nn.functional.linear(tensor_x, tensor_W, tensor_b))
    assert type(h) is torch.Tensor
    torch.testing.assert_close(h, expected, rtol=1e-14, atol=1e-14)
    with pytest.raises(BackendMismatchError, match=r"x is on backend 'standard:.*\.torch' and W on 'numpy'"):
        nnkit.dense_forward(tensor_x, W, b)
    np.testing.assert_array_equal(get_backend("numpy").asarray(tensor_x), x)


FRAMES = {"sigmoid_grad": 13, "dense_forward": 35, "cross_entropy": 34}  # of nnkit, with native code and products


@pytest.mark.parametrize("name", FRAMES)
def test_a_call_that_was_made_before_takes_few_frames(name: str) -> None:
    """Owners are asked, shapes and dtypes checked, and a formula's calls prepared once."""
    x = np.random.default_rng(0).uniform(0.1, 0.9, (64, 64)).astype(np.float32)
    arguments = {"sigmoid_grad": (x, x), "dense_forward": (x, x, x[0], "sigmoid"), "cross_entropy": (x, x)}[name]
    function, found = getattr(nnkit, name), list[str]()
    first = function(*arguments)

    def count(frame: Any, event: str, argument: object) -> None:
        if event == "call" and ("/nnkit/" in frame.f_code.co_filename or "/backends/" in frame.f_code.co_filename):
            found.append(frame.f_code.co_qualname)

    sys.setprofile(count)
    try:
        again = function(*arguments)
    finally:
        sys.setprofile(None)
    assert len(found) <= FRAMES[name], found
    np.testing.assert_array_equal(again, first)
