import gzip
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnkit.data import MNIST, digits, mnist, one_hot, split
from tests.data.test_hostile_data import peak
from tests.support import ROOT

# The package's attribute of this name is the function.
mnist_module = importlib.import_module("nnkit.data.mnist")

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.tobytes()


# ---------------------------------------------------------------- digits


def test_digits_are_the_uci_ones() -> None:
    X, y = digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.float32
    assert y.shape == (1797,)
    assert y.dtype == np.int64
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    counts = X * 16
    assert np.array_equal(counts, counts.astype(np.uint8))
    assert counts.min() == 0
    assert counts.max() == 16
    # The first image, a zero: white in the middle, ink around it.
    assert counts[0].reshape(8, 8)[3].tolist() == [0, 4, 12, 0, 0, 8, 8, 0]


def test_digits_equal_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    theirs = datasets.load_digits()
    X, y = digits()
    assert np.array_equal(X * 16, theirs.data)
    assert np.array_equal(y, theirs.target)


def test_digits_are_new_arrays_at_each_call() -> None:
    X, y = digits()
    X[:] = -1
    y[:] = -1
    assert digits()[0].min() == 0
    assert digits()[1].min() == 0


# ---------------------------------------------------------------- one_hot


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.sampled_from(["float32", "float64", "int8"]))
def test_one_hot_rows_have_a_one_at_the_label(labels: list[int], dtype: str) -> None:
    rows = one_hot(labels, classes=10, dtype=dtype)
    assert rows.shape == (len(labels), 10)
    assert rows.dtype == np.dtype(dtype)
    assert rows.argmax(axis=1).tolist() == labels
    assert np.array_equal(rows.sum(axis=1), np.ones(len(labels)))
    assert np.array_equal(np.unique(rows), [0, 1])


def test_one_hot_counts_the_classes() -> None:
    assert one_hot(np.array([1, 4], dtype=np.uint8)).shape == (2, 5)
    assert one_hot([True, False]).tolist() == [[0, 1], [1, 0]]
    assert one_hot([], classes=3).shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, 3, 7], 3, r"holds 3 at \[2\]; expected whole numbers from 0 to 2"),
        ([0, -1, -2], 3, r"holds -1 at \[1\]; expected whole numbers from 0 to 2"),
        ([0, 1, -5], None, r"holds -5 at \[2\]; expected whole numbers of at least 0"),
        ([-1, -1], None, r"holds -1 at \[0\]; expected whole numbers of at least 0"),
        ([[0, 1]], 3, r"labels has shape \(1, 2\); expected \(n,\)"),
        (2, 3, r"labels has shape \(\); expected \(n,\)"),
        ([], None, "classes is None and labels is empty"),
        ([0], 0, "classes is 0; expected a whole number of at least 1"),
    ],
)
def test_one_hot_names_the_bad_value(labels: Any, classes: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_hot(labels, classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0.0, 1.0]}, "labels has dtype float64; expected integers"),
        ({"labels": ["a"]}, "labels has dtype object; expected integers"),
        ({"labels": [[0], [1, 2]]}, r"labels is a list; expected integers \(n,\)"),
        ({"labels": [0], "classes": 2.0}, "classes is 2.0; expected a whole number of at least 1, or None"),
        ({"labels": [0], "classes": True}, "classes is True; expected a whole number"),
        ({"labels": [0], "dtype": "complex64"}, "dtype is 'complex64'; expected a real NumPy dtype"),
        ({"labels": [0], "dtype": "float33"}, "dtype is 'float33'; expected a real NumPy dtype"),
    ],
)
def test_one_hot_names_the_bad_type(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        one_hot(**arguments)


# ---------------------------------------------------------------- split

fractions = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**32)


def rows(n: int) -> NDArray[np.int64]:
    """Samples that tell their own number: row i is (i, -i)."""
    return np.stack([np.arange(n), -np.arange(n)], axis=1)


@given(st.lists(st.integers(-3, 4), min_size=20, max_size=200), fractions, seeds)
def test_split_keeps_each_sample_once_and_each_class_its_share(labels: list[int], fraction: float, seed: int) -> None:
    n, y = len(labels), np.array(labels)
    X_train, y_train, X_test, y_test = split(rows(n), labels, fraction, seed)
    assert sorted([*X_train[:, 0], *X_test[:, 0]]) == list(range(n))
    assert np.array_equal(y[X_train[:, 0]], y_train)
    assert np.array_equal(y[X_test[:, 0]], y_test)
    assert np.array_equal(X_train[:, 1], -X_train[:, 0])
    assert len(X_test) == round(n * fraction)
    for label in set(labels):
        share = labels.count(label) * len(X_test) / n
        assert abs(int((y_test == label).sum()) - share) < 1


