"""Rows of a .npy file against NumPy's own indexing of the whole array."""

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnkit.data import open_npy, rows

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "samples.npy"
    np.save(file, X)
    return file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(-50, 49), max_size=60) | st.slices(50))
def test_any_rows(path: Path, key: Any) -> None:
    opened = open_npy(path)
    key = key if isinstance(key, slice) else np.array(key, int)
    found = opened[key]
    assert (found.dtype, found.shape, found.tobytes()) == (X.dtype, X[key].shape, X[key].tobytes())
    assert found.flags.writeable


def test_rows_have_shape_and_dtype(path: Path) -> None:
    opened = open_npy(str(path))
    assert (opened.shape, opened.dtype.name, len(opened)) == ((50, 3), "float32", 50)
    assert np.array_equal(np.asarray(opened), X)
    assert np.array_equal(opened[X[:, 0] > 0], X[X[:, 0] > 0])
    assert "shape=(50, 3), dtype=float32" in repr(opened)


@pytest.mark.parametrize("dtype", ["uint8", "bool", ">f8", "<i4"])
def test_other_types(dtype: str, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 2, (9, 4)).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(open_npy(tmp_path / "a.npy")[[8, 1]], array[[8, 1]])


def test_adjacent_rows_are_read_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, reads = open_npy(path), []
    fill = rows.Rows._fill

    def counted(self: rows.Rows, file: Any, memory: memoryview) -> None:
        reads.append(memory.nbytes)
        fill(self, file, memory)

    monkeypatch.setattr(rows.Rows, "_fill", counted)
    assert opened[[3, 4, 5, 9, 10, 2]].shape == (6, 3)
    assert reads == [36, 24, 12]


def test_row_numbers_of_any_integer_type(path: Path) -> None:
    opened = open_npy(path)
    for dtype in ("int8", "uint8", "uint64", ">i2"):
        assert np.array_equal(opened[np.array([49, 0, 0], dtype)], X[[49, 0, 0]])
    assert opened[[]].shape == opened[np.array([])].shape == opened[5:5].shape == (0, 3)
    assert np.array_equal(opened[::-7], X[::-7])
    assert np.array_equal(opened[-3:1000], X[-3:])


def test_a_few_rows_take_little_memory(tmp_path: Path) -> None:
    """Of a file with holes, which takes no place on the disk: row numbers of all its rows would take 800 MB."""
    with open(tmp_path / "a.npy", "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (100_000_000, 1)}
        np.lib.format.write_array_header_1_0(file, header)
        file.seek(file.tell() + 99_999_999)
        file.write(b"\x07")
    opened = open_npy(tmp_path / "a.npy")
    tracemalloc.start()
    try:
        found = opened[[99_999_999, 5]], opened[-2:]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [rows[:, 0].tolist() for rows in found] == [[7, 0], [0, 7]]
    assert peak < 1_000_000


def test_the_working_directory_may_change(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    opened = open_npy(path.name)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(opened[[3]], X[[3]])


def test_as_an_array(path: Path) -> None:
    opened = open_npy(path)
    assert np.asarray(opened, np.float64).dtype == np.float64
    assert np.array_equal(np.array(opened, copy=True), X)
    with pytest.raises(ValueError, match="copy is False; expected True or None"):
        np.asarray(opened, copy=False)


def test_two_threads(path: Path) -> None:
    opened, wrong = open_npy(path), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            key = rng.integers(0, 50, 7)
            if not np.array_equal(opened[key], X[key]):
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "key",
    [
        50,
        -51,
        [50],
        [0, -51],
        [0.5],
        "a",
        ([0], [1]),
        (3, 1),
        True,
        None,
        ...,
        [[0]],
        np.array([2**63], np.uint64),
        [True],
    ],
)
def test_rows_out_of_range(path: Path, key: Any) -> None:
    with pytest.raises(IndexError):
        open_npy(path)[key]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(5), r"holds an array of shape \(5,\); expected a matrix"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (
            np.asfortranarray(np.ones((3, 2))),
            r"Fortran order; expected C order: np.save\(path, np.ascontiguousarray\(X\)\)",
        ),
        (np.array([[None, 1]], object), "holds Python objects; expected real numbers"),
        (np.array([["a"]]), "holds <U1; expected real numbers"),
        (np.ones((2, 2), complex), "holds complex128; expected real numbers"),
        (np.zeros((2, 2), [("a", "f4")]), "expected real numbers"),
        (np.ones((0, 3)), r"holds an array of shape \(0, 3\); expected a matrix"),
        (np.ones((3, 0)), r"holds an array of shape \(3, 0\)"),
    ],
)
def test_arrays_that_have_no_rows(array: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{message}"):
        open_npy(tmp_path / "a.npy")


def test_damaged_files(path: Path, tmp_path: Path) -> None:
    content, file = path.read_bytes(), tmp_path / "a.npy"
    for length in (0, 5, 20, 100, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.npy: (not a \.npy file|truncated)"):
            open_npy(file)
    file.write_bytes(content)
    opened = open_npy(file)
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="truncated while it was read"):
        opened[:]
    with pytest.raises(FileNotFoundError):
        open_npy(tmp_path / "none.npy")
    with pytest.raises(IsADirectoryError, match="is a directory; expected a file"):
        open_npy(tmp_path)
    with pytest.raises(TypeError, match="path is 3; expected the path of a file"):
        open_npy(3)  # type: ignore[arg-type]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.integers(0, 127), st.integers(1, 255))
def test_any_damaged_header_is_an_error_that_names_the_file(path: Path, tmp_path: Path, at: int, change: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= change
    (tmp_path / "a.npy").write_bytes(content)
    try:
        opened = open_npy(tmp_path / "a.npy")
        opened[:1]
    except ValueError as error:
        assert str(error).startswith(str(tmp_path / "a.npy"))  # noqa: PT017
    else:  # the change makes no difference, or another header that fits
        assert opened.shape[0] * opened.shape[1] * opened.dtype.itemsize <= len(content) - 64


def test_column_order_is_supported(tmp_path: Path) -> None:
    """A matrix of one column or row lies the same in either order."""
    for shape in ((4, 1), (1, 4)):
        array = np.arange(4.0).reshape(shape)
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": True, "shape": shape})
            file.write(array.tobytes())
        assert np.array_equal(open_npy(tmp_path / "a.npy")[:], array)
