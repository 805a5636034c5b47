"""nnkit train: runs with several seeds, resumed, stopped early, diverging and interrupted ones."""

import contextlib
import errno
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import warnings
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from nnkit.training.epochs import Epochs
from tests.support import ROOT
from tests.support.cli_files import SPECIES, flowers, houses

for _package in ("safetensors", "matplotlib"):
    pytest.importorskip(_package, reason=f"{_package} is not installed")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def same(one: str, other: str) -> bool:
    """Whether two files hold the same parameters, of the same training."""
    a, b = nnkit.load(one), nnkit.load(other)
    return (
        repr(a) == repr(b)
        and a.epochs_trained == b.epochs_trained
        and np.array_equal(*(n.parameters.flat for n in (a, b)))
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_seeds_equal_single_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flowers(here / "flowers.csv")
    command = [
        "train",
        "--data",
        "flowers.csv",
        "--target",
        "species",
        "--epochs",
        "3",
        "--json",
        "--history",
        "h.json",
    ]
    singles, histories = [], []
    for seed in ("4", "5", "6"):
        assert main([*command, "--seed", seed, "--model", f"{seed}.safetensors"]) == 0
        singles.append(json.loads(capsys.readouterr().out)["runs"][0]["results"])
        histories.append(json.loads(Path("h.json").read_text()))
    assert main([*command, "--seed", "4", "--seeds", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seeds"] == [4, 5, 6]
    assert [run["results"] for run in report["runs"]] == singles
    costs = [single["cost"] for single in singles]
    assert report["mean"]["cost"] == pytest.approx(sum(costs) / 3, rel=1e-12)
    assert report["standard_deviation"]["cost"] == pytest.approx(statistics.stdev(costs), rel=1e-12)
    assert same("nnkit-model.safetensors", "4.safetensors")
    together = json.loads(Path("h.json").read_text())
    assert [run["validation_cost"] for run in together] == [history["validation_cost"] for history in histories]


def test_a_resumed_training_equals_one_without_a_stop(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--quiet", "--no-picture"]
    assert main([*command, "--epochs", "5", "--model", "whole.safetensors"]) == 0
    kept = ["--checkpoint", "run.safetensors", "--resume"]
    assert main([*command, "--epochs", "2", *kept]) == 0
    assert main([*command, "--epochs", "5", *kept, "--history", "h.json"]) == 0
    assert same("nnkit-model.safetensors", "whole.safetensors")
    assert len(json.loads(Path("h.json").read_text())["cost"]) == 5
    assert capsys.readouterr() == ("", "")  # --quiet
    content = Path("run.safetensors").read_bytes()
    for other, message in (
        (["--seed", "1"], "has seed 0; give --seed 0"),
        (["--preprocessing", "none"], "--prepro"),
        (["--metrics", "top_2"], "its --metrics is [], but this training's is ['top_2']"),
        (["--schedule", "cosine"], "its --schedule is "),
        (["--init", "he_uniform"], "its --init is None, but this training's is he_uniform\n"),
        (
            ["--learning-rate", "1"],
            "its --optimizer has --learning-rate 0.1, but this training's has --learning-rate 1.0",
        ),
        (["--optimizer", "adam"], "its --optimizer is sgd, but this training's is adam\n"),
        (["--label-smoothing", "0.1"], "its --cost has --label-smoothing None, but this training's has "),
        (["--class-weight", "balanced"], "its --class-weight is None, but this training's is balanced\n"),
    ):
        assert main([*command, "--epochs", "6", *kept, *other]) == 2
        assert message in capsys.readouterr().err
        assert Path("run.safetensors").read_bytes() == content


def test_the_same_initializer_is_resumed_with_and_without_being_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that is given again after a kill goes on; another initializer would have no effect."""
    flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--quiet", "--no-picture"]
    named = ["--init", "he_normal"]
    assert main([*command, *named, "--epochs", "4", "--model", "whole.safetensors"]) == 0
    kept = ["--checkpoint", "run.safetensors", "--resume"]
    for epochs, init in (("1", named), ("2", named), ("3", []), ("4", named)):
        assert main([*command, *kept, *init, "--epochs", epochs]) == 0
    assert same("nnkit-model.safetensors", "whole.safetensors")
    assert main([*command, *kept, "--init", "zeros", "--epochs", "5"]) == 2
    assert "its --init is he_normal, but this training's is zeros\n" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--early-stopping", "2"], ["--schedule", "reduce_on_plateau"]])
def test_the_test_part_is_not_used_for_early_stopping(
    here: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--no-picture", "--history", "h.json", "--json"]
    assert main([*command, *option]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == {"training": 34, "validation": 11, "test": 15}
    X_train, train, X_test, test = nnkit.data.split(X, np.searchsorted(SPECIES, y), seed=0)
    _, _, X_validation, validation = nnkit.data.split(X_train, train, seed=0)
    loaded, history = nnkit.load("nnkit-model.safetensors"), json.loads(Path("h.json").read_text())
    best = min(history["validation_cost"]) if option[0] == "--early-stopping" else history["validation_cost"][-1]
    assert loaded.evaluate(X_validation, np.array(SPECIES)[validation])["cost"] == pytest.approx(best, rel=1e-6)
    assert report["runs"][0]["results"] == loaded.evaluate(X_test, np.array(SPECIES)[test])


def test_a_training_that_diverges_is_code_1_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    houses(here / "houses.csv")
    command = ["train", "--data", "houses.csv", "--target", "price", "--learning-rate", "1e9", "--seed", "7"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"nnkit: error: seed 7: the cost is (inf|nan) in epoch \d+, step \d+; .*\n", error)
    assert names(here) == ["houses.csv"]


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("members", [[], ["--ensemble", "2"]])
def test_a_training_that_diverges_later_keeps_its_epochs_and_the_best_one(
    here: Path, best: bool, members: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = flowers(here / "flowers.csv")
    kind: Any = nnkit.Ensemble if members else nnkit.Network
    fit = kind.fit

    def diverging(network: Any, X: Any, y: Any, **options: Any) -> nnkit.History:
        def callback(network: Any, history: nnkit.History) -> None:
            if history.epochs == 3:  # its next steps overflow
                for member in getattr(network, "members", [network]):
                    member.parameters.flat[...] *= 1e30

        history: nnkit.History = fit(network, X, y, **options | {"callbacks": [callback]})
        return history

    monkeypatch.setattr(kind, "fit", diverging)
    Path("nnkit-model.safetensors").write_text("of an earlier training")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "9", "--history", "h.json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each member
        assert main([*command, *members, *(["--early-stopping", "8"] if best else [])]) == 1
    captured = capsys.readouterr()
    assert re.search(r"nnkit: error: seed 0: .* in epoch 4, step 1; the network", captured.err)
    history = json.loads(Path("h.json").read_text())
    assert len(history["cost"]) == 3
    assert names(here) == ["flowers.csv", "h.json", "nnkit-curve.png", "nnkit-model.safetensors"]
    if not best:
        assert Path("nnkit-model.safetensors").read_text() == "of an earlier training"
    elif not members:
        X_train, train, *_ = nnkit.data.split(X, np.searchsorted(SPECIES, y), seed=0)
        _, _, X_validation, validation = nnkit.data.split(X_train, train, seed=0)
        found = nnkit.load("nnkit-model.safetensors").evaluate(X_validation, np.array(SPECIES)[validation])
        assert found["cost"] == pytest.approx(min(history["validation_cost"]), rel=1e-6)
    else:
        assert len(nnkit.Ensemble.load("nnkit-model.safetensors")) == 2


@pytest.mark.parametrize(
    ("error", "code"), [(nnkit.DivergenceError(1, 3, "the cost is nan", 0.1), 1), (MemoryError("no room"), 2)]
)
def test_completed_runs_are_kept_if_a_later_one_fails(
    here: Path, error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(here / "flowers.csv")
    fit = nnkit.Network.fit

    def failing(network: nnkit.Network, X: Any, y: Any, **options: Any) -> nnkit.History:
        if network.seed == 2:
            raise error
        return fit(network, X, y, **options)

    monkeypatch.setattr(nnkit.Network, "fit", failing)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--json", "--seeds", "4"]
    assert main([*command, "--history", "h.json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["seeds"] == [0, 1]
    assert str(error)[:20] in captured.err
    assert len(json.loads(Path("h.json").read_text())) == 2
    assert nnkit.load("nnkit-model.safetensors").seed == 0


@pytest.mark.parametrize("inside", [True, False])
def test_ctrl_c_keeps_completed_runs(
    here: Path, inside: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flowers(here / "flowers.csv")
    fit = nnkit.Network.fit

    def interrupted(network: nnkit.Network, X: Any, y: Any, **options: Any) -> nnkit.History:
        if network.seed == 2 and inside:
            options["callbacks"] = [lambda *_: signal.raise_signal(signal.SIGINT)]
        elif network.seed == 2:
            signal.raise_signal(signal.SIGINT)
        return fit(network, X, y, **options)

    monkeypatch.setattr(nnkit.Network, "fit", interrupted)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--json"]
    assert main([*command, "--seeds", "4"]) == 130
    assert json.loads(capsys.readouterr().out)["seeds"] == [0, 1]
    assert names(here) == ["flowers.csv", "nnkit-curve.png", "nnkit-model.safetensors"]
    assert main([*command, "--seed", "2", "--model", "other.safetensors"]) == 130
    assert Path("other.safetensors").exists() == inside  # of the first run there is something if it had begun


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_keeps_what_ctrl_c_keeps(
    here: Path, ignored: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where Ctrl-C is ignored, as in the background of a script."""
    flowers(here / "flowers.csv")
    fit, found = nnkit.Network.fit, list[Any]()

    def terminated(network: nnkit.Network, X: Any, y: Any, **options: Any) -> nnkit.History:
        def callback(_: Any, history: nnkit.History) -> None:
            found.append(signal.getsignal(signal.SIGTERM))
            if network.seed == 1 and history.epochs == 2:
                signal.raise_signal(signal.SIGTERM)

        return fit(network, X, y, **options | {"callbacks": [callback]})

    monkeypatch.setattr(nnkit.Network, "fit", terminated)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--json"]
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.getsignal(signal.SIGINT)
    try:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert main([*command, "--seeds", "3"]) == 143
        assert json.loads(capsys.readouterr().out)["seeds"] == [0]
        assert names(here) == ["flowers.csv", "nnkit-curve.png", "nnkit-model.safetensors"]
        assert signal.SIG_DFL not in found
        assert signal.getsignal(signal.SIGINT) == (signal.SIG_IGN if ignored else before[1])
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        for seeds in (1, 2):
            assert main([*command, "--seed", "1", "--seeds", str(seeds), "--history", "h.json"]) == 143
            history = json.loads(Path("h.json").read_text())
            assert [len(run["cost"]) for run in (history if seeds > 1 else [history])] == [2]
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.mark.skipif(os.name != "posix", reason="terminals are those of POSIX")
def test_a_closed_terminal_keeps_what_ctrl_c_keeps(here: Path) -> None:
    flowers(here / "flowers.csv")
    import pty

    files = ["--checkpoint", "run.safetensors", "--history", "h.json"]
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "999999", *files]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "nnkit", *command], environment)
    os.set_blocking(terminal, False)
    while not Path("run.safetensors").exists():
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 4096)  # else its buffer is full at some time
        time.sleep(0.01)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    assert {"h.json", "nnkit-curve.png", "nnkit-model.safetensors"} <= {*names(here)}


