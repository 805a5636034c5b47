"""The dense layer: values against loops in exact sums, gradients against the complex step, on every backend."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnkit
from nnkit.kernels.activations import get_activation
from tests.support.exact import exact

if TYPE_CHECKING:
    from tests.conftest import Arrays

NAMES = nnkit.activation_names()


def draw(n: int = 3, d_in: int = 4, d_out: int = 5, seed: int = 0) -> Sequence[np.ndarray]:
    """Samples x, parameters W and b, and Δ."""
    rng = np.random.default_rng(seed)
    shapes = [(n, d_in), (d_out, d_in), (d_out,), (n, d_out)]
    return [rng.normal(size=shape) for shape in shapes]


def forward_loop(x: np.ndarray, W: np.ndarray, b: np.ndarray, name: str = "identity") -> np.ndarray:
    """Eq. 2 for each sample and unit, summed without rounding."""
    h = np.empty((len(x), len(W)))
    for i, sample in enumerate(x):
        for k, (weights, bias) in enumerate(zip(W, b, strict=True)):
            z = math.fsum([*(float(w) * float(v) for w, v in zip(weights, sample, strict=True)), float(bias)])
            h[i, k] = exact(name, z)[0]
    return h


def backward_loop(dz: np.ndarray, x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eq. 6, 10 and 12 entry by entry: δx, δW, δb from δh̄."""
    n, units, inputs = len(x), *W.shape
    dx = [[math.fsum(dz[i, k] * W[k, j] for k in range(units)) for j in range(inputs)] for i in range(n)]
    dW = [[math.fsum(dz[i, k] * x[i, j] for i in range(n)) for j in range(inputs)] for k in range(units)]
    db = [math.fsum(dz[i, k] for i in range(n)) for k in range(units)]
    return np.array(dx).reshape(n, inputs), np.array(dW), np.array(db)


@functools.cache
def complex_step(name: str) -> list[np.ndarray]:
    """The derivative of Σ Δ f(xWᵀ + b) by each entry of x, W and b of `draw()`."""
    *variables, delta = draw()
    forward, gradients = get_activation(name).forward, []
    for number, variable in enumerate(variables):

        def cost(point: np.ndarray, number: int = number) -> Any:
            x, W, b = (v if i != number else point for i, v in enumerate(variables))
            return np.sum(delta * forward(x @ W.T + b))

        gradients.append(nnkit.derivative(cost, variable))
    return gradients


def run(arrays: "Arrays", name: str, x: Any, W: Any, b: Any, delta: Any, **options: Any) -> tuple[Any, Any]:
    """Forward and backward; the pre-activation is kept for the gradients that need it."""
    z = None
    if get_activation(name).gradient_from == "preactivation":
        z = arrays.backend.empty(delta.shape, "float64")
    h = nnkit.dense_forward(x, W, b, name, z=z)
    return h, nnkit.dense_backward(delta, x, W, h, name, z=z, **options)


@pytest.mark.parametrize("name", NAMES)
def test_forward_matches_a_loop_and_backward_the_complex_step(arrays: "Arrays", name: str) -> None:
    x, W, b, _ = host = draw()
    on_device = [arrays(a) for a in host]
    h, gradients = run(arrays, name, *on_device)
    np.testing.assert_allclose(arrays.numpy(h, "float64"), forward_loop(x, W, b, name), rtol=1e-13, atol=1e-15)
    for found, wanted in zip(gradients, complex_step(name), strict=True):
        np.testing.assert_allclose(arrays.numpy(found, "float64"), wanted, rtol=0, atol=1e-14 * np.abs(wanted).max())
    # The lecture's known bug is a ReLU that overwrites its input.
    for array, before in zip(on_device, host, strict=True):
        assert arrays.numpy(array).tobytes() == before.tobytes()


