"""Row access for NumPy arrays: each access is one call, bound to its arrays."""

from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.recording import perform
from nnkit.backends.row_access import RowAccess


class NumpyRows(RowAccess):
    """`RowAccess` without unnecessary copies."""

    def take(self, rows: np.ndarray, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.empty((len(indices), *rows.shape[1:]), rows.dtype) if out is None else out
        # mode="raise" would buffer `out`.
        perform(partial(rows.take, indices, 0, out, "clip"), (rows, indices), (out,), "take")
        return out

    def take_at(
        self, rows: np.ndarray, start: np.ndarray, out: np.ndarray, order: np.ndarray | None = None
    ) -> np.ndarray:
        if order is None:
            perform(partial(_copy_from, rows, start, out, out.ndim < rows.ndim), (rows, start), (out,), "take")
        elif out.ndim < rows.ndim:
            super().take_at(rows, start, out, order)
        else:
            direct = rows.dtype == out.dtype and out.flags.c_contiguous
            gathered = out if direct else np.empty(out.shape, rows.dtype)
            gather = partial(_gather, rows.take, order, start, gathered, len(out))
            perform(gather, (rows, order, start), (gathered,), "take")
            if not direct:
                perform(partial(np.copyto, out, gathered, casting="unsafe"), (gathered,), (out,), "copy")
        return out

    def put_at(self, values: np.ndarray, start: np.ndarray, out: np.ndarray) -> np.ndarray:
        perform(partial(_copy_into, values, start, out, len(values)), (values, start), (out,), "put")
        return out

    def advance(self, start: np.ndarray, count: int) -> None:
        perform(partial(np.add, start, np.asarray(count, start.dtype), start), (start,), (start,), "advance")


def _copy_from(rows: np.ndarray, start: np.ndarray, out: np.ndarray, single: bool) -> None:
    first = start.item()
    np.copyto(out, rows[first] if single else rows[first : first + len(out)], casting="unsafe")


def _gather(take: Any, order: np.ndarray, start: np.ndarray, out: np.ndarray, n: int) -> None:
    first = start.item()
    take(order[first : first + n], 0, out, "clip")


def _copy_into(values: np.ndarray, start: np.ndarray, out: np.ndarray, n: int) -> None:
    first = start.item()
    np.copyto(out[first : first + n], values, casting="unsafe")
