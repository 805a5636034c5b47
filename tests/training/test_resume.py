"""Training goes on from a checkpoint as if it had never been killed: bit for bit."""

import copy
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.files import locked
from nnkit.training import checkpoints
from tests.support import ROOT

pytest.importorskip("safetensors", reason="safetensors is not installed")

X, LABELS = nnkit.data.digits()
X, LABELS = X[:600], LABELS[:600]
OPTIMIZERS: dict[str, Any] = {
    "descent": lambda: nnkit.SGD(0.3),
    "momentum-clipped": lambda: nnkit.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0, l2=1e-4),
    "adamw": lambda: nnkit.AdamW(0.01),
}


def network(seed: int | None = 3) -> nnkit.Network:
    layers = [nnkit.Dense(64, 40, "relu"), nnkit.Dropout(0.3), nnkit.Dense(40, 10)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=seed)


def train(net: nnkit.Network, path: Path | None, name: str = "adamw", **options: Any) -> nnkit.History:
    defaults: dict[str, Any] = {
        "epochs": 40, "batch_size": 25, "gradient_accumulation_steps": 2, "optimizer": OPTIMIZERS[name](),
        "schedule": "cosine", "early_stopping": nnkit.EarlyStopping(patience=50), "progress": False,
        "validation_data": (X[:100], LABELS[:100]), "checkpoint": path, "resume": path is not None,
    }  # fmt: skip
    return net.fit(X, LABELS, **defaults | options)


def bits(net: nnkit.Network) -> list[bytes]:
    state = net.optimizer_state()
    arrays = [net.parameters.flat, *state.arrays.values()]
    if net.dropout is not None:
        arrays += net.dropout.arrays.values()
    return [np.array(net.backend.to_numpy(a)).tobytes() for a in arrays]


def numbers(history: nnkit.History) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "seconds"}


SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_resume import network, train
net = network()
print("ready", flush=True)
train(net, Path(sys.argv[1]))
"""


def elsewhere(path: Path, seconds: float) -> float:
    """Train in another process, which is killed after some seconds; how long it trained."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, path], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        started = time.perf_counter()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        return time.perf_counter() - started


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX")
@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.campaign)])
def test_resuming_after_kills_at_random_moments(kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time another process trains and is killed, wherever it is; the training is then resumed here."""
    monkeypatch.setenv("NNKIT_NATIVE", "0")  # or loading native code takes longer than all epochs
    wanted = network()
    history = train(wanted, None)
    length = elsewhere(tmp_path / "whole.safetensors", 600)
    rng, stopped = np.random.default_rng(0), []
    for moment in range(kills):
        path = tmp_path / f"{moment}.safetensors"
        delay = length * (moment + float(rng.random())) / kills
        elsewhere(path, delay)
        stopped.append(nnkit.load(path).epochs_trained if path.exists() else 0)
        net = network()
        assert numbers(train(net, path)) == numbers(history), f"killed after {delay} s"
        assert bits(net) == bits(wanted), f"killed after {delay} s"
    assert len(set(stopped)) > 2, stopped  # the moments were different ones
    assert min(stopped) < 40


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("every", [1, 4])
def test_resuming_after_an_interrupt(name: str, every: int, tmp_path: Path) -> None:
    wanted, net, path = network(), network(), tmp_path / "run.safetensors"
    history = train(wanted, None, name, epochs=9)

    def stop(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 6:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"epochs": 9, "checkpoint_every": every}
    assert train(net, path, name, callbacks=[stop], **options).interrupted
    assert nnkit.load(path).epochs_trained == {1: 5, 4: 4}[every]
    again = network()
    assert numbers(train(again, path, name, **options)) == numbers(history)
    assert bits(again) == bits(wanted)
    assert again.epochs_trained == 9
    once_more = network()
    assert numbers(train(once_more, path, name, **options)) == numbers(history)  # nothing is left to do
    assert bits(once_more) == bits(wanted)


def test_a_drawn_seed_is_replaced_by_that_of_the_checkpoint(tmp_path: Path) -> None:
    first, path = network(seed=None), tmp_path / "run.safetensors"
    train(first, path, epochs=3, schedule=None)
    resumed, wanted = network(seed=None), network(seed=first.seed)
    train(resumed, path, epochs=5, schedule=None)
    train(wanted, None, epochs=5, schedule=None)
    assert bits(resumed) == bits(wanted)
    assert resumed.seed == wanted.seed == first.seed
    assert resumed.epochs_trained == 5


def test_another_seed_is_refused(tmp_path: Path) -> None:
    """Five seeds with one checkpoint were five times the first training."""
    path, other = tmp_path / "run.safetensors", network(seed=4)
    train(network(seed=3), path)
    before = bits(other)
    with pytest.raises(ValueError, match="its seed is 3, but this training's is 4"):
        train(other, path)
    assert bits(other) == before


def test_a_seed_is_drawn_until_it_is_set(tmp_path: Path) -> None:
    """Also in copies, and after a training that took the seed of its checkpoint."""
    path, second = tmp_path / "run.safetensors", tmp_path / "second.safetensors"
    train(network(seed=3), path)
    train(network(seed=4), second)
    net = network(seed=None)
    net.seed = 5
    with pytest.raises(ValueError, match="its seed is 3, but this training's is 5"):
        train(net, path)
    for copied in (copy.deepcopy(network(seed=None)), pickle.loads(pickle.dumps(network(seed=None)))):
        for file, seed in ((path, 3), (second, 4)):
            train(copied, file)
            assert copied.seed == seed
    with pytest.raises(ValueError, match="its seed is 3, but this training's is 4"):
        train(copy.deepcopy(network(seed=4)), path)


def test_a_loaded_checkpoint_continues_with_its_optimizer(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "run.safetensors"
    train(net, path, epochs=4, early_stopping=None)
    loaded = nnkit.load(path)
    assert repr(loaded.optimizer) == repr(net.optimizer)
    assert bits(loaded) == bits(net)
    for each in (net, loaded):
        each.fit(X, LABELS, epochs=2, progress=False)
    assert bits(loaded) == bits(net)
    loaded.save(path)  # a network alone
    with pytest.raises(ValueError, match="a network without training state, which cannot be resumed"):
        train(network(), path)


def test_early_stopping_is_resumed_with_its_best_parameters(tmp_path: Path) -> None:
    """The best epoch lies before the interrupt; the resumed training gives its parameters back."""

    def schedule(epoch: float) -> float:
        return 1.0 if epoch < 3 else 300.0

    def stop(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs == 5:
            raise KeyboardInterrupt

    rule = nnkit.EarlyStopping(patience=4)
    options: dict[str, Any] = {"name": "descent", "schedule": schedule, "early_stopping": rule}
    wanted, net, path = network(), network(), tmp_path / "run.safetensors"
    history = train(wanted, None, **options)
    assert history.epochs < 40
    train(net, path, callbacks=[stop], **options)
    for _ in range(2):
        resumed = network()
        assert numbers(train(resumed, path, **options)) == numbers(history)
        assert bits(resumed)[0] == bits(wanted)[0]


def test_a_stop_by_a_callback_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    assert train(network(), path, callbacks=[lambda net, history: history.epochs == 2]).epochs == 2
    assert train(network(), path).epochs == 2


def test_fewer_epochs_than_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Those of a shorter training are not in it."""
    path = tmp_path / "run.safetensors"
    train(network(), path, epochs=3, schedule=None)
    content, net = path.read_bytes(), network()
    before = bits(net)
    with pytest.raises(ValueError, match=r"it has 3 epochs of training, epochs is 2; give as many or more, or another"):
        train(net, path, epochs=2, schedule=None)
    assert bits(net)[0] == before[0]
    assert path.read_bytes() == content
    assert train(net, path, epochs=3, schedule=None).epochs == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 20}, "its batch_size is 25, but this training's is 20$"),
        ({"gradient_accumulation_steps": 1}, "its gradient_accumulation_steps is 2, but this training's is 1$"),
        ({"schedule": "halving"}, r"its schedule is cosine\(.*\), but this training's is halving\(.*\)$"),
        ({"batch_size": 20, "shuffle": False}, "its batch_size is 25, .*; its shuffle is True, .* is False$"),
        (
            {"optimizer": nnkit.AdamW(0.02)},
            r"its optimizer has learning_rate 0\.01, but this training's has learning_rate 0\.02",
        ),
        ({"optimizer": nnkit.SGD(0.02)}, "its optimizer is .*adamw.*, but this training's is .*sgd"),
    ],
)
def test_a_different_training_cannot_be_resumed(options: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(network(), path, epochs=2)
    content, net = path.read_bytes(), network()
    before = bits(net)
    with pytest.raises(ValueError, match=message):
        train(net, path, **options)
    assert bits(net)[0] == before[0]
    assert path.read_bytes() == content
    other = network()
    other.preprocessing = nnkit.data.Normalization.fit(X)
    with pytest.raises(ValueError, match="its preprocessing is a different one, or was fitted to different samples"):
        train(other, path)
    other = network()
    other.classes = np.array(list("abcdefghij"))
    with pytest.raises(ValueError, match=r"its classes is None, but this training's is \['a'"):
        other.fit(X, other.classes[LABELS], checkpoint=path, resume=True)
    other = nnkit.Network([64, 41, 10], cost="softmax_cross_entropy", seed=0)
    with pytest.raises(ValueError, match="its layers is"):
        train(other, path)


def test_two_trainings_do_not_write_one_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def second(net: nnkit.Network, history: nnkit.History) -> None:
        if history.epochs > 1:
            return
        script = SCRIPT.replace("train(net, Path(sys.argv[1]))", "train(net, Path(sys.argv[1]), epochs=1)")
        done = subprocess.run(
            [sys.executable, "-c", script, path], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 1
        assert "BlockingIOError: checkpoint: another process is training to" in done.stderr

    net = network()
    assert train(net, path, epochs=2, callbacks=[second]).epochs == 2
    assert nnkit.load(path).epochs_trained == 2
    train(network(), path, epochs=2)  # afterwards it is free


def test_a_full_disk_stops_the_training_but_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, net = tmp_path / "run.safetensors", network()
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if nnkit_epochs[0] == 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    nnkit_epochs = [0]
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        train(net, path, callbacks=[lambda net, history: nnkit_epochs.__setitem__(0, history.epochs)])
    assert nnkit.load(path).epochs_trained == 2
    assert net.epochs_trained == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.safetensors"]


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("nowhere/run.safetensors", FileNotFoundError, "checkpoint: the directory .*nowhere does not exist"),
        (".", IsADirectoryError, "checkpoint: .* is a directory; expected a file"),
    ],
)
def test_invalid_paths_are_refused_before_training(
    path: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    net = network()
    before = bits(net)[0]
    with pytest.raises(error, match=message):
        train(net, tmp_path / path)
    assert bits(net)[0] == before


def test_a_different_early_stopping_rule_is_refused(tmp_path: Path) -> None:
    """Else the parameters that one rule holds as the best would be put back at the end of another training."""
    path = tmp_path / "run.safetensors"
    train(network(), path, epochs=2)
    for rule in (
        None,
        nnkit.EarlyStopping(patience=50, restore_best=False),
        nnkit.EarlyStopping("validation_accuracy"),
    ):
        with pytest.raises(ValueError, match=r"its early_stopping is EarlyStopping\(.*patience=50"):
            train(network(), path, early_stopping=rule)


def test_layers_with_their_own_initializers_are_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    layers = [nnkit.Dense(64, 20, "relu", init="he_normal"), nnkit.Dense(20, 10)]
    for epochs in (1, 2):
        net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=0)
        options: dict[str, Any] = {"checkpoint": path, "resume": True, "progress": False}
        options["batch_size"] = np.int64(50)  # which JSON does not know
        assert net.fit(X, LABELS, epochs=epochs, **options).epochs == epochs


