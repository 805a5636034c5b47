"""What callbacks add to a history is kept by checkpoints, or it is said at once why not; nothing else is lost."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

pytest.importorskip("safetensors", reason="safetensors is not installed")

RNG = np.random.default_rng(6)
X, LABELS = RNG.normal(size=(12, 4)), np.arange(12) % 3


def fit(path: Path, **options: Any) -> tuple[nnkit.Network, nnkit.History]:
    net = nnkit.Network([4, 3], seed=0)
    given: dict[str, Any] = {"epochs": 4, "checkpoint": path, "resume": True, "progress": False} | options
    return net, net.fit(X, given.pop("y", LABELS), **given)


def adding(value: Any, first: int = 1) -> Callable[[Any, nnkit.History], None]:
    def add(net: Any, history: nnkit.History) -> None:
        if history.epochs >= first:
            history.add(extra=value)

    return add


@pytest.mark.parametrize("value", [0.5, 3, True, np.float32(0.5), np.float64(0.5), np.int64(3), np.array(0.5)])
def test_numbers_of_callbacks_are_kept(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit(path, epochs=2, callbacks=[adding(value)])
    _, history = fit(path, callbacks=[adding(value)])
    assert history["extra"] == [float(value)] * 4
    assert {type(number) for number in history["extra"]} == {float}


@pytest.mark.parametrize(
    ("callback", "error", "message"),
    [
        (
            adding("good"),
            TypeError,
            r"history\['extra'\] contains 'good' at \[0\]; a checkpoint contains lists of one",
        ),
        (adding(None), TypeError, r"history\['extra'\] contains None at \[0\]"),
        (adding(10**400), ValueError, r"history\['extra'\] contains a number beyond float64 at \[0\]"),
        (adding(1j), TypeError, r"history\['extra'\] contains 1j at \[0\]"),
        (adding(np.ones(2)), TypeError, r"history\['extra'\] contains array\(\[1., 1.\]\) at \[0\]"),
        (adding(1.0, 2), ValueError, r"history\['extra'\] has 1 numbers after 2 epochs"),
        (lambda net, history: history.update(extra=[1.0] * 7), ValueError, r"has 7 numbers after 1 epochs"),
        (lambda net, history: history.update(extra=1.0), TypeError, r"history\['extra'\] is 1.0"),
    ],
)
def test_an_entry_without_one_number_per_epoch_is_refused(
    callback: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """Without what is wrong the training is written, and can be resumed."""
    path = tmp_path / "run.safetensors"
    with pytest.raises(error, match=message) as caught:
        fit(path, callbacks=[callback], checkpoint_every=3)
    history = vars(caught.value)["history"]
    assert nnkit.load(path).epochs_trained == history.epochs < 3
    net, again = fit(path)
    wanted, whole = fit(tmp_path / "whole.safetensors")
    assert again["cost"] == whole["cost"]
    assert "extra" not in again
    assert net.parameters.flat.tobytes() == wanted.parameters.flat.tobytes()


@pytest.mark.parametrize("extra", ["good", np.ones(2)])
def test_without_a_checkpoint_a_history_accepts_anything(extra: Any) -> None:
    net = nnkit.Network([4, 3], seed=0)
    history = net.fit(X, LABELS, epochs=3, progress=False, callbacks=[adding(extra, 2)])
    assert (len(history["extra"]), history.epochs) == (2, 3)


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_full_disk_keeps_the_history_and_the_old_file(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.safetensors"
    nets: list[nnkit.Network] = []

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def fill(net: nnkit.Network, history: nnkit.History) -> None:
        nets[:] = [net]
        if history.epochs == 3:
            monkeypatch.setattr(os, at, full)

    with pytest.raises(OSError, match="No space left on device") as caught:
        fit(path, callbacks=[fill])
    monkeypatch.undo()
    history = vars(caught.value)["history"]
    assert (history.epochs, nets[0].epochs_trained) == (3, 3)
    assert nnkit.load(path).epochs_trained == 2
    assert [each.name for each in tmp_path.iterdir()] == ["run.safetensors"]
    net, again = fit(path)
    wanted, _ = fit(tmp_path / "whole.safetensors")
    assert again["cost"][:3] == history["cost"]
    assert net.parameters.flat.tobytes() == wanted.parameters.flat.tobytes()


@pytest.mark.parametrize(
    "classes",
    [
        np.array([b"ash", b"elm", b"oak"]),
        np.array([datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)], object),
    ],
    ids=["bytes", "datetime"],
)
def test_unsupported_class_names_are_refused_before_the_first_epoch(classes: np.ndarray, tmp_path: Path) -> None:
    net, calls = nnkit.Network([4, 3], seed=0), [0]
    before, optimizer, state = net.parameters.flat.tobytes(), net.optimizer, net.state

    def count(net: Any, history: nnkit.History) -> None:
        calls[0] += 1

    options: dict[str, Any] = {"optimizer": nnkit.Adam(), "progress": False, "callbacks": [count]}
    with pytest.raises(TypeError, match="class"):
        net.fit(X, classes[LABELS], checkpoint=tmp_path / "run.safetensors", **options)
    assert calls == [0]
    assert (net.parameters.flat.tobytes(), net.optimizer, net.state, net.classes) == (before, optimizer, state, None)
    assert not (tmp_path / "run.safetensors").exists()


def damaged(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """A checkpoint of two epochs, of whose arrays and description something is changed."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    fit(path, epochs=2, optimizer=nnkit.Adam())
    with safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    about = json.loads(metadata["training"])
    change(tensors, about)
    save_file(tensors, path, metadata | {"training": json.dumps(about)})


def refused(path: Path, message: str) -> None:
    net = nnkit.Network([4, 3], seed=0)
    before = net.parameters.flat.tobytes()
    with pytest.raises(ValueError, match=rf"run\.safetensors: .* damaged: .*{message}"):
        net.fit(X, LABELS, epochs=4, optimizer=nnkit.Adam(), checkpoint=path, resume=True, progress=False)
    assert (net.parameters.flat.tobytes(), net.epochs_trained) == (before, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"accuracy": [0.5]}, "the lists of a history differ in length"), ({"cost": [0.5, "low"]}, "could not convert")],
)
def test_a_damaged_history_is_refused_before_any_change(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    damaged(tmp_path / "run.safetensors", lambda tensors, about: about["history"].update(wrong))
    refused(tmp_path / "run.safetensors", message)


@pytest.mark.parametrize("name", ["optimizer.mean", "optimizer.t"])
@pytest.mark.parametrize("shape", [(1,), (1, 15), (16,)])
def test_a_state_of_another_shape_is_refused_before_any_change(name: str, shape: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    damaged(path, lambda tensors, about: tensors.update({f"training.{name}": np.zeros(shape, np.float32)}))
    refused(path, f"{name} has shape {re.escape(str(shape))}; expected ")
