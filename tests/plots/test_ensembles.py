"""Pictures of ensembles: the drawn numbers are those of the members."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.plots import disagreement, predictions

X = np.random.default_rng(0).normal(size=(40, 3))


def test_means_and_bands_of_a_regression_with_several_features(tmp_path: Path) -> None:
    ensemble = nnkit.Ensemble([3, 4, 2], seeds=range(3), cost="quadratic", dtype="float64")
    y = np.stack([X[:, 0], X[:, 1]], axis=1)
    figure: Any = predictions(ensemble, X, y, path=tmp_path / "a.svg", title="A")
    assert (tmp_path / "a.svg").exists()
    assert len(figure.axes) == 2
    each = np.stack([member.forward(X) for member in ensemble.members])
    for column, axes in enumerate(figure.axes):
        mean, spread = each.mean(axis=0)[:, column], each.std(axis=0)[:, column]
        order = np.argsort(mean)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), mean[order])
        np.testing.assert_allclose(axes.lines[1].get_ydata(), y[order, column])
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert band.max() == pytest.approx((mean + 2 * spread).max())
        assert band.min() == pytest.approx((mean - 2 * spread).min())


def test_one_feature_is_the_axis_and_many_samples_are_thinned() -> None:
    ensemble = nnkit.Ensemble([1, 4, 1], seeds=range(2), cost="quadratic", features=["height"])
    x = np.random.default_rng(1).normal(size=(3000, 1))
    axes: Any = predictions(ensemble, x).axes[0]
    assert axes.get_xlabel() == "height"
    assert len(axes.lines) == 3
    at = axes.lines[0].get_xdata()
    assert len(at) == 1000
    assert (np.diff(at) >= 0).all()
    assert (at[0], at[-1]) == (np.float32(x.min()), np.float32(x.max())) or (at[0], at[-1]) == (x.min(), x.max())


def test_counts_of_disagreeing_members_and_their_mistakes() -> None:
    ensemble = nnkit.Ensemble([3, 5, 3], seeds=range(5), classes=["a", "b", "c"])
    y = np.array(["a", "b", "c"])[np.argmax(X, axis=1)]
    figure: Any = disagreement(ensemble, X, y)
    left, right = figure.axes
    votes = np.rint(ensemble.disagreement(X) * 5).astype(int)
    assert [bar.get_height() for bar in left.patches] == [np.sum(votes == level) for level in range(6)]
    wrong = ensemble.predict(X) != y
    for level, bar in enumerate(right.patches):
        expected = 100 * wrong[votes == level].mean() if (votes == level).any() else 0
        assert bar.get_height() == pytest.approx(expected)
    assert len(disagreement(ensemble, X).axes) == 1


def test_what_cannot_be_drawn() -> None:
    classes, numbers = (nnkit.Ensemble([3, 2], seeds=[0], cost=cost) for cost in (None, "quadratic"))
    with pytest.raises(TypeError, match="is for classes; use disagreement"):
        predictions(classes, X)
    with pytest.raises(TypeError, match="does not classify; use spread"):
        disagreement(numbers, X)
    with pytest.raises(ValueError, match="y has 3 targets; expected 40"):
        predictions(numbers, X, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"y has shape \(3,\); expected labels \(40,\)"):
        disagreement(classes, X, [0, 1, 0])
