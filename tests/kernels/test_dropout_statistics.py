"""Dropout's factors look like coin flips: the keys are fixed, and each bound is five standard deviations."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.kernels.dropout import dropout
from tests.kernels.test_dropout_kernel import operands

Array = NDArray[Any]


def factors(key: int = 0, step: int = 0, rate: float = 0.5, layer: int = 0, n: int = 700, d: int = 900) -> Array:
    """Whether each entry is kept."""
    scale = dropout(*operands(np.ones((n, d), np.float32), key, step), rate=rate, layer=float(layer))[1]
    assert set(np.unique(scale)) <= {np.float32(0), np.float32(1 / (1 - rate))}
    kept: Array = scale > 0
    return kept


def assert_binomial(successes: Any, trials: int, p: float) -> None:
    """Assert that counts, each of that many flips of a coin, are as near to their mean as coins are.

    Both the worst of them and, by χ², all together, neither too far nor too near; the cube root of χ² is nearly normal
    (Wilson and Hilferty, PNAS 17, 1931).
    """
    z = (np.atleast_1d(successes) - trials * p) / math.sqrt(trials * p * (1 - p))
    assert abs(z).max() < 5
    variance = 2 / (9 * z.size)
    assert abs(np.cbrt((z**2).mean()) - (1 - variance)) < 5 * math.sqrt(variance)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.2, 1 / 3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("key", [0, 1, 0xDEADBEEF])
def test_the_share_of_dropped_entries(key: int, rate: float) -> None:
    dropped = ~factors(key, rate=rate)
    assert_binomial(np.count_nonzero(dropped), dropped.size, rate)
    if rate >= 0.1:  # else a row's count is no normal variable
        assert_binomial(dropped.sum(axis=0), dropped.shape[0], rate)
        assert_binomial(dropped.sum(axis=1), dropped.shape[1], rate)


def test_rates_at_the_ends() -> None:
    assert factors(rate=0.0).all()
    h = np.random.default_rng(4).normal(size=(3, 4))
    np.testing.assert_array_equal(dropout(*operands(h, 1, 2), rate=0)[0], h)
    assert factors(rate=2.0**-40).all()  # below 2⁻³² nothing is dropped
    assert np.count_nonzero(factors(rate=1 - 2.0**-16)) < 40  # 630 000 entries: 9.6 ± 3.1
    largest = math.nextafter(1.0, 0.0)
    assert not factors(rate=largest).any()


DISTANCES = [*range(1, 9), 16, 64, 255, 256]


@pytest.mark.parametrize("axis", [0, 1])
def test_neighbouring_rows_and_columns_are_independent(axis: int) -> None:
    kept = np.moveaxis(factors(0xC0FFEE), axis, 0)
    for distance in DISTANCES:
        same = kept[distance:] == kept[:-distance]
        assert_binomial(np.count_nonzero(same), same.size, 0.5)
        assert_binomial(same.sum(axis=1), same.shape[1], 0.5)


def test_squares_of_entries_are_independent() -> None:
    """A row's number goes into a column's by an exclusive or: without the last mixing each square would be even."""
    kept = factors(0xC0FFEE)
    for i, j in product(DISTANCES, DISTANCES):
        even = (kept[i:, j:] ^ kept[:-i, j:]) == (kept[i:, :-j] ^ kept[:-i, :-j])
        assert_binomial(np.count_nonzero(even), even.size, 0.5)


@pytest.mark.parametrize("name", ["key", "step", "layer"])
@pytest.mark.parametrize("start", [0, 65530, 2**31 + 12345])
def test_neighbouring_keys_steps_and_layers_are_independent(name: str, start: int) -> None:
    draws = [factors(**{name: start + i}) for i in range(8)]
    for i, kept in enumerate(draws):
        for other in draws[:i]:
            same = kept == other
            assert_binomial(np.count_nonzero(same), same.size, 0.5)
            assert_binomial(same.sum(axis=0), same.shape[0], 0.5)
            assert_binomial(same.sum(axis=1), same.shape[1], 0.5)


def test_steps_keys_and_layers_are_not_interchangeable() -> None:
    draws = {draw: factors(*draw[:2], layer=draw[2], n=40, d=50) for draw in product(range(3), range(3), range(3))}
    assert len({kept.tobytes() for kept in draws.values()}) == len(draws)


def test_an_entry_over_many_steps() -> None:
    kept = np.stack([factors(3, step, n=6, d=7) for step in range(2000)])
    assert_binomial(kept.sum(axis=0).ravel(), 2000, 0.5)
    for lag in (1, 2, 3, 4, 8, 16):
        assert_binomial((kept[lag:] == kept[:-lag]).sum(axis=0).ravel(), 2000 - lag, 0.5)
