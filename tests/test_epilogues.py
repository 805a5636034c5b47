"""Epilogues without a GPU: what products take in, and that it is what the calls would have done."""

import gc
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends.cuda.cublas_lt import Epilogue, Matmul, Place, Plan
from nnkit.backends.cuda.epilogue_product import EpilogueProduct, mask_shape
from nnkit.backends.cuda.gemm import COMPUTE_FLOAT, DATA_TYPES
from nnkit.backends.formula import Formula, compose
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward
from nnkit.step import Step, step_for
from tests.host_device import HostDevice, HostGemm
from tests.host_memory import on_host

Array = NDArray[Any]
BIAS, BGRADB, DRELU, DGELU = Epilogue.BIAS, Epilogue.BGRADB, Epilogue.DRELU, Epilogue.DGELU
TWICE = Formula(lambda xp, a: a * 2, "twice", ["a"])
BIASED = Formula(lambda xp, product, b: product + b, "biased", ["product", "b"], known_as="bias")
RELU = get_activation("relu")


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_EPILOGUES", "1")


def taken(calls: Sequence[Any]) -> list[Epilogue]:
    """The epilogues on a tape, in its order."""
    return [call.epilogue for call in calls if isinstance(call, EpilogueProduct)]


def trained(
    backend: Any, activation: str, optimizer: Any, layers: Any = None, dtype: str = "float32"
) -> tuple[Array, Step]:
    """The parameters after five steps with the same minibatch, and the step."""
    rng = np.random.default_rng(7)
    X, Y = rng.normal(size=(6, 12)), np.eye(3)[np.arange(6) % 3]
    net = nnkit.Network(
        layers or [12, 16, 24, 3], None if layers else activation, "softmax_cross_entropy",
        seed=4, dtype=dtype, backend=backend,
    )  # fmt: skip
    step = step_for(net, 6, net.optimizer_state(optimizer), drops=True)
    for values, array in ((X, step.x), (Y, step.y)):
        net.backend.copy(net.backend.asarray(values, dtype), array)
    for _ in range(5):
        step.run()
    parts = [net.backend.to_numpy(array).ravel() for array in (*net.parameters.W, *net.parameters.b)]
    return np.concatenate(parts), step


WAYS = [("highest", nnkit.SGD(0.5)), ("highest", nnkit.SGD(0.1, momentum=0.9, l2=1e-3)), ("medium", nnkit.SGD(0.5))]
STEPS = {
    "relu": [Epilogue.RELU_AUX_BIAS, Epilogue.RELU_AUX_BIAS, BIAS, BGRADB, DRELU, BGRADB, DRELU, BGRADB],
    "gelu_tanh": [Epilogue.GELU_AUX_BIAS, Epilogue.GELU_AUX_BIAS, BIAS, BGRADB, DGELU, BGRADB, DGELU, BGRADB],
    "sigmoid": [BIAS, BGRADB, BGRADB, BGRADB],
    "identity": [BIAS, BIAS, BIAS, BGRADB, BGRADB, BGRADB],
}


@pytest.mark.parametrize(("precision", "optimizer"), WAYS)
@pytest.mark.parametrize("activation", list(STEPS))
def test_steps_with_epilogues(
    host: HostDevice, monkeypatch: pytest.MonkeyPatch, activation: str, optimizer: Any, precision: str
) -> None:
    nnkit.set_matmul_precision(precision)
    fused, step = trained(host, activation, optimizer)
    assert sorted(taken(step._tape.calls)) == sorted(STEPS[activation])
    again, _ = trained(host, activation, optimizer)
    assert again.tobytes() == fused.tobytes()
    monkeypatch.setenv("NNKIT_EPILOGUES", "0")
    apart, plain = trained(host, activation, optimizer)
    assert taken(plain._tape.calls) == []
    assert len(plain._tape.calls) > len(step._tape.calls)
    # Five steps of numbers of size 1 in float32; in bfloat16 δb is the sum of numbers rounded to 8 bits.
    np.testing.assert_allclose(fused, apart, rtol=0, atol=2e-6 if precision == "highest" else 2e-2)
    exact, _ = trained("numpy", activation, optimizer, dtype="float64")
    off = abs(apart - exact).max()
    assert abs(fused - exact).max() < 3 * off


