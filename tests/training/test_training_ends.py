"""However a training ends, nothing of it is lost: parameters, optimizer, names, the history and why it ended."""

import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.step import step_for as step_of
from nnkit.training import epochs

RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(30, 4)), RNG.integers(0, 3, 30)
NAMES = np.array(["ash", "elm", "oak"])[LABELS]
LINE = X @ [1.0, -2.0, 0.5, 0.0]


class EndError(Exception):
    pass


def network() -> nnkit.Network:
    layers = [nnkit.Dense(4, 5, "tanh"), nnkit.Dropout(0.3), nnkit.Dense(5, 3)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=3)


def fit(net: nnkit.Network, **options: Any) -> nnkit.History:
    given: dict[str, Any] = {"X": X, "y": NAMES, "epochs": 5, "progress": False} | options
    return net.fit(**given)


def everything(net: nnkit.Network) -> dict[str, Any]:
    """All that a training changes of a network."""
    assert net.dropout is not None
    arrays = {"parameters": net.parameters.flat, **net.optimizer_state().arrays, **net.dropout.arrays}
    return {
        "arrays": {name: np.array(array).tobytes() for name, array in arrays.items()},
        "optimizer": repr(net.optimizer),
        "epochs_trained": net.epochs_trained,
        "classes": None if net.classes is None else net.classes.tolist(),
    }


def line(**options: Any) -> tuple[nnkit.Network, nnkit.History]:
    """A regression that is nearly right after 20 epochs, and diverges then."""
    net = nnkit.Network([4, 1], cost="quadratic", seed=0)
    given: dict[str, Any] = {
        "epochs": 200, "batch_size": 30, "optimizer": nnkit.SGD(0.3), "progress": False,
        "schedule": lambda epoch: 1 if epoch < 20 else 20, "validation_data": (X, LINE),
        "early_stopping": nnkit.EarlyStopping(patience=100),
    }  # fmt: skip
    return net, net.fit(X, LINE, **given | options)


def test_divergence_keeps_the_best_parameters() -> None:
    seen: dict[int, bytes] = {}
    nets: list[nnkit.Network] = []

    def keep(net: nnkit.Network, history: nnkit.History) -> None:
        nets[:], seen[history.epochs] = [net], net.parameters.flat.tobytes()

    with pytest.raises(nnkit.DivergenceError, match="the network has the parameters of epoch 20, the best") as caught:
        line(callbacks=[keep])
    history = caught.value.history
    assert history is not None
    assert int(np.argmin(history["validation_cost"])) + 1 == caught.value.best == 20
    assert nets[0].parameters.flat.tobytes() == seen[20]
    assert history.stopped == "diverged"
    assert nets[0].evaluate(X, LINE)["cost"] == min(history["validation_cost"])


def test_without_early_stopping_divergence_keeps_the_last_step() -> None:
    with pytest.raises(nnkit.DivergenceError, match="keeps the parameters from before that step") as caught:
        line(early_stopping=nnkit.EarlyStopping(patience=100, restore_best=False))
    assert caught.value.best is None


@pytest.mark.parametrize("schedule_presses", [True, False])
def test_an_interrupt_keeps_the_best_parameters(schedule_presses: bool) -> None:
    seen: dict[int, bytes] = {}

    def schedule(epoch: float) -> float:
        if schedule_presses and epoch > 23:
            raise KeyboardInterrupt
        return 1 if epoch < 20 else 20

    def keep(net: nnkit.Network, history: nnkit.History) -> None:
        seen[history.epochs] = net.parameters.flat.tobytes()
        if not schedule_presses and history.epochs == 24:
            raise KeyboardInterrupt

    net, history = line(schedule=schedule, callbacks=[keep])
    assert history.stopped == "interrupted"
    assert history["validation_cost"][-1] > history["validation_cost"][19]
    assert net.parameters.flat.tobytes() == seen[20] != seen[24]


def test_the_divergence_error_has_its_base_classes_and_can_be_pickled() -> None:
    assert issubclass(nnkit.DivergenceError, ValueError)
    assert issubclass(nnkit.DivergenceError, ArithmeticError)
    with pytest.raises(nnkit.DivergenceError) as caught:
        line()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.best, again.step) == (str(caught.value), 20, caught.value.step)
    assert again.history == caught.value.history
    assert again.history.stopped == "diverged"


