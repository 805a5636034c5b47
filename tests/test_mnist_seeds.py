"""The example of several seeds on MNIST, on a part of it; the whole is run by hand."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import nnkit
from tests.data.test_mnist import find_mnist
from tests.support import ROOT

EXAMPLE = ROOT / "examples" / "mnist_seeds.py"


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, *options])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


@pytest.mark.mnist
def test_two_seeds_of_a_tenth_of_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = nnkit.data.mnist(find_mnist())
    part = nnkit.data.MNIST(data.X_train[-7000:], data.y_train[-7000:], data.X_test[:2000], data.y_test[:2000])
    monkeypatch.setattr(nnkit.data, "mnist", lambda: part)
    drawn, draw = [], nnkit.plots.seed_spread

    def spread(histories: Any, *arguments: Any, **options: Any) -> Any:
        drawn.extend(histories)
        return draw(histories, *arguments, **options)

    monkeypatch.setattr(nnkit.plots, "seed_spread", spread)
    picture = tmp_path / "spread.png"
    run(monkeypatch, "--seeds", "3", "4", "--epochs", "2", "--picture", str(picture))

    printed = capsys.readouterr().out
    seeds, accuracies = zip(*re.findall(r"^seed (\d): (\S+) % of the test images", printed, re.MULTILINE), strict=True)
    first, second = map(float, accuracies)
    assert seeds == ("3", "4")
    assert first != second
    assert min(first, second) > 30  # 10 is chance; in these 60 steps, eight seeds reached 38 to 46
    mean, deviation = map(float, re.findall(r"2 runs: (\S+) ± (\S+) %", printed)[0])
    assert mean == pytest.approx((first + second) / 2, abs=0.006)
    assert deviation == pytest.approx(abs(first - second) / 2**0.5, abs=0.015)  # of numbers printed with two places

    assert [history.epochs for history in drawn] == [2, 2]
    shares = [1000 * share for history in drawn for share in history["validation_accuracy"]]
    assert shares == pytest.approx([round(share) for share in shares])  # of 1 000 images
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_refused_before_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nnkit.data, "mnist", lambda: pytest.fail("MNIST was read"))
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--picture", "spread.gif")
    end = "error: path is 'spread.gif'; expected a name that ends in .png, .svg, .pdf\n"
    assert capsys.readouterr().err.endswith(end)
