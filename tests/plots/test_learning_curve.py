import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.axes import Axes

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


def test_metrics_are_drawn_where_they_are_asked_for() -> None:
    history = {
        **BOTH,
        "top_5": [0.9, 0.95, 0.99, 1.0],
        "r2": [-2.0, 0.0, 0.5, 0.75],
        "validation_r2": [-3.0, 0.0, 0.1, 0.5],
    }
    assert len(learning_curve(history).axes) == 2
    panels = {axes.get_title(loc="left"): axes for axes in learning_curve(history, metrics=["top_5", "r2"]).axes}
    assert list(panels) == ["Cost", "Accuracy (%)", "Top-5 accuracy (%)", "R²"]
    assert list(lines(panels["Top-5 accuracy (%)"])["training"].get_ydata()) == pytest.approx([90, 95, 99, 100])
    assert list(lines(panels["R²"])["validation"].get_ydata()) == history["validation_r2"]
    assert [text.get_text() for text in panels["R²"].texts] == ["training\n0.750", "validation\n0.500"]
    assert [len(learning_curve(history, metrics=asked).axes) for asked in (("accuracy",), ("cost", "r2"))] == [2, 3]


def test_only_a_metric_of_which_less_is_better_has_a_logarithmic_axis() -> None:
    history = {"cost": [1.0, 1.0], "mae": [1.0, 0.01], "r2": [0.01, 0.9]}
    figure = learning_curve(history, metrics=("mae", "r2"))
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "linear"]
    assert figure.axes[1].get_title(loc="left") == "Mean absolute error (logarithmic axis)"


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'top_6'; did you mean 'top_5'\?"):
        learning_curve({"cost": [1.0], "validation_top_5": [0.5]}, metrics=("top_6",))
    with pytest.raises(TypeError, match=r"metrics is 'top_5'; expected a list of names, such as \(\"top_5\",\)"):
        learning_curve({"cost": [1.0], "top_5": [0.5]}, metrics="top_5")
    with pytest.raises(ValueError, match=r'history\["top_5"\]\[0\] is 5; expected a number from 0 to 1'):
        learning_curve({"cost": [1.0], "top_5": [5]}, metrics=("top_5",))


def test_the_last_point_of_a_line_is_marked() -> None:
    axes: Any
    for axes in learning_curve({"cost": [0.5, 0.3, 0.7, 0.4, 0.6], "accuracy": [0.2, 0.1, 0.6, 0.3, 0.5]}).axes:
        before = axes.get_ylim()
        axes.autoscale_view()
        assert axes.get_ylim() == before  # the marks, drawn last, move nothing
        heights = axes.transData.transform([(5, line.get_ydata()[-1]) for line in axes.lines])[:, 1]
        assert axes.transAxes.transform((1, axes.texts[0].xy[1]))[1] == pytest.approx(heights[0])
        assert heights[0] == heights[1]


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


def test_validation_costs_extend_the_range_of_the_axis() -> None:
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


def test_a_run_without_finite_costs_can_be_drawn(tmp_path: Path) -> None:
    figure = learning_curve({"cost": [math.nan, None]}, tmp_path / "curve.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite cost"]


def test_the_accuracy_axis_stays_between_0_and_1() -> None:
    for constant in (0.0, 1.0):
        low, high = learning_curve({"cost": [1.0, 1.0], "accuracy": [constant] * 2}).axes[1].get_ylim()
        assert -1 < low < high < 101


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "history is a list; expected a mapping from names to lists"),
        ({"accuracy": [0.5]}, ValueError, r'history\["cost"\] is None; expected one number per epoch'),
        ({"cost": []}, ValueError, r'history\["cost"\] is \[\]; expected one number per epoch'),
        ({"cost": 0.5}, ValueError, r'history\["cost"\] is 0.5; expected one number per epoch'),
        ({"cost": [1.0, "2"]}, TypeError, r"history\[\"cost\"\]\[1\] is '2'; expected a number or None"),
        (
            {"cost": [1.0], "validation_cost": [1.0, 2.0]},
            ValueError,
            r'history\["validation_cost"\] has 2 entries; expected a list of 1, as long as "cost"',
        ),
        (
            {"cost": [1.0], "accuracy": 0.5},
            ValueError,
            r'history\["accuracy"\] is 0.5; expected a list of 1, as long as "cost"',
        ),
        (
            {"cost": [1.0, 1.0], "accuracy": [0.5, 97.5]},
            ValueError,
            r'history\["accuracy"\]\[1\] is 97.5; expected a number from 0 to 1',
        ),
    ],
)
def test_bad_history_is_named(history: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learning_curve(history)