def test_split_keeps_the_share_of_classes_with_names() -> None:
    names = np.array(["cat", "dog", "horse"])
    labels = np.arange(100) % 10 // 4
    _, y_train, X_test, y_test = split(rows(100), names[labels], 0.3)
    assert y_test.dtype == names.dtype
    assert [int((y_test == name).sum()) for name in names] == [12, 12, 6]
    assert [int((y_train == name).sum()) for name in names] == [28, 28, 14]
    assert np.array_equal(X_test, split(rows(100), labels, 0.3)[2])  # as by number
    for same in (names[labels].tolist(), names[labels].astype(object)):
        found = split(rows(100), same, 0.3)
        assert found[3].dtype == names.dtype
        assert np.array_equal(found[3], y_test)


@pytest.mark.parametrize("sizes", [[11, 6, 3], [2] * 10, [1] * 20, [1] * 10 + [2] * 5], ids=str)
def test_split_gives_each_sample_an_equal_chance(sizes: list[int]) -> None:
    """Also where the classes are too small for their share: the targets of a regression may be integers."""
    labels, seeds = np.repeat(np.arange(len(sizes)), sizes), 2000
    counts = np.zeros(20)
    for seed in range(seeds):
        counts[split(rows(20), labels, 0.3, seed)[2][:, 0]] += 1
    # A binomial of 2 000 draws of 0.3 has a deviation of 0.0102: five of them.
    assert np.allclose(counts / seeds, 0.3, rtol=0, atol=0.051)


def test_split_does_not_prefer_the_smallest_of_distinct_integers() -> None:
    y = np.random.default_rng(1).permutation(1000)
    for seed in range(20):
        y_test = split(rows(1000), y, 0.25, seed)[3]
        assert abs(y_test.mean() - 499.5) < 5 * 288.7 * np.sqrt(0.75 / 250)  # of samples without replacement


@given(st.integers(20, 100), fractions, seeds, st.sampled_from([(), (1,), (3,)]))
def test_split_only_shuffles_floats_and_matrices(n: int, fraction: float, seed: int, shape: tuple[int, ...]) -> None:
    y = np.broadcast_to(np.arange(n, dtype=np.float32).reshape(n, *([1] * len(shape))), (n, *shape))
    X_train, y_train, X_test, y_test = split(rows(n), y, fraction, seed)
    assert sorted([*X_train[:, 0], *X_test[:, 0]]) == list(range(n))
    assert np.array_equal(y[X_train[:, 0]], y_train)
    assert np.array_equal(y[X_test[:, 0]], y_test)
    assert len(y_test) == round(n * fraction)
    assert y_train.dtype == np.float32


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_split_is_reproducible_by_its_seed(dtype: str) -> None:
    X, y = rows(100), np.asarray(np.arange(100) % 4, dtype=dtype)
    first, again, other = split(X, y, seed=7), split(X, y, seed=7), split(X, y, seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])
    # Shuffled, neither sorted by class nor in the order given.
    assert np.any(np.diff(first[0][:, 0]) < 0)
    assert np.any(np.diff(first[1]) < 0)
    assert np.any(np.diff(first[3]) < 0)


