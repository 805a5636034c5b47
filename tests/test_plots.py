import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

pytest.importorskip("matplotlib")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nnkit.plots import learning_curve

BOTH = {
    "cost": [0.9, 0.5, 0.4, 0.35],
    "validation_cost": [0.95, 0.6, 0.55, 0.54],
    "accuracy": [0.7, 0.85, 0.9, 0.915],
    "validation_accuracy": [0.68, 0.8, 0.85, 0.8649],
}


def lines(axes: Axes) -> dict[str, Any]:
    """The lines of a panel by the names that are written at their ends."""
    drawn = [line for line in axes.lines if line.get_linestyle() != "None"]
    names = [text.get_text().split("\n")[0] for text in axes.texts]
    return dict(zip(names, drawn, strict=True))


def decaying(epochs: int) -> dict[str, list[float]]:
    costs = [0.03 + 0.9 / epoch for epoch in range(1, epochs + 1)]
    return {"cost": costs, "accuracy": [1 - cost / 4 for cost in costs]}


def with_validation(history: dict[str, list[float]]) -> dict[str, list[float]]:
    both = {f"validation_{key}": [0.99 * value for value in values] for key, values in history.items()}
    return {**history, **both}


def test_panels_show_the_values_with_training_solid_and_validation_dashed() -> None:
    cost, accuracy = learning_curve(BOTH).axes
    assert cost.get_title(loc="left") == "Cost"
    assert accuracy.get_title(loc="left") == "Accuracy (%)"
    for axes, quantity, scale in ((cost, "cost", 1), (accuracy, "accuracy", 100)):
        training, validation = lines(axes)["training"], lines(axes)["validation"]
        assert list(training.get_xdata()) == [1, 2, 3, 4]
        assert list(training.get_ydata()) == pytest.approx([scale * v for v in BOTH[quantity]])
        assert list(validation.get_ydata()) == pytest.approx([scale * v for v in BOTH[f"validation_{quantity}"]])
        assert not training.is_dashed()
        assert validation.is_dashed()
        assert training.get_color() != validation.get_color()


def test_last_values_are_written() -> None:
    cost, accuracy = learning_curve(BOTH).axes
    assert [text.get_text() for text in cost.texts] == ["training\n0.350", "validation\n0.540"]
    assert [text.get_text() for text in accuracy.texts] == ["training\n91.50 %", "validation\n86.49 %"]


def test_one_panel_without_accuracy() -> None:
    assert len(learning_curve({"cost": [1.0, 0.5]}).axes) == 1
    assert len(learning_curve({"cost": [1.0, 0.5], "accuracy": [None, None]}).axes) == 1
    assert len(learning_curve({"cost": [1.0, 0.5], "validation_accuracy": [0.1, 0.2]}).axes) == 2


def test_other_keys_are_ignored() -> None:
    assert len(learning_curve({"cost": [1.0], "seconds": [3.0, 4.0]}).axes[0].texts) == 1


@pytest.mark.parametrize(
    ("costs", "scale"),
    [
        ([20.0, 1.0], "linear"),
        ([20.1, 1.0], "log"),
        ([20.1, 0.0], "linear"),
        ([20.1, -1.0], "linear"),
        ([1.0, 1e99, 1e300, math.inf], "log"),
        ([1.0, 1e-300], "linear"),
    ],
)
def test_cost_axis_is_logarithmic_over_a_wide_range(costs: list[float], scale: str, tmp_path: Path) -> None:
    axes = learning_curve({"cost": costs}, tmp_path / "curve.png").axes[0]
    assert axes.get_yscale() == scale
    assert ("logarithmic" in axes.get_title(loc="left")) == (scale == "log")


def test_validation_counts_for_the_range_of_the_cost() -> None:
    assert learning_curve({"cost": [1.0], "validation_cost": [0.01]}).axes[0].get_yscale() == "log"


def test_missing_entries_are_left_out() -> None:
    history: dict[str, list[float | None]] = {
        "cost": [3.0, math.nan, 2.0, math.inf],
        "validation_cost": [None, 4.0, None, 3.5],
    }
    drawn = lines(learning_curve(history).axes[0])
    assert list(drawn["training"].get_xdata()) == [1, 3]
    assert list(drawn["validation"].get_xdata()) == [2, 4]
    assert learning_curve(history).axes[0].texts[0].get_text() == "training\n2.00\n(epoch 3)"


