import math
import statistics
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from nnkit.plots import seed_spread

RUNS = [
    {"cost": [0.9, 0.5, 0.4], "accuracy": [0.7, 0.8, 0.90]},
    {"cost": [0.7, 0.6, 0.2], "accuracy": [0.6, 0.8, 0.92]},
    {"cost": [0.8, 0.4, 0.3], "accuracy": [0.8, 0.8, 0.97]},
]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn_lines(axes: Any) -> list[Any]:
    return [line for line in axes.lines if line.get_linestyle() != "None"]


def band(axes: Any) -> tuple[list[float], list[float]]:
    """The lower and the upper edge of the filled band."""
    [filled] = axes.collections
    corners = filled.get_paths()[0].vertices
    epochs = sorted({float(x) for x in corners[:, 0]})
    heights = [corners[corners[:, 0] == epoch, 1] for epoch in epochs]
    return [float(h.min()) for h in heights], [float(h.max()) for h in heights]


def test_three_runs_are_drawn_as_median_and_range() -> None:
    figure = seed_spread(RUNS)
    for axes, metric, scale in zip(figure.axes, ("cost", "accuracy"), (1, 100), strict=True):
        *runs, median = drawn_lines(axes)
        for line, run in zip(runs, RUNS, strict=True):
            assert list(line.get_xdata()) == [1, 2, 3]
            assert list(line.get_ydata()) == pytest.approx([scale * v for v in run[metric]])
            assert line.get_linewidth() < median.get_linewidth() / 2
        by_epoch = [sorted(scale * run[metric][epoch] for run in RUNS) for epoch in range(3)]
        assert list(median.get_ydata()) == pytest.approx([values[1] for values in by_epoch])
        low, high = band(axes)
        assert low == pytest.approx([values[0] for values in by_epoch])
        assert high == pytest.approx([values[2] for values in by_epoch])
    assert legend(figure) == ["median of 3 runs", "lowest to highest", "each run"]


@pytest.mark.parametrize("runs", [4, 5, 12])
def test_more_runs_are_drawn_with_a_band_between_quartiles(runs: int) -> None:
    values = np.random.default_rng(runs).uniform(0.1, 0.9, (runs, 6)).tolist()
    figure = seed_spread([{"cost": v, "accuracy": v} for v in values])
    by_epoch = list(zip(*values, strict=True))
    quartiles = np.array([statistics.quantiles(v, n=4, method="inclusive") for v in by_epoch]).T
    for axes, scale in zip(figure.axes, (1, 100), strict=True):
        *each, median = drawn_lines(axes)
        assert len(each) == runs
        np.testing.assert_allclose(median.get_ydata(), scale * quartiles[1], rtol=1e-12)
        np.testing.assert_allclose(band(axes), scale * quartiles[[0, 2]], rtol=1e-12)
    assert legend(figure) == [f"median of {runs} runs", "middle half (quartiles)", "each run"]


def test_the_last_median_and_its_band_are_labelled() -> None:
    cost, accuracy = seed_spread(RUNS).axes
    assert [text.get_text() for text in cost.texts] == ["0.300\n(0.200 to 0.400)"]
    assert [text.get_text() for text in accuracy.texts] == ["92.00 %\n(90.00 to 97.00)"]


def test_validation_is_drawn_if_there_is_any() -> None:
    both = [{**run, "validation_accuracy": [0.1, 0.2, 0.3]} for run in RUNS]
    cost, accuracy = seed_spread(both).axes
    assert cost.get_title(loc="left") == "Training cost"
    assert accuracy.get_title(loc="left") == "Validation accuracy (%)"
    assert list(drawn_lines(accuracy)[-1].get_ydata()) == pytest.approx([10, 20, 30])
    assert drawn_lines(cost)[-1].get_color() != drawn_lines(accuracy)[-1].get_color()
    assert accuracy.texts[0].get_text() == "30.00 %"


def test_one_run_has_no_spread() -> None:
    figure = seed_spread(RUNS[:1])
    assert legend(figure) == ["one run"]
    assert [len(drawn_lines(axes)) for axes in figure.axes] == [1, 1]
    assert not any(axes.collections for axes in figure.axes)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["0.400", "90.00 %"]


def test_equal_runs_have_a_spread_of_zero() -> None:
    assert seed_spread([{"cost": [0.5]}] * 2).axes[0].texts[0].get_text() == "0.500"


