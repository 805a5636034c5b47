"""The warning of features that differ by orders of magnitude, where nothing normalizes them."""

import warnings

import numpy as np
import pytest

import nnkit

sklearn_datasets = pytest.importorskip("sklearn.datasets")


def test_raw_wine_is_learned_badly_with_a_warning_and_normalized_wine_well_without() -> None:
    X, y = sklearn_datasets.load_wine(return_X_y=True, as_frame=True)
    with pytest.warns(UserWarning, match="feature 'proline' has a root mean square of 810, the median .* 2.59"):
        raw = nnkit.Network([13, 20, 3], "relu", seed=0).fit(X, y, epochs=10, progress=False)
    assert raw["accuracy"][-1] < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = nnkit.data.Normalization.fit(X)
        net = nnkit.Network([13, 20, 3], "relu", seed=0, preprocessing=fitted)
        assert net.fit(X, y, epochs=30, optimizer="adam", progress=False)["accuracy"][-1] > 0.9


@pytest.mark.parametrize(
    ("X", "warns"),
    [
        ([[1.0, 3000.0], [2.0, 1000.0]], True),
        ([[0.001, 0.5], [0.002, 1.0]], False),  # no feature is large
        ([[100.0, 3000.0], [200.0, 1000.0]], False),  # of one order
        (np.array([[0, 255, 255], [0, 255, 200], [1, 255, 255]], np.uint8), False),  # bytes: an image
        (np.full((1, 3), 1e200), False),  # whose squares overflow
    ],
)
def test_which_features_are_warned_of(X: object, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = nnkit.Network([len(X[0]), 2], seed=0, dtype="float64")  # type: ignore[index]
        for _ in range(2):  # only once
            net.fit(X, [0] * len(X), epochs=1, optimizer=nnkit.SGD(1e-300), progress=False)  # type: ignore[arg-type]
    assert len([w for w in caught if "orders of magnitude" in str(w.message)]) == warns
