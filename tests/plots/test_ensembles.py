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


def shares_of_mistakes(ensemble: nnkit.Ensemble, x: np.ndarray, y: Any) -> list[str]:
    figure: Any = disagreement(ensemble, x, y)
    return [text.get_text() for text in figure.axes[1].texts]


def test_labels_are_those_that_evaluate_takes() -> None:
    """Those of another kind are the same classes, or an error; never all wrong."""
    codes = np.arange(40) % 3
    named, by_number, binary = (
        nnkit.Ensemble([3, outputs], seeds=range(2), classes=classes)
        for outputs, classes in ((3, ["1", "2", "10"]), (3, None), (1, None))
    )
    for ensemble, y, same in (
        (named, np.array(["1", "2", "10"])[codes], np.array([1, 2, 10], np.uint8)[codes]),
        (named, np.array(["1", "2", "10"])[codes], np.array(["1", "2", "10"], object)[codes][:, None]),
        (by_number, codes, codes.astype(np.int8)[:, None]),
        (binary, codes % 2, codes % 2 == 1),
    ):
        found = shares_of_mistakes(ensemble, X, y)
        assert found == shares_of_mistakes(ensemble, X, same)
        votes = np.rint(ensemble.disagreement(X) * 2)
        wrong = np.asarray(ensemble.predict(X)) != y
        assert found == [f"{100 * wrong[votes == level].mean():.3g}" for level in range(3) if (votes == level).any()]
    for ensemble, y in ((named, codes), (by_number, codes + 1), (by_number, codes.astype(str)), (binary, codes)):
        errors = []
        for function in (disagreement, lambda e, x, y: e.evaluate(x, y)):
            with pytest.raises((TypeError, ValueError)) as error:
                function(ensemble, X, y)
            errors.append((error.type, str(error.value)))
        assert errors[0] == errors[1]


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
    for wrong in (np.zeros((2, 40)), np.zeros(80), np.zeros((20, 4)), np.zeros((40, 2, 1))):
        with pytest.raises(ValueError, match=r"y has shape \(.*\); expected targets \(40, 2\)"):
            predictions(numbers, X, wrong)
