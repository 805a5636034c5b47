"""Formulas on a real GPU: each agrees with NumPy, whatever its operands' strides, alignment and memory."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace
from numpy.typing import NDArray

from nnkit.backends import Backend, BackendMismatchError
from nnkit.backends.dtypes import FLOATS, compute_type, numpy_dtype
from nnkit.backends.formula import Formula
from nnkit.kernels.sigmoidal import sigmoid_grad
from nnkit.kernels.updates import gradient_descent, momentum_descent
from tests.conftest import gpu_backend
from tests.support.kernels import FORMULAS, suited
from tests.support.rounding import allowed_differences, assert_agree, spacing

pytestmark = pytest.mark.gpu

Array = NDArray[Any]
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, -1.0, 1e4, -1e4, 20.0, -20.0)


@pytest.fixture
def gpu() -> Backend:
    return gpu_backend()


def numbers(shape: tuple[int, ...], dtype: str, seed: str = "") -> Array:
    """Numbers of every size but the subnormal, which the GPU takes for 0; arrays hold special ones too."""
    rng = np.random.default_rng(zlib.crc32(f"{shape}{dtype}{seed}".encode()))
    usual = rng.normal(size=shape) * 10 ** rng.uniform(-3, 1.5, shape)
    values: Array = np.where(rng.random(shape) < (0.2 if shape else 0), rng.choice(SPECIAL, shape), usual)
    return values.astype(numpy_dtype(dtype))


def check(gpu: Backend, formula: Formula, operands: list[Array], views: list[Callable[[Any], Any]]) -> None:
    """A formula on the GPU over views of arrays there, against NumPy over the same views."""
    found = formula(*(view(gpu.asarray(a)) for a, view in zip(operands, views, strict=True)))
    seen = [view(a) for a, view in zip(operands, views, strict=True)]
    expected = formula(*seen)
    allowed = allowed_differences(formula.program(), seen, operands[0].dtype.name, gpu=True)
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for (result, reference), difference in zip(pairs, allowed, strict=True):
        assert_agree(gpu.to_numpy(result), reference, np.broadcast_to(difference, reference.shape))


# The result's rows and columns, the second of an odd number of entries; and the turn of the operands' layouts.
VARIANTS = [(size, turn) for turn in range(4) for size in ((300, 512), (37, 5))]


def variants_for(dtype: str, key: str) -> list[tuple[tuple[int, int], int]]:
    """Two of the eight, one of each size: a formula has all of them in its four dtypes."""
    shift = FLOATS.index(dtype) + list(FORMULAS).index(key)
    return [((300, 512), shift % 4), ((37, 5), (shift + 2) % 4)]


@pytest.mark.parametrize("key", FORMULAS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.campaign)])
def test_formula_agrees_with_numpy(gpu: Backend, every: bool, dtype: str, key: str) -> None:
    formula = FORMULAS[key]
    for (rows, columns), turn in VARIANTS if every else variants_for(dtype, key):
        shapes = ((rows, columns), (columns,), (rows, 1), ())
        count = len(formula.operands)
        drawn = [numbers(shapes[(j + turn) % 4], dtype, f"{j}{key}") for j in range(count)]
        check(gpu, formula, suited(formula, drawn), [lambda a: a] * count)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda a: a,
    "every second column": lambda a: a[:, ::2],
    "every third row": lambda a: a[::3],
    "backwards": lambda a: a[::-1, ::-1],
    "a row off": lambda a: a[1:],
    "a column off": lambda a: a[:, 1:],
    "misaligned": lambda a: a.reshape(-1)[1:],
    "transposed": lambda a: a.T,
    "one row": lambda a: a[5],
    "one column": lambda a: a[:, 5:6],
    "one entry": lambda a: a[5:6, 5:6],
    "three axes": lambda a: a.reshape(6, 10, 64),
    "broadcast": lambda a: array_namespace(a).broadcast_to(a[:1], a.shape),
    "no rows": lambda a: a[:0],
    "no axes": lambda a: a[0, 0],
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("view", VIEWS)
def test_operands_of_any_strides(gpu: Backend, dtype: str, view: str) -> None:
    operands = [numbers((60, 64), dtype, str(j)) for j in range(2)]
    check(gpu, sigmoid_grad, operands, [VIEWS[view]] * 2)
    check(gpu, sigmoid_grad, operands, [VIEWS[view], lambda a: a[0, 0]])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("view", [view for view in VIEWS if view not in ("one row", "no axes", "misaligned")])
def test_products_of_any_strides(gpu: Backend, dtype: str, view: str) -> None:
    host = np.random.default_rng(0).normal(size=(60, 64)).astype(numpy_dtype(dtype))
    x, seen = VIEWS[view](gpu.asarray(host)), VIEWS[view](host).astype(float)
    for found, a, b in ((gpu.matmul(x, x.mT), seen, seen.mT), (gpu.matmul(x.mT, x), seen.mT, seen)):
        expected, magnitude = a @ b, abs(a) @ abs(b)
        bound = 2 * 64 * spacing(magnitude, compute_type(dtype)) + spacing(expected, dtype)
        assert np.all(abs(gpu.to_numpy(found).astype(float) - expected) <= bound)
    out = gpu.empty((x.shape[-1] + 1, 2 * x.shape[-1]), dtype)[1:, ::2]  # a result of strides, too
    if x.ndim == 2:
        gpu.matmul(x.mT, x, out=out)
        assert np.all(abs(gpu.to_numpy(out).astype(float) - expected) <= bound)


@pytest.mark.parametrize("second", [lambda a: a[5], lambda a: a[5, ::-1], lambda a: a[:, 3:4], lambda a: a[::-1, 3:4]])
def test_second_operand_broadcasts(gpu: Backend, second: Callable[[Any], Any]) -> None:
    operands = [numbers((60, 64), "float32", str(j)) for j in range(2)]
    check(gpu, sigmoid_grad, operands, [lambda a: a, second])
    check(gpu, sigmoid_grad, operands, [lambda a: a.reshape(5, 12, 64), lambda a: a[:12].reshape(12, 64)])


# Where the result goes in a matrix, and where the operand is.
PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "the same": (lambda a: a, lambda a: a),
    "one later": (lambda a: a.reshape(-1)[1:], lambda a: a.reshape(-1)[:-1]),
    "one earlier": (lambda a: a.reshape(-1)[:-1], lambda a: a.reshape(-1)[1:]),
    "a row later": (lambda a: a[1:], lambda a: a[:-1]),
    "backwards": (lambda a: a, lambda a: a[::-1, ::-1]),
    "strided": (lambda a: a[:, ::2], lambda a: a[:, 1::2]),
    "transposed": (lambda a: a[:64, :64].T, lambda a: a[:64, :64]),
    "broadcast": (lambda a: a, lambda a: a[7]),
    "one entry": (lambda a: a, lambda a: a[7:8, 7:8]),
}


@pytest.mark.parametrize("place", PLACES)
def test_result_may_overlap_an_operand(gpu: Backend, place: str) -> None:
    # Large enough that many blocks run side by side.
    host = np.random.default_rng(0).normal(size=(2048, 1024)).astype(np.float32)
    device, (where, what) = gpu.asarray(host), PLACES[place]
    ones = np.ones(where(host).shape, np.float32)
    expected = sigmoid_grad(what(host).copy(), ones)
    out = where(device)
    assert sigmoid_grad(what(device), gpu.asarray(ones), out=out) is out
    allowed = allowed_differences(sigmoid_grad.program(), [what(host), ones], "float32", gpu=True)
    assert_agree(gpu.to_numpy(out), expected, np.broadcast_to(allowed[0], expected.shape))


def test_several_results_over_their_operands(gpu: Backend) -> None:
    p, g, v = (np.random.default_rng(i).normal(size=1001) for i in range(3))
    on_gpu = [gpu.asarray(a) for a in (p, g, v)]
    momentum_descent(*on_gpu, 0.5, 0.9, out=(on_gpu[0], on_gpu[2]))
    numbers_too = [np.asarray(0.5), np.asarray(0.9)]
    allowed = allowed_differences(momentum_descent.program(), [p, g, v, *numbers_too], "float64", gpu=True)
    expected = momentum_descent(p, g, v, 0.5, 0.9)
    for found, reference, difference in zip((on_gpu[0], on_gpu[2]), expected, allowed, strict=True):
        assert_agree(gpu.to_numpy(found), reference, difference)


def test_numbers_of_python_and_numpy(gpu: Backend) -> None:
    p = gpu.asarray(np.arange(5.0))
    for rate in (0.5, np.float64(0.5), np.float32(0.5), gpu.asarray(0.5)):
        np.testing.assert_array_equal(gpu.to_numpy(gradient_descent(p, p, rate)), np.arange(5) / 2)


def test_dtypes_that_mix(gpu: Backend) -> None:
    s, delta = numbers((60, 64), "float32", "s"), numbers((60, 64), "float64", "delta")
    found = gpu.to_numpy(sigmoid_grad(gpu.asarray(s), gpu.asarray(delta)))
    wide = [s.astype(np.float64), delta]  # a kernel computes everything in the wider type
    (allowed,) = allowed_differences(sigmoid_grad.program(), wide, "float64", gpu=True)
    assert_agree(found, sigmoid_grad(*wide), allowed)


def test_result_of_another_dtype(gpu: Backend) -> None:
    s = gpu.asarray(np.full((3, 4), 0.5, np.float32))
    for dtype in FLOATS:
        out = gpu.empty((3, 4), dtype)
        sigmoid_grad(s, s, out=out)
        np.testing.assert_array_equal(gpu.to_numpy(out).astype(float), np.full((3, 4), 0.125))


def test_arrays_of_two_backends_do_not_mix(gpu: Backend) -> None:
    with pytest.raises(BackendMismatchError, match="s is on backend 'cupy' and delta on 'numpy'"):
        sigmoid_grad(gpu.asarray(np.ones(3)), np.ones(3))
