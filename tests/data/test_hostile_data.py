"""Data files that say that they hold more than they do: refused before room is made for it."""

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnkit.data import read


def peak(call: Callable[[], object], message: str) -> int:
    """The most bytes that a call needs at a time, which must end in a ValueError."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def header(shape: tuple[int, ...], dtype: str = "<f8", version: int = 1) -> bytes:
    """The beginning of a .npy file, by the format's description."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    width = 2 if version == 1 else 4
    text += b" " * (-(8 + width + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text


HOSTILE = [
    ((10**12, 4), "<f8"),
    ((10**30, 4), "<f8"),
    ((3, 4), "<U100000000"),
    ((4, 10**9), "|u1"),
    ((10**13,), "<f8"),
]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(("shape", "dtype"), HOSTILE)
def test_no_memory_is_allocated_beyond_the_file_size(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, version: int
) -> None:
    content = header(shape, dtype, version) + bytes(150)
    (tmp_path / "a.npy").write_bytes(content)
    assert peak(lambda: read(tmp_path / "a.npy"), "truncated") < 1_000_000
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as file:
            file.writestr("X.npy", content)
        assert peak(lambda: read(tmp_path / "a.npz"), "truncated") < 1_000_000
    # A directory that lies, too: the size of the member is 4 bytes in two places.
    size, large = (n.to_bytes(4, "little") for n in (len(content), 2**32 - 2))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes().replace(size, large))
    assert peak(lambda: read(tmp_path / "b.npz"), "truncated|not a complete|damaged") < 4_000_000


def test_whole_files_of_each_version_are_read(tmp_path: Path) -> None:
    X = np.arange(12.0).reshape(3, 4)
    for version in (1, 2, 3):
        (tmp_path / "a.npy").write_bytes(header((3, 4), "<f8", version) + X.tobytes())
        assert np.array_equal(read(tmp_path / "a.npy").X, X)
        (tmp_path / "b.npy").write_bytes((header((3, 4), "<f8", version) + X.tobytes())[:-1])
        with pytest.raises(ValueError, match="truncated: 223 bytes, too few for an array of shape"):
            read(tmp_path / "b.npy")
    zeros = np.zeros((3000, 1000))  # compresses to a thousandth
    np.savez_compressed(tmp_path / "a.npz", X=zeros, y=zeros[:, 0])
    assert read(tmp_path / "a.npz").X.shape == (3000, 1000)
    np.save(tmp_path / "c.npy", np.asfortranarray(X))
    assert np.array_equal(read(tmp_path / "c.npy").X, X)
