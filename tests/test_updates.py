"""The optimizers: against the papers' recursions in plain Python and against torch.optim, on every backend."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit import step as step_module
from nnkit.kernels import updates
from nnkit.optimizers import Optimizer
from nnkit.parameters import Parameters

if TYPE_CHECKING:
    from tests.conftest import Arrays

SHAPES = [(3, 5), (2, 3)]
STEPS = 60
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "descent": lambda: nnkit.SGD(0.05),
    "descent-l2": lambda: nnkit.SGD(0.05, l2=0.3),
    "momentum": lambda: nnkit.SGD(0.05, momentum=0.9),
    "momentum-l2": lambda: nnkit.SGD(0.05, momentum=0.8, l2=0.3),
    "adam": lambda: nnkit.Adam(0.05),
    "adam-l2": lambda: nnkit.Adam(0.05, 0.7, 0.95, epsilon=1e-3, l2=0.3),
    "adam-betas-0": lambda: nnkit.Adam(0.05, 0.0, 0.0),
}


def draw() -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Initial W, b of each layer, one after the other, and their gradients at each step, of very different sizes."""
    rng = np.random.default_rng(11)
    shapes = [shape for units, inputs in SHAPES for shape in ((units, inputs), (units,))]
    start = [rng.normal(size=shape) for shape in shapes]
    return start, [[rng.normal(0, 10 ** rng.uniform(-4, 2), shape) for shape in shapes] for _ in range(STEPS)]


def train(arrays: "Arrays", optimizer: Optimizer, dtype: str = "float64") -> Parameters:
    """The parameters after all steps, with gradients that are given."""
    start, gradients = draw()
    backend = arrays.backend
    parameters, gradient = (Parameters(backend, SHAPES, dtype) for _ in range(2))
    parameters.assign(zip(start[::2], start[1::2], strict=True))
    state = optimizer.start(parameters)
    for g in gradients:
        gradient.assign(zip(g[::2], g[1::2], strict=True))
        state.refresh()
        state.update(parameters, gradient)
    return parameters


def flat(parameters: Parameters) -> list[np.ndarray]:
    pairs = zip(parameters.W, parameters.b, strict=True)
    return [np.array(parameters.backend.to_numpy(a)) for pair in pairs for a in pair]


