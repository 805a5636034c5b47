"""The activations as functions of arrays: dtypes, shapes, memory order, out, NaN, on every backend."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnkit
from nnkit.kernels.activations import Activation, get_activation
from tests.support.exact import distances, references

if TYPE_CHECKING:
    from tests.conftest import Arrays

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

NAMES = nnkit.activation_names()
DTYPES = {
    "float16": np.finfo(np.float16),
    "bfloat16": ml_dtypes.finfo(ml_dtypes.bfloat16),
    "float32": np.finfo(np.float32),
    "float64": np.finfo(np.float64),
}
MAGNITUDES = [0.01, 0.3, 1.0, 2.5, 5.0, 8.0, 12.0, 30.0, 1e4]
GRID = np.array([-z for z in reversed(MAGNITUDES)] + MAGNITUDES)
SHAPES = [(), (0,), (1,), (3, 0), (2, 3, 4)]


def saved(f: Activation, z: Any) -> Any:
    return z if f.gradient_from == "preactivation" else f.forward(z)


def allowed(dtype: str, z: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rounding to the dtype (half an ulp) after arithmetic in float32 or float64 that is right to some ulps.

    1 + tanh and z(1 − σ) carry the rounding of a number near 1, times z; beyond 30 there is none left.
    """
    compute = np.finfo(np.float64 if dtype == "float64" else np.float32)
    wanted = np.where(np.isfinite(wanted), wanted, 0.0)
    arithmetic = 8 * float(compute.eps) * np.maximum(np.abs(wanted), np.abs(z) * (np.abs(z) <= 30))
    rounding = 0.5 * float(DTYPES[dtype].eps) * np.abs(wanted) if "16" in dtype else 0.0
    underflow = max(float(DTYPES[dtype].smallest_subnormal) / 2, 10 * float(compute.smallest_normal))
    return np.asarray(arithmetic + rounding + underflow)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_kept_and_results_are_rounded_once(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype in ("float16", "float64"):  # native code is compiled for the other two
        monkeypatch.setenv("NNKIT_NATIVE", "0")
    f, z = get_activation(name), nnkit.get_backend("numpy").asarray(GRID, dtype)
    exact_z = z.astype(float)
    largest = float(DTYPES[dtype].max)
    # What is too large is positive: the exponential.
    value, slope = (np.where(np.abs(a) > largest, np.inf, a) for a in references(name, exact_z))
    h = f.forward(z)
    assert h.dtype == z.dtype
    assert (distances(h, value) <= allowed(dtype, exact_z, value)).all()
    gradient = f.gradient(saved(f, z), np.ones_like(z))
    assert gradient.dtype == z.dtype
    # From a rounded output, the slope changes by f″/f′ ≤ 2 times the output's rounding.
    inherited = 2 * float(DTYPES[dtype].eps) if f.gradient_from == "output" else 0.0
    assert (distances(gradient, slope) <= allowed(dtype, exact_z, slope) + inherited).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(arrays: "Arrays", name: str, shape: tuple[int, ...]) -> None:
    f, rng = get_activation(name), np.random.default_rng(0)
    z, delta = rng.normal(0, 3, shape), rng.normal(0, 3, shape)
    value, slope = references(name, z)
    on_device, given_delta = arrays(z), arrays(delta)
    h = f.forward(on_device)
    assert h.shape == shape
    np.testing.assert_allclose(arrays.numpy(h, "float64"), value, rtol=1e-13, atol=1e-15)
    gradient = f.gradient(saved(f, on_device), given_delta)
    assert gradient.shape == shape
    np.testing.assert_allclose(arrays.numpy(gradient, "float64"), slope * delta, rtol=1e-13, atol=1e-14)
    assert arrays.numpy(on_device).tobytes() == z.tobytes()
    assert arrays.numpy(given_delta).tobytes() == delta.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_does_not_matter(arrays: "Arrays", name: str) -> None:
    f, rng = get_activation(name), np.random.default_rng(1)
    wide, delta = rng.normal(0, 3, (6, 8)), rng.normal(0, 3, (3, 4))
    value, slope = references(name, wide[::2, 1::2])
    for z in (arrays(wide)[::2, 1::2], arrays(np.asfortranarray(wide[::2, 1::2]))):
        h, gradient = f.forward(z), f.gradient(saved(f, z), arrays(np.asfortranarray(delta)))
        np.testing.assert_allclose(arrays.numpy(h), value, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(arrays.numpy(gradient), slope * delta, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_out_and_in_place(arrays: "Arrays", name: str) -> None:
    f, rng = get_activation(name), np.random.default_rng(2)
    z, delta = rng.normal(0, 3, (3, 4)), rng.normal(0, 3, (3, 4))
    value, slope = references(name, z)
    backend = arrays.backend

    def fresh(values: np.ndarray) -> Any:
        return backend.copy(backend.asarray(values), backend.empty(values.shape, "float64"))

    out = fresh(np.full((3, 4), np.nan))
    assert f.forward(arrays(z), out=out) is out
    np.testing.assert_allclose(arrays.numpy(out), value, rtol=1e-13, atol=1e-15)
    overwritten = fresh(z)
    assert f.forward(overwritten, out=overwritten) is overwritten
    assert arrays.numpy(overwritten).tobytes() == arrays.numpy(out).tobytes()
    # Over Δ, over the saved array, and beside both.
    for place in ("delta", "saved", "out"):
        memory = {"saved": fresh(arrays.numpy(saved(f, arrays(z)))), "delta": fresh(delta), "out": fresh(z)}
        result = f.gradient(memory["saved"], memory["delta"], out=memory[place])
        assert result is memory[place]
        np.testing.assert_allclose(arrays.numpy(result), slope * delta, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan(arrays: "Arrays", name: str) -> None:
    f = get_activation(name)
    z = arrays([np.nan, 0.5, np.nan])
    h = arrays.numpy(f.forward(z))
    assert np.isnan(h).tolist() == [True, False, True]
    # A unit that is NaN gets a Δ that is NaN from the layer above: it must not become a finite gradient.
    for delta in ([np.nan, 1.0, np.nan], [np.nan, np.nan, np.nan]):
        gradient = arrays.numpy(f.gradient(saved(f, z), arrays(delta)))
        assert np.isnan(gradient).tolist() == np.isnan(delta).tolist()


@given(st.floats(-1e4, 1e4), st.floats(-10, 10))
def test_a_broadcast_gradient_equals_the_elementwise_one(z: float, delta: float) -> None:
    column, row = np.array([[z], [-z]]), np.array([[delta, 2 * delta, 1.0]])
    for name in NAMES:
        f = get_activation(name)
        wide = f.gradient(saved(f, column), row)
        assert wide.shape == (2, 3)
        one = f.gradient(saved(f, np.array([-z])), np.array([2 * delta]))
        assert wide[1, 1] == pytest.approx(one[0], rel=1e-14, abs=0, nan_ok=True)  # e^1000 times 0


def test_operands_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"sigmoid_grad: operands do not broadcast: s \(3,\), delta \(2,\)"):
        nnkit.sigmoid_grad(np.zeros(3), np.zeros(2))
    with pytest.raises(TypeError, match="z has dtype int64"):
        nnkit.sigmoid(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"out has shape \(2,\); expected \(3,\)"):
        nnkit.relu(np.zeros(3), out=np.zeros(2))
