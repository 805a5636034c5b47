"""Training that diverges stops with the epoch, the step and the parameters from before it."""

import itertools
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.training.blas_threads import threads_for
from nnkit.training.divergence import Undo

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(8)
X, Y = RNG.normal(size=(30, 3)), RNG.normal(size=(30, 2))
OPTIMIZERS: dict[str, Any] = {
    "descent": lambda: nnkit.SGD(20.0),
    "momentum": lambda: nnkit.SGD(20.0, momentum=0.9),
    "l2": lambda: nnkit.SGD(20.0, l2=0.1),
}


def network() -> nnkit.Network:
    return nnkit.Network([3, 8, 2], "relu", "quadratic", seed=1)


def flat(net: nnkit.Network) -> np.ndarray:
    return np.array(net.backend.to_numpy(net.parameters.flat))


def minibatches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, 30, 5):
        yield X[start : start + 5], Y[start : start + 5]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_divergence_restores_the_parameters_from_before_the_step(arrays: "Arrays", name: str, streamed: bool) -> None:
    net = network()
    data = (minibatches, None) if streamed else (arrays(X), arrays(Y))
    options: dict[str, Any] = {"epochs": 5, "progress": False}
    options |= {} if streamed else {"batch_size": 5, "shuffle": False}
    with pytest.raises(nnkit.DivergenceError, match=r"epoch \d, step \d; .* Lower the learning rate \(20 ") as caught:
        net.fit(*data, optimizer=OPTIMIZERS[name](), **options)
    error = caught.value
    assert error.history is not None
    assert error.history.epochs == error.epoch - 1 == net.epochs_trained
    # The same steps by hand: up to the one named all is finite, and with it, it is not.
    twin, optimizer, steps = network(), OPTIMIZERS[name](), 6 * (error.epoch - 1) + error.step - 1
    batches = list(minibatches())
    with threads_for(twin, 5):
        for step in range(steps):
            cost = twin.train_step(*batches[step % 6], optimizer)
            assert np.isfinite(float(cost))
        assert np.isfinite(flat(twin)).all()
        np.testing.assert_array_equal(flat(net), flat(twin))
        cost = twin.train_step(*batches[steps % 6], optimizer)
    assert not (np.isfinite(float(cost)) and np.isfinite(flat(twin)).all())


@pytest.mark.parametrize("metric", ["roc_auc", "balanced_accuracy"])
@pytest.mark.parametrize("kind", [nnkit.Network, nnkit.Ensemble])
def test_a_metric_of_outputs_that_are_nan_does_not_hide_the_divergence(kind: Any, metric: str) -> None:
    """scikit-learn's function refuses NaN."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    made = kind([3, 8, 2], "relu", "softmax_cross_entropy", **{"seed": 1} if kind is nnkit.Network else {"seeds": [1]})
    labels = np.arange(30) % 2
    with ExitStack() as stack:
        if kind is nnkit.Ensemble:
            stack.enter_context(pytest.warns(RuntimeWarning, match="diverged"))
        stack.enter_context(pytest.raises(nnkit.DivergenceError))
        made.fit(X * 1e30, labels, optimizer=nnkit.SGD(1e30), metrics=[metric], epochs=3, progress=False)
    net = nnkit.Network([3, 2], seed=0)
    net.parameters.b[0][...] = np.nan
    assert np.isnan([*net.evaluate(X, labels, metrics=[metric]).values()]).all()


def test_the_network_can_be_trained_after_divergence() -> None:
    net = network()
    with pytest.raises(nnkit.DivergenceError):
        net.fit(X, Y, epochs=5, batch_size=5, optimizer=nnkit.SGD(20.0), progress=False)
    assert np.isfinite(flat(net)).all()
    pairs = zip(net.parameters.W, net.parameters.b, strict=True)
    net.parameters.assign([(np.clip(W, -1, 1), np.clip(b, -1, 1)) for W, b in pairs])
    history = net.fit(X, Y, epochs=5, optimizer=nnkit.SGD(0.01), progress=False)
    assert history["cost"][-1] < history["cost"][0]


@pytest.mark.parametrize("rate", [50.0, 1e38])
def test_divergence_restores_accumulation_and_dropout(rate: float) -> None:
    """Found at the first minibatch of a group, whose cost is infinite, or at its last, whose update is."""
    layers = [nnkit.Dense(3, 8, "relu"), nnkit.Dropout(0.5), nnkit.Dense(8, 2)]
    net = nnkit.Network(layers, cost="quadratic", seed=1)
    y = Y * (1e3 if rate > 1e30 else 1)
    with pytest.raises(nnkit.DivergenceError) as caught:
        net.fit(X, y, epochs=9, batch_size=5, gradient_accumulation_steps=2, optimizer=nnkit.SGD(rate), progress=False)
    assert np.isfinite(flat(net)).all()
    assert net.dropout is not None
    counted = float(net.dropout.arrays["step_low"])
    steps = 6 * (caught.value.epoch - 1) + caught.value.step
    assert counted == 2 * ((steps - 1) // 2)  # whole groups of two
    assert caught.value.step % 2 == (0 if rate > 1e30 else 1)


def test_a_rising_finite_cost_is_not_a_divergence() -> None:
    net = network()
    history = net.fit(X, Y, epochs=2, batch_size=30, optimizer=nnkit.SGD(3.0), progress=False)
    assert history["cost"][1] > history["cost"][0]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_last_update_of_accumulated_gradients_is_checked(streamed: bool) -> None:
    """What is left of an epoch, one minibatch here, makes an update when the pass is over."""
    x = np.zeros((40, 3), np.float32)
    x[32:] = 1e12
    net = nnkit.Network([3, 1], cost="quadratic", seed=0)

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 40, 8):
            yield x[start : start + 8], np.zeros(8)

    data: Any = (stream, None) if streamed else (x, np.zeros(40))
    options: dict[str, Any] = {"gradient_accumulation_steps": 4, "progress": False}
    options |= {} if streamed else {"batch_size": 8, "shuffle": False}
    with pytest.raises(nnkit.DivergenceError, match="epoch 1, step 5"):
        net.fit(*data, epochs=1, optimizer=nnkit.SGD(1e18), **options)
    assert np.isfinite(net.parameters.flat).all()


def test_the_error_can_be_pickled() -> None:
    error = nnkit.DivergenceError(3, 7, "the cost is nan", 0.5)
    error.history = nnkit.History.of({"cost": [1.0, 2.0]})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.epoch, again.step, again.history) == (str(error), 3, 7, error.history)


def test_ctrl_c_while_a_step_is_undone_undoes_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may raise between two arrays: half of the state would be that of another step."""
    net = network()
    state = net.optimizer_state(nnkit.SGD(0.1, momentum=0.9))
    net.train_step(X, Y)
    undo = Undo(net, state)
    undo.begin()
    arrays = [net.parameters.flat, *state.arrays.values()]
    before = [array.copy() for array in arrays]
    net.train_step(X, Y)
    copy, calls = net.backend.copy, itertools.count()

    def interrupted(source: Any, out: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return copy(source, out)

    monkeypatch.setattr(net.backend, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        undo.back(whole=True)
    assert not np.array_equal(arrays[1], before[1])
    undo.take_back(caught.value)
    np.testing.assert_array_equal(arrays, before)
    assert not undo.open
    net.train_step(X, Y)
    undo.take_back(KeyboardInterrupt())  # which keeps complete steps
    assert not np.array_equal(arrays[0], before[0])