def failing_at(call: int, result: Any = 1.0) -> Callable[..., Any]:
    """A function that fails at its nth call."""
    calls = [0]

    def function(*_: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise EndError
        return result

    return function


def rows(fails: bool) -> Callable[[], Iterator[Any]]:
    """Minibatches; if it fails, in the middle of the third time that they are read."""
    passes = [0]

    def minibatches() -> Iterator[Any]:
        passes[0] += 1
        for start in range(0, 30, 10):
            if fails and passes[0] == 3 and start == 20:
                raise EndError
            yield X[start : start + 10], NAMES[start : start + 10]

    return minibatches


def failing_after(place: float) -> Callable[[float], float]:
    """A schedule that fails in an epoch."""

    def schedule(epoch: float) -> float:
        if epoch > place:
            raise EndError
        return 1.0

    return schedule


IN_AN_EPOCH: dict[str, Callable[[bool], dict[str, Any]]] = {
    "schedule": lambda fails: {"schedule": failing_after(2.5 if fails else 99), "batch_size": 10},
    "metric": lambda fails: {"metrics": [failing_at(3 if fails else 0)]},
    "validation metric": lambda fails: {"validation_data": (X, NAMES), "metrics": [failing_at(6 if fails else 0)]},
    "validation stream": lambda fails: {"validation_data": rows(fails)},
    "training stream": lambda fails: {"X": rows(fails), "y": None},
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("what", IN_AN_EPOCH)
def test_a_failed_epoch_is_undone(what: str, accumulation: int) -> None:
    """Everything is as after two epochs, which another training did alone, and the history is the error's."""
    options: dict[str, Any] = {"gradient_accumulation_steps": accumulation}
    net, twin = network(), network()
    net.classes = twin.classes = np.array(["ash", "elm", "oak"])
    with pytest.raises(EndError) as caught:
        fit(net, optimizer=nnkit.Adam(0.01), **options | IN_AN_EPOCH[what](True))
    history = vars(caught.value)["history"]
    wanted = fit(twin, optimizer=nnkit.Adam(0.01), **options | IN_AN_EPOCH[what](False) | {"epochs": 2})
    assert everything(net) == everything(twin)
    assert {name: numbers for name, numbers in history.items() if name != "seconds"} == {
        name: numbers for name, numbers in wanted.items() if name != "seconds"
    }
    assert history.stopped is None


@pytest.mark.parametrize("what", ["schedule", "metric"])
def test_a_failed_first_epoch_leaves_the_network_unchanged(what: str) -> None:
    net = network()
    before, optimizer, state = net.parameters.flat.tobytes(), net.optimizer, net.state
    options: Any = {"schedule": failing_at(1)} if what == "schedule" else {"metrics": [failing_at(1)]}
    with pytest.raises(EndError) as caught:
        fit(net, optimizer=nnkit.Adam(0.01), **options)
    assert net.optimizer is optimizer
    assert net.state is state
    assert (net.parameters.flat.tobytes(), net.classes, net.epochs_trained) == (before, None, 0)
    assert net.dropout is not None
    assert float(net.dropout.arrays["step_low"]) == 0
    assert vars(caught.value)["history"].epochs == 0


def test_a_failing_callback_loses_no_epoch() -> None:
    net, twin = network(), network()
    with pytest.raises(EndError) as caught:
        fit(net, optimizer=nnkit.Adam(0.01), callbacks=[failing_at(2)])
    fit(twin, optimizer=nnkit.Adam(0.01), epochs=2)
    assert everything(net) == everything(twin)
    assert vars(caught.value)["history"].epochs == net.epochs_trained == 2
    assert vars(caught.value)["history"].stopped is None


ENDINGS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "early stopping": {"early_stopping": nnkit.EarlyStopping("cost", patience=1, min_delta=1e9)},
    "callback": {"callbacks": [lambda net, history: history.epochs == 3]},
    "interrupted": {"callbacks": [failing_at(0)]},
    "diverged": {"optimizer": nnkit.SGD(3e38), "batch_size": 1},  # near the largest number of float32
}


def press(net: nnkit.Network, history: nnkit.History) -> None:
    if history.epochs == 3:
        raise KeyboardInterrupt


@pytest.mark.parametrize("why", ENDINGS)
def test_the_history_says_why_training_ended(why: str) -> None:
    options = ENDINGS[why] | ({"callbacks": [press]} if why == "interrupted" else {})
    if why == "diverged":
        with pytest.raises(nnkit.DivergenceError) as caught:
            fit(network(), **options)
        history = caught.value.history
    else:
        history = fit(network(), **options)
    assert history is not None
    assert history.stopped == why
    assert history.interrupted is (why == "interrupted")
    assert history.epochs == {"epochs": 5, "early stopping": 2, "callback": 3, "interrupted": 3, "diverged": 0}[why]


@pytest.mark.parametrize("why", ["epochs", "early stopping", "callback"])
def test_a_checkpoint_stores_why_training_ended(why: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    options: dict[str, Any] = ENDINGS[why] | {"checkpoint": tmp_path / "run.safetensors", "resume": True}
    first = fit(network(), **options)
    options.pop("callbacks", None)
    again = fit(network(), **options)
    assert (again.stopped, again.epochs) == (first.stopped, first.epochs) == (why, first.epochs)
    assert dict(again) == dict(first)


def test_an_interrupted_training_can_be_completed(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "resume": True}
    assert fit(network(), callbacks=[press], **options).stopped == "interrupted"
    history = fit(network(), **options)
    assert (history.stopped, history.epochs) == ("epochs", 5)


def test_a_callback_that_changes_the_directory_does_not_move_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the same name in the other directory is that of another training."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.safetensors").write_bytes(b"of another training")
    options: dict[str, Any] = {"callbacks": [lambda net, history: os.chdir(other)], "checkpoint": "run.safetensors"}
    fit(network(), **options)
    assert nnkit.load(tmp_path / "run.safetensors").epochs_trained == 5
    assert (other / "run.safetensors").read_bytes() == b"of another training"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run.safetensors"]


def test_finite_costs_whose_sum_overflows_have_a_finite_mean() -> None:
    """Six costs of 10³⁸ are finite in float32, up to 3.4·10³⁸, but their sum is not."""
    net = nnkit.Network([1, 1], cost="quadratic", seed=0)
    targets = np.full(6, 1.4e19)  # (1.4·10¹⁹)²/2 = 9.8·10³⁷
    history = net.fit(np.zeros((6, 1)), targets, epochs=1, batch_size=1, optimizer=nnkit.SGD(1e-30), progress=False)
    np.testing.assert_allclose(history["cost"], [1.4e19**2 / 2], rtol=1e-6)


def test_a_callback_of_the_last_epoch_may_not_move_the_network() -> None:
    """It is told after the last epoch as after the others; nothing of that epoch is lost."""
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    net, twin = network(), network()

    def move(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 2:
            net.to("standard:array_api_strict")

    options: dict[str, Any] = {"epochs": 2, "early_stopping": nnkit.EarlyStopping("cost", min_delta=1e9)}
    with pytest.raises(RuntimeError, match="has moved the network to standard:array_api_strict") as caught:
        fit(net, callbacks=[move], **options)
    fit(twin, **options)  # whose best epoch is the first one
    assert net.to("numpy").parameters.flat.tobytes() == twin.parameters.flat.tobytes()
    assert vars(caught.value)["history"].epochs == net.epochs_trained == 2


def test_a_callback_of_the_last_epoch_may_change_the_optimizer() -> None:
    net, other = network(), nnkit.Adam(0.5)

    def change(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 2:
            net.optimizer = other

    assert fit(net, epochs=2, callbacks=[change]).stopped == "epochs"
    assert net.optimizer is other


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("presses", [1, 2, 3])
@pytest.mark.parametrize("own_handler", [False, True])
def test_ctrl_c_in_a_step_leaves_whole_steps(own_handler: bool, presses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pressed once the update has begun, by a handler that raises at once or by fit's own, again and again."""
    count = [0]

    def step_for(*args: Any, **named: Any) -> Any:
        step = step_of(*args, **named)

        class Pressed:
            logits = property(lambda self: step.logits)

            def __getattr__(self, name: str) -> Any:
                return getattr(step, name)

            def run(self, rate: float) -> None:
                step.run(rate)
                count[0] += 1
                if count[0] == 5:
                    for _ in range(presses):
                        signal.raise_signal(signal.SIGINT)

        return Pressed()

    def at_once(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    net, twin = network(), network()
    net.classes = twin.classes = np.array(["ash", "elm", "oak"])
    monkeypatch.setattr(epochs, "step_for", step_for)
    before = signal.signal(signal.SIGINT, at_once) if own_handler else None
    try:
        history = fit(net, X=rows(False), y=None, optimizer=nnkit.Adam(0.01))
    finally:
        if own_handler:
            signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert (history.stopped, history.epochs) == ("interrupted", 1)
    done = 4 if own_handler else 5  # fit's own handler lets the step be finished
    calls = [0]

    def all_of_them() -> Iterator[Any]:
        for batch in (*rows(False)(), *rows(False)()):
            calls[0] += 1
            if calls[0] > done:
                return
            yield batch

    fit(twin, X=all_of_them, y=None, epochs=1, optimizer=nnkit.Adam(0.01))
    assert everything(net)["arrays"] == everything(twin)["arrays"]
