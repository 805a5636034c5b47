"""Whatever a training is made of, one that is killed and resumed is bit for bit the one that was not."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import schedules

pytest.importorskip("safetensors", reason="safetensors is not installed")

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(26, 4)), RNG.integers(0, 3, 26)
BYTES, WEIGHTS = RNG.integers(0, 256, (26, 4), dtype=np.uint8), RNG.uniform(0.5, 1.5, 26)
VALIDATION = X[:8], LABELS[:8]
EPOCHS, KILLED = 5, 3


class KilledError(Exception):
    pass


def minibatches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, 26, 6):
        yield X[start : start + 6], LABELS[start : start + 6]


def weighted() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for start, (x, labels) in enumerate(minibatches()):
        yield x, labels, WEIGHTS[start : start + len(x)]


def halved_late(epoch: float) -> float:
    return 1.0 if epoch < 2 else 0.5 / epoch


FACTORS: dict[str, dict[str, Any]] = {
    "optimizer": {
        "sgd": lambda: nnkit.SGD(0.1),
        "momentum": lambda: nnkit.SGD(0.1, momentum=0.9),
        "rmsprop": lambda: nnkit.optimizers.RMSprop(0.01),
        "adagrad": lambda: nnkit.optimizers.Adagrad(0.1),
        "adam": lambda: nnkit.Adam(0.01),
        "adamw": lambda: nnkit.AdamW(0.01),
        "lion": lambda: nnkit.optimizers.Lion(0.01),
    },
    "schedule": {
        "none": lambda: None,
        "cosine": schedules.cosine,
        "one_cycle": schedules.one_cycle,
        "warmup": lambda: schedules.warmup(2, schedules.cosine()),
        "step": lambda: schedules.step(2),
        "plateau": lambda: schedules.reduce_on_plateau(patience=1, min_delta=0.5),
        "function": lambda: halved_late,
    },
    "data": {
        "array": lambda path: (X, LABELS),
        "bytes": lambda path: (BYTES, LABELS),
        "rows of a file": lambda path: (nnkit.data.open_npy(path / "X.npy"), LABELS),
        "iterable": lambda path: (minibatches, None),
        "weighted iterable": lambda path: (weighted, None),
    },
    "accumulation": {"1": 1, "3": 3},
    "ending": {"last": None, "best": nnkit.EarlyStopping("validation_cost", patience=2, min_delta=0.01)},
}
CELLS = list(itertools.product(*FACTORS.values()))


def pairs_of(cell: tuple[str, ...]) -> set[tuple[int, str, int, str]]:
    return {(i, cell[i], j, cell[j]) for i, j in itertools.combinations(range(len(cell)), 2)}


def covering(cells: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Few of the cells that have each pair of two factors' values: the one with the most new ones, over and over."""
    left, chosen = set().union(*map(pairs_of, cells)), []
    while left:
        best = max(cells, key=lambda cell: len(pairs_of(cell) & left))
        chosen.append(best)
        left -= pairs_of(best)
    return chosen


COVERING = covering(CELLS)


def network() -> nnkit.Network:
    layers = [nnkit.Dense(4, 5, "tanh"), nnkit.Dropout(0.3), nnkit.Dense(5, 3)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=3)


def everything(net: nnkit.Network, history: nnkit.History) -> dict[str, Any]:
    """All that must not depend on whether the training was killed; numbers as their bits."""
    assert net.dropout is not None
    arrays = {"parameters": net.parameters.flat, **net.optimizer_state().arrays, **net.dropout.arrays}
    return {
        "arrays": {name: np.array(array).tobytes() for name, array in arrays.items()},
        "history": {name: np.array(numbers).tobytes() for name, numbers in history.items() if name != "seconds"},
        "epochs": (net.epochs_trained, history.epochs, history.stopped),
        "optimizer": repr(net.optimizer),
    }


def survives(cell: tuple[str, ...], folder: Path) -> None:
    optimizer, schedule, data, accumulation, ending = (
        values[name] for values, name in zip(FACTORS.values(), cell, strict=True)
    )
    np.save(folder / "X.npy", X)
    calls: list[int] = []

    def train(net: nnkit.Network, callbacks: list[Callable[..., object]], **options: Any) -> nnkit.History:
        samples, labels = data(folder)
        options |= {} if labels is None else {"batch_size": 6}
        return net.fit(
            samples, labels, epochs=EPOCHS, optimizer=optimizer(), schedule=schedule(), metrics=["top_2"],
            validation_data=VALIDATION, gradient_accumulation_steps=accumulation, early_stopping=ending,
            callbacks=callbacks, progress=False, **options,
        )  # fmt: skip

    def kill(net: nnkit.Network, history: nnkit.History) -> None:
        calls.append(history.epochs)
        if history.epochs == KILLED:
            raise KilledError

    wanted, killed, resumed = network(), network(), network()
    history = train(wanted, [])
    path = folder / "run.safetensors"
    assert history.epochs >= KILLED, cell  # else nothing is killed
    with pytest.raises(KilledError):
        train(killed, [kill], checkpoint=path)
    assert calls == [1, 2, 3]
    calls.clear()
    again = train(resumed, [lambda net, history: calls.append(history.epochs)], checkpoint=path, resume=True)
    assert calls == list(range(KILLED, history.epochs + 1)), cell
    assert everything(resumed, again) == everything(wanted, history), cell


def test_every_pair_is_covered() -> None:
    assert set().union(*map(pairs_of, COVERING)) == set().union(*map(pairs_of, CELLS))
    assert len(COVERING) < 70


@pytest.mark.parametrize("cell", COVERING, ids=" ".join)
def test_killed_and_resumed(cell: tuple[str, ...], tmp_path: Path) -> None:
    survives(cell, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("cell", CELLS, ids=" ".join)
def test_killed_and_resumed_in_all_cells(cell: tuple[str, ...], tmp_path: Path) -> None:
    survives(cell, tmp_path)
