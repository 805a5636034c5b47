"""nnkit.data.read: the arrays of .npz and .npy files against what was saved."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnkit.data import Table, open_npy, read

in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def assert_table(table: Table, X: Any, y: Any, features: list[str] | None, target: str | None) -> None:
    assert table.X.tolist() == X
    assert table.X.flags.writeable
    assert (None if table.y is None else table.y.tolist()) == y
    assert (table.features, table.target) == (features, target)


def dtypes(table: Table) -> tuple[str, str]:
    assert table.y is not None
    return table.X.dtype.name, table.y.dtype.name


# ---------------------------------------------------------------- .npz


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", "bool", ">f8"])
def test_npz_keeps_types(tmp_path: Path, dtype: str) -> None:
    X, y = np.eye(3, 2).astype(dtype), np.array(["a", "b", "a"])
    np.savez(tmp_path / "a.npz", images=X, labels=y)
    found = read(tmp_path / "a.npz", "labels")
    assert (found.X.dtype, found.features, found.target) == (X.dtype, None, "labels")
    assert np.array_equal(found.X, X)
    assert np.array_equal(found.y, y)  # type: ignore[arg-type]


def test_npz_finds_the_samples(tmp_path: Path) -> None:
    X, y, other = np.eye(2), np.zeros((2, 3)), np.ones(5)
    np.savez_compressed(tmp_path / "a.NPZ", X=X, y=y, other=other)
    (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
    found = read(tmp_path / "a.NPZ", "y")
    assert np.array_equal(found.X, X)
    assert np.array_equal(found.y, y)  # type: ignore[arg-type]
    assert np.array_equal(read(tmp_path / "a.NPZ").y, y)  # type: ignore[arg-type]
    assert np.array_equal(read(tmp_path / "a.NPZ", "y").X, X)
    np.savez(tmp_path / "b.npz", only=X)
    assert read(str(tmp_path / "b.npz")).y is None
    np.savez(tmp_path / "b.npz", only=X, y=y)
    found = read(str(tmp_path / "b.npz"))
    assert (found.X.tolist(), found.target) == (X.tolist(), "y")


@pytest.mark.parametrize(
    ("arrays", "target", "message"),
    [
        ({"a": 1, "b": 1}, "c", "a.npz: unknown array 'c'; known: a, b"),
        ({"images": 1, "labels": 1}, "label", "a.npz: unknown array 'label'; did you mean 'labels'?"),
        ({"a": 1, "b": 1}, None, "a.npz: which array contains the samples? It has 'a', 'b'; give the name of the lab"),
        ({"a": 1, "b": 1, "c": 1}, "a", "It has 'a', 'b', 'c'; call the samples X"),
        ({"X": 1}, "X", "which array contains the samples? It has 'X'"),
        ({}, None, "which array contains the samples? It has none"),
        ({"X": np.ones((5, 4, 3))}, None, "(5, 4, 3); expected a matrix (samples, features); reshape it to (5, 12)"),
        ({"X": np.ones(3)}, None, "array 'X': has shape (3,); expected a matrix (samples, features)$"),
        ({"X": np.ones((0, 3))}, None, "array 'X': has shape (0, 3); expected a matrix (samples, features)$"),
        ({"X": np.ones((0, 4, 3))}, None, "array 'X': has shape (0, 4, 3); expected a matrix (samples, features)$"),
        ({"X": np.array([["a"]])}, None, "array 'X': holds <U1; expected real numbers"),
        ({"X": np.array([[1j]])}, None, "array 'X': holds complex128; expected real numbers"),
        ({"X": np.array([[1.0], [np.nan]])}, None, "array 'X': holds nan at [1, 0]; expected finite numbers"),
        ({"X": np.array([[None]])}, None, "array 'X': damaged, or not numeric: Object arrays cannot be loaded"),
        ({"X": np.eye(2), "y": np.ones(3)}, "y", "array 'y': has shape (3,); expected (2, ...)"),
        ({"X": np.eye(2), "y": 1.0}, "y", "array 'y': has shape (); expected (2, ...)"),
        ({"X": np.eye(2), "y": [1, np.inf]}, "y", "array 'y': holds inf at [1]"),
        ({"X": np.eye(2), "y": np.array([1, 2], "M8[s]")}, "y", "'y': holds datetime64[s]; expected real numbers"),
    ],
)  # fmt: skip
def test_errors_of_npz_name_the_problem(tmp_path: Path, arrays: dict[str, Any], target: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read(tmp_path / "a.npz", target)
    assert str(caught.value).startswith(str(tmp_path))
    assert message in f"{caught.value}$"


def test_pickles_are_never_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "a.npy", np.array([[Trap()]]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", np.array([[Trap()]]), allow_pickle=True)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz", "raw.npz", "raw.npy"):
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def archive() -> bytes:
    content = io.BytesIO()
    np.savez(content, X=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    return content.getvalue()


def matrix() -> bytes:
    content = io.BytesIO()
    np.save(content, np.arange(6.0).reshape(3, 2))
    return content.getvalue()


@settings(in_one_folder, max_examples=300)
@given(st.sampled_from([("a.npz", archive()), ("a.npy", matrix())]), st.data())
def test_damaged_arrays_are_errors_that_name_the_file(
    tmp_path: Path, file: tuple[str, bytes], data: st.DataObject
) -> None:
    name, content = file
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytes([content[at] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(st.sampled_from([content[:at], content[:at] + flipped + content[at + 1 :]]))
    path = written(tmp_path, damaged, name)
    try:
        read(path, "y" if name == "a.npz" else 1)
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    except MemoryError:  # a shape that asks for more than there is
        assert name == "a.npy"


# ---------------------------------------------------------------- .npy


def test_npy_takes_a_column(tmp_path: Path) -> None:
    X = np.array([[0.5, 1, 7], [2.5, 3, 8]], np.float32)
    np.save(tmp_path / "a.npy", X)
    assert_table(read(tmp_path / "a.npy"), X.tolist(), None, None, None)
    for target in (-1, 2, "-1", "2", np.int64(2)):
        found = read(tmp_path / "a.npy", target)  # type: ignore[arg-type]
        assert_table(found, X[:, :2].tolist(), [7, 8], None, "2")
        assert dtypes(found) == ("float32", "int64")
    assert dtypes(read(tmp_path / "a.npy", 0)) == ("float32", "float32")  # halves
    np.save(tmp_path / "b.npy", np.asfortranarray(X.astype(np.uint8)))
    assert dtypes(read(tmp_path / "b.npy", 0)) == ("uint8", "uint8")
    large = np.array([[1, 2.0**63], [2, -(2.0**63)]])
    np.save(tmp_path / "c.npy", large)
    assert dtypes(read(tmp_path / "c.npy", 1)) == ("float64", "float64")  # too large for int64


def test_npy_takes_a_second_file(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.eye(2))
    np.save(tmp_path / "y.npy", np.array(["a", "b"]))
    for target in (tmp_path / "y.npy", str(tmp_path / "y.npy")):
        assert_table(read(tmp_path / "X.npy", target), np.eye(2).tolist(), ["a", "b"], None, str(tmp_path / "y.npy"))
    np.save(tmp_path / "y.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"y\.npy: has shape \(3,\); expected \(2, ...\), one target for each sample"):
        read(tmp_path / "X.npy", tmp_path / "y.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npy: no such file"):
        read(tmp_path / "X.npy", str(tmp_path / "none.npy"))


@pytest.mark.parametrize(
    ("array", "target", "message"),
    [
        (np.eye(3), 3, "a.npy: no column 3; the columns are 0 to 2, or -3 to -1"),
        (np.ones((3, 1)), 0, "a.npy: the target is the only column; none is left for X"),
        (np.ones(3), None, r"a.npy: has shape \(3,\); expected a matrix"),
        (np.array([[np.inf]]), None, r"a.npy: holds inf at \[0, 0\]"),
        (np.zeros(2, [("a", "f4")]), None, r"a.npy: holds \[\('a', '<f4'\)\]; expected real numbers"),
    ],
)
def test_errors_of_npy_name_the_problem(tmp_path: Path, array: Any, target: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.npy", target)


# ---------------------------------------------------------------- any file


def test_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(IsADirectoryError, match="is a directory; expected a file"):
        read(tmp_path)
    with pytest.raises(TypeError, match="path is 3; expected the path of a file"):
        read(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a\.txt: the suffix is '.txt'; expected .csv, .npz or .npy"):
        read(written(tmp_path, "1,2\n", "a.txt"))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("notes.txt", "no array")
    with pytest.raises(ValueError, match=r"array 'notes.txt': holds no array; expected real numbers"):
        read(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"b\.npz: not a complete .npz file"):
        read(written(tmp_path, "1,2\n", "b.npz"))


@pytest.mark.parametrize("target", [True, 1.5, [1], b"a"])
def test_targets_of_another_type(tmp_path: Path, target: Any) -> None:
    np.save(tmp_path / "a.npy", np.eye(2))
    np.savez(tmp_path / "a.npz", X=np.eye(2))
    written(tmp_path, "a,b\n1,2\n", "a.csv")
    for name in ("a.npy", "a.npz", "a.csv"):
        with pytest.raises(TypeError, match=r"target is .*; expected "):
            read(tmp_path / name, target)
    with pytest.raises(TypeError, match=r"target is .*; expected the name of the labels"):
        read(tmp_path / "a.csv", tmp_path)


def test_rows_of_a_file_are_those_of_the_array(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "rows.npy", values)
    rows = open_npy(tmp_path / "rows.npy")
    for index in (0, 3, -1, np.int32(2), np.uint8(1)):
        assert rows[index].tolist() == values[index].tolist()
        assert rows[index].shape == (3,)
    assert [row.tolist() for row in rows] == values.tolist()
    wrong: Any
    for wrong in ((3, 1), (0,), (slice(0, 2), 1), (..., 1), 4, -5, True, None, 1.0):
        with pytest.raises(IndexError, match=r"rows\.npy: index is "):
            rows[wrong]


def test_a_rewritten_file_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    path, values = tmp_path / "rows.npy", np.arange(12.0).reshape(4, 3)
    np.save(path, values)
    rows = open_npy(path)
    np.save(path, values + 1)  # of the same shape and dtype, as a memory-mapped file may be changed
    assert rows[:].tolist() == (values + 1).tolist()
    for other in (np.ones((4, 4)), np.ones((4, 3), "float32"), np.ones((40, 3))):
        np.save(path, other)
        with pytest.raises(
            ValueError, match=r"rows\.npy was rewritten, with shape \(\d+, \d\) and dtype float\d\d; exp"
        ):
            rows[:1]
    np.save(path, values)
    assert rows[:].tolist() == values.tolist()