@given(st.integers(0, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
def test_any_sizes(n: int, d_in: int, d_out: int, seed: int) -> None:
    x, W, b, delta = draw(n, d_in, d_out, seed)
    np.testing.assert_allclose(nnkit.dense_forward(x, W, b), forward_loop(x, W, b), rtol=1e-12, atol=1e-14)
    h = nnkit.dense_forward(x, W, b, "relu")
    gradients = nnkit.dense_backward(delta, x, W, h, "relu")
    for found, wanted in zip(gradients, backward_loop(np.where(h > 0, delta, 0), x, W), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["identity", "sigmoid", "gelu"])
@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0)])
def test_leading_axes_are_samples(arrays: "Arrays", leading: tuple[int, ...], name: str) -> None:
    n = math.prod(leading)
    x, W, b, delta = draw(n)
    h, (dx, dW, db) = run(
        arrays, name, arrays(x.reshape(*leading, 4)), arrays(W), arrays(b), arrays(delta.reshape(*leading, 5))
    )
    assert h.shape == (*leading, 5)
    assert dx.shape == (*leading, 4)
    np.testing.assert_allclose(arrays.numpy(h).reshape(n, 5), forward_loop(x, W, b, name), rtol=1e-13, atol=1e-15)
    z = forward_loop(x, W, b)
    dz = delta * np.array([exact(name, v)[1] for v in z.ravel()]).reshape(z.shape)
    for found, wanted in zip((dx, dW, db), backward_loop(dz, x, W), strict=True):
        np.testing.assert_allclose(arrays.numpy(found).reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_stacked_layers_equal_single_layers(arrays: "Arrays", name: str) -> None:
    layers = [draw(seed=seed) for seed in range(3)]
    stacks = [arrays(np.stack(parts)) for parts in zip(*layers, strict=True)]
    h, gradients = run(arrays, name, *stacks)
    for m, (x, W, b, delta) in enumerate(layers):
        np.testing.assert_allclose(arrays.numpy(h)[m], forward_loop(x, W, b, name), rtol=1e-13, atol=1e-15)
        _, alone = run(arrays, name, *(arrays(a) for a in (x, W, b, delta)))
        for stacked, single in zip(gradients, alone, strict=True):
            np.testing.assert_allclose(arrays.numpy(stacked)[m], arrays.numpy(single), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["identity", "tanh", "gelu"])
@pytest.mark.parametrize("leading", [(3,), (3, 1)])
def test_results_are_written_to_out(arrays: "Arrays", name: str, leading: tuple[int, ...]) -> None:
    x, W, b, delta = draw()
    on_device = arrays(x.reshape(*leading, 4)), arrays(W), arrays(b)
    empty = functools.partial(arrays.backend.zeros, dtype="float64")
    out, z = empty((*leading, 5)), empty((*leading, 5))
    assert nnkit.dense_forward(*on_device, name, out=out, z=z) is out
    np.testing.assert_allclose(arrays.numpy(out).reshape(3, 5), forward_loop(x, W, b, name), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(arrays.numpy(z).reshape(3, 5), forward_loop(x, W, b), rtol=1e-13, atol=1e-15)
    outs = empty((*leading, 4)), empty((5, 4)), empty((5,))
    given_delta = arrays(delta.reshape(*leading, 5))
    found = nnkit.dense_backward(given_delta, *on_device[:2], out, name, z=z, out=outs)
    for made, place, wanted in zip(found, outs, complex_step(name), strict=True):
        assert made is place
        np.testing.assert_allclose(arrays.numpy(place).reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-13)
    dx, dW, db = nnkit.dense_backward(given_delta, *on_device[:2], out, name, z=z, need_dx=False)
    assert dx is None
    np.testing.assert_allclose(arrays.numpy(dW), complex_step(name)[1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(arrays.numpy(db), complex_step(name)[2], rtol=1e-12, atol=1e-13)


def test_results_are_written_into_parts_of_arrays(arrays: "Arrays") -> None:
    """Leading axes that no view can make one: each result has to be copied to its place."""
    x, W, b, delta = draw(6)
    out, z, dx = (arrays.backend.zeros((2, 4, width), "float64")[:, :3, ...] for width in (5, 5, 4))
    nnkit.dense_forward(arrays(x.reshape(2, 3, 4)), arrays(W), arrays(b), "silu", out=out, z=z)
    np.testing.assert_allclose(arrays.numpy(out).reshape(6, 5), forward_loop(x, W, b, "silu"), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(arrays.numpy(z).reshape(6, 5), forward_loop(x, W, b), rtol=1e-13, atol=1e-15)
    given_delta = arrays(delta.reshape(2, 3, 5))
    nnkit.dense_backward(given_delta, arrays(x.reshape(2, 3, 4)), arrays(W), out=(dx, None, None))
    np.testing.assert_allclose(arrays.numpy(dx).reshape(6, 4), backward_loop(delta, x, W)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["identity", "sigmoid"])
def test_memory_order_does_not_matter(arrays: "Arrays", name: str) -> None:
    x, W, b, delta = draw()

    def strided(values: np.ndarray) -> Any:
        wide = np.full([2 * length for length in values.shape], np.nan)
        every_other = (slice(None, None, 2),) * values.ndim
        wide[every_other] = values
        return arrays(wide)[every_other]

    for layout in (strided, lambda a: arrays(np.asfortranarray(a)), lambda a: arrays(a[::-1].copy())[::-1, ...]):
        h, gradients = run(arrays, name, *(layout(a) for a in (x, W, b, delta)))
        np.testing.assert_allclose(arrays.numpy(h), forward_loop(x, W, b, name), rtol=1e-13, atol=1e-15)
        for found, wanted in zip(gradients, complex_step(name), strict=True):
            np.testing.assert_allclose(arrays.numpy(found), wanted, rtol=1e-12, atol=1e-13)
