"""Dropout's kernel: the bits of an independent hash on every backend, and a clock for the steps."""

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.kernels.dropout import dropout, dropout_clock, dropout_grad
from tests.support.host_cuda import aligned, build, launch, with_driver
from tests.support.kernels import Variant, variant

if TYPE_CHECKING:
    from tests.conftest import Arrays

Array = NDArray[Any]
WORD = 2**32


def fmix32(h: int) -> int:
    """MurmurHash3's finalizer in Python's integers."""
    h = (h ^ h >> 16) * 0x85EBCA6B % WORD
    h = (h ^ h >> 13) * 0xC2B2AE35 % WORD
    return h ^ h >> 16


def number(key: int, layer: int, step: int, column: int, row: int) -> int:
    """The random number r of `dropout`, from its docstring."""
    golden = round(WORD * (math.sqrt(5) - 1) / 2)
    r = fmix32(key ^ golden * (layer + 1) % WORD)
    for word in (step, column, row):
        r = fmix32(r ^ word)
    return r


def halves(word: int) -> tuple[float, float]:
    return float(word >> 16), float(word & 0xFFFF)


def operands(h: Array, key: int, step: int) -> list[Array]:
    n, d = h.shape
    numbers = [h, np.arange(n).reshape(n, 1), np.arange(d), *halves(key), *halves(step)]
    return [np.asarray(a, h.dtype) for a in numbers]


def test_the_finalizer_has_its_published_values() -> None:
    # MurmurHash3 x86_32 of the empty string is the finalizer of the seed.
    assert [fmix32(seed) for seed in (0, 1, WORD - 1)] == [0, 0x514E28B7, 0x81F16F39]


# key, step, layer, rate; the first has zeros wherever it can.
DRAWS = [
    (0, 0, 0, 0.5),
    (0x12345678, 65535, 1, 0.2),
    (WORD - 1, 65536, 7, 0.9),
    (0x9E3779B9, WORD - 1, WORD - 1, 0.25),
    (0x80000001, 0xABCD0001, 65536, 0.001),
]


def expected_factors(draw: tuple[int, int, int, float], shape: tuple[int, int]) -> Array:
    key, step, layer, rate = draw
    kept = [[number(key, layer, step, j, i) >= rate * WORD for j in range(shape[1])] for i in range(shape[0])]
    return np.where(kept, 1 / (1 - rate), 0.0)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_match_the_hash(arrays: "Arrays", dtype: str, draw: tuple[int, int, int, float]) -> None:
    key, step, layer, rate = draw
    h = np.random.default_rng(0).normal(size=(13, 11)).astype(dtype)
    given = [arrays(a, dtype) for a in operands(h, key, step)]
    dropped, scale = (arrays.numpy(a, dtype) for a in dropout(*given, rate=rate, layer=float(layer)))
    expected = expected_factors(draw, h.shape).astype(dtype)
    np.testing.assert_array_equal(scale, expected)
    np.testing.assert_array_equal(dropped, h * expected)


def test_all_32_bits_have_an_effect(arrays: "Arrays") -> None:
    """With the number itself for 2³² p an entry is just kept, and with the next it is dropped."""
    given = [arrays(a) for a in operands(np.ones((5, 3)), 77, 3)]
    for i, j in product(range(5), range(3)):
        r = number(77, 0, 3, j, i)
        for rate, kept in ((r / WORD, True), ((r + 1) / WORD, False)):
            assert (arrays.numpy(dropout(*given, rate=rate)[1])[i, j] > 0) == kept


@pytest.fixture(scope="module")
def kernels() -> list[Variant]:
    layouts = ("full", "column", "row", *("scalar",) * 4)
    return [
        variant(dropout, f"dropout_{dtype}_{lanes}", dtype, layouts, lanes)
        for dtype, wide in (("float32", 4), ("float64", 2))
        for lanes in (1, wide)
    ]


