from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
from nnkit.plots import denoised
from tests.conftest import Arrays

T = np.linspace(-3 * np.pi, 3 * np.pi, 200)
CLEAN = np.cos(T)
NOISY = CLEAN + np.random.default_rng(0).normal(size=200)
RESTORED = 0.9 * CLEAN


def test_the_three_signals_are_drawn_over_t() -> None:
    figure = denoised(CLEAN, NOISY, RESTORED, T)
    [axes] = figure.axes
    assert axes.get_xlabel() == "t"
    for line, signal in zip(axes.lines, (CLEAN, NOISY, RESTORED), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), T)
        np.testing.assert_array_equal(line.get_ydata(), signal)
    assert len({line.get_color() for line in axes.lines}) == 3
    assert len({(str(line.get_linestyle()), line.is_dashed()) for line in axes.lines}) == 3  # without colours too


def test_the_legend_gives_the_mean_squared_errors() -> None:
    noisy, restored = (sum((v - c) ** 2 for v, c in zip(s, CLEAN, strict=True)) / 200 for s in (NOISY, RESTORED))
    assert [text.get_text() for text in denoised(CLEAN, NOISY, RESTORED).legends[0].get_texts()] == [
        "clean",
        f"noisy, mean squared error {noisy:.2g}",
        f"restored, mean squared error {restored:.2g}",
    ]


def test_without_t_samples_are_counted() -> None:
    [axes] = denoised([1, 2, 3], [1, 1, 1], [2, 2, 2]).axes
    assert axes.get_xlabel() == "Sample"
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines] == [[0, 1, 2]] * 3
    assert len(denoised([1.0], [2.0], [3.0]).axes[0].lines) == 3


def test_signals_may_be_arrays_of_any_backend(arrays: Arrays) -> None:
    axes = denoised(*(arrays(signal, "float32") for signal in (CLEAN, NOISY, RESTORED, T))).axes[0]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), NOISY.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"noisy": NOISY[:7]}, ValueError, "noisy has 7 values; expected 200, as many as clean"),
        ({"t": T[:7]}, ValueError, "t has 7 values; expected 200, as many as clean"),
        ({"restored": RESTORED[None]}, ValueError, r"restored has shape \(1, 200\); expected \(n,\)"),
        ({"clean": []}, ValueError, r"clean has shape \(0,\); expected \(n,\)"),
        ({"clean": CLEAN + 1j}, TypeError, "clean has dtype complex128; expected real numbers"),
        ({"restored": [np.nan] * 200}, ValueError, r"restored holds nan at \[0\]; expected finite numbers"),
    ],
)
def test_bad_signals_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        denoised(**{"clean": CLEAN, "noisy": NOISY, "restored": RESTORED, "t": T, **change})
