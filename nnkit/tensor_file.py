"""safetensors files: named arrays and text, without pickle, whole or not at all."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from nnkit.files import existing_file, replacing

_MISSING = "models are kept in safetensors files: python -m pip install safetensors"


def check_safetensors() -> None:
    """ImportError, with how to install it, if safetensors is missing."""
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(_MISSING) from None


def write_tensors(path: str | PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays and text; a file that is there stays whole until the new one is.

    Raises ImportError if safetensors is not installed and OSError if the file cannot be written.
    """
    check_safetensors()
    from safetensors.numpy import save

    # safetensors writes the bytes as they lie: they must be in C order.
    content = save({name: np.asarray(a, order="C") for name, a in tensors.items()}, metadata=dict(metadata))
    content = _in_order(content)
    with replacing(path) as file:
        file.write(content)


def _in_order(content: bytes) -> bytes:
    """A file with its text in alphabetical order, so that equal networks are equal files: safetensors has none."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays after it are aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_tensors(path: str | PathLike[str], formats: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the text of a file whose metadata has one of these under "format".

    Raises FileNotFoundError, ImportError, and ValueError for a file that is damaged, foreign or of a later format.
    """
    check_safetensors()
    from safetensors import SafetensorError, safe_open

    existing_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            # First: the tensors of another program's file may have types that NumPy has not.
            if metadata.get("format") not in formats:
                known = " and ".join(map(repr, formats))
                raise ValueError(f"{path}: format is {metadata.get('format')!r}; this nnkit reads {known}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    return tensors, metadata
