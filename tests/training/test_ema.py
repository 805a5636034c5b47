"""Moving averages of the parameters, compared with PyTorch's and with the recursion of Keras."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.optimizers import Lion, Optimizer
from tests.conftest import working_backend
from tests.support.sign_descent import SignDescent

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(44, 4)), RNG.integers(0, 3, 44)
VALIDATION = (X[:9], LABELS[:9])
QUIET: dict[str, Any] = {"batch_size": 8, "progress": False}


def network(dtype: str = "float64", backend: str = "numpy", drop: float = 0.0) -> nnkit.Network:
    layers = [nnkit.Dense(4, 6, "tanh"), *[nnkit.Dropout(drop)] * (drop > 0), nnkit.Dense(6, 3)]
    return nnkit.Network(layers, seed=1, dtype=dtype, backend=working_backend(backend))


def keras(parameters: list[np.ndarray], momentum: float) -> np.ndarray:
    """`use_ema` of Keras 3, in `BaseOptimizer._update_model_variables_moving_average`, over the steps' parameters."""
    average = np.zeros_like(parameters[0])
    for iteration, value in enumerate(parameters):
        now = momentum * (iteration != 0)
        average = now * average + (1 - now) * value
    return average


KINDS: dict[str, Any] = {
    "descent": lambda ema: nnkit.SGD(0.1, ema=ema),
    "momentum": lambda ema: nnkit.SGD(0.1, momentum=0.9, ema=ema),
    "adam": lambda ema: nnkit.Adam(0.01, clip_norm=1.0, ema=ema),
    "lion": lambda ema: Lion(0.01, weight_decay=0.1, ema=ema),
    "custom": lambda ema: SignDescent(0.01, ema=ema),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_averages_are_those_of_keras_and_pytorch(kind: str, backend: str) -> None:
    """The steps of `fit` are those without an average, whose parameters are averaged here."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    plain, net = network(backend=backend), network(backend=backend)
    module = torch.nn.Linear(1, plain.parameters.count, dtype=torch.float64, bias=False)
    average = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    steps: list[np.ndarray] = []
    for epoch in range(3):
        order = np.arange(44)
        np.random.default_rng([plain.seed, 1, epoch]).shuffle(order)
        for start in range(0, 44, 8):
            rows = order[start : start + 8]
            plain.train_step(X[rows], LABELS[rows], KINDS[kind](None) if not steps else None)
            steps.append(plain.parameters.vector)
            module.weight.data[:, 0] = torch.tensor(steps[-1])
            average.update_parameters(module)
    net.fit(X, LABELS, epochs=3, optimizer=KINDS[kind](0.8), averaged=False, **QUIET)
    np.testing.assert_allclose(net.parameters.vector, steps[-1], rtol=1e-12)
    np.testing.assert_allclose(net.averaged().parameters.vector, keras(steps, 0.8), rtol=1e-12)
    theirs = average.module.weight.data[:, 0].numpy()
    np.testing.assert_allclose(net.averaged().parameters.vector, theirs, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_ends_with_the_averages_and_validates_them(dtype: str) -> None:
    plain, net, seen = network(dtype), network(dtype), []

    def look(network: nnkit.Network, history: nnkit.History) -> None:
        seen.append((network.parameters.vector, network.averaged().evaluate(*VALIDATION)["cost"]))

    options: dict[str, Any] = QUIET | {"epochs": 3, "validation_data": VALIDATION}
    plain.fit(X, LABELS, optimizer=nnkit.Adam(0.05), **options)
    history = net.fit(X, LABELS, optimizer=nnkit.Adam(0.05, ema=0.9), callbacks=[look], **options)
    assert np.array_equal(seen[-1][0], plain.parameters.vector)  # training itself is the same, to the bit
    assert history["validation_cost"] == [cost for _, cost in seen]
    assert net.evaluate(*VALIDATION)["cost"] == history["validation_cost"][-1]
    assert np.array_equal(net.parameters.vector, net.averaged().parameters.vector)
    assert not np.allclose(net.parameters.vector, plain.parameters.vector)


def test_early_stopping_restores_the_averages_of_the_best_epoch() -> None:
    net, averages = network(), []
    history = net.fit(
        X, LABELS, epochs=40, optimizer=nnkit.SGD(2.0, ema=0.5), validation_data=VALIDATION,
        early_stopping=nnkit.EarlyStopping(patience=2), callbacks=[lambda n, _: averages.append(n.averaged())], **QUIET,
    )  # fmt: skip
    assert history.stopped == "early stopping"
    best = int(np.argmin(history["validation_cost"]))
    assert best < len(averages) - 1
    assert np.array_equal(net.parameters.vector, averages[best].parameters.vector)


@pytest.mark.parametrize("kind", ["descent", "adam"])
@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2}])
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    options: dict[str, Any] = QUIET | {"validation_data": VALIDATION} | more
    whole, resumed = network("float32", drop=0.2), network("float32", drop=0.2)
    expected = whole.fit(X, LABELS, epochs=5, optimizer=KINDS[kind](0.9), **options)

    def kill(network: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 4:
            raise KeyboardInterrupt

    options |= {"checkpoint": path, "resume": True}
    network("float32", drop=0.2).fit(X, LABELS, epochs=5, optimizer=KINDS[kind](0.9), callbacks=[kill], **options)
    loaded = nnkit.load(path)  # the parameters of the last step, and beside them the averages
    assert not np.array_equal(loaded.parameters.vector, loaded.averaged().parameters.vector)
    with pytest.raises(ValueError, match=r"its optimizer has ema 0\.9, but this training's has ema None"):
        network("float32", drop=0.2).fit(X, LABELS, epochs=5, optimizer=KINDS[kind](None), **options)
    found = resumed.fit(X, LABELS, epochs=5, optimizer=KINDS[kind](0.9), **options)
    assert found["validation_cost"] == expected["validation_cost"]
    for a, b in zip(
        [resumed.parameters.flat, *resumed.optimizer_state().averages.values()],
        [whole.parameters.flat, *whole.optimizer_state().averages.values()], strict=True,
    ):  # fmt: skip
        assert a.tobytes() == b.tobytes()
    again = network("float32", drop=0.2)  # a training that has ended
    again.fit(X, LABELS, epochs=5, optimizer=KINDS[kind](0.9), **options)
    assert again.parameters.flat.tobytes() == whole.parameters.flat.tobytes()


def test_partial_fit_goes_on_from_the_last_step() -> None:
    nets = [network() for _ in range(2)]
    for net, ema in zip(nets, (None, 0.9), strict=True):
        for epoch in range(3):
            net.partial_fit(X, LABELS, batch_size=8, optimizer=nnkit.Adam(0.05, ema=ema) if epoch == 0 else None)
    assert np.array_equal(nets[0].parameters.flat, nets[1].parameters.flat)
    copies = [copy.deepcopy(nets[1]), pickle.loads(pickle.dumps(nets[1]))]
    for made in copies:
        assert np.array_equal(made.averaged().parameters.flat, nets[1].averaged().parameters.flat)
        made.partial_fit(X, LABELS)
    assert np.array_equal(copies[0].averaged().parameters.flat, copies[1].averaged().parameters.flat)


def test_a_divergence_or_an_exception_leaves_averages_of_the_steps_before() -> None:
    net, plain = network(), network()
    net.fit(X, LABELS, epochs=2, optimizer=nnkit.SGD(0.1, ema=0.9), averaged=False, **QUIET)
    before = net.averaged().parameters.vector
    with pytest.raises(nnkit.DivergenceError), np.errstate(all="ignore"):
        net.fit(X, LABELS, epochs=2, schedule=lambda _: 1e308, **QUIET)
    assert np.isfinite(net.parameters.vector).all()
    assert np.abs(before).max() < 10 < np.abs(net.averaged().parameters.vector).max()  # of one step, which was finite
    net = network()
    with pytest.raises(ZeroDivisionError):
        net.fit(X, LABELS, optimizer=nnkit.SGD(0.1, ema=0.9), callbacks=[lambda *_: 1 // 0], **QUIET)
    plain.fit(X, LABELS, epochs=1, optimizer=nnkit.SGD(0.1), **QUIET)
    assert np.array_equal(net.parameters.flat, plain.parameters.flat)  # training can go on


def test_averages_go_on_from_parameters_that_are_loaded_minimized_or_restored() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed")
    weights = network().state_dict()
    rule = nnkit.EarlyStopping("cost", mode="max", patience=2)  # the first epoch is the best
    ways: dict[str, Any] = {
        "loaded": lambda net: net.load_state_dict(weights),
        "minimized": lambda net: net.minimize(X, LABELS, options={"maxiter": 5}),
        "restored": lambda net: net.fit(X, LABELS, epochs=4, early_stopping=rule, **QUIET),
    }
    for way, change in ways.items():
        net = network()
        net.fit(X, LABELS, epochs=2, optimizer=nnkit.SGD(0.5, ema=0.9), **QUIET)
        change(net)
        start = net.parameters.vector
        assert np.array_equal(net.averaged().parameters.vector, start), way
        net.partial_fit(X, LABELS, batch_size=44)
        step = net.parameters.vector
        np.testing.assert_allclose(net.averaged().parameters.vector, 0.9 * start + 0.1 * step, atol=1e-14)
    ensemble = nnkit.Ensemble([4, 6, 3], "tanh", seeds=[1, 2], dtype="float64")
    ensemble.fit(X, LABELS, epochs=4, optimizer=nnkit.SGD(0.5, ema=0.9), early_stopping=rule, **QUIET)
    for member in ensemble.members:
        assert np.array_equal(member.averaged().parameters.vector, member.parameters.vector)


def test_what_is_refused() -> None:
    net = network()
    with pytest.raises(ValueError, match="averaged: this network has no averages; train with an optimizer that has an"):
        net.averaged()
    net.optimizer_state(nnkit.SGD(0.1, ema=0.9))
    with pytest.raises(ValueError, match="this network has no averages"):
        net.averaged()  # no step was taken
    for bad in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match=rf"SGD: ema is {bad}; expected a finite number above 0 and below 1"):
            nnkit.SGD(ema=bad)
    with pytest.raises(TypeError, match="averaged is 1; expected True or False"):
        net.fit(X, LABELS, averaged=1)  # type: ignore[arg-type]


def test_descriptions_without_an_average_are_as_before() -> None:
    """A checkpoint from before there were averages can be resumed."""
    described: Optimizer = nnkit.SGD(0.1)
    assert "ema" not in described.describe()
    assert nnkit.optimizers.get_optimizer(**nnkit.SGD(0.1, ema=0.5).describe()) == nnkit.SGD(0.1, ema=0.5)
    assert repr(nnkit.SGD(0.1, ema=0.5)) == "SGD(learning_rate=0.1, ema=0.5)"


def test_without_averaged_early_stopping_restores_the_parameters_of_the_best_epoch() -> None:
    """The averages decide which epoch that is, as they are validated."""
    rng = np.random.default_rng(5)
    options: dict[str, Any] = {"optimizer": nnkit.Adam(0.1, ema=0.8), "averaged": False, "epochs": 30, **QUIET}
    options |= {
        "validation_data": (rng.normal(size=X.shape), LABELS),
        "early_stopping": nnkit.EarlyStopping(patience=3),
    }
    net = nnkit.Network([X.shape[1], 8, 3], "tanh", seed=0)
    seen: list[Any] = []
    history = net.fit(X, LABELS, callbacks=[lambda net, _: seen.append(both(net))], **options)
    best = int(np.argmin(history["validation_cost"]))
    assert best < history.epochs - 1
    assert np.array_equal(both(net), seen[best])
    assert net.averaged().evaluate(*options["validation_data"])["cost"] == min(history["validation_cost"])
    ensemble = nnkit.Ensemble([X.shape[1], 8, 3], "tanh", seeds=[0])
    del options["progress"]
    ensemble.fit(X, LABELS, progress=False, **options)
    np.testing.assert_allclose(both(ensemble.members[0]), both(net), rtol=1e-4, atol=1e-6)


def both(net: nnkit.Network) -> Any:
    return np.stack([net.parameters.vector, net.averaged().parameters.vector])


def test_a_resumed_training_restores_the_averages_of_the_best_epoch(tmp_path: Path) -> None:
    """Killed after the best epoch, which is then known from the checkpoint alone."""
    rng = np.random.default_rng(5)
    options: dict[str, Any] = {"optimizer": nnkit.Adam(0.1, ema=0.8), "averaged": False, "epochs": 30, **QUIET}
    options |= {
        "validation_data": (rng.normal(size=X.shape), LABELS),
        "early_stopping": nnkit.EarlyStopping(patience=3),
    }
    whole, part = (nnkit.Network([X.shape[1], 8, 3], "tanh", seed=0) for _ in range(2))
    history = whole.fit(X, LABELS, **options)

    def kill(net: nnkit.Network, so_far: nnkit.History) -> None:
        if so_far.epochs == history.epochs - 1:
            raise MemoryError

    with pytest.raises(MemoryError):
        part.fit(X, LABELS, callbacks=[kill], checkpoint=tmp_path / "net", **options)
    again = nnkit.Network([X.shape[1], 8, 3], "tanh", seed=0)
    again.fit(X, LABELS, checkpoint=tmp_path / "net", resume=True, **options)
    assert np.array_equal(both(again), both(whole))


def test_a_callback_that_sets_rates_in_the_last_epoch_keeps_the_averages() -> None:
    def callback(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 2:
            net.set_rate(0, 0.3)
            net.train_step(X[:20], LABELS[:20])

    net = network()
    net.fit(X, LABELS, epochs=2, optimizer=nnkit.Adam(0.01, ema=0.8), callbacks=[callback], **QUIET)
    np.testing.assert_array_equal(net.parameters.vector, net.averaged().parameters.vector)
