"""Optimizers: their names, their numbers, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import checks
from nnkit.optimizers import Adagrad, AdamW, Lion, RMSprop, get_optimizer, optimizer_names
from tests.support.recursions import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_description_creates_an_equal_optimizer(name: str) -> None:
    optimizer = OPTIMIZERS[name]()
    described = json.loads(json.dumps(optimizer.describe()))
    again = get_optimizer(**described)
    assert again == optimizer
    assert type(again) is type(optimizer)
    assert vars(again) == vars(optimizer)
    assert eval(repr(optimizer), vars(nnkit.optimizers)) == optimizer
    again.learning_rate *= 2
    assert again != optimizer


def test_names() -> None:
    assert optimizer_names() == ["sgd", "rmsprop", "adagrad", "adam", "adamw", "lion"]
    for name in optimizer_names():
        assert get_optimizer(name).describe()["name"] == name
    assert get_optimizer("adamw").weight_decay == 0.01
    assert get_optimizer("adam").weight_decay == 0
    optimizer = nnkit.SGD()
    assert get_optimizer(optimizer) is optimizer
    with pytest.raises(ValueError, match=r"unknown optimizer 'adma'; did you mean 'adam'"):
        get_optimizer("adma")
    with pytest.raises(TypeError, match=r"SGD: unknown number 'momentun'; did you mean 'momentum'"):
        get_optimizer("sgd", momentun=0.9)
    with pytest.raises(TypeError, match=r"SGD\(learning_rate=0.1\) has its numbers; l2 can only be given with a name"):
        get_optimizer(optimizer, l2=0.1)


def test_defaults_match_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    names = {"lr": "learning_rate", "eps": "epsilon", "alpha": "alpha", "momentum": "momentum", "nesterov": "nesterov"}
    for kind in (RMSprop, Adagrad, nnkit.Adam, AdamW):
        theirs = getattr(torch.optim, kind.__name__)([torch.nn.Parameter(torch.zeros(1))]).defaults
        ours = vars(kind())
        for key, name in names.items():
            assert ours.get(name, theirs.get(key)) == theirs.get(key, ours.get(name)), (kind, name)
        if "betas" in theirs:
            assert (ours["beta1"], ours["beta2"]) == theirs["betas"]
        assert ours["weight_decay"] == theirs["weight_decay"]


def test_repr_shows_numbers_that_are_not_the_default() -> None:
    assert repr(nnkit.SGD()) == "SGD(learning_rate=0.1)"
    assert repr(nnkit.SGD(0.5, 0.9, True, clip_norm=1)) == (
        "SGD(learning_rate=0.5, momentum=0.9, nesterov=True, clip_norm=1.0)"
    )


BAD = {
    "learning_rate": (0.0, -0.1, math.inf, math.nan),
    **dict.fromkeys(("momentum", "alpha", "beta1", "beta2"), (1.0, -0.1, math.nan)),
    **dict.fromkeys(("l1", "l2", "weight_decay"), (-1e-9, math.inf, math.nan)),
    **dict.fromkeys(("epsilon", "clip_value", "clip_norm"), (0.0, -1.0, math.inf)),
}


@pytest.mark.parametrize(
    ("kind", "name", "bad"),
    [
        (kind, name, bad)
        for kind in (nnkit.SGD, RMSprop, Adagrad, nnkit.Adam, AdamW, Lion)
        for name in vars(kind())
        for bad in BAD.get(name, ())
    ],
)
def test_numbers_out_of_range_are_named(kind: Any, name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} is {bad}; expected a finite number"):
        kind(**{name: bad})
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: {name} is '1'; expected a finite number"):
        kind(**{name: "1"})


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="SGD: nesterov needs a momentum above 0"):
        nnkit.SGD(nesterov=True)
    old_l2: Any = 1e-4
    with pytest.raises(TypeError, match=r"SGD: nesterov is 0.0001; expected True or False"):
        nnkit.SGD(0.1, 0.9, old_l2)
    nothing: Any = None
    with pytest.raises(TypeError, match="SGD: l2 is None; expected a finite number of at least 0"):
        nnkit.SGD(l2=nothing)


def test_only_the_learning_rate_changes() -> None:
    optimizer = nnkit.SGD(0.1, momentum=0.9)
    optimizer.learning_rate = 2
    assert repr(optimizer) == "SGD(learning_rate=2.0, momentum=0.9)"
    with pytest.raises(ValueError, match="SGD: learning_rate is nan"):
        optimizer.learning_rate = math.nan
    with pytest.raises(AttributeError, match=r"momentum=0.9\): only learning_rate can be changed"):
        optimizer.momentum = 0.5
    with pytest.raises(AttributeError, match="SGD has no number 'lr'; learning_rate can be changed"):
        optimizer.lr = 0.5
    assert optimizer == nnkit.SGD(2.0, momentum=0.9)


PAIRS = [*((name, "softmax_cross_entropy") for name in OPTIMIZERS), *(("adam", cost) for cost in nnkit.cost_names())]


@pytest.mark.parametrize(("name", "cost"), PAIRS)
def test_training_agrees_with_numpy_as_a_standard_namespace(name: str, cost: str) -> None:
    """Sums of NumPy's functions are scalars, which no recorded step can write to."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), np.eye(3)[np.arange(20) % 3]
    y = y + 1 if nnkit.get_cost(cost).domain == "positive" else y
    found = []
    for backend in ("numpy", "standard:numpy"):
        layers = [nnkit.Dense(4, 5, "gelu"), nnkit.Dropout(0.2), nnkit.Dense(5, 3)]
        net = nnkit.Network(layers, cost=cost, seed=0, dtype="float64", backend=backend)
        costs = [float(net.train_step(x, y, OPTIMIZERS[name]() if i == 0 else None)) for i in range(3)]
        costs += net.fit(x, y, epochs=2, batch_size=8, progress=False)["cost"]
        costs += [net.evaluate(x, y)["cost"], float(net.gradients(x, y)[0])]
        gradients = [np.asarray(a).ravel() for pair in net.gradients(x, y)[1] for a in pair]
        found.append(np.concatenate([costs, net.forward(x).ravel(), *gradients]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_names_where_optimizers_are_taken() -> None:
    X, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    nets = {how: nnkit.Network([4, 3], seed=0, dtype="float64") for how in ("name", "object", "partial", "steps")}
    adam = nnkit.Adam()
    for _ in range(3):
        nets["name"].fit(X, y, epochs=1, batch_size=20, optimizer="adam", progress=False)
        nets["object"].fit(X, y, epochs=1, batch_size=20, optimizer=adam, progress=False)
        nets["partial"].partial_fit(X, y, batch_size=20, optimizer="adam")
        nets["steps"].train_step(X[np.random.default_rng([0, 1, _]).permutation(20)], y, "adam")
    wanted = np.array(nets["object"].parameters.flat)
    for how in ("name", "partial"):
        assert np.array_equal(nets[how].parameters.flat, wanted)  # the state went on: Adam's first steps are larger
    state: Any = nets["steps"].current_state
    assert float(state.numbers["t"]) == 3
    assert len(nets["steps"].recorded) == 1
    nets["name"].partial_fit(X, y, optimizer="sgd")
    assert repr(nets["name"].optimizer) == "SGD(learning_rate=0.1)"
    with pytest.raises(ValueError, match="unknown optimizer 'Adam'; did you mean 'adam'"):
        nets["name"].train_step(X, y, "Adam")
    with pytest.raises(TypeError, match=r"optimizer is the class Adam; expected an optimizer: Adam\(\)"):
        nets["name"].train_step(X, y, nnkit.Adam)  # type: ignore[arg-type]


def test_a_training_continues_with_an_optimizer_by_name(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    X, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    once, twice = (nnkit.Network([4, 3], seed=0) for _ in range(2))
    once.fit(X, y, epochs=4, optimizer="adam", progress=False)
    path = tmp_path / "run.safetensors"
    twice.fit(X, y, epochs=2, optimizer="adam", checkpoint=path, progress=False)
    again = nnkit.Network([4, 3], seed=0)
    again.fit(X, y, epochs=4, optimizer="adam", checkpoint=path, resume=True, progress=False)
    assert np.array_equal(once.parameters.flat, again.parameters.flat)
    with pytest.raises(ValueError, match="its optimizer is"):
        nnkit.Network([4, 3], seed=0).fit(X, y, epochs=5, optimizer="lion", checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: nnkit.get_cost("mse"), "unknown cost 'mse'; did you mean 'quadratic'"),
        (lambda: nnkit.get_cost("MSELoss"), "did you mean 'quadratic'"),
        (lambda: nnkit.get_cost("mae"), "did you mean 'mean_absolute'"),
        (lambda: nnkit.get_cost("binary_crossentropy"), "did you mean 'cross_entropy'"),
        (lambda: nnkit.get_cost("categorical_crossentropy"), "did you mean 'softmax_cross_entropy'"),
        (lambda: nnkit.get_cost("crossentropy"), "did you mean 'cross_entropy'"),
        (lambda: nnkit.get_cost("Huber"), "did you mean 'huber'"),
        (lambda: nnkit.get_cost(["huber"]), r"unknown cost \['huber'\]"),  # type: ignore[arg-type]
        (lambda: nnkit.Network([2, 3, 1], "ReLU"), "unknown activation 'ReLU'; did you mean 'relu'"),
        (lambda: nnkit.Network([2, 3, 1], "LeakyReLU"), "did you mean 'leaky_relu'"),
        (lambda: nnkit.Network([2, 3, 1], "swish"), "did you mean 'silu'"),
        (lambda: nnkit.Network([2, 3, 1], np.tanh), "did you mean 'tanh'"),  # type: ignore[arg-type]
        (lambda: nnkit.Network([2, 3, 1], init="xavier"), "did you mean 'glorot_uniform' or 'glorot_normal'"),
        (lambda: nnkit.Network([2, 3, 1], init="he"), "did you mean 'he_normal' or 'he_uniform'"),
        (lambda: nnkit.Network([2, 3, 1]).evaluate([[1, 2]], [0], metrics=["log_loss"]), "unknown metric 'log_loss'; "),
        (lambda: nnkit.Network([2, 3, 1]).evaluate([[1, 2]], [0], metrics=["r2_score"]), "did you mean 'r2'"),
        (lambda: nnkit.get_optimizer("AdamW"), "unknown optimizer 'AdamW'; did you mean 'adamw'"),
        (lambda: nnkit.get_optimizer("momentum"), "did you mean 'sgd'"),
        (lambda: nnkit.schedules.as_schedule("CosineAnnealingLR"), "did you mean 'cosine'"),
        (lambda: nnkit.schedules.as_schedule("StepLR"), r"did you mean 'step\(every\)'"),
    ],
)
def test_names_of_other_libraries_suggest_nnkits(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()


def test_every_hint_is_a_name() -> None:
    known = {
        "activation": [*nnkit.activation_names(), "softmax"],
        "cost": nnkit.cost_names(),
        "initializer": nnkit.initializers.initializer_names(),
        "metric": ["accuracy", "r2", "mae", "rmse", "top_5"],
        "optimizer": nnkit.optimizer_names(),
        "schedule": [*nnkit.schedules.schedule_names(), "step(every)", "exponential(factor)", "warmup(epochs)"],
    }
    for kind, meant in checks._ELSEWHERE.items():
        assert set(meant) <= set(known[kind]), kind
        for foreign in " ".join(meant.values()).split():
            assert foreign.isalnum()
            assert foreign.islower()
