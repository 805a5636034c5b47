"""Networks in safetensors files: parameters as tensors, everything else as text. No pickle.

Format "nnkit-network-2": tensors `layers.0.W` (d_out, d_in), `layers.0.b` (d_out,), ... of the dense layers in the
network's dtype, `preprocessing.mean` and so on in float64, and in the checkpoint of a training `training.*`; as
metadata "network", a description in JSON, and "training". Format 1 had neither dropout nor numbers of costs,
preprocessing, classes, training.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from nnkit.kernels.costs import Cost, get_cost
from nnkit.kernels.names import UnknownNameError
from nnkit.layers import Dense, Dropout, Layer, dense_layers
from nnkit.model import Model
from nnkit.preprocessing import Preprocessing
from nnkit.tensor_file import read_tensors, write_tensors
from nnkit.version import __version__

FORMATS = ("nnkit-network-1", "nnkit-network-2")
_NAMES = (str, int, float, bool)  # what class names may be in a file

Tensors = dict[str, np.ndarray]


class Training(NamedTuple):
    """What a checkpoint holds beside the network: arrays by name, and what JSON can describe."""

    tensors: Tensors
    about: dict[str, Any]


def save(model: Model, path: str | PathLike[str], training: Training | None = None) -> None:
    """Write a network to a `.safetensors` file, with its preprocessing, classes and seed, and a training's state.

    A file that is there stays whole until the new one is: it is written beside it and then renamed. Raises ImportError
    if safetensors is not installed, OSError if the file cannot be written, and TypeError for class names that are
    neither text nor numbers.
    """
    to_numpy, tensors = model.backend.to_numpy, {}
    for i, (W, b) in enumerate(zip(model.parameters.W, model.parameters.b, strict=True)):
        tensors[f"layers.{i}.W"], tensors[f"layers.{i}.b"] = to_numpy(W), to_numpy(b)
    if model.preprocessing is not None:
        tensors |= {f"preprocessing.{name}": array for name, array in model.preprocessing.arrays.items()}
    metadata = {"format": FORMATS[-1], "nnkit": __version__, "network": json.dumps(_description(model))}
    if training is not None:
        tensors |= {f"training.{name}": array for name, array in training.tensors.items()}
        metadata["training"] = json.dumps(training.about)
    write_tensors(path, tensors, metadata)


def check_describable(model: Model, training: Training) -> None:
    """TypeError, before there is anything to lose, for what `save` could not write."""
    json.dumps([_description(model), training.about])


def _description(model: Model) -> dict[str, Any]:
    classes = None if model.classes is None else model.classes.tolist()
    for name in classes or ():
        if not isinstance(name, _NAMES):
            raise TypeError(f"classes holds {name!r}; only text and numbers can be written to a file")
    return {
        "layers": [layer_description(layer) for layer in model.layers],
        "cost": model.cost.describe(),
        "seed": model.seed,
        "epochs_trained": model.epochs_trained,
        "classes": classes,
        "features": model.features,
        "vector_targets": model.vector_targets,
        "preprocessing": None if model.preprocessing is None else model.preprocessing.kind,
    }


def layer_description(layer: Layer) -> dict[str, Any]:
    """A layer as JSON has it: what computes, not what its parameters started from."""
    if isinstance(layer, Dense):
        return {"inputs": layer.inputs, "units": layer.units, "activation": layer.activation}
    if isinstance(layer, Dropout):
        return {"dropout": layer.rate}
    raise TypeError(f"layers hold {layer!r}, which no file can describe")


class Saved(NamedTuple):
    """What a file says of a network, checked; and of its training, as it is."""

    layers: list[Layer]
    cost: Cost
    seed: int
    dtype: str
    epochs_trained: int
    values: list[tuple[np.ndarray, np.ndarray]]
    preprocessing: Preprocessing | None
    classes: list[Any] | None
    features: list[str] | None
    vector_targets: bool
    training: Training | None


def read(path: str | PathLike[str]) -> Saved:
    """What `save` wrote. Raises FileNotFoundError, and ValueError for any other file, a damaged or a later one."""
    tensors, metadata = read_tensors(path, FORMATS)
    with damage(path):
        about = json.loads(metadata["network"])
        cost = about["cost"]
        layers = [_read_layer(d) for d in about["layers"]]
        values = _read_values(tensors, dense_layers(layers))
        return Saved(
            layers,
            get_cost(cost) if isinstance(cost, str) else get_cost(**cost),
            about["seed"],
            values[0][0].dtype.name,
            _checked_epochs(about["epochs_trained"]),
            values,
            _read_preprocessing(about.get("preprocessing"), tensors),
            about.get("classes"),
            about.get("features"),
            _checked_flag("vector_targets", about.get("vector_targets", False)),
            _read_training(metadata, tensors),
        )


_TO_KNOW = {
    "activation": "if it is your own, register it before loading, with nnkit.register_activation",
    "cost": "if it is your own, register it before loading, with nnkit.register_cost",
    "optimizer": "if it is your own, go on with fit(..., optimizer=..., checkpoint=..., resume=True)",
}


@contextmanager
def damage(path: str | PathLike[str]) -> Iterator[None]:
    """Turn what a damaged description leads to into a ValueError that names the file; so for names not known here."""
    try:
        yield
    except UnknownNameError as error:
        todo = _TO_KNOW.get(error.kind)
        if todo is None or not isinstance(error.name, str):
            raise ValueError(f"{path}: the description of the network is damaged: {error!r}") from error
        raise ValueError(f"{path} holds the {error.kind} {error.name!r}, which is not known here; {todo}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path}: the description of the network is damaged: {error!r}") from error


def _read_layer(d: Mapping[str, Any]) -> Layer:
    return Dropout(d["dropout"]) if "dropout" in d else Dense(d["inputs"], d["units"], d["activation"])


def _read_values(tensors: Tensors, layers: list[Dense]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(W, b) of each dense layer; ValueError unless they have their shapes and one dtype."""
    count = sum(name.startswith("layers.") for name in tensors)
    if not layers or count != 2 * len(layers):
        raise ValueError(f"{len(layers)} layers are described, but there are {count} tensors")
    values = [(tensors[f"layers.{i}.W"], tensors[f"layers.{i}.b"]) for i in range(len(layers))]
    for i, (layer, (W, b)) in enumerate(zip(layers, values, strict=True)):
        if W.shape != (layer.units, layer.inputs) or b.shape != (layer.units,):
            raise ValueError(f"layer {i} has tensors {W.shape} and {b.shape}, which do not fit {layer}")
        if not (W.dtype == b.dtype == values[0][0].dtype):
            raise ValueError(f"layer {i} has tensors of {W.dtype} and {b.dtype}, the first of {values[0][0].dtype}")
    return values


def _read_preprocessing(kind: str | None, tensors: Tensors) -> Preprocessing | None:
    if kind is None:
        return None
    from nnkit.data.preprocessing import preprocessing_from  # with all of nnkit.data, which not every program needs

    return preprocessing_from(kind, _below("preprocessing.", tensors))


def _read_training(metadata: Mapping[str, str], tensors: Tensors) -> Training | None:
    if "training" not in metadata:
        return None
    about = json.loads(metadata["training"])
    if not isinstance(about, dict):
        raise ValueError(f"training is {about!r}; expected a JSON object")
    return Training(_below("training.", tensors), about)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _checked_flag(name: str, flag: object) -> bool:
    if not isinstance(flag, bool):
        raise ValueError(f"{name} is {flag!r}; expected true or false")
    return flag


def _checked_epochs(epochs: object) -> int:
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs_trained is {epochs!r}; expected a whole number of at least 0")
    return epochs