def test_split_keeps_types_and_trailing_axes_and_copies() -> None:
    X, y = np.zeros((8, 2, 3), dtype=np.uint8), np.arange(8, dtype=np.int16) % 2
    X_train, y_train, X_test, y_test = split(X, y)
    assert (X_train.shape, X_test.shape) == ((6, 2, 3), (2, 2, 3))
    assert X_train.dtype == X_test.dtype == np.dtype("uint8")
    assert y_train.dtype == y_test.dtype == np.dtype("int16")
    assert not np.shares_memory(X, X_train)
    assert not np.shares_memory(X, X_test)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.zeros(4)}, ValueError, r"X has shape \(4,\); expected at least two axes"),
        ({"X": [["a"]] * 4}, TypeError, "X has dtype <U1; expected real numbers"),
        ({"X": [[1], [2, 3]]}, TypeError, "X is not an array on the host; expected real numbers"),
        ({"y": [0, 1]}, ValueError, "X has 4 samples and y 2; expected equal lengths"),
        ({"y": 3}, ValueError, "y is 3; expected at least one axis"),
        ({"y": [b"a"] * 4}, TypeError, r"y has dtype \|S1; expected real numbers or text"),
        ({"y": [1, "a", 1, "a"]}, TypeError, "y has dtype object; expected real numbers or text"),
        ({"y": [None] * 4}, TypeError, "y has dtype object; expected real numbers or text"),
        ({"test_fraction": 0.0}, ValueError, "test_fraction is 0.0; expected a finite number above 0 and below 1"),
        ({"test_fraction": 1}, ValueError, "test_fraction is 1; expected a finite number above 0 and below 1"),
        ({"test_fraction": float("nan")}, ValueError, "test_fraction is nan; expected a finite number above 0 and"),
        ({"test_fraction": "0.5"}, TypeError, "test_fraction is '0.5'; expected a finite number"),
        ({"test_fraction": 0.01}, ValueError, "leaves 4 of 4 samples for training and 0 for testing"),
        ({"test_fraction": 0.99}, ValueError, "leaves 0 of 4 samples for training and 4 for testing"),
        ({"seed": -1}, ValueError, "seed is -1; expected a whole number of at least 0"),
        ({"seed": None}, ValueError, "seed is None; expected a whole number"),
        ({"seed": 1.5}, ValueError, "seed is 1.5; expected a whole number"),
    ],
)
def test_split_names_the_bad_argument(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"X": np.zeros((4, 2)), "y": [0, 0, 1, 1], **change}
    with pytest.raises(error, match=message):
        split(**arguments)


# ---------------------------------------------------------------- MNIST, from generated files


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[np.uint8]]:
    """Four small random files in tmp_path in place of the originals: the arrays in them, by file name."""
    generator = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(6, 2, 3), (6,), (4, 2, 3), (4,)]
    arrays = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    originals = [
        mnist_module._Original(name, array.shape, hashlib.sha256(idx(array)).hexdigest())
        for name, array in zip(NAMES, arrays, strict=True)
    ]
    monkeypatch.setattr(mnist_module, "_ORIGINALS", tuple(originals))
    monkeypatch.delenv("NNKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, array in zip(NAMES, arrays, strict=True):
        (tmp_path / name).write_bytes(idx(array))
    return dict(zip(NAMES, arrays, strict=True))


def assert_is(data: MNIST, small: dict[str, NDArray[np.uint8]]) -> None:
    assert np.array_equal(data.X_train, small[NAMES[0]].reshape(6, 6))
    assert np.array_equal(data.y_train, small[NAMES[1]])
    assert np.array_equal(data.X_test, small[NAMES[2]].reshape(4, 6))
    assert np.array_equal(data.y_test, small[NAMES[3]])
    assert [array.dtype for array in data] == [np.uint8, np.int64, np.uint8, np.int64]
    assert all(array.flags.writeable for array in data)


def test_mnist_reads_plain_and_gzipped_files(tmp_path: Path, small: dict[str, NDArray[np.uint8]]) -> None:
    assert_is(mnist(tmp_path), small)
    for name in NAMES[:2]:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    # Unpacked by a downloader that kept the name.
    (tmp_path / NAMES[2]).rename(tmp_path / f"{NAMES[2]}.gz")
    assert_is(mnist(str(tmp_path)), small)


@pytest.mark.parametrize("folder", ["", "mnist"])
def test_mnist_looks_where_the_environment_says(
    tmp_path: Path, small: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    if folder:
        (tmp_path / folder).mkdir()
        for name in NAMES:
            (tmp_path / name).rename(tmp_path / folder / name)
    monkeypatch.setenv("NNKIT_DATA", str(tmp_path))
    assert_is(mnist(), small)
    with pytest.raises(FileNotFoundError):
        mnist(tmp_path / "elsewhere")


@pytest.mark.usefixtures("small")
def test_mnist_says_what_is_missing_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        mnist()
    assert repr(str(tmp_path / "cache" / "nnkit" / "mnist")) in str(caught.value)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist(tmp_path)
    for part in (NAMES[3], f"{NAMES[3]}.gz", repr(str(tmp_path)), "NNKIT_DATA", "mnist(download=True)"):
        assert part in str(caught.value)
    monkeypatch.setenv("NNKIT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        mnist()
    assert repr(str(tmp_path / "mnist")) in str(caught.value)
    with pytest.raises(TypeError, match="directory is 3; expected a path or None"):
        mnist(3)  # type: ignore[arg-type]


def damaged(content: bytes) -> dict[str, tuple[bytes, str]]:
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    return {
        "empty": (b"", "starts with nothing"),
        "a web page": (b"<html>", "not an IDX file of bytes: it starts with 3c 68 74 6d"),
        "floats": (content[:2] + b"\x0d" + content[3:], "not an IDX file of bytes"),
        "no axes": (b"\0\0\x08\0" + content[4:], "number of axes"),
        "too many axes": (b"\0\0\x08\x64" + b"\0\0\0\1" * 100 + b"\7", "number of axes"),
        "half a header": (content[:9], "truncated: has 9 bytes; expected 16 for the header alone"),
        "cut short": (content[:-1], r"has 51 bytes; expected 52 for shape \(6, 2, 3\) in its header"),
        "too long": (content + b"\0", r"has 53 bytes; expected 52 for shape \(6, 2, 3\)"),
        "no elements": (b"\0\0\x08\x03" + b"\0" * 4 + b"\xff" * 8, "expected at least one element"),
        "another shape": (
            idx(np.zeros((2, 2), dtype=np.uint8)),
            r"shape \(2, 2\); expected \(6, 2, 3\)",
        ),
        "a changed pixel": (flipped, "not the original train-images-idx3-ubyte.*SHA-256"),
        "a cut gzip": (gzip.compress(content)[:-12], "corrupt gzip"),
        "a broken gzip": (b"\x1f\x8b" + b"\x07" * 20, "corrupt gzip"),
        "a gzip with broken data": (gzip.compress(content)[:10] + b"\xff" * 20, "corrupt gzip"),
        "a gzip with a wrong checksum": (gzip.compress(content)[:-8] + bytes(8), "corrupt gzip"),
    }


@pytest.mark.parametrize("case", damaged(idx(np.zeros((6, 2, 3), dtype=np.uint8))))
def test_mnist_names_a_damaged_file(tmp_path: Path, small: dict[str, NDArray[np.uint8]], case: str) -> None:
    content, message = damaged(idx(small[NAMES[0]]))[case]
    (tmp_path / NAMES[0]).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        mnist(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / NAMES[0]))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2**32))
