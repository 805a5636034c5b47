"""Updates: against the papers' recursions in plain Python and against torch.optim, on every backend."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels import updates
from nnkit.optimizers import AdamW, Optimizer
from nnkit.parameters import Parameters
from tests.support.recursions import LAYERS, OPTIMIZERS, SHAPES, STEPS, draw, recursion

if TYPE_CHECKING:
    from tests.conftest import Arrays


def train(arrays: "Arrays", optimizer: Optimizer, dtype: str = "float64", steps: int = STEPS) -> Parameters:
    """The parameters after some steps, with gradients that are given."""
    start, gradients = draw()
    backend = arrays.backend
    parameters, gradient = (Parameters(backend, LAYERS, dtype) for _ in range(2))
    parameters.assign(zip(start[::2], start[1::2], strict=True))
    state = optimizer.start(parameters)
    for g in gradients[:steps]:
        gradient.assign(zip(g[::2], g[1::2], strict=True))
        state.set_rate()
        state.update(parameters, gradient)
    return parameters


def flat(parameters: Parameters) -> list[np.ndarray]:
    pairs = zip(parameters.W, parameters.b, strict=True)
    return [np.array(parameters.backend.to_numpy(a)) for pair in pairs for a in pair]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_steps_match_the_recursion(arrays: "Arrays", name: str) -> None:
    found = np.concatenate([a.ravel() for a in flat(train(arrays, OPTIMIZERS[name]()))])
    np.testing.assert_allclose(found, recursion(name), rtol=1e-12, atol=1e-13)


def test_each_option_makes_a_difference() -> None:
    """So that the tests with it can fail: clipping bites at some steps, and not at all of them."""
    ends = {name: tuple(recursion(name)) for name in OPTIMIZERS}
    assert len(set(ends.values())) == len(OPTIMIZERS)
    values = [np.concatenate([g.ravel() for g in arrays]) for arrays in draw()[1]]
    assert 10 < sum(np.abs(g).max() > 5.0 for g in values) < STEPS - 10
    assert 10 < sum(np.linalg.norm(g) > 4.0 for g in values) < STEPS - 10


# PyTorch has no L1, no decay of SGD's and no Lion.
IN_TORCH = [name for name in OPTIMIZERS if "all" not in name and name not in ("descent-l1", "descent-decay", "lion")]


def torch_twin(torch: Any, ours: Any, tensors: list[Any]) -> Any:
    decay = ours.weight_decay if isinstance(ours, AdamW) else ours.l2
    groups = [{"params": tensors[::2], "weight_decay": decay}, {"params": tensors[1::2], "weight_decay": 0.0}]
    options = {"lr": ours.learning_rate} | {
        theirs: getattr(ours, name)
        for name, theirs in (("momentum", "momentum"), ("nesterov", "nesterov"), ("alpha", "alpha"), ("epsilon", "eps"))
        if hasattr(ours, name)
    }
    if hasattr(ours, "beta1"):
        options["betas"] = (ours.beta1, ours.beta2)
    return getattr(torch.optim, type(ours).__name__)(groups, **options)


@pytest.mark.parametrize("name", IN_TORCH)
def test_torch_optim_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.conftest import Arrays

    start, gradients = draw()
    ours: Any = OPTIMIZERS[name]()
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    theirs = torch_twin(torch, ours, tensors)
    for g in gradients:
        for tensor, values in zip(tensors, g, strict=True):
            tensor.grad = torch.tensor(values)
        if ours.clip_value is not None:
            torch.nn.utils.clip_grad_value_(tensors, ours.clip_value)
        if ours.clip_norm is not None:
            # PyTorch multiplies by min(1, c/(‖g‖ + 10⁻⁶)): with this c it is min(1, clip_norm/‖g‖).
            norm = float(torch.sqrt(sum((tensor.grad**2).sum() for tensor in tensors)))
            torch.nn.utils.clip_grad_norm_(tensors, ours.clip_norm * (1 + 1e-6 / norm))
        theirs.step()
    for found, tensor in zip(flat(train(Arrays(nnkit.get_backend("numpy")), ours)), tensors, strict=True):
        np.testing.assert_allclose(found, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_padding_stays_zero(arrays: "Arrays", name: str, dtype: str) -> None:
    parameters = train(arrays, OPTIMIZERS[name](), dtype, steps=12)
    real = sum(units * (inputs + 1) for units, inputs in SHAPES)
    values = np.array(arrays.backend.to_numpy(parameters.flat))
    assert values.size > real
    assert np.count_nonzero(values) == real
    assert sum(np.count_nonzero(a) for a in flat(parameters)) == real


def test_nielsens_decay() -> None:
    """w ← (1 − ηλ/n) w − η g, and the biases only − η g: the numbers of one step by hand."""
    net = nnkit.Network([1, 1], cost="quadratic", dtype="float64", init=lambda *_: (np.array([[2.0]]), np.array([3.0])))
    # The output is 2·1 + 3 = 5, its Δ is 5 − 4 = 1.
    eta, lam, n = 0.5, 0.1, 10
    net.train_step([[1.0]], [4.0], nnkit.SGD(eta, l2=lam / n))
    assert net.parameters.W[0].item() == pytest.approx((1 - eta * lam / n) * 2 - eta * 1, rel=1e-15)
    assert net.parameters.b[0].item() == 3 - eta * 1


def test_kernels_write_over_their_operands(arrays: "Arrays") -> None:
    p, v = (arrays.backend.asarray(np.array(a)) for a in ([1.0, 2.0], [4.0, 0.0]))
    g = arrays([2.0, -2.0])
    found = updates.momentum_descent(p, g, v, 0.25, 0.5, out=(p, v))
    assert found[0] is p
    assert found[1] is v
    assert arrays.numpy(v).tolist() == [4.0, -2.0]
    assert arrays.numpy(p).tolist() == [0.0, 2.5]
    assert arrays.numpy(g).tolist() == [2.0, -2.0]


def test_adams_corrections_are_exact_in_float32() -> None:
    """1 − βᵗ as a difference of floats would lose four of its seven digits while β₂ᵗ is near 1."""
    logs = [np.log(beta) for beta in (0.9, 0.999, 0.9999)]
    for step in (1, 2, 3):
        for log in logs:
            new, correction, _ = updates.adam_clock(np.float32(step - 1), np.float32(log), np.float32(log))
            assert float(new) == step
            assert float(correction) == pytest.approx(-math.expm1(step * float(np.float32(log))), rel=3e-7)
