"""Blocks of rows: parts of elementwise work that can run one after another or in parallel."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Block = tuple[list[np.ndarray], list[np.ndarray]]  # operands and results


def can_be_cut(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> bool:
    """Whether no block overwrites entries that another one still reads.

    An operand that overlaps a result must be identical to it, entry by entry.
    """
    return all(
        same_entries(operand, out) or not np.may_share_memory(operand, out) for operand in operands for out in outs
    )


def cut(operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], bounds: Sequence[int]) -> list[Block]:
    """The blocks between these row indices of the results; operands that are broadcast over rows are in each."""
    out = outs[0]
    return [
        ([_rows(a, out, start, stop) for a in operands], [o[start:stop] for o in outs])
        for start, stop in pairwise(bounds)
    ]


def same_entries(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same entries in memory, in the same order."""
    return a is b or (a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data)


def _rows(operand: np.ndarray, out: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The rows of an operand for rows start to stop of the result; the whole operand if it is broadcast."""
    return operand[start:stop] if operand.ndim == out.ndim and operand.shape[0] == out.shape[0] else operand
