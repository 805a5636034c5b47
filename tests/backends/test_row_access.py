"""Rows read and written where an array says: one recording for all minibatches of an epoch, on every backend."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.conftest import Arrays

ORDER = [6, 0, 5, 1, 4, 2, 3]


def place(arrays: "Arrays", value: int = 0) -> Any:
    return arrays.backend.asarray(np.array(value, np.int64))


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
@pytest.mark.parametrize("shape", [(7, 3), (7,), (7, 2, 2), (7, 0)])
@pytest.mark.parametrize("in_order", [False, True])
def test_each_replay_reads_its_rows(arrays: "Arrays", shape: tuple[int, ...], dtype: str, in_order: bool) -> None:
    backend, rows = arrays.backend, np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    on_device = backend.asarray(rows)
    order = backend.asarray(np.array(ORDER, np.int64)) if in_order else None
    start, out = place(arrays), backend.zeros((2, *shape[1:]), "float64")
    with backend.recording() as tape:
        assert backend.take_at(on_device, start, out, order) is out
        backend.advance(start, 2)
    assert not arrays.numpy(out).any()
    for first in (0, 2, 4):
        tape.replay()
        expected = rows[np.array(ORDER)[first : first + 2]] if in_order else rows[first : first + 2]
        np.testing.assert_array_equal(arrays.numpy(out, "float64"), expected)
    assert int(start) == 6


@pytest.mark.parametrize("in_order", [False, True])
def test_a_single_row_can_be_read(arrays: "Arrays", in_order: bool) -> None:
    backend, rates = arrays.backend, arrays(np.arange(7.0) / 8)
    order = backend.asarray(np.array(ORDER, np.int64)) if in_order else None
    out = backend.asarray(0.0, "float64")
    backend.take_at(rates, place(arrays, 5), out, order)
    assert float(out) == (2 / 8 if in_order else 5 / 8)


def test_rows_can_be_written_to_strided_columns(arrays: "Arrays") -> None:
    backend, rows = arrays.backend, np.arange(14.0).reshape(7, 2)
    whole = backend.zeros((3, 4), "float64")
    backend.take_at(arrays(rows), place(arrays, 1), whole[:, ::2], backend.asarray(np.array(ORDER, np.int64)))
    np.testing.assert_array_equal(arrays.numpy(whole)[:, ::2], rows[ORDER[1:4]])
    assert not arrays.numpy(whole)[:, 1::2].any()


def test_each_replay_writes_its_rows(arrays: "Arrays") -> None:
    backend = arrays.backend
    values, out, start = backend.zeros((2, 3), "float32"), backend.zeros((6, 3), "float64"), place(arrays, 1)
    with backend.recording() as tape:
        assert backend.put_at(values, start, out) is out
        backend.advance(start, 3)
    expected = np.zeros((6, 3))
    for turn, first in ((1, 1), (2, 4)):
        backend.copy(backend.asarray(np.full((2, 3), float(turn)), "float32"), values)
        tape.replay()
        expected[first : first + 2] = turn
        np.testing.assert_array_equal(arrays.numpy(out), expected)


def test_a_tape_replayed_during_a_recording_is_appended(arrays: "Arrays") -> None:
    backend, start = arrays.backend, place(arrays)
    with backend.recording() as inner:
        backend.advance(start, 1)
    with backend.recording() as outer:
        inner.replay()
        backend.advance(start, 10)
        inner.replay()
    assert int(start) == 0
    outer.replay()
    assert int(start) == 12
    inner.replay()
    assert int(start) == 13
