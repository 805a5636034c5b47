"""Recorded steps and epochs are one native call, which gives what single calls give."""

from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.step import Step
from nnkit.training.on_device import Replays

pytest.importorskip("numba", reason="compiles")
from nnkit.backends.cpu.native.runs import NativeRun
from tests.support.sign_descent import SignDescent

RNG = np.random.default_rng(5)
X, LABELS = RNG.random((90, 6)), RNG.integers(0, 3, 90)
NETWORKS: dict[str, dict[str, Any]] = {
    "relu": {"layers": [6, 9, 3], "activation": "relu"},
    "sigmoid": {"layers": [6, 9, 5, 3], "activation": "sigmoid", "cost": "cross_entropy"},
    "dropout": {"layers": [nnkit.Dense(6, 9, "tanh"), nnkit.Dropout(0.3), nnkit.Dense(9, 3)]},
    "float64": {"layers": [6, 9, 3], "activation": "silu", "dtype": "float64"},
    "rates": {"layers": [nnkit.Dense(6, 9, "relu", rate=0.0), nnkit.Dense(9, 3, bias_rate=0.1)]},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "clipped", "averaged"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("given", ["float", "uint8"])
def test_an_epoch_is_one_native_call(name: str, optimizer: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last minibatch smaller, and a learning rate for each step; the bits are those of single replays."""
    made, counts = list[Any](), list[int]()
    record = Replays._record

    def noted(way: Replays, *arguments: Any) -> Any:
        tape = record(way, *arguments)
        replay = tape.replay

        def counted(count: int) -> None:
            counts.append(count)

        def replayed(times: int, after: Any) -> None:
            if len(found) == 1:  # the second time
                for _ in range(times):
                    replay(1, after)
            else:
                replay(times, counted)

        monkeypatch.setattr(tape, "replay", replayed)
        made.append(tape)
        return tape

    monkeypatch.setattr(Replays, "_record", noted)
    found: list[list[np.ndarray]] = []
    samples = X if given == "float" else (X * 255).astype(np.uint8)
    for _ in range(2):
        net = nnkit.Network(**NETWORKS[name], seed=1)
        options: Any = {"clipped": nnkit.Adam(0.01, clip_norm=0.1), "averaged": nnkit.SGD(0.1, ema=0.9)}
        chosen = options.get(optimizer, optimizer)
        history = net.fit(samples, LABELS, epochs=3, batch_size=8, optimizer=chosen, schedule="cosine", progress=False)
        found.append([*net.parameters.W, *net.parameters.b, np.array(history["cost"])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(made) == 4
    assert all(isinstance(call, NativeRun) for tape in made for call in tape.calls)
    assert all(len(tape.calls) == 1 for tape in made)
    assert sum(counts) == 3 * 12
    assert max(counts) > 1


def test_python_code_stays_between_native_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for native in ("1", "0"):
        monkeypatch.setenv("NNKIT_NATIVE", native)
        net = nnkit.Network([6, 9, 3], activation="relu", seed=1, dtype="float64")
        step = Step(net, 30, net.optimizer_state(SignDescent(0.1)))
        step.x[...], step.y[...] = X[:30], np.eye(3)[LABELS[:30]]
        step.run()
        kinds = [isinstance(call, NativeRun) for call in step._tape.calls]
        assert kinds == ([True, False] if native == "1" else [False] * len(kinds))
        found.append(net.parameters.flat.copy())
    np.testing.assert_array_equal(*found)


def test_steps_take_subnormal_numbers_as_zero_however_they_are_made() -> None:
    """In `fit` on arrays, on an iterable of minibatches, and in `train_step`: Adam's means of a dead unit become 0."""
    x, made = (X * 1e-3).astype(np.float32), list[nnkit.Network]()
    for kind in range(3):
        net = nnkit.Network([6, 9, 3], "relu", seed=1)
        net.optimizer = nnkit.Adam(1e-3, 0.5, 0.9)
        for epoch in range(46):
            net.parameters.b[0][...] = 0.1 if epoch == 3 else -1
            if kind == 0:
                net.fit(x, LABELS, epochs=1, batch_size=30, shuffle=False, progress=False)
            parts = [(x[i : i + 30], LABELS[i : i + 30]) for i in (0, 30, 60)]
            if kind == 1:
                net.fit(lambda parts=parts: iter(parts), epochs=1, progress=False)
            for part in parts if kind == 2 else []:
                net.train_step(*part)
        made.append(net)
    means = [net.state.arrays["mean"] for net in made if net.state is not None]
    assert np.count_nonzero(means[0][: 6 * 9]) == 0
    for net, mean in zip(made, means, strict=True):
        np.testing.assert_array_equal(mean, means[0])
        np.testing.assert_array_equal(net.parameters.flat, made[0].parameters.flat)