def test_cuda_text_has_the_bits_of_the_hash(kernels: list[Variant], tmp_path: Path) -> None:
    library = build("".join(map(with_driver, kernels)), tmp_path)
    for made, (key, step) in product(kernels, [(0, 0), (WORD - 1, 65536), (0x80000001, WORD - 1)]):
        h = np.random.default_rng(1).normal(size=(9, 12)).astype(made.signature.dtypes[0])
        outs = [aligned(np.full(h.shape, np.nan, h.dtype)) for _ in range(2)]
        launch(library, made, [aligned(a) for a in operands(h, key, step)], outs)
        expected = expected_factors((key, step, 0, 0.5), h.shape).astype(h.dtype)
        np.testing.assert_array_equal(outs, [h * expected, expected])


def test_rows_do_not_depend_on_the_batch_nor_entries_on_the_dtype() -> None:
    single, double = (operands(np.ones((40, 30), dtype), 5, 6) for dtype in (np.float32, np.float64))
    whole = dropout(*single)[1]
    np.testing.assert_array_equal(whole, dropout(*double)[1])
    for start, stop in ((0, 1), (0, 7), (33, 40)):
        part = [a[start:stop] if a.ndim == 2 else a for a in single]
        np.testing.assert_array_equal(dropout(*part)[1], whole[start:stop])
    assert dropout(*(a[:0] if a.ndim == 2 else a for a in single))[1].shape == (0, 30)


def test_dropped_entries_that_are_not_finite_are_nan() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    h = np.tile([np.nan, np.inf, -np.inf, -1.0], (200, 1))
    dropped, scale = dropout(*operands(h, 1, 0))
    theirs = torch.nn.functional.dropout(torch.tensor(h), 0.5).numpy()
    for column in range(3):
        assert np.isnan(theirs[:, column]).any()
        assert 0 < np.count_nonzero(scale[:, column] == 0) < 200
    assert np.isnan(dropped[:, :3][scale[:, :3] == 0]).all()
    np.testing.assert_array_equal(dropped[:, 1][scale[:, 1] > 0], np.inf)
    # In both, what is dropped is a signed zero.
    for result in (dropped, theirs):
        zeros = result[:, 3][result[:, 3] == 0]
        assert np.signbit(zeros).all() == np.signbit(-1.0 * 0.0)


def test_the_gradient_is_the_complex_step(arrays: "Arrays") -> None:
    given = operands(np.random.default_rng(2).normal(size=(6, 5)), 8, 9)
    delta = np.random.default_rng(3).normal(size=(6, 5))
    _, scale = dropout(*(arrays(a) for a in given), rate=0.3)
    found = arrays.numpy(dropout_grad(arrays(delta), scale), "float64")
    stepped, _ = get_backend("numpy").elementwise(dropout, (given[0] + 1e-100j, *given[1:]), constants={"rate": 0.3})
    np.testing.assert_allclose(found, delta * stepped.imag / 1e-100, rtol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_counter_carries(arrays: "Arrays", dtype: str) -> None:
    for step in (0, 1, 65534, 65535, 65536, 2**31 - 1, 0xFFFEFFFF, 0xFFFF0000, WORD - 2, WORD - 1):
        following = dropout_clock(*(arrays(half, dtype) for half in halves(step)))
        assert tuple(float(arrays.numpy(half, dtype)) for half in following) == halves((step + 1) % WORD)


def test_the_counter_advances_inside_a_recording(arrays: "Arrays") -> None:
    backend = arrays.backend
    step = tuple(backend.copy(arrays(half), backend.empty((), "float64")) for half in halves(65533))
    with backend.recording() as tape:
        backend.elementwise(dropout_clock, step, out=step)
    for expected in range(65534, 65540):
        tape.replay()
        assert tuple(float(arrays.numpy(half)) for half in step) == halves(expected)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, math.nan])
def test_rates_out_of_range_are_refused(arrays: "Arrays", rate: float) -> None:
    with pytest.raises(ValueError, match=f"dropout: rate is {rate}; expected a number of at least 0 and below 1"):
        dropout(*(arrays(a) for a in operands(np.ones((2, 2)), 0, 0)), rate=rate)


@pytest.mark.parametrize("layer", [-1.0, 0.5, 2.0**32, math.inf, math.nan])
def test_invalid_layer_numbers_are_refused(arrays: "Arrays", layer: float) -> None:
    with pytest.raises(ValueError, match=r"dropout: layer is .*; expected a whole number from 0 to 2³² − 1"):
        dropout(*(arrays(a) for a in operands(np.ones((2, 2)), 0, 0)), layer=layer)