def test_dropout_stands_between(host: HostDevice) -> None:
    """What dropout has multiplied is not what ReLU's derivative belongs to."""
    layers = [nnkit.Dense(12, 16, "relu"), nnkit.Dropout(0.4), nnkit.Dense(16, 24, "relu"), nnkit.Dense(24, 3)]
    found, step = trained(host, "relu", nnkit.SGD(0.5), layers)
    assert sorted(taken(step._tape.calls)) == sorted(
        [Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS, BIAS, BGRADB, DRELU, BGRADB, BGRADB]
    )
    expected, _ = trained("numpy", "relu", nnkit.SGD(0.5), layers, dtype="float64")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_float64_has_none(host: HostDevice) -> None:
    found, step = trained(host, "relu", nnkit.SGD(0.5), dtype="float64")
    assert taken(step._tape.calls) == []
    expected, _ = trained("numpy", "relu", nnkit.SGD(0.5), dtype="float64")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ["relu", "gelu_tanh"])
def test_a_prediction_keeps_nothing_for_a_derivative(host: HostDevice, activation: str) -> None:
    x, W, b = (host.asarray(np.ones(shape), "float32") for shape in ((4, 8), (16, 8), (16,)))
    with host.recording() as tape:
        dense_forward(x, W, b, activation)
    assert taken(tape.calls) == [{"relu": Epilogue.RELU_BIAS, "gelu_tanh": Epilogue.GELU_BIAS}[activation]]
    assert len(tape.calls) == 1


def test_where_cublaslt_has_no_algorithm(host: HostDevice) -> None:
    """The bits of RELU_AUX_BIAS are not made if DRELU cannot be had, nor the other way round."""

    class Without(HostGemm):
        def __init__(self, *missing: Epilogue) -> None:
            self.missing = missing

        def plan(self, matmul: Matmul) -> Matmul | None:
            return None if matmul.epilogue in self.missing else matmul

    exact, _ = trained("numpy", "relu", nnkit.SGD(0.5), dtype="float64")
    for missing in ([*Epilogue], [Epilogue.RELU_AUX_BIAS], [DRELU], [BGRADB, BIAS], [Epilogue.RELU_BIAS]):
        host.handles = Without(*missing)
        found, step = trained(host, "relu", nnkit.SGD(0.5))
        assert not set(missing) & set(taken(step._tape.calls))
        if DRELU not in taken(step._tape.calls):
            assert Epilogue.RELU_AUX_BIAS not in taken(step._tape.calls)
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6)


def layer(host: HostDevice, activation: str = "relu", samples: int = 4, units: int = 16) -> tuple[Any, ...]:
    """x, W, b, Δ of the layer behind, and the W of that, (3, units)."""
    rng = np.random.default_rng(units)
    shapes = ((samples, 8), (units, 8), (units,), (samples, 3), (3, units))
    return tuple(host.asarray(rng.normal(size=shape), "float32") for shape in shapes)