def test_an_early_stop_is_written(tmp_path: Path) -> None:
    path, rule = tmp_path / "run.safetensors", nnkit.EarlyStopping("cost", patience=1, min_delta=1e9)
    assert train(network(), path, early_stopping=rule, checkpoint_every=30).epochs == 2
    assert nnkit.load(path).epochs_trained == 2


def test_a_checkpoint_with_a_missing_array_changes_nothing(tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    path, net = tmp_path / "run.safetensors", network()
    train(network(), path, callbacks=lambda net, history: history.epochs == 2)
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
    tensors = load(content)
    del tensors["training.optimizer.square"]
    path.write_bytes(save(tensors, metadata))
    before = [net.parameters.flat.tobytes(), net.epochs_trained, net.optimizer, net.state, net.seed]
    with pytest.raises(ValueError, match=r"damaged: KeyError\('optimizer.square'\)"):
        train(net, path)
    assert [net.parameters.flat.tobytes(), net.epochs_trained, net.optimizer, net.state, net.seed] == before


def test_a_locked_checkpoint_changes_nothing(tmp_path: Path) -> None:
    path, net = tmp_path / "run.safetensors", network()
    net.train_step(X[:5], LABELS[:5], nnkit.Adam())
    before = [net.parameters.flat.tobytes(), net.optimizer, net.state]
    with locked(path), pytest.raises(BlockingIOError, match="another process is training"):
        train(net, path)
    assert [net.parameters.flat.tobytes(), net.optimizer, net.state] == before


def test_a_hard_link_to_a_checkpoint_is_another_file(tmp_path: Path) -> None:
    """Checkpoints are replaced, not overwritten: the other name keeps the epoch of the link, and can be trained to."""
    path, link, lone = tmp_path / "run", tmp_path / "link", network()
    train(lone, tmp_path / "lone", callbacks=lambda net, history: history.epochs == 6)
    branch, epochs = network(), []

    def noted(net: nnkit.Network, history: nnkit.History) -> bool:
        epochs.append(history.epochs)
        return history.epochs == 6

    def linked(net: nnkit.Network, history: nnkit.History) -> bool:
        if history.epochs == 3:
            os.link(path, link)  # it holds epoch 2
            train(branch, link, callbacks=noted)
        return history.epochs == 6

    net = network()
    train(net, path, callbacks=linked)
    assert epochs == [3, 4, 5, 6]
    assert bits(net) == bits(branch) == bits(lone)
    assert not path.samefile(link)
    assert [nnkit.load(name).epochs_trained for name in (path, link)] == [6, 6]


def test_a_checkpoint_is_read_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may write a last one until it gives the lock back."""
    path, later = tmp_path / "run.safetensors", tmp_path / "later.safetensors"
    options: dict[str, Any] = {"schedule": None, "early_stopping": None}
    train(network(), path, epochs=2, **options)
    shutil.copy(path, later)
    other = network()
    train(other, later, epochs=5, **options)

    @contextmanager
    def waits(name: Path) -> Iterator[None]:
        later.replace(name)
        with locked(name):
            yield

    monkeypatch.setattr(checkpoints, "locked", waits)
    net = network()
    history = train(net, path, epochs=5, callbacks=[lambda *_: pytest.fail("it is over")], **options)
    assert (history.epochs, history.stopped) == (5, "epochs")
    assert bits(net) == bits(other)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its dtype is float32"):
        train(nnkit.Network(network().layers, seed=3, dtype="float64"), path, **options)
    with locked(path):  # was given back
        pass


def test_other_arithmetic_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With native code for the CPU, results differ from those of ufuncs by rounding."""
    pytest.importorskip("numba")
    path = tmp_path / "run.safetensors"
    monkeypatch.setenv("NNKIT_NATIVE", "0")
    train(network(), path, epochs=2, schedule=None)
    monkeypatch.setenv("NNKIT_NATIVE", "1")
    with pytest.warns(UserWarning, match="computed by ufuncs, and now by native code.*NNKIT_NATIVE") as told:
        train(network(), path, epochs=3, schedule=None)
    assert [Path(warning.filename).name for warning in told] == [Path(__file__).name]
    train(network(), path, epochs=4, schedule=None)  # the last numbers are native code's


def test_a_history_without_the_trainings_numbers_is_refused_before_anything_changes(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    network = nnkit.Network([3, 2], seed=0)
    network.fit(X, y, epochs=2, checkpoint=path, progress=False)
    damaged = path.read_bytes().replace(b"accuracy", b"accurac@")
    path.write_bytes(damaged)
    other = nnkit.Network([3, 2], seed=0)
    before = other.parameters.vector
    with pytest.raises(ValueError, match=r"c\.safetensors: .*its history has no 'accuracy'"):
        other.fit(X, y, epochs=4, checkpoint=path, resume=True, progress=False)
    assert path.read_bytes() == damaged
    np.testing.assert_array_equal(other.parameters.vector, before)
