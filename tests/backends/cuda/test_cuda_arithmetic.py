"""The CUDA kernels' arithmetic, run on the host: each gives what the NumPy backend gives."""

import ctypes
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nnkit.backends.cuda.formula_text import widest_lanes
from nnkit.backends.dtypes import FLOATS, numpy_dtype
from tests.support.host_cuda import Array, aligned, build, launch, with_driver
from tests.support.kernels import FORMULAS, Variant, suited, variant, variants
from tests.support.rounding import allowed_differences, assert_agree

pytestmark = pytest.mark.usefixtures("ufuncs")  # the reference

# The last three are subnormal in one of the types.
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1.0, -1.0, 1e4, -1e4, 20.0, -20.0, 1e-4, -1e-6, -1e-42, 5e-324)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    """All kernels, one library for each dtype, two compiled at a time."""

    def library(dtype: str) -> ctypes.CDLL:
        kernels = [v for key in FORMULAS for v in (*variants(key, dtype), in_place(key, dtype))]
        return build("".join(map(with_driver, kernels)), folders[dtype])

    folders = {dtype: tmp_path_factory.mktemp(dtype) for dtype in FLOATS}
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(FLOATS, pool.map(library, FLOATS), strict=True))


def in_place(key: str, dtype: str) -> Variant:
    """A formula's kernel over operands that all have the result's shape, so that any may be the result."""
    formula = FORMULAS[key]
    name = f"{formula.name}_{list(FORMULAS).index(key)}_in_place"
    return variant(formula, name, dtype, ("full",) * len(formula.operands), widest_lanes([dtype]))


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Numbers of every size; arrays hold the special ones too."""
    usual = rng.normal(size=shape) * 10 ** rng.uniform(-3, 2, shape)
    values = np.where(rng.random(shape) < (0.3 if shape else 0), rng.choice(SPECIAL, shape), usual)
    with np.errstate(over="ignore"):
        return values.astype(numpy_dtype(dtype))


def operands_of(made: Variant, dtype: str) -> tuple[tuple[int, int], list[Array]]:
    """The shape of the results, with a tail where the kernel allows one, and operands in the kernel's layouts."""
    rows, columns = (12, 16) if made.signature.lanes > 1 else (37, 5)
    shapes = {"full": (rows, columns), "row": (columns,), "column": (rows, 1), "scalar": ()}
    rng = np.random.default_rng(zlib.crc32(made.name.encode()))
    operands = [numbers(rng, shapes[layout], dtype) for layout in made.signature.layouts]
    return (rows, columns), [aligned(operand) for operand in suited(made.formula, operands)]


def results_of(made: Variant, operands: list[Array], shape: tuple[int, int]) -> tuple[list[Array], list[Array]]:
    """Arrays for a kernel's results, filled with NaN, and what NumPy gives, broadcast like the kernel's operands."""
    given = made.formula(*operands)
    expected = [np.broadcast_to(e, shape) for e in (given if isinstance(given, tuple) else (given,))]
    return [aligned(np.full(shape, np.nan, e.dtype)) for e in expected], expected


@pytest.mark.parametrize("key", FORMULAS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_kernel_agrees_with_numpy(libraries: dict[str, ctypes.CDLL], dtype: str, key: str) -> None:
    for made in variants(key, dtype):
        shape, operands = operands_of(made, dtype)
        outs, expected = results_of(made, operands, shape)
        launch(libraries[dtype], made, operands, outs)
        allowed = allowed_differences(made.program, operands, dtype)
        for out, reference, difference in zip(outs, expected, allowed, strict=True):
            assert_agree(out, reference, np.broadcast_to(difference, shape))


@pytest.mark.parametrize("key", FORMULAS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_result_may_be_an_operand(libraries: dict[str, ctypes.CDLL], dtype: str, key: str) -> None:
    made = in_place(key, dtype)
    shape, operands = operands_of(made, dtype)
    outs, _ = results_of(made, operands, shape)
    launch(libraries[dtype], made, operands, outs)
    for first in range(len(operands) - len(outs) + 1):
        inputs = [aligned(a) for a in operands]
        written = inputs[first : first + len(outs)]
        launch(libraries[dtype], made, inputs, written)
        for out, reference in zip(written, outs, strict=True):
            assert out.tobytes() == reference.tobytes()


def test_a_wrong_digit_is_detected(tmp_path: Path) -> None:
    (made,) = (v for v in variants("nnkit.kernels.smooth.gelu", "float32") if v.signature.layouts == ("full",))
    shape, operands = operands_of(made, "float32")
    (out,), (expected,) = results_of(made, operands, shape)
    (allowed,) = allowed_differences(made.program, operands, "float32")
    text = with_driver(made)
    assert "0.1538386" in text
    launch(build(text.replace("0.1538386", "0.1538406"), tmp_path), made, operands, [out])
    with pytest.raises(AssertionError):
        assert_agree(out, expected, allowed)


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    text = """\
extern "C" void narrow_all(const float *x, bf16 *y, int n) { for (int i = 0; i < n; ++i) narrow(x[i], y[i]); }
extern "C" void widen_all(const bf16 *x, float *y, int n) { for (int i = 0; i < n; ++i) y[i] = widen(x[i]); }
"""
    return build(text, tmp_path_factory.mktemp("conversions"))


def converted(function: Callable[..., object], values: Array, dtype: str) -> Array:
    result = np.empty(values.shape, numpy_dtype(dtype))
    function(ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(result.ctypes.data), ctypes.c_int(values.size))
    return result


def test_every_bfloat16_widens_exactly(conversions: ctypes.CDLL) -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    wide = converted(conversions.widen_all, patterns, "float32")
    np.testing.assert_array_equal(wide, patterns.view(ml_dtypes.bfloat16).astype(np.float32))
    back = converted(conversions.narrow_all, wide, "bfloat16").view(np.uint16)
    numbers_only = ~np.isnan(wide)
    np.testing.assert_array_equal(back[numbers_only], patterns[numbers_only])


def test_bfloat16_is_rounded_to_nearest_even(conversions: ctypes.CDLL) -> None:
    # Each bfloat16 with what can be cut off: nothing, little, just below a tie, the tie, just above it, nearly all.
    cut = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    patterns = ((np.arange(2**16, dtype=np.uint32) << 16)[:, None] | cut).ravel()
    values = patterns.view(np.float32)
    found = converted(conversions.narrow_all, values, "bfloat16")
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16)
    nan = np.isnan(values)
    assert nan.any()
    assert np.isnan(found[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(found[~nan].view(np.uint16), expected[~nan].view(np.uint16))
