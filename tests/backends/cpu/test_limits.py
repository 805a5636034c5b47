"""maximum and minimum with a constant: the bits of NumPy's own, for any values, lengths and strides."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nnkit
from nnkit.backends import get_backend
from nnkit.backends.cpu import calls
from nnkit.backends.formula import Formula

numpy = get_backend("numpy")
LIMITS: dict[str, Any] = {
    "maximum(x, 0)": lambda xp, x: xp.maximum(x, 0.0),
    "maximum(0, x)": lambda xp, x: xp.maximum(0.0, x),
    "maximum(x, -0)": lambda xp, x: xp.maximum(x, -0.0),
    "minimum(x, 6)": lambda xp, x: xp.minimum(x, 6.0),
    "between": lambda xp, x: xp.minimum(xp.maximum(x, -1.5), 1.5),
}


def test_results_that_overlap_their_operand_otherwise() -> None:
    """More entries than a piece of the constant holds: no piece may overwrite what another still reads."""
    values = np.random.default_rng(0).normal(size=calls.BYTES // 8 * 2 + 5)
    wanted = np.maximum(values[:-5], 0)
    nnkit.relu(values[:-5], out=values[5:])
    np.testing.assert_array_equal(values[5:], wanted)


def test_zeros_of_both_signs_are_kept_apart() -> None:
    x = np.full(100, -0.0)
    for zero in (0.0, -0.0):
        found = Formula(lambda xp, x, zero=zero: xp.maximum(x, zero), "limit", ["x"])(x)
        assert np.signbit(found).all() == np.signbit(zero)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_limits(dtype: str, name: str, data: st.DataObject) -> None:
    """In pieces with an array of the limit, and by a thread's plan."""
    floats = st.floats(width=32 if dtype == "float32" else 64)
    x = data.draw(arrays(dtype, data.draw(st.sampled_from([(), (1,), (70,), (9, 8), (0, 3)])), elements=floats))
    if data.draw(st.booleans()):
        x = x[..., ::2] if x.ndim else x
    out = x if data.draw(st.booleans()) and x.flags.writeable else None
    with np.errstate(all="ignore"):
        wanted = np.asarray(LIMITS[name](np, x.copy()), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "FEW_BYTES", data.draw(st.sampled_from([-1, 1 << 16])))
        patch.setattr("nnkit.backends.cpu.calls.FEW_LIMITED", 0)
        patch.setattr(calls, "BYTES", 128)  # several pieces
        calls._repeated.cache_clear()
        found = numpy.elementwise(Formula(LIMITS[name], "limit", ["x"]), (x,), out=out)
    calls._repeated.cache_clear()
    np.testing.assert_array_equal(found, wanted)
    zeros = np.asarray(wanted == 0)
    np.testing.assert_array_equal(np.signbit(np.asarray(found)[zeros]), np.signbit(wanted[zeros]))