@pytest.mark.parametrize("what", ["h", "Δ", "b", "Δ read"])
def test_what_comes_between_keeps_them_apart(host: HostDevice, what: str) -> None:
    """An array that changes, or is wanted as it is, between a product and what would go into it."""
    x, W, b, delta, V = layer(host)
    with host.recording() as tape:
        product = host.matmul(x, W.mT)
        if what == "b":
            host.elementwise(TWICE, (b,), out=b)
        h = host.elementwise(compose(RELU.forward, BIASED), (product, b), out=product)
        dx = host.matmul(delta, V)
        copy = None
        if what == "h":
            host.elementwise(TWICE, (h,), out=h)
        if what == "Δ":
            host.elementwise(TWICE, (dx,), out=dx)
        if what == "Δ read":
            copy = host.elementwise(TWICE, (dx,))
        host.elementwise(RELU.gradient, (h, dx), out=dx)
    assert DRELU not in taken(tape.calls)
    assert (Epilogue.RELU_BIAS in taken(tape.calls)) == (what != "b")
    values = [on_host(array).astype(float) for array in (x, W, b, delta, V)]
    tape.replay()
    z = values[0] @ values[1].T + values[2] * (2 if what == "b" else 1)
    expected = np.where(z > 0, values[3] @ values[4], 0)
    np.testing.assert_allclose(on_host(dx), expected * (2 if what == "Δ" else 1), rtol=0, atol=1e-5)
    if copy is not None:
        np.testing.assert_allclose(on_host(copy), 2 * (values[3] @ values[4]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("units", [1, 5, 16, 129])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("activation", ["relu", "gelu_tanh", "identity"])
def test_layers_of_any_size(host: HostDevice, activation: str, samples: int, units: int) -> None:
    """Odd widths have no GELU_AUX, one sample has no BGRADB; the numbers are right all the same."""
    x, W, b, delta, V = layer(host, activation, samples, units)
    saves = get_activation(activation).gradient_from == "preactivation"
    with host.recording() as tape:
        z = host.empty((samples, units), "float32") if saves else None
        h = dense_forward(x, W, b, activation, z=z)
        dh, dV, _ = dense_backward(delta, h, V, None, "identity")
        _, dW, db = dense_backward(dh, x, W, h, activation, z=z, need_dx=False, overwrite_delta=True)
    kinds = taken(tape.calls)
    assert kinds.count(BGRADB) == (2 if samples > 1 else 0)
    assert (DRELU in kinds) == (activation == "relu")
    assert (DGELU in kinds) == (activation == "gelu_tanh" and units % 8 == 0)
    tape.replay()
    xs, Ws, bs, deltas, Vs = (on_host(array).astype(float) for array in (x, W, b, delta, V))
    hidden, zs = np.empty((samples, units)), np.empty((samples, units)) if saves else None
    dense_forward(xs, Ws, bs, activation, out=hidden, z=zs)
    _, dWs, dbs = dense_backward(deltas @ Vs, xs, Ws, hidden, activation, z=zs)
    for found, expected in ((h, hidden), (dV, deltas.T @ hidden), (dW, dWs), (db, dbs)):
        np.testing.assert_allclose(on_host(found), expected, rtol=0, atol=2e-5)


def test_a_derivative_of_one_sample_for_many(host: HostDevice) -> None:
    """A row h that all samples share has bits for one of them only."""
    x, W, b, _, V = layer(host, samples=1)
    delta = host.asarray(np.random.default_rng(2).normal(size=(4, 3)), "float32")
    with host.recording() as tape:
        h = dense_forward(x, W, b, "relu")
        dx = host.matmul(delta, V)
        host.elementwise(RELU.gradient, (h, dx), out=dx)
    assert taken(tape.calls) == [Epilogue.RELU_BIAS]
    tape.replay()
    expected = np.where(on_host(h) > 0, on_host(delta).astype(float) @ on_host(V), 0)
    np.testing.assert_allclose(on_host(dx), expected, rtol=0, atol=1e-6)


def test_constants_make_another_formula(host: HostDevice) -> None:
    """What libraries know is the formula as it is written, not with other numbers in it."""
    shifted = Formula(
        lambda xp, product, b, times=1.0: product + times * b, "shifted", ["product", "b"], {"times": 1.0}, "bias"
    )
    x, W, b, *_ = layer(host)
    for times in (1.0, 3.0):
        with host.recording() as tape:
            h = host.matmul(x, W.mT)
            host.elementwise(shifted, (h, b), out=h, constants={"times": times} if times != 1 else None)
        assert taken(tape.calls) == ([BIAS] if times == 1 else [])
        tape.replay()
        expected = on_host(x).astype(float) @ on_host(W).T + times * on_host(b)
        np.testing.assert_allclose(on_host(h), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("value", "fuses"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_variable(host: HostDevice, monkeypatch: pytest.MonkeyPatch, value: str | None, fuses: bool) -> None:
    monkeypatch.delenv("NNKIT_EPILOGUES")
    if value is not None:
        monkeypatch.setenv("NNKIT_EPILOGUES", value)
    x, W, b, *_ = layer(host)
    with host.recording() as tape:
        dense_forward(x, W, b)
    assert bool(taken(tape.calls)) == fuses
    monkeypatch.setenv("NNKIT_EPILOGUES", "yes")
    with pytest.raises(ValueError, match=r"^NNKIT_EPILOGUES is 'yes'; expected 0 or 1$"):
        host.recording()


def test_numbers_are_those_of_cublaslt() -> None:
    cublas_lt = pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")
    for epilogue in Epilogue:
        assert epilogue == cublas_lt.Epilogue[epilogue.name]
    assert mask_shape((7, 128)) == (7, 16)


def test_a_plan_that_cannot_be_made_says_why_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver there are no descriptors, and without a handle no algorithm: that is the only error."""
    pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")
    more: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", more.append)
    place = Place(4096, DATA_TYPES["float32"], 8)
    matmul = Matmul((0, 0), (8, 8, 8), place, place, place, 256, 512, COMPUTE_FLOAT, BIAS, 1024, 0, 0)
    with pytest.raises(Exception, match=r"driver|not initialized|invalid"):
        Plan(0, matmul, 1 << 20)
    gc.collect()
    assert more == []
