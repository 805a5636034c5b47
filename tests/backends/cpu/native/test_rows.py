"""Formulas, sums and maxima of rows of few columns are one loop, with the bits of several."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import get_backend
from nnkit.kernels.cost import output_pair

pytest.importorskip("numba", reason="compiles")
from nnkit.backends.cpu.native import rows
from nnkit.backends.cpu.native.runs import NativeRun

BACKEND = get_backend("numpy")


@nnkit.formula
def added(xp: Any, z: Any, b: Any) -> Any:
    return z + b


def run(do: Callable[[], Any], columns: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[np.ndarray], int]:
    """What a recording writes, and the number of its native calls, if rows of up to `columns` columns are one loop."""
    monkeypatch.setattr(rows, "COLUMNS", min(columns, 3))
    monkeypatch.setattr(rows, "MANY_COLUMNS", columns)
    with BACKEND.recording() as tape:
        do()
    tape.replay()
    assert all(isinstance(call, NativeRun) for call in tape.calls)
    written = [array.copy() for node in tape.nodes for array in node.written or ()]
    return written, sum(len(call.calls) for call in tape.calls if isinstance(call, NativeRun))


@pytest.mark.parametrize(
    ("dtype", "shape", "scale"),
    [("float32", (33, 3), "number"), ("float64", (8, 2), "column"), ("float32", (17, 2), "full"),
     ("float32", (150, 10), "number"), ("float64", (64, 4), "full"), ("float32", (16, 64), "column"),
     ("float64", (129, 17), "column"), ("float32", (32, 7), "full"), ("float64", (200, 8), "number")],
)  # fmt: skip
def test_softmax_in_one_loop(dtype: str, shape: tuple[int, int], scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    z, y, weights = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    bias, pair = rng.standard_normal(shape[1]).astype(dtype), output_pair(nnkit.get_cost("softmax_cross_entropy"))
    z[2, 0], z[3], z[4, 1], z[5] = np.nan, np.inf, -np.inf, [1e30, -1e30][: shape[1]] + [0.0] * (shape[1] - 2)
    share = {"number": np.asarray(0.1, dtype), "column": weights[:, :1].copy(), "full": weights}[scale]

    for what in (pair.delta, pair.terms, lambda backend, logits, *_: pair.outputs(backend, logits)):

        def do(what: Any = what) -> None:
            what(BACKEND, BACKEND.elementwise(added, (z, bias)), y, share)

        several, many = run(do, 0, monkeypatch)
        one, few = run(do, 64, monkeypatch)
        assert few == 1 < many
        for ours, theirs in zip(one, several, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    p, exact = one[-1], z.astype(float) + bias
    with np.errstate(all="ignore"):
        exact = np.exp(exact - exact.max(axis=1, keepdims=True))
        exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, exact, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-38)


def test_arrays_that_overlap_in_part_are_not_one_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = np.random.default_rng(1).standard_normal(42)
    first, second = memory[:40].reshape(20, 2), memory[2:].reshape(20, 2)

    def do() -> None:
        largest = BACKEND.max(first, axis=1, keepdims=True)
        BACKEND.elementwise(nnkit.kernels.arithmetic.product, (second, largest), out=first)

    before = memory.copy()
    expected = before[2:].reshape(20, 2) * before[:40].reshape(20, 2).max(axis=1, keepdims=True)
    with BACKEND.recording() as tape:
        do()
    tape.replay()
    np.testing.assert_array_equal(first, expected)