def recursion(optimizer: Any, p: float, gradients: list[float], decays: bool) -> float:
    """One parameter's way: eq. 17 with Nielsen's decay, Polyak's momentum, or Kingma and Ba's algorithm 1."""
    rate, l2 = optimizer.learning_rate, optimizer.l2 if decays else 0.0
    velocity = mean = square = 0.0
    for t, g in enumerate(gradients, start=1):
        if isinstance(optimizer, nnkit.Adam):
            beta1, beta2, g = optimizer.beta1, optimizer.beta2, g + l2 * p
            mean, square = beta1 * mean + (1 - beta1) * g, beta2 * square + (1 - beta2) * g * g
            p -= rate * (mean / (1 - beta1**t)) / (math.sqrt(square / (1 - beta2**t)) + optimizer.epsilon)
        elif optimizer.momentum:
            velocity = optimizer.momentum * velocity + (g + l2 * p)
            p -= rate * velocity
        else:
            p = (1 - rate * l2) * p - rate * g
    return p


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_steps_are_the_recursion(arrays: "Arrays", name: str) -> None:
    start, gradients = draw()
    optimizer = OPTIMIZERS[name]()
    for i, found in enumerate(flat(train(arrays, optimizer))):
        for place in np.ndindex(found.shape):
            way = [float(g[i][place]) for g in gradients]
            wanted = recursion(optimizer, float(start[i][place]), way, decays=i % 2 == 0)
            assert found[place] == pytest.approx(wanted, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_optim_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.optim")
    from tests.conftest import Arrays

    start, gradients = draw()
    ours: Any = OPTIMIZERS[name]()
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    groups = [{"params": tensors[::2], "weight_decay": ours.l2}, {"params": tensors[1::2], "weight_decay": 0.0}]
    if isinstance(ours, nnkit.Adam):
        theirs = torch.optim.Adam(groups, lr=ours.learning_rate, betas=(ours.beta1, ours.beta2), eps=ours.epsilon)
    else:
        theirs = torch.optim.SGD(groups, lr=ours.learning_rate, momentum=ours.momentum)
    for g in gradients:
        for tensor, values in zip(tensors, g, strict=True):
            tensor.grad = torch.tensor(values)
        theirs.step()
    for found, tensor in zip(flat(train(Arrays(nnkit.get_backend("numpy")), ours)), tensors, strict=True):
        np.testing.assert_allclose(found, tensor.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_padding_stays_zero(arrays: "Arrays", name: str, dtype: str) -> None:
    parameters = train(arrays, OPTIMIZERS[name](), dtype)
    real = sum(units * (inputs + 1) for units, inputs in SHAPES)
    values = np.array(arrays.backend.to_numpy(parameters.flat))
    assert values.size > real
    assert np.count_nonzero(values) == real
    assert sum(np.count_nonzero(a) for a in flat(parameters)) == real


def test_nielsens_decay() -> None:
    """W ← (1 − ηλ/n) w − η g, and the biases only − η g: the numbers of one step by hand."""
    net = nnkit.Network([1, 1], cost="quadratic", dtype="float64", init=lambda *_: (np.array([[2.0]]), np.array([3.0])))
    # The output is 2·1 + 3 = 5, its Δ is 5 − 4 = 1.
    eta, lam, n = 0.5, 0.1, 10
    net.train_step([[1.0]], [4.0], nnkit.SGD(eta, l2=lam / n))
    assert net.parameters.W[0].item() == pytest.approx((1 - eta * lam / n) * 2 - eta * 1, rel=1e-15)
    assert net.parameters.b[0].item() == 3 - eta * 1


@pytest.mark.parametrize("name", ["descent-l2", "momentum", "adam"])
def test_a_changed_learning_rate_takes_effect_without_recording_again(
    arrays: "Arrays", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = []
    record = step_module.Step.__init__

    def counted(self: step_module.Step, *args: Any, **options: Any) -> None:
        recorded.append(self)
        record(self, *args, **options)

    monkeypatch.setattr(step_module.Step, "__init__", counted)
    optimizer = OPTIMIZERS[name]()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    net = nnkit.Network([3, 2], cost="quadratic", seed=0, dtype="float64")
    way: list[list[np.ndarray]] = []
    for rate in (0.1, 0.1, 1e-300, 0.2):
        optimizer.learning_rate = rate
        way.append(flat(net.parameters))
        net.train_step(x, y, optimizer)
    way.append(flat(net.parameters))
    assert len(recorded) == 1
    moved = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(way)]
    assert all((m == 0).all() for m in moved[2])
    assert all((m != 0).all() for m in moved[1] + moved[3])
    if name == "descent-l2":  # no memory: the step is the rate times a gradient that step 2 left as it was
        twice = nnkit.Network([3, 2], cost="quadratic", seed=0, dtype="float64")
        twice.parameters.assign([(way[3][0], way[3][1])])
        twice.train_step(x, y, nnkit.SGD(0.1, l2=optimizer.l2))
        for m, a, b in zip(moved[3], way[3], flat(twice.parameters), strict=True):
            np.testing.assert_allclose(m, 2 * (b - a), rtol=1e-12)


@pytest.mark.parametrize("bad", [0.0, -0.1, math.inf, math.nan])
def test_a_learning_rate_must_be_positive_and_finite(bad: float) -> None:
    for optimizer in (nnkit.SGD, nnkit.Adam):
        with pytest.raises(ValueError, match=rf"{optimizer.__name__}: learning_rate is {bad}; .* above 0"):
            optimizer(bad)


@pytest.mark.parametrize(
    ("optimizer", "name", "bad"),
    [
        (nnkit.SGD, "momentum", 1.0),
        (nnkit.SGD, "momentum", -0.1),
        (nnkit.SGD, "l2", -1e-9),
        (nnkit.SGD, "l2", math.nan),
        (nnkit.Adam, "beta1", 1.0),
        (nnkit.Adam, "beta2", 1.5),
        (nnkit.Adam, "beta2", math.nan),
        (nnkit.Adam, "epsilon", 0.0),
        (nnkit.Adam, "l2", math.inf),
    ],
)
def test_other_arguments_out_of_range_are_named(optimizer: Any, name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"{optimizer.__name__}: {name} is {bad}; expected a finite number"):
        optimizer(**{name: bad})


def test_kernels_write_over_their_operands(arrays: "Arrays") -> None:
    p, v = (arrays.backend.asarray(np.array(a)) for a in ([1.0, 2.0], [4.0, 0.0]))
    g = arrays([2.0, -2.0])
    found = updates.momentum_descent(p, g, v, 0.25, 0.5, out=(p, v))
    assert found[0] is p
    assert found[1] is v
    assert arrays.numpy(v).tolist() == [4.0, -2.0]
    assert arrays.numpy(p).tolist() == [0.0, 2.5]
    assert arrays.numpy(g).tolist() == [2.0, -2.0]
