"""Arrays and text in safetensors files: written atomically or into open files, read with the format checked."""

import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import IO, Any

import numpy as np

from nnkit.files import existing_file, replacing
from nnkit.state import Arrays

FORMATS = ("nnkit-network-1", "nnkit-network-2")
ENSEMBLE = "nnkit-ensemble-1"  # members.0.layers.0.W, ...; metadata: the network, and "members": seeds, epochs, order

_LONGEST = 100_000_000  # bytes of a header that safetensors reads
_MISSING = "saving and loading models needs safetensors: python -m pip install safetensors"

# A path, the content of a file, or a file open for reading.
Source = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


def called(source: Source) -> str:
    """What messages call a file."""
    if isinstance(source, str | PathLike):
        return fspath(source)
    return "the bytes" if isinstance(source, bytes) else str(getattr(source, "name", "the file"))


def check_safetensors() -> None:
    """Raise ImportError with the installation command if safetensors is missing."""
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(_MISSING) from None


def write_tensors(
    path: str | PathLike[str] | IO[bytes], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays and text to an open file, or to a path; an existing file is replaced atomically.

    Raises ImportError if safetensors is not installed and OSError if the file cannot be written.
    """
    check_safetensors()
    from safetensors.numpy import save

    # safetensors writes the memory unchanged: it must be in C order.
    content = save({name: np.asarray(a, order="C") for name, a in tensors.items()}, metadata=dict(metadata))
    content = _in_order(content)
    if isinstance(path, str | PathLike) or not hasattr(path, "write"):
        with replacing(path) as file:  # type: ignore[arg-type]  # which refuses other types
            file.write(content)
    else:
        _check_end(path, len(content))
        _write_whole(path, content)


def _write_whole(file: IO[bytes], content: bytes) -> None:
    """Write all bytes: an unbuffered file takes at most 2 GiB at once, less on a disk that fills up."""
    written = 0
    while written < len(content):
        taken = file.write(content[written:] if written else content)
        if taken == 0:
            raise OSError(f"{called(file)} took only {written} of {len(content)} bytes")
        written = len(content) if taken is None else written + taken  # None from files that do not count


def _check_end(file: IO[bytes], size: int) -> None:
    """Raise ValueError if an open file goes on after this many bytes: with the rest, it could not be read again."""
    try:
        place = file.tell()
        end = file.seek(0, 2)
        file.seek(place)
    except (AttributeError, OSError, ValueError):  # a pipe, or a compressed file, which has nothing to go on with
        return
    if end > place + size:
        raise ValueError(
            f"the open file has {end - place} bytes after its position, more than the {size} of the network; "
            "empty it first, with truncate(), or open it with 'wb'"
        )


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a file, so that equal networks have equal files: safetensors has no fixed order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # to align the arrays after it
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_samples(path: str | PathLike[str]) -> str | None:
    """The description of the training samples in a model file that has been read before, or None."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get("samples")


def read_tensors(source: Source, formats: tuple[str, ...] = FORMATS) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the metadata of a file in a known format.

    Raises FileNotFoundError, ImportError, and ValueError for a damaged or foreign file or a newer format.
    """
    check_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        if isinstance(source, bytearray | memoryview):
            source = bytes(source)
        if isinstance(source, bytes):
            return _from_content(source, called(source), formats)
        given: Any = source
        if hasattr(source, "read"):
            return _from_content(_next_content(given), called(source), formats)
        with safe_open(existing_file(given), framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(
                metadata, called(source), formats
            )  # first: other programs' tensors may have dtypes that NumPy lacks
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  not a dict
    except SafetensorError as error:
        more = "not fully covered" in str(error)  # by the arrays
        hint = "; if something follows the network, load it from the open file" if more else ""
        raise ValueError(f"{called(source)}: not a complete safetensors file: {error}{hint}") from error


def _next_content(file: IO[bytes]) -> bytes:
    """The bytes of the network at the position of an open file; as in pickle, others may follow."""
    start = _up_to(file, 8)
    header = _up_to(file, min(int.from_bytes(start, "little"), _LONGEST))
    try:
        tensors = [about for name, about in json.loads(header).items() if name != "__metadata__"]
        size = max((int(about["data_offsets"][1]) for about in tensors), default=0)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError):
        size = 0  # damaged, which will be found
    return start + header + _up_to(file, size)


def _up_to(file: IO[bytes], size: int) -> bytes:
    """This many bytes, or all that there are: an unbuffered file may give fewer at once, and a size may be damaged."""
    pieces: list[bytes] = []
    while size > 0:
        piece = file.read(min(size, 1 << 24))
        if not isinstance(piece, bytes):
            expected = "expected bytes, of a file opened in binary mode"
            raise TypeError(f"{called(file)} holds {type(piece).__name__}; {expected}")
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _from_content(content: bytes, name: str, formats: tuple[str, ...]) -> tuple[Arrays, dict[str, Any]]:
    """`read_tensors` of a file's content."""
    from safetensors import deserialize
    from safetensors.numpy import load

    check: Any = deserialize
    check(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata: dict[str, Any] = header.get("__metadata__") or {}
    _check_format(metadata, name, formats)
    return load(content), metadata


def _check_format(metadata: Mapping[str, Any], name: str, formats: tuple[str, ...]) -> None:
    found = metadata.get("format")
    if found in formats:
        return
    if found == ENSEMBLE:
        raise ValueError(f"{name} contains an ensemble; load it with nnkit.Ensemble.load, or nnkit predict --ensemble")
    hint = "; load a network with nnkit.load" if found in FORMATS else ""
    known = " and ".join(map(repr, formats))
    raise ValueError(f"{name}: format is {found!r}; this nnkit reads {known}{hint}")
