from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from nnkit.plots import confusion_matrix
from tests.conftest import Arrays


def written(axes: Any) -> dict[tuple[int, int], int]:
    """The numbers in the cells by row and column."""
    texts = [(text.get_position(), text.get_text()) for text in axes.texts]
    return {(int(y), int(x)): int(text) for (x, y), text in texts}


def names(axes: Any) -> list[str]:
    across, down = ([label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    assert across == down
    return across


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, 3)), min_size=1, max_size=30))
def test_cells_hold_counts_and_shares_of_the_true_class(pairs: list[tuple[int, int]]) -> None:
    y, predicted = map(list, zip(*pairs, strict=True))
    [axes] = confusion_matrix(y, predicted).axes
    classes = sorted({*y, *predicted})
    assert names(axes) == [str(c) for c in classes]
    counts, of_class = Counter(pairs), Counter(y)
    assert written(axes) == {(classes.index(a), classes.index(b)): n for (a, b), n in counts.items()}
    shares = [[counts[a, b] / (of_class[a] or 1) for b in classes] for a in classes]
    np.testing.assert_allclose(np.array(axes.images[0].get_array()), np.array(shares))
    right = sum(a == b for a, b in pairs)
    plural = "s" if len(y) > 1 else ""
    assert axes.get_title(loc="left") == f"Accuracy {100 * right / len(y):.2f} %, {len(y)} sample{plural}"