def test_a_run_without_any_finite_cost_still_gives_a_picture(tmp_path: Path) -> None:
    figure = learning_curve({"cost": [math.nan, None]}, tmp_path / "curve.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite cost"]


def test_accuracy_axis_stays_where_accuracies_can_be() -> None:
    for constant in (0.0, 1.0):
        low, high = learning_curve({"cost": [1.0, 1.0], "accuracy": [constant] * 2}).axes[1].get_ylim()
        assert -1 < low < high < 101


@pytest.mark.parametrize("epochs", [1, 2, 3, 30, 300])
@pytest.mark.parametrize("validation", [False, True])
def test_epochs_are_integers_and_no_text_overlaps(epochs: int, validation: bool) -> None:
    history = with_validation(decaying(epochs)) if validation else decaying(epochs)
    figure = learning_curve(history, title="A title")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes: dict[Text, Bbox] = {}
    for axes in figure.axes:
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert ticks
        assert all(tick == int(tick) and 1 <= tick <= epochs for tick in ticks)
        texts = [*axes.texts, axes.xaxis.label, *figure.texts]
        texts += [child for child in axes.get_children() if isinstance(child, Text) and child.get_text()]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes.update({text: text.get_window_extent() for text in texts})
    for box in boxes.values():
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    for (text, box), (other, its_box) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(its_box), f"{text.get_text()!r} covers {other.get_text()!r}"


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")])
def test_picture_is_written_in_the_format_of_its_name(tmp_path: Path, suffix: str, magic: bytes) -> None:
    path = tmp_path / f"curve{suffix}"
    path.write_bytes(b"an older picture")
    assert isinstance(learning_curve(BOTH, path, title="Run 1"), Figure)
    assert path.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_older_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.png"
    path.write_bytes(b"an older picture")

    def fill_the_disk(figure: Figure, target: IO[bytes], **_: object) -> None:
        target.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        learning_curve(BOTH, path)
    assert path.read_bytes() == b"an older picture"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "history must be a mapping from names to lists, got list"),
        ({"accuracy": [0.5]}, ValueError, 'one number per epoch under "cost", got None'),
        ({"cost": []}, ValueError, r'one number per epoch under "cost", got \[\]'),
        ({"cost": 0.5}, ValueError, 'one number per epoch under "cost", got 0.5'),
        ({"cost": [1.0, "2"]}, TypeError, r"history\[\"cost\"\]\[1\] must be a number or None, got '2'"),
        (
            {"cost": [1.0], "validation_cost": [1.0, 2.0]},
            ValueError,
            r'history\["validation_cost"\] must have 1 entries, as many as "cost", got 2',
        ),
        ({"cost": [1.0], "accuracy": 0.5}, ValueError, r'history\["accuracy"\] must have 1 entries.*got 0.5'),
        (
            {"cost": [1.0, 1.0], "accuracy": [0.5, 97.5]},
            ValueError,
            r'history\["accuracy"\]\[1\] must be from 0 to 1, got 97.5',
        ),
    ],
)
def test_bad_history_is_named(history: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learning_curve(history)


def test_bad_path_is_named_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in .png, .svg, .pdf, got '.*curve.jpeg'"):
        learning_curve(BOTH, tmp_path / "curve.jpeg")
    with pytest.raises(FileNotFoundError, match="absent"):
        learning_curve(BOTH, tmp_path / "absent" / "curve.png")
    with pytest.raises(TypeError, match="path must be a path or None, got 3"):
        learning_curve(BOTH, 3)  # type: ignore[arg-type]


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="python -m pip install matplotlib"):
        learning_curve(BOTH)


def test_neither_import_nor_drawing_loads_pyplot() -> None:
    code = (
        "import sys, nnkit.plots as plots\n"
        "assert 'matplotlib' not in sys.modules, 'at import'\n"
        "plots.learning_curve({'cost': [2.0, 1.0]})\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'at the drawing'\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
