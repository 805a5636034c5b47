"""What all pictures have in common: their files, and when Matplotlib is loaded."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support import ROOT

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.figure import Figure

import nnkit
from nnkit import plots

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "confusion_matrix": ([0, 1, 1], [0, 1, 0]),
    "denoised": ([0, 1], [1, 1], [0, 0.5]),
    "disagreement": (nnkit.Ensemble([2, 2], seeds=range(2)), [[0.0, 1.0]], [1]),
    "first_layer": ([[0.0, 1.0, -1.0, 2.0]],),
    "learning_curve": ({"cost": [2.0, 1.0]},),
    "misclassified": ([[0, 1, 2, 3]], [0], [1]),
    "predictions": (nnkit.Ensemble([1, 1], seeds=range(2), cost="quadratic"), [[0.0], [1.0]]),
    "seed_spread": ([{"cost": [2.0, 1.0]}, {"cost": [1.5, 1.2]}],),
}
every_picture = pytest.mark.parametrize("name", EXAMPLES)


def draw(name: str, **options: Any) -> Figure:
    function: Callable[..., Figure] = getattr(plots, name)
    return function(*EXAMPLES[name], **options)


def test_every_picture_is_tested_here() -> None:
    assert sorted(EXAMPLES) == sorted(plots.__all__)


@every_picture
@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")])
def test_picture_is_written_in_the_format_of_its_name(tmp_path: Path, name: str, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(b"an older picture")
    assert isinstance(draw(name, path=path, title="Run 1"), Figure)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


@every_picture
def test_a_failed_write_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"an older picture")

    def fill_the_disk(figure: Figure, target: IO[bytes], **_: object) -> None:
        target.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        draw(name, path=path)
    assert path.read_bytes() == b"an older picture"
    assert list(tmp_path.iterdir()) == [path]


@every_picture
def test_a_bad_path_is_named_before_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"path is '.*picture.jpeg'; expected a name that ends in .png, .svg, .pdf"):
        draw(name, path=tmp_path / "picture.jpeg")
    with pytest.raises(FileNotFoundError, match="absent"):
        draw(name, path=tmp_path / "absent" / "picture.png")
    with pytest.raises(TypeError, match="path is 3; expected the path of a file"):
        draw(name, path=3)


@every_picture
def test_without_matplotlib_the_error_has_the_install_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match="pictures need Matplotlib; install it with: python -m pip install matplotlib"
    ):
        draw(name)


def test_neither_import_nor_drawing_loads_pyplot() -> None:
    code = (
        "import pickle, sys, nnkit.plots as plots\n"
        "assert 'matplotlib' not in sys.modules, 'at import'\n"
        f"for name, arguments in pickle.loads({pickle.dumps(EXAMPLES)!r}).items():\n"
        "    getattr(plots, name)(*arguments)\n"
        "    assert 'matplotlib.pyplot' not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
