"""Networks in safetensors files: parameters as tensors, everything else as text. No pickle."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from nnkit.files import replacing
from nnkit.layers import Dense
from nnkit.model import Model
from nnkit.version import __version__

FORMAT = "nnkit-network-1"
_SAFETENSORS = "models are kept in safetensors files: python -m pip install safetensors"


def save(model: Model, path: str | PathLike[str]) -> None:
    """Write a network to a `.safetensors` file.

    Tensors `layers.0.W` (d_out, d_in), `layers.0.b` (d_out,), ... in the network's dtype; the architecture, the seed
    and nnkit's version as metadata. A file that is there stays whole until the new one is: it is written beside it and
    then renamed. Raises ImportError if safetensors is not installed and OSError if the file cannot be written.
    """
    try:
        from safetensors.numpy import save as to_bytes
    except ImportError:
        raise ImportError(_SAFETENSORS) from None
    tensors = {}
    for i, (W, b) in enumerate(zip(model.parameters.W, model.parameters.b, strict=True)):
        # safetensors writes the bytes as they lie: they must be in C order.
        tensors[f"layers.{i}.W"] = np.ascontiguousarray(model.backend.to_numpy(W))
        tensors[f"layers.{i}.b"] = np.ascontiguousarray(model.backend.to_numpy(b))
    description = {
        "layers": [{"inputs": d.inputs, "units": d.units, "activation": d.activation} for d in model.layers],
        "cost": model.cost.name,
        "seed": model.seed,
        "epochs_trained": model.epochs_trained,
    }
    metadata = {"format": FORMAT, "nnkit": __version__, "network": json.dumps(description)}
    with replacing(path) as file:
        file.write(to_bytes(tensors, metadata=metadata))


class Saved(NamedTuple):
    """What a file says of a network, checked."""

    layers: list[Dense]
    cost: str
    seed: int
    dtype: str
    epochs_trained: int
    values: list[tuple[np.ndarray, np.ndarray]]


def read(path: str | PathLike[str]) -> Saved:
    """What `save` wrote. Raises FileNotFoundError, and ValueError for any other file, a damaged or a later one."""
    tensors, metadata = _read(path)
    with damage(path):
        about = json.loads(metadata["network"])
        layers = [Dense(d["inputs"], d["units"], d["activation"]) for d in about["layers"]]
        if not layers or len(tensors) != 2 * len(layers):
            raise ValueError(f"{len(layers)} layers are described, but there are {len(tensors)} tensors")
        values = [(tensors[f"layers.{i}.W"], tensors[f"layers.{i}.b"]) for i in range(len(layers))]
        _check_tensors(layers, values)
        epochs = _checked_epochs(about["epochs_trained"])
        return Saved(layers, about["cost"], about["seed"], values[0][0].dtype.name, epochs, values)


@contextmanager
def damage(path: str | PathLike[str]) -> Iterator[None]:
    """Turn what a damaged description leads to into a ValueError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the description of the network is damaged: {error!r}") from error


def _read(path: str | PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and the metadata of a file, whose format is checked."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError(_SAFETENSORS) from None
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            # First: the tensors of another program's file may have types that NumPy has not.
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path}: format is {metadata.get('format')!r}; this nnkit reads {FORMAT!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error
    return tensors, metadata


def _checked_epochs(epochs: object) -> int:
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs_trained is {epochs!r}; expected a whole number of at least 0")
    return epochs


def _check_tensors(layers: list[Dense], values: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """ValueError unless the layers' (W, b) have their shapes and one dtype."""
    for i, (layer, (W, b)) in enumerate(zip(layers, values, strict=True)):
        if W.shape != (layer.units, layer.inputs) or b.shape != (layer.units,):
            raise ValueError(f"layer {i} has tensors {W.shape} and {b.shape}, which do not fit {layer}")
        if not (W.dtype == b.dtype == values[0][0].dtype):
            raise ValueError(f"layer {i} has tensors of {W.dtype} and {b.dtype}, the first of {values[0][0].dtype}")