@pytest.mark.parametrize("times", [1, 2])
def test_a_full_disk_does_not_lose_the_model(
    here: Path, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is written to another folder, if there is room."""
    flowers(here / "flowers.csv")
    save, paths = nnkit.checkpoint.save, list[Any]()

    def full(network: Any, path: Any, *given: Any, **options: Any) -> None:
        paths.append(path)
        if len(paths) <= times:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(network, path, *given, **options)

    monkeypatch.setattr(nnkit.checkpoint, "save", full)
    assert main(["train", "--data", "flowers.csv", "--target", "species", "--epochs", "2", "--no-picture"]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    if times == 1:
        assert f"the model is in {paths[1]} instead" in error
        assert nnkit.load(paths[1]).classifies
    else:
        assert "instead" not in error


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_ctrl_c_waits_for_the_files_but_a_second_one_does_not(
    here: Path, sent: signal.Signals, presses: int, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may also have been in the training."""
    flowers(here / "flowers.csv")
    fit, save = nnkit.Network.fit, nnkit.checkpoint.save

    def interrupted(network: nnkit.Network, X: Any, y: Any, **options: Any) -> nnkit.History:
        return fit(network, X, y, **options | {"callbacks": [lambda *_: signal.raise_signal(sent)] if inside else []})

    def saving(*given: Any, **options: Any) -> None:
        for _ in range(presses - inside):
            signal.raise_signal(sent)
        save(*given, **options)

    monkeypatch.setattr(nnkit.Network, "fit", interrupted)
    monkeypatch.setattr(nnkit.checkpoint, "save", saving)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "2", "--history", "h.json"]
    assert main(command) == 128 + sent
    results = ["h.json", "nnkit-curve.png", "nnkit-model.safetensors"] if presses == 1 else []
    assert names(here) == ["flowers.csv", *results]