def test_the_spread_of_one_epoch_is_a_bar() -> None:
    axes: Any = seed_spread([{"cost": [1.0]}, {"cost": [2.0]}, {"cost": [3.0]}]).axes[0]
    [bar] = axes.collections
    assert isinstance(bar, LineCollection)
    assert bar.get_segments()[0].tolist() == [[1, 1], [1, 3]]
    assert sorted(float(line.get_ydata()[0]) for line in axes.lines if line.get_markersize() == 4) == [1, 2, 3]


def test_the_median_is_over_epochs_that_every_run_has() -> None:
    axes = seed_spread([{"cost": [4.0, 2.0, 1.0, 0.5]}, {"cost": [2.0, 4.0, math.nan]}]).axes[0]
    first, second, median = drawn_lines(axes)
    assert [list(line.get_xdata()) for line in (first, second, median)] == [[1, 2, 3, 4], [1, 2], [1, 2]]
    assert list(median.get_ydata()) == [3, 3]
    assert axes.texts[0].get_text() == "3.00\n(2.00 to 4.00)\n(epoch 2)"
    assert axes.get_xlim() == (1, 4)


def test_runs_without_a_common_epoch_are_drawn_without_a_median() -> None:
    axes = seed_spread([{"cost": [1.0, math.nan]}, {"cost": [None, 2.0]}]).axes[0]
    assert [list(line.get_ydata()) for line in drawn_lines(axes) if len(line.get_ydata())] == [[1], [2]]
    assert not axes.texts
    assert seed_spread([{"cost": [math.nan]}]).axes[0].texts[0].get_text() == "no finite cost"


@pytest.mark.parametrize("runs", [2, 3, 4, 12])
@pytest.mark.parametrize("lowest", [0.0, 1e-3])  # an axis from 0, and a logarithmic one
def test_a_band_stays_within_possible_values(runs: int, lowest: float) -> None:
    """One run that is far from the others: mean ± deviation would reach below 0 and above 100 %."""
    costs = [[2.0, lowest, lowest]] * (runs - 1) + [[2.0, 1.0, 0.8]]
    shares = [[0.5, 1.0, 1.0]] * (runs - 1) + [[0.5, 0.6, 0.0]]
    figure = seed_spread([{"cost": c, "accuracy": a} for c, a in zip(costs, shares, strict=True)])
    for axes, values in zip(figure.axes, (costs, np.multiply(100, shares)), strict=True):
        low, high = band(axes)
        assert (low >= np.min(values, axis=0)).all()
        assert (high <= np.max(values, axis=0)).all()
        assert min(axes.get_ylim()) < min(low)
        assert max(axes.get_ylim()) > max(high)
    assert figure.axes[0].get_yscale() == ("log" if lowest else "linear")
    assert -1 < figure.axes[1].get_ylim()[0] < figure.axes[1].get_ylim()[1] < 101


@pytest.mark.parametrize(
    ("histories", "error", "message"),
    [
        ([], ValueError, "histories is empty; expected at least one history"),
        ({"cost": [1.0]}, TypeError, "histories is a dict; expected a list of histories"),
        ([{"cost": [1.0]}, [1.0]], TypeError, r"histories\[1\] is a list; expected a mapping from names to lists"),
        (
            [{"cost": [1.0]}, {"accuracy": [0.5]}],
            ValueError,
            r"histories\[1\]\[\"cost\"\] is None; expected one number per epoch",
        ),
        ([RUNS[0], {"cost": [1.0]}], ValueError, r'histories\[1\] lacks "accuracy", which histories\[0\] has'),
        (
            [{"cost": [1.0]}, {"cost": [1.0], "validation_cost": [1.0]}],
            ValueError,
            r'histories\[0\] lacks "validation_cost", which histories\[1\] has',
        ),
        (
            [{"cost": [1.0]}, {"cost": ["1"]}],
            TypeError,
            r"histories\[1\]\[\"cost\"\]\[0\] is '1'; expected a number or None",
        ),
    ],
)
def test_bad_histories_are_named(histories: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        seed_spread(histories)


def test_numpy_scalars_are_accepted() -> None:
    axes = seed_spread([{"cost": list(np.array([0.5, 0.25], np.float32))}, {"cost": list(np.array([0.5, 0.75]))}]).axes[
        0
    ]
    assert list(drawn_lines(axes)[-1].get_ydata()) == [0.5, 0.5]
