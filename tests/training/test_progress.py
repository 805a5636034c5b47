"""What is shown of a training: a bar where somebody watches, lines where asked, and else nothing."""

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

X, LABELS = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
SCRIPT = """
import numpy as np, nnkit
net = nnkit.Network([3, 2], seed=0)
net.fit(np.ones((20, 3)), np.arange(20) % 2, epochs=3, batch_size=5)
"""


def fit(**options: Any) -> None:
    nnkit.Network([3, 2], seed=0).fit(X, LABELS, **{"epochs": 20, "batch_size": 5} | options)


@pytest.mark.parametrize("how", [True, False])
def test_nothing_is_shown_in_a_file(how: bool, capsys: pytest.CaptureFixture[str]) -> None:
    fit(progress=how)
    assert capsys.readouterr() == ("", "")


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    fit(progress="lines", metrics=["top_1"], validation_data=(X, LABELS))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14] for line in lines] == [f"epoch {epoch:>2} of 20" for epoch in range(2, 21, 2)]
    assert "   validation accuracy 0." in lines[-1]
    fit(progress="lines", epochs=3)
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.skipif(os.name != "posix", reason="terminals are those of POSIX")
def test_a_bar_on_a_terminal() -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    done = subprocess.run([sys.executable, "-c", SCRIPT], stderr=theirs, capture_output=False, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "training: 100%" in shown
    assert "12/12" in shown
    assert "epoch=3/3" in shown
    assert "cost=" in shown


def test_without_standard_error_there_is_no_bar(tmp_path: Path) -> None:
    """As in a service, and under pythonw."""
    script = f"import sys\nassert (sys.stdout, sys.stderr) == (None, None)\n{SCRIPT}net.save('net.safetensors')"
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    command = f'"{sys.executable}" -c "$SCRIPT" <&- >&- 2>&-'
    done = subprocess.run(command, shell=True, env=os.environ | {"SCRIPT": script}, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert nnkit.load(tmp_path / "net.safetensors").epochs_trained == 3


@pytest.mark.parametrize("how", [True, "lines"])
def test_training_continues_after_the_terminal_closes(how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that was closed, or a disk that the log has filled."""

    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    net = nnkit.Network([3, 2], seed=0)
    seen = Gone()
    if how is True:
        tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed")
        monkeypatch.setattr(tqdm, "tqdm", lambda **options: LateBar(seen, options))
    else:
        monkeypatch.setattr(sys, "stdout", seen)
    history = net.fit(X, LABELS, epochs=20, batch_size=5, progress=how)
    assert history.epochs == net.epochs_trained == 20


class LateBar:
    """A bar that begins where somebody sees it, and goes on where nobody does."""

    disable = False

    def __init__(self, file: Any, options: Any) -> None:
        self.file = file

    def set_postfix(self, *_: Any, **__: Any) -> None:
        pass

    def update(self, _: int) -> None:
        self.file.write("on")

    def close(self) -> None:
        raise AssertionError("it was given up before")


def test_a_notebook_gets_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPython runs, tqdm.auto is asked, which knows notebooks; steps of an iterable have no total."""
    import types

    import tqdm

    asked: list[Any] = []
    bars: list[Any] = []

    def bar(**options: Any) -> Any:
        asked.append(options)
        bars.append(tqdm.tqdm(**options, file=io.StringIO()))
        return bars[-1]

    bar.__module__ = "tqdm.notebook"
    auto = types.ModuleType("tqdm.auto")
    auto.tqdm = bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    fit(epochs=2)
    nnkit.Network([3, 2], seed=0).fit(lambda: [(X, LABELS)] * 25, epochs=3)
    always = {"initial": 0, "desc": "training", "unit": "step", "disable": False}
    assert asked == [{"total": 8} | always, {"total": None} | always]
    assert [bar.n for bar in bars] == [8, 75]


def test_a_missing_tqdm_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is forked while another thread imports would wait for ever for the lock of that import."""
    looked = []

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == "tqdm":
                looked.append(name)
                raise ModuleNotFoundError(name, name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.setattr("nnkit.training.progress._missing", [])
    for _ in range(3):
        fit(epochs=1)
    assert looked == ["tqdm"]


@pytest.mark.parametrize("closed", [True, False])
def test_lines_that_cannot_be_written_do_not_end_the_training(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed file, as of a service, and one that cannot write a metric's name."""
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", file)

    def metric(y: Any, h: Any) -> float:
        return 1.0

    metric.__name__ = "größe"
    if closed:
        file.close()
    history = nnkit.Network([3, 2], seed=0).fit(X, LABELS, epochs=3, metrics=[metric], progress="lines")
    assert history.epochs == 3