def test_ctrl_c_in_the_first_epoch_keeps_the_files_of_an_earlier_training(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--history", "numbers.json", "--epochs", "2"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in here.iterdir()}
    run = Epochs.run

    def pressed(epochs: Epochs, *arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return run(epochs, *arguments)

    monkeypatch.setattr(Epochs, "run", pressed)
    assert main([*command, "--seed", "5"]) == 130
    assert {path: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="a process is killed as in POSIX")
def test_leftovers_of_a_killed_training_are_removed(here: Path) -> None:
    flowers(here / "flowers.csv")
    command = ["train", "--data", "flowers.csv", "--target", "species", "--checkpoint", "run.safetensors", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-m", "nnkit", *command, "--epochs", "999999"], env=environment) as running:
        while not Path("run.safetensors").exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
    assert ".run.safetensors.lock" in names(here)
    assert main([*command, "--epochs", "1", "--no-picture"]) == 0
    assert names(here) == ["flowers.csv", "nnkit-model.safetensors", "run.safetensors"]


def test_a_test_part_that_cannot_be_used_is_refused_before_the_training(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    _, _, places, _ = nnkit.data.split(np.arange(60.0)[:, None], y, seed=0)
    X[int(places[0, 0]), 1] = 1e60  # which float32 cannot represent
    np.savetxt("d.csv", np.column_stack([X, y]), "%g,%g,%d", header="a,b,y", comments="")
    monkeypatch.setattr(nnkit.Network, "fit", lambda *_, **__: pytest.fail("it has begun to train"))
    assert main(["train", "--data", "d.csv", "--target", "y", "--early-stopping", "3"]) == 2
    line = int(places[0, 0]) + 2
    assert f"d.csv, line {line}: the normalization of this sample holds inf" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError("no room"), 2)])
@pytest.mark.parametrize("members", [[], ["--ensemble", "2"]])
def test_a_test_that_fails_does_not_lose_the_training(
    here: Path, error: BaseException, code: int, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flowers(here / "flowers.csv")
    kind: Any = nnkit.Ensemble if members else nnkit.Network

    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(kind, "evaluate", failing)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--history", "h.json"]
    assert main([*command, *members]) == code
    assert len(json.loads(Path("h.json").read_text())["cost"]) == 3
    loaded = kind.load("nnkit-model.safetensors") if members else nnkit.load("nnkit-model.safetensors")
    assert getattr(loaded, "members", [loaded])[0].epochs_trained == 3


@pytest.mark.parametrize("jobs", [[], ["--jobs", "2"]])
def test_a_metric_that_is_not_defined_is_null_in_a_summary(
    here: Path, jobs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The area under the curve of a test part with one class, as where one is rare."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    X = np.random.default_rng(0).normal(size=(60, 2))
    np.savetxt("d.csv", np.column_stack([X, np.arange(60) == 0]), "%.3f,%.3f,%d", header="a,b,y", comments="")
    command = ["train", "--data", "d.csv", "--target", "y", "--epochs", "2", "--metrics", "roc_auc", "--json"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of each run
        assert main([*command, "--seeds", "3", *jobs, "--history", "h.json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["mean"]["roc_auc"] is report["standard_deviation"]["roc_auc"] is None
    assert report["mean"]["accuracy"] > 0.9
    assert names(here) == ["d.csv", "h.json", "nnkit-curve.png", "nnkit-model.safetensors"]


class _FirstLast:
    """Processes of which the one of the first seed is still at work when Ctrl-C comes, or fails."""

    error: BaseException = KeyboardInterrupt()

    def __init__(self, count: int, context: Any, begin: Any, given: Any) -> None:
        self.work, self.futures = partial(*given), list[Future[Any]]()

    def __enter__(self) -> "_FirstLast":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Any, seed: int) -> Future[Any]:
        made = Future[Any]()
        if self.futures:
            made.set_result(self.work(seed))
        else:
            made.set_exception(self.error)
        self.futures.append(made)
        return made

    def shutdown(self, **_: object) -> None: ...


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError("no room"), 2)])
def test_finished_trainings_of_higher_seeds_are_kept(
    here: Path,
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flowers(here / "flowers.csv")
    monkeypatch.setattr(_FirstLast, "error", error)
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", _FirstLast)
    command = ["train", "--data", "flowers.csv", "--target", "species", "--epochs", "3", "--seeds", "3", "--jobs", "2"]
    assert main([*command, "--history", "h.json"]) == code
    assert [len(run["cost"]) for run in json.loads(Path("h.json").read_text())] == [3, 3]
    assert nnkit.load("nnkit-model.safetensors").seed == 1
    assert "seed 2" in capsys.readouterr().out
