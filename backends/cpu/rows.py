"""Rows of NumPy arrays, at a counter in memory, without unnecessary copies."""

from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.base import Backend
from nnkit.backends.recording import perform


class NumpyRows(Backend):
    """The row operations, without unnecessary copies."""

    def take(self, rows: np.ndarray, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty((len(indices), *rows.shape[1:]), rows.dtype) if out is None else out
        # mode="raise" would buffer `out`.
        perform(partial(rows.take, indices, 0, out, "clip"), (rows, indices), (out,), "take")
        return out

    def take_at(
        self, rows: np.ndarray, start: np.ndarray, out: np.ndarray, order: np.ndarray | None = None
    ) -> np.ndarray:
        if order is None:
            perform(partial(copy_from, rows, start, out, out.ndim < rows.ndim), (rows, start), (out,), "take")
        elif out.ndim < rows.ndim:
            super().take_at(rows, start, out, order)
        else:
            direct = rows.dtype == out.dtype and out.flags.c_contiguous
            gathered = out if direct else np.empty(out.shape, rows.dtype)
            call = partial(gather, rows.take, order, start, gathered, len(out))
            perform(call, (rows, order, start), (gathered,), "take")
            if not direct:
                perform(partial(np.copyto, out, gathered, casting="unsafe"), (gathered,), (out,), "copy")
        return out

    def put_at(self, values: np.ndarray, start: np.ndarray, out: np.ndarray) -> np.ndarray:
        perform(partial(copy_into, values, start, out, len(values)), (values, start), (out,), "put")
        return out

    def advance(self, start: np.ndarray, count: int) -> None:
        perform(partial(np.add, start, np.asarray(count, start.dtype), start), (start,), (start,), "advance")


# Calls that are recognized by these functions (`nnkit.backends.cpu.native.nodes`).


def copy_from(rows: np.ndarray, start: np.ndarray, out: np.ndarray, single: bool) -> None:
    """Copy rows from `start` on, or the `single` one there."""
    first = start.item()
    np.copyto(out, rows[first] if single else rows[first : first + len(out)], casting="unsafe")


def gather(take: Any, order: np.ndarray, start: np.ndarray, out: np.ndarray, n: int) -> None:
    """Copy the n rows that `order` has from `start` on; `take` is the method of the rows."""
    first = start.item()
    take(order[first : first + n], 0, out, "clip")


def copy_into(values: np.ndarray, start: np.ndarray, out: np.ndarray, n: int) -> None:
    """Copy the n rows of `values` to rows from `start` on."""
    first = start.item()
    np.copyto(out[first : first + n], values, casting="unsafe")
