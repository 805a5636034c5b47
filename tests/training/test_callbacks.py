"""Loggers: their files have the history, once, also of a resumed training."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.callbacks import CSVLogger, TensorBoard

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(20, 3)), RNG.integers(0, 2, 20)
DATA: dict[str, Any] = {"X": X, "y": LABELS, "validation_split": 0.25, "progress": False}


def table(path: Path) -> dict[str, list[float]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def scalars(folder: Path) -> dict[str, list[float]]:
    """What TensorBoard itself reads."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    found = {}
    for run in ("train", "validation"):
        read = accumulator.EventAccumulator(str(folder / run)).Reload()
        for tag in read.Tags()["scalars"]:
            events = read.Scalars(tag)
            assert [event.step for event in events] == [*range(1, len(events) + 1)]
            found[tag if run == "train" else f"validation_{tag}"] = [event.value for event in events]
    return found


def test_a_csv_file_has_the_history(tmp_path: Path) -> None:
    path, logger = tmp_path / "run.csv", CSVLogger(tmp_path / "run.csv")
    net, epochs = nnkit.Network([3, 2], seed=0), []
    history = net.fit(
        **DATA, epochs=4, callbacks=[logger, lambda *_: epochs.append(len(table(path)["epoch"]))],
    )  # fmt: skip
    assert epochs == [1, 2, 3, 4]
    assert table(path) == {"epoch": [1, 2, 3, 4], **history}
    again = net.fit(**DATA, epochs=2, callbacks=[logger])  # another training
    assert table(path) == {"epoch": [1, 2], **again}


@pytest.mark.parametrize("late", [False, True])
def test_an_entry_called_like_the_first_column_is_refused(tmp_path: Path, late: bool) -> None:
    callbacks: list[Any] = [lambda net, history: history.add(epoch=history.epochs), CSVLogger(tmp_path / "run.csv")]
    net = nnkit.Network([3, 2], seed=0)
    with pytest.raises(ValueError, match="history has an entry 'epoch', the first column of CSVLogger's file"):
        net.fit(**DATA, epochs=2, callbacks=callbacks[::-1] if late else callbacks)


def test_a_resumed_training_is_logged_once(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")

    def kill(network: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 3:
            raise InterruptedError

    options = DATA | {"checkpoint": tmp_path / "run.safetensors", "resume": True, "checkpoint_every": 2}
    path, folder = tmp_path / "run.csv", tmp_path / "board"
    with pytest.raises(InterruptedError):
        nnkit.Network([3, 2], seed=0).fit(**options, epochs=5, callbacks=[CSVLogger(path), TensorBoard(folder), kill])
    assert len(table(path)["epoch"]) == len(scalars(folder)["cost"]) == 3
    loggers: list[Any] = [CSVLogger(path), TensorBoard(folder)]
    history = nnkit.Network([3, 2], seed=0).fit(**options, epochs=5, callbacks=loggers)
    assert table(path) == {"epoch": [1, 2, 3, 4, 5], **history}
    found = scalars(folder)
    assert found.keys() == history.keys()
    for name, numbers in history.items():
        np.testing.assert_allclose(found[name], numbers, rtol=1e-7)  # TensorBoard keeps float32


def test_names_and_lists_of_other_callbacks(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"

    def late(network: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs > 1:
            history.setdefault('a "b", c', []).append(0.5)

    history = nnkit.Network([3, 2], seed=0).fit(**DATA, epochs=3, callbacks=[late, CSVLogger(path)])
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["epoch", *history]
    assert [row[-1] for row in rows[1:]] == ["", "0.5", "0.5"]


def test_numbers_of_some_epochs_are_in_their_rows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    path, folder = tmp_path / "run.csv", tmp_path / "board"
    right: dict[int, float] = {}

    def some(network: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs % 3 == 2:
            right[history.epochs] = history.epochs / 8
            history.setdefault("slow", []).append(history.epochs / 8)

    for first in (True, False):  # the second training begins the files anew; the others may come after the loggers
        callbacks: list[Any] = [CSVLogger(path), TensorBoard(folder)]
        callbacks.insert(0 if first else 2, some)
        nnkit.Network([3, 2], seed=0).fit(**DATA, epochs=8, callbacks=callbacks)
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {int(row["epoch"]): float(row["slow"]) for row in rows if row["slow"]} == right
        assert len(rows) == 8
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    read = accumulator.EventAccumulator(str(folder / "train")).Reload()
    assert {event.step: event.value for event in read.Scalars("slow")} == right


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        CSVLogger(tmp_path / "missing" / "run.csv")
    with pytest.raises(TypeError, match="path is 3"):
        CSVLogger(3)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    if pytest.importorskip("tensorboard", reason="tensorboard is not installed"):
        with pytest.raises(NotADirectoryError, match=r"folder: .*file is a file; expected a folder"):
            TensorBoard(tmp_path / "file")
        with pytest.raises(TypeError, match="folder is None; expected the path of a folder"):
            TensorBoard(None)  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto", None)
    with pytest.raises(ImportError, match="TensorBoard needs tensorboard: python -m pip install tensorboard"):
        TensorBoard(tmp_path)


@pytest.mark.parametrize("change", [lambda h: h.clear(), lambda h: h["cost"].pop(), lambda h: h["cost"].append(0.0)])
def test_the_costs_of_a_history_are_not_for_callbacks(change: Any) -> None:
    """`fit` would never end, or too early."""
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    net = nnkit.Network([3, 2], seed=0)
    with pytest.raises(
        ValueError, match=r"a callback changed history\['cost'\] from 1 to [02] numbers; expected an entry"
    ):
        net.fit(X, y, epochs=3, progress=False, callbacks=[lambda net, history: change(history)])
    members = nnkit.Ensemble([3, 2], seeds=range(2))
    with pytest.raises(
        ValueError, match=r"a callback changed history\['cost'\] from 1 to [02] numbers; expected an entry"
    ):
        members.fit(X, y, epochs=3, progress=False, callbacks=[lambda members, history: change(history)])


@pytest.mark.parametrize("entry", [[1.0, 2.0, 3.0], np.eye(2), "run 7", 5, None])
def test_any_entry_of_a_callback_is_kept_when_training_stops(entry: Any, tmp_path: Path) -> None:
    """Also in the middle of an epoch, whose numbers are taken back."""

    def note(net: nnkit.Network, history: nnkit.History) -> None:
        history["mine"] = entry

    def data() -> Any:
        yield X, LABELS
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    logger = CSVLogger(tmp_path / "run.csv")
    epochs = list[int]()
    options: dict[str, Any] = {"schedule": nnkit.schedules.warmup(1, "cosine"), "callbacks": [note, logger]}
    history = nnkit.Network([3, 2], seed=0).fit(data, epochs=5, progress=False, **options)
    assert history.stopped == "interrupted"
    assert history["mine"] is entry
    assert [len(history[name]) for name in ("cost", "accuracy", "learning_rate", "seconds")] == [2] * 4
    assert "cost" in history.last
    with open(tmp_path / "run.csv", encoding="utf-8", newline="") as file:
        assert [float(row["cost"]) for row in csv.DictReader(file)] == history["cost"]