def luminance(color: Any) -> float:
    """The relative luminance of the Web Content Accessibility Guidelines, 2.1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_numbers_can_be_read_on_every_shade() -> None:
    """Their contrast is at least 4: the guidelines ask 3 of large letters and 4.5 of small ones."""
    y = [c for c in range(40) for _ in range(40)]
    predicted = [c if i >= c else (c + 1) % 40 for c in range(40) for i in range(40)]  # every share of 1/40
    axes: Any = confusion_matrix(y, predicted).axes[0]
    image, shades = axes.images[0], []
    for text in axes.texts:
        column, row = map(int, text.get_position())
        shades.append(image.get_array()[row, column])
        pair = luminance(image.cmap(image.norm(shades[-1]))), luminance(text.get_color())
        assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4
    assert len(set(shades)) == 40


@pytest.mark.parametrize("classes", [3, 30])
@pytest.mark.parametrize("samples", [1, 1_000_000])
def test_numbers_are_large_enough_and_fit_into_their_cells(classes: int, samples: int) -> None:
    y = np.zeros(samples, int)
    figure = confusion_matrix(y, y, range(classes))
    FigureCanvasAgg(figure).draw()
    axes: Any = figure.axes[0]
    [text] = axes.texts
    assert text.get_fontsize() >= 7.5
    cell = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    assert text.get_window_extent().width < cell


def test_larger_shares_are_darker() -> None:
    axes = confusion_matrix([0, 0, 1], [0, 1, 1]).axes[0]
    image = axes.images[0]
    shades = [luminance(image.cmap(image.norm(share))) for share in np.linspace(0, 1, 50)]
    assert shades == sorted(shades, reverse=True)
    assert image.get_clim() == (0, 1)
    [bar] = axes.child_axes
    assert bar.get_ylabel() == "Share of the true class"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0 %", "1 %", "5 %", "20 %", "50 %", "100 %"]


def test_classes_give_an_order_or_names_of_numbers() -> None:
    words = ["cat", "dog", "dog", "ant"], ["cat", "dog", "cat", "ant"]
    assert names(confusion_matrix(*words).axes[0]) == ["ant", "cat", "dog"]
    assert names(confusion_matrix(*words, classes=["dog", "cat", "ant", "bee"]).axes[0]) == ["dog", "cat", "ant", "bee"]
    assert written(confusion_matrix(*words, classes=("dog", "cat", "ant")).axes[0])[0, 1] == 1
    named = confusion_matrix([0, 1, 1], [0, 1, 0], classes=np.array(["cat", "dog", "ant"])).axes[0]
    assert names(named) == ["cat", "dog", "ant"]
    assert written(named) == {(0, 0): 1, (1, 1): 1, (1, 0): 1}
    ordered = confusion_matrix([5, 7], [5, 5], classes=[7, 5, 0]).axes[0]
    assert names(ordered) == ["7", "5", "0"]
    assert written(ordered) == {(1, 1): 1, (0, 1): 1}


def test_names_are_not_parsed_as_mathematics() -> None:
    axes = confusion_matrix([0, 1], [0, 1], classes=["$x^2$", r"50 $ \frac"]).axes[0]
    assert not any(label.get_parse_math() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()])


def test_labels_of_any_type_are_accepted(arrays: Arrays) -> None:
    labels = arrays.backend.asarray(np.array([0, 2, 1]), "int64")
    assert written(confusion_matrix([0, 1, 1], labels).axes[0]) == {(0, 0): 1, (1, 2): 1, (1, 1): 1}
    assert names(confusion_matrix(np.array(["a", "b"], object), np.array(["b", "b"])).axes[0]) == ["a", "b"]
    assert names(confusion_matrix([True, False], np.array([1, 1], np.uint8)).axes[0]) == ["0", "1"]
    large = np.array([2**63 + 5, 3, 2**63 + 6], np.uint64)  # as floats, two of them are equal
    axes = confusion_matrix(large, np.array([-1, 3, 3])).axes[0]
    assert names(axes) == ["-1", "3", str(2**63 + 5), str(2**63 + 6)]
    assert written(axes) == {(2, 0): 1, (1, 1): 1, (3, 1): 1}
    assert names(confusion_matrix(np.array([0, 1], np.uint64), [1, 1], classes=["a", "b"]).axes[0]) == ["a", "b"]


@pytest.mark.parametrize(
    ("y", "predicted", "classes", "error", "message"),
    [
        ([0, 1], [0], None, ValueError, "y has 2 labels and predicted 1; expected equal lengths"),
        ([], [], None, ValueError, r"y has shape \(0,\); expected labels \(n,\), at least one"),
        ([0], [[1]], None, ValueError, r"predicted has shape \(1, 1\); expected labels \(n,\)"),
        ([0.0], [1], None, TypeError, "y has dtype float64; expected integer or string labels"),
        (np.array([0, "a"], object), [1, 0], None, TypeError, "y has dtype object; expected integer or string labels"),
        (["0"], [1], None, TypeError, "y holds strings and predicted integers; expected the same type"),
        ([0, 1, 3], [0] * 3, ["cat", "dog"], ValueError, r"y holds 3 at \[2\]; expected 0, 1"),
        ([0, 1], [0, -1], ["cat", "dog"], ValueError, r"predicted holds -1 at \[1\]; expected 0, 1"),
        (["cat"], ["cow"], ["cat", "dog"], ValueError, r"predicted holds 'cow' at \[0\]; expected 'cat', 'dog'"),
        ([20], [20], range(20), ValueError, r"y holds 20 at \[0\]; expected one of 20 classes"),
        ([0], [0], ["cat", "cat"], ValueError, r"classes contains duplicates: \['cat', 'cat'\]"),
        ([0], [0], [], ValueError, "classes is empty; expected at least one label or name"),
        ([0], [0], "cat", TypeError, "classes is 'cat'; expected a list of labels or names"),
        ([0], [0], 10, TypeError, "classes is 10; expected a list of labels or names"),
        (range(51), range(51), None, ValueError, "there are 51 classes; expected at most 50 for a confusion matrix"),
    ],
)
def test_bad_labels_are_named(y: Any, predicted: Any, classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        confusion_matrix(y, predicted, classes)


@pytest.mark.parametrize("classes", [{0, 1}, {0: "a", 1: "b"}, b"ab"])
def test_classes_without_an_order_are_refused(classes: Any) -> None:
    with pytest.raises(TypeError, match=r"classes is .*; expected a list of labels or names"):
        confusion_matrix([0, 1], [1, 1], classes)