def test_idx_round_trip(shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    read = mnist_module._parse_idx(idx(array), "example")
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda end: b"\0\0\x08\x02" + end))
def test_errors_of_idx_files_name_the_file(content: bytes) -> None:
    try:
        array = mnist_module._parse_idx(content, "a source")
    except ValueError as error:
        assert str(error).startswith("a source: ")  # noqa: PT017
    else:
        assert idx(array) == content


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, small: dict[str, NDArray[np.uint8]]) -> None:
    content = idx(small[NAMES[0]])
    for start in (content, b""):  # all zeros are no IDX file either
        (tmp_path / NAMES[0]).write_bytes(gzip.compress(start + bytes(200_000_000), 1))
        assert peak(lambda: mnist(tmp_path), "decompresses to more than|bytes; expected") < 8_000_000
    (tmp_path / NAMES[0]).write_bytes(content + bytes(20_000_000))  # not gzipped
    assert peak(lambda: mnist(tmp_path), "decompresses to more than|bytes; expected") < 1_000_000
    (tmp_path / NAMES[0]).write_bytes(gzip.compress(content))
    assert_is(mnist(tmp_path), small)


# ---------------------------------------------------------------- MNIST itself


@pytest.fixture
def mnist_folder() -> Path:
    data = os.environ.get("NNKIT_DATA")
    parents = [Path(data)] if data else [ROOT / ".." / "shared" / "data"]
    for folder in (folder for parent in parents for folder in (parent, parent / "mnist")):
        if any((folder / f"{NAMES[0]}{suffix}").is_file() for suffix in ("", ".gz")):
            return folder
    pytest.skip("the MNIST files are neither in NNKIT_DATA nor in ../shared/data/mnist")


@pytest.mark.mnist
def test_mnist_itself(mnist_folder: Path) -> None:
    X_train, y_train, X_test, y_test = mnist(mnist_folder)
    assert (X_train.shape, y_train.shape, X_test.shape, y_test.shape) == (
        (60000, 784),
        (60000,),
        (10000, 784),
        (10000,),
    )
    assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    # The mean and the standard deviation that people normalize by.
    assert X_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert X_train.std() / 255 == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.mnist
def test_mnist_refuses_swapped_files(mnist_folder: Path, tmp_path: Path) -> None:
    for name in NAMES:
        source = name.replace("train", "t10k") if "images" in name else name
        found = next(mnist_folder / f"{source}{s}" for s in ("", ".gz") if (mnist_folder / f"{source}{s}").is_file())
        (tmp_path / name).write_bytes(found.read_bytes())
    with pytest.raises(ValueError, match=r"shape \(10000, 28, 28\); expected \(60000, 28, 28\)"):
        mnist(tmp_path)
