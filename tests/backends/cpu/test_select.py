"""`where` by bits gives the bits of numpy.where, whatever the values, shapes and signs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnkit.backends import get_backend
from nnkit.backends.cpu.calls import FEW_CHOSEN, Scratch, selection_calls
from nnkit.backends.formula import Formula

numpy = get_backend("numpy")
SHAPES = st.sampled_from([(), (4,), (1, 4), (3, 1), (3, 4)])
CHOICES: dict[str, Any] = {
    "x or y": lambda xp, c, x, y: xp.where(c > 0, x, y),
    "x or 0": lambda xp, c, x, y: xp.where(c > 0, x, 0.0),
    "0 or y": lambda xp, c, x, y: xp.where(c > 0, 0.0, y),
    "x or -0": lambda xp, c, x, y: xp.where(c > 0, x, -0.0),
    "2 or y": lambda xp, c, x, y: xp.where(c > 0, 2.0, y),
    "0 or 0": lambda xp, c, x, y: xp.where(c > 0, 0.0, 0.0) + 0 * x,
    "1 or 0": lambda xp, c, x, y: xp.where(c > 0, 1.0, 0.0),
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_where(dtype: str, name: str, data: st.DataObject) -> None:
    any_float = st.floats(width=32 if dtype == "float32" else 64)
    c, x, y = (data.draw(arrays(dtype, data.draw(SHAPES), elements=any_float)) for _ in range(3))
    if data.draw(st.booleans()):
        x = np.asfortranarray(x)
    formula = Formula(CHOICES[name], "choice", ["c", "x", "y"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnkit.backends.cpu.calls.FEW_CHOSEN", 0)
        found = numpy.elementwise(formula, (c, x, y))
    with np.errstate(all="ignore"):
        wanted = np.broadcast_to(np.asarray(CHOICES[name](np, c, x, y), dtype), found.shape)
    integer = f"i{found.itemsize}"
    same = found.view(integer) == wanted.copy().view(integer)
    assert (same | np.isnan(wanted)).all()
    assert (np.isnan(found) == np.isnan(wanted)).all()


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("over", ["x", "y"])
@pytest.mark.parametrize("name", ["x or y", "x or 0", "0 or y", "x or -0", "2 or y"])
def test_where_may_overwrite_its_operands(name: str, over: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.backends.cpu.calls.FEW_CHOSEN", few)
    monkeypatch.setenv("NNKIT_NATIVE", "0")
    rng = np.random.default_rng(0)
    operands = dict(zip("cxy", rng.normal(size=(3, 20, 7)), strict=True))
    wanted = CHOICES[name](np, *operands.values())
    formula = Formula(CHOICES[name], "choice", ["c", "x", "y"])
    with numpy.recording() as tape:
        numpy.elementwise(formula, tuple(operands.values()), out=operands[over])
    tape.replay()
    np.testing.assert_array_equal(operands[over], wanted)
    calls: list[Any] = list(tape.calls)
    if few == 0:  # no copy of the whole at the end
        assert not [call for call in calls if call.func is np.copyto and call.args[0].dtype.kind == "f"]


def test_a_recorded_where_reads_its_operands_at_each_replay() -> None:
    """Also those of a single number, whose bits must not be combined while recording."""
    rng = np.random.default_rng(0)
    c, x, y = rng.normal(size=(40, 40)), np.asarray(1.0), np.asarray(2.0)
    with numpy.recording() as tape:
        found = numpy.elementwise(Formula(CHOICES["x or y"], "choice", ["c", "x", "y"]), (c, x, y))
    for one, two in ((3.0, 4.0), (-0.0, np.inf)):
        x[...], y[...] = one, two
        c[...] = rng.normal(size=c.shape)
        tape.replay()
        assert found.tobytes() == np.where(c > 0, x, y).tobytes()


def test_small_arrays_are_copied_by_masks() -> None:

    condition, values = np.zeros(FEW_CHOSEN - 1, bool), np.zeros(FEW_CHOSEN - 1)
    assert len(selection_calls(condition, values, None, values.copy(), Scratch())) == 2
