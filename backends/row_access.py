"""Rows of an array, read and written where an array on the device says: what a minibatch is cut out with."""

from collections.abc import Callable
from typing import Any

from nnkit.backends.recording import active_tape

Array = Any  # an array of whichever namespace


class RowAccess:
    """What `Backend` does with rows, over any array-API namespace.

    One recording serves all minibatches of an epoch, as where they start is read anew by each replay.
    """

    xp: Any
    empty: Callable[..., Array]
    _into: Callable[..., Any]
    _write: Callable[[Array, Array], None]
    _perform: Callable[[str, Callable[[], None], tuple[Array, ...], tuple[Array, ...]], None]

    def take(self, rows: Array, indices: Array, out: Array | None = None) -> Array:
        """The rows of a matrix (or the entries of a vector) at `indices`, which the caller has checked."""
        if out is None and active_tape() is not None:  # no trial run: what `indices` holds by now may be anything
            out = self.empty((*indices.shape, *rows.shape[1:]), rows.dtype)
        return self._into("take", lambda: self.xp.take(rows, indices, axis=0), (rows, indices), out)

    def take_at(self, rows: Array, start: Array, out: Array, order: Array | None = None) -> Array:
        """Write into the n rows of `out` those of `rows` at `order[start : start + n]`; without an order, at these.

        `start` is a 0-d array of int64. `out` may be of another type; if it has an axis less than `rows`, it is one
        row. The caller has checked all indices.
        """
        single = out.ndim < rows.ndim

        def take() -> None:
            first = int(start)
            if order is None:
                found = rows[first, ...] if single else rows[first : first + out.shape[0], ...]
            elif single:
                found = rows[int(order[first]), ...]
            else:
                found = self.xp.take(rows, order[first : first + out.shape[0]], axis=0)
            self._write(found, out)

        self._perform("take", take, (rows, start) if order is None else (rows, start, order), (out,))
        return out

    def put_at(self, values: Array, start: Array, out: Array) -> Array:
        """Write n rows of values into rows `start` to `start + n` of `out`, which has them; `start` as in `take_at`."""

        def put() -> None:
            first = int(start)
            self._write(values, out[first : first + values.shape[0], ...])

        self._perform("put", put, (values, start), (out,))
        return out

    def advance(self, start: Array, count: int) -> None:
        """start ← start + count, for a 0-d array of int64."""
        self._perform("advance", lambda: self._write(start + count, start), (start,), (start,))
