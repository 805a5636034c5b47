"""fit that ends early or does not begin: Ctrl-C, wrong arguments, and a network that learns the digits."""

import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.step import Step
from nnkit.training.blas_threads import threads_for
from tests.support.recorded_steps import before_each_step

RNG = np.random.default_rng(1)
X, LABELS = RNG.normal(size=(23, 3)), RNG.integers(0, 4, 23)


def network() -> nnkit.Network:
    return nnkit.Network([3, 6, 4], activation="tanh", cost="softmax_cross_entropy", seed=4, dtype="float64")


def state_of(net: nnkit.Network) -> list[Any]:
    return [np.array(net.parameters.flat).tobytes(), net.epochs_trained, net.optimizer, net.state]


def in_step(k: int, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """What is to happen in step k, counted from 0."""
    count = [0]

    def counted(step: Step) -> None:
        count[0] += 1
        if count[0] == k + 1:
            do()

    before_each_step(monkeypatch, counted)


@pytest.mark.parametrize("presses", [1, 3])
@pytest.mark.parametrize("k", [0, 2, 5, 7])
def test_ctrl_c_keeps_the_network_usable(k: int, presses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are five steps an epoch: 7 is in the second one. The step is finished, however often it is pressed."""
    net, twin, optimizer = network(), network(), nnkit.SGD(0.2)
    order = np.arange(23)
    with threads_for(twin, 5):  # as fit does: the bits depend on it
        for step in range(k + 1):
            places = order[5 * (step % 5) : 5 * (step % 5) + 5]
            twin.train_step(X[places], LABELS[places], optimizer)

    def press() -> None:
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)

    in_step(k, monkeypatch, press)
    history = net.fit(X, LABELS, epochs=4, batch_size=5, shuffle=False, optimizer=optimizer, progress=False)
    assert history.interrupted
    assert history.epochs == net.epochs_trained == k // 5
    assert np.array(net.parameters.flat).tobytes() == np.array(twin.parameters.flat).tobytes()
    # It answers, and the training can go on.
    assert np.isfinite(net.evaluate(X, LABELS)["cost"])
    again = net.fit(X, LABELS, epochs=1, batch_size=5, progress=False)
    assert not again.interrupted
    assert net.epochs_trained == k // 5 + 1


def test_ctrl_c_in_a_diverging_epoch_keeps_finite_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of it was looked at: what its end would have shown is seen where it is interrupted."""
    net = network()
    net.fit(X, LABELS, epochs=1, batch_size=5, progress=False)
    before, infinite = np.array(net.parameters.flat).tobytes(), [False]

    def press() -> None:
        net.parameters.flat[...] = np.inf  # as a step before this one may have left them
        infinite[0] = True
        signal.raise_signal(signal.SIGINT)

    in_step(3, monkeypatch, press)
    net.recorded.clear()
    assert net.fit(X, LABELS, epochs=2, batch_size=5, progress=False).interrupted
    assert infinite[0]
    assert np.array(net.parameters.flat).tobytes() == before


def test_ctrl_c_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnkit.backends.recording import active_tape

    def interrupted(step: Step, *_: Any) -> None:
        raise KeyboardInterrupt

    net, wanted = network(), network()
    with monkeypatch.context() as patch:
        patch.setattr(Step, "_record", interrupted)
        assert net.fit(X, LABELS, epochs=1, progress=False).interrupted
    assert active_tape() is None
    for each in (net, wanted):
        each.fit(X, LABELS, epochs=1, progress=False)
    assert np.array(net.parameters.flat).tobytes() == np.array(wanted.parameters.flat).tobytes()


def test_other_exceptions_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(step: Step) -> None:
        raise MemoryError("full")

    before_each_step(monkeypatch, broken)
    with pytest.raises(MemoryError, match="full"):
        network().fit(X, LABELS, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0; expected a whole number of at least 1"),
        ({"epochs": 2.0}, ValueError, "epochs is 2.0"),
        ({"epochs": True}, ValueError, "epochs is True"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": "all"}, ValueError, "batch_size is 'all'"),
        ({"optimizer": "adamm"}, ValueError, "unknown optimizer 'adamm'; did you mean 'adam' or 'adamw'"),
        ({"optimizer": nnkit.SGD}, TypeError, r"optimizer is the class SGD; expected an optimizer: SGD\(\)"),
        ({"optimizer": 0.1}, TypeError, "optimizer is 0.1; expected a name or an optimizer"),
        ({"shuffle": "no"}, TypeError, "shuffle is 'no'; expected True or False"),
        ({"resume": "no"}, TypeError, "resume is 'no'; expected True or False"),
        ({"checkpoint_every": 2}, TypeError, "checkpoint_every is 2, which has no effect without a checkpoint"),
        ({"schedule": nnkit.schedules.cosine}, TypeError, "schedule is the function cosine; call it"),
        ({"validation_data": X}, TypeError, r"validation_data is a .*; expected \(X, y\)"),
        ({"validation_data": (X,)}, TypeError, r"validation_data is a .*; expected \(X, y\)"),
        ({"validation_data": (X[:, :2], LABELS)}, ValueError, r"validation X has shape \(23, 2\)"),
        ({"validation_data": (X, LABELS + 1)}, ValueError, "validation y holds label 4"),
        ({"epoch": 3}, TypeError, "unexpected keyword argument 'epoch'"),
    ],
)
def test_invalid_arguments_to_fit_change_nothing(options: Any, error: type[Exception], message: str) -> None:
    net = network()
    net.train_step(X, LABELS, nnkit.SGD(0.1, momentum=0.5))
    before = state_of(net)
    with pytest.raises(error, match=message):
        net.fit(X, LABELS, **{"optimizer": nnkit.Adam(), "progress": False} | options)
    assert state_of(net) == before


@pytest.mark.parametrize(
    "wrong", [(X[:, :2], LABELS), (X, np.arange(23) % 5), (X * np.nan, LABELS), (X[:0], LABELS[:0])]
)
def test_invalid_data_change_nothing(wrong: tuple[Any, Any]) -> None:
    net = network()
    before = state_of(net)
    with pytest.raises(ValueError, match=r"X|y"):
        net.fit(*wrong, optimizer=nnkit.Adam(), progress=False)
    assert state_of(net) == before


def test_digits_are_learned() -> None:
    """Softmax and its cross-entropy, the default: three seeds of it and of the split, in less than 3 s of CPU."""
    X, y = nnkit.data.digits()
    accuracies, started = [], time.process_time()
    for seed in range(3):
        X_train, y_train, X_test, y_test = nnkit.data.split(X, y, 0.25, seed)
        net = nnkit.Network([64, 30, 10], seed=seed)
        history = net.fit(X_train, y_train, epochs=30, batch_size=16, optimizer=nnkit.Adam(0.01), progress=False)
        accuracies.append(net.evaluate(X_test, y_test)["accuracy"])
        assert history["accuracy"][-1] > 0.99
    assert np.mean(accuracies) >= 0.97
    assert min(accuracies) >= 0.95  # over 20 seeds: 0.974 with a deviation of 0.007
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("cost", "y", "message"),
    [
        ("cross_entropy", [[0.0, 1.5], [0.0, 1.0]], r"y holds 1.5 at \[0, 1\]; expected targets in \[0, 1\]"),
        ("cross_entropy", [[0.0, 1.0], [-0.5, 1.0]], r"y holds -0.5 at \[1, 0\]; expected targets in \[0, 1\]"),
        ("softmax_cross_entropy", [[0.0, 1.0], [1.0, 1.0]], "targets of sample 1 sum to 2; expected 1"),
        ("softmax_cross_entropy", [[0.03, 1.0], [0.0, 1.0]], r"targets of sample 0 sum to 1\.03; expected 1"),
    ],
)
def test_targets_that_are_not_probabilities_are_refused(cost: str, y: list[list[float]], message: str) -> None:
    net = nnkit.Network([2, 2], cost=cost, seed=0)
    before = net.parameters.flat.copy()
    with pytest.raises(ValueError, match=message):
        net.fit([[0.0, 1.0], [1.0, 0.0]], y, progress=False)
    assert np.array_equal(net.parameters.flat, before)
    quadratic = nnkit.Network([2, 2], cost="quadratic", seed=0)
    assert quadratic.fit([[0.0, 1.0], [1.0, 0.0]], y, epochs=1, progress=False).epochs == 1


@pytest.mark.parametrize("call", ["fit", "train_step", "gradients", "value_and_gradient", "minimize", "evaluate"])
@pytest.mark.parametrize("targets", [[[0, 255], [255, 0]], [[0, 2], [1, 0]]])
def test_integers_that_are_not_probabilities_are_refused(call: str, targets: list[list[int]]) -> None:
    """A matrix of integers is not of labels: masks of bytes, counts."""
    net = nnkit.Network([2, 2], cost="cross_entropy", seed=0)
    before = net.parameters.vector
    with pytest.raises(ValueError, match=f"y holds {targets[0][1]}"):
        getattr(net, call)([[0.0, 1.0], [1.0, 0.0]], np.array(targets, np.uint8))
    np.testing.assert_array_equal(net.parameters.vector, before)


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_callback_cannot_change_the_numbers_of_an_epoch(ensemble: bool) -> None:
    def judge(net: Any, history: Any) -> None:
        one = history.members[1] if ensemble else history
        if one.epochs == 2:
            one["validation_cost"][-1] = 0.0

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    net: Any = nnkit.Ensemble([3, 4, 2], seeds=[0, 1]) if ensemble else nnkit.Network([3, 4, 2], seed=0)
    options: dict[str, Any] = {"validation_data": (X, y), "early_stopping": nnkit.EarlyStopping(patience=2)}
    with pytest.raises(
        ValueError, match=r"a callback changed history\['validation_cost'\]\[-1\] from 0\.\d+ to 0"
    ) as info:
        net.fit(X, y, epochs=5, callbacks=[judge], progress=False, **options)
    history: Any = vars(info.value)["history"]
    assert history.epochs == 2
    assert min(history["validation_cost"]) > 0
