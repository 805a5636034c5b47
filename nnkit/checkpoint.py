"""Networks in safetensors files: parameters as tensors, everything else as text, without pickle.

Format "nnkit-network-2": tensors `layers.0.W` (d_out, d_in), `layers.0.b` (d_out,), ... in the network's dtype,
`preprocessing.mean`, `targets.mean` and so on in float64, and `training.*` in training checkpoints. Metadata:
"network", a description in JSON, "training", and from `nnkit train` "samples", the training samples
(`nnkit.commands.models`), which networks do not need. Format 1 had no dropout, cost parameters, preprocessing,
classes or training.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import IO, Any, NamedTuple

import numpy as np

from nnkit import state
from nnkit.checks import UnknownNameError, flag, whole
from nnkit.classes import listed
from nnkit.kernels.costs import get_cost
from nnkit.layers import Layer, layer_description, layer_of, trainable_layers
from nnkit.model import Model
from nnkit.preprocessing import Preprocessing, is_custom
from nnkit.state import Arrays
from nnkit.tensor_files import ENSEMBLE, FORMATS, Source, called, read_tensors, write_tensors
from nnkit.version import __version__

_OF_DATA = ("preprocessing.", "targets.")  # before the names of their arrays in files
_OWN = ("seed", "epochs_trained")  # lists of each member in files of ensembles, beside whatever else differs
_NAMES = (str, int, float, bool)  # types of class names in files


def save(
    model: Model,
    path: str | PathLike[str] | IO[bytes],
    training: dict[str, Any] | None = None,
    best: Mapping[str, np.ndarray] | None = None,
    samples: str | None = None,
) -> None:
    """Write a network to a `.safetensors` file, with its preprocessing, classes and seed.

    With a training description, it is a checkpoint that also contains the training state and the vectors `best` of the
    best epoch. `samples` describes the training samples. An existing file is replaced atomically. Raises ImportError if
    safetensors is not installed, OSError if the file cannot be written, and TypeError for class names that are neither
    text nor numbers.
    """
    tensors = state.parameters(model) | _of_data(model)
    metadata = {"format": FORMATS[-1], "nnkit": __version__, "network": json.dumps(description(model))}
    if training is not None:
        kept = {**state.training_state(model), **(best or {})}
        tensors |= {f"training.{name}": array for name, array in kept.items()}
        metadata["training"] = json.dumps(training)
    if samples is not None:
        metadata["samples"] = samples
    write_tensors(path, tensors, metadata)


def _of_data(model: Model) -> Arrays:
    """The arrays that were fitted to the data, which all members of an ensemble share."""
    fitted = zip(_OF_DATA, (model.preprocessing, model.target_scaling), strict=True)
    return {f"{prefix}{name}": array for prefix, one in fitted if one is not None for name, array in one.arrays.items()}


def save_members(
    members: Sequence[Model], order: str, path: str | PathLike[str] | IO[bytes], samples: str | None = None
) -> None:
    """Write networks that differ in their parameters, seeds and epochs to one file, like `save`."""
    first, tensors = members[0], Arrays()
    for k, member in enumerate(members):
        tensors |= {f"members.{k}.{name}": array for name, array in state.parameters(member).items()}
    tensors |= _of_data(first)
    each = [description(member) for member in members]
    keys = {name: None for about in each for name in about}  # some are optional
    own: dict[str, Any] = {name: [about.get(name) for about in each] for name in keys}
    own = {name: values for name, values in own.items() if name in _OWN or any(v != values[0] for v in values)}
    metadata = {"format": ENSEMBLE, "nnkit": __version__, "network": json.dumps(each[0])}
    metadata |= {"members": json.dumps(own | {"order": order})} | ({} if samples is None else {"samples": samples})
    write_tensors(path, tensors, metadata)


def read_members(source: Source) -> tuple[list["Saved"], str]:
    """The networks of a file written by `save_members`, and their order; raises like `read`."""
    tensors, metadata = read_tensors(source, (ENSEMBLE,))
    name, found = called(source), list[Saved]()
    with damage(name):
        own, about = json.loads(metadata["members"]), json.loads(metadata["network"])
        if own["order"] not in ("shared", "own") or not own["seed"]:
            raise ValueError(f"members are {own!r}")
        shared = {name: array for name, array in tensors.items() if name.startswith(_OF_DATA)}
        order = own.pop("order")
        for k in range(len(own["seed"])):
            network = json.dumps(about | {name: values[k] for name, values in own.items()})
            found.append(parsed(name, _below(f"members.{k}.", tensors) | shared, {"network": network}))
    return found, order


def check_describable(model: Model, training: dict[str, Any]) -> None:
    """Raise TypeError, before training, for a description that `save` could not write."""
    json.dumps([description(model), training])


def description(model: Model) -> dict[str, Any]:
    """A network without its arrays, for JSON.

    Raises TypeError for class names other than text, numbers, dates and durations, and for a custom preprocessing.
    """
    classes: Any = None if model.classes is None else listed(model.classes)
    coded = None
    if model.classes is not None and model.classes.dtype.kind in "mM":  # dates and durations
        coded, classes = model.classes.dtype.str, model.classes.astype(np.int64).tolist()
    for name in classes or ():
        if not isinstance(name, _NAMES):
            raise TypeError(f"classes holds {name!r}; only text, numbers, dates and durations can be written to a file")
    if model.preprocessing is not None and is_custom(model.preprocessing):
        kind, hint = type(model.preprocessing).__name__, "preprocess the samples first, or pickle the network"
        raise TypeError(f"preprocessing is a {kind}, which a file cannot contain; {hint}")
    fitted = getattr(model.preprocessing, "features", None)
    categories = getattr(model.preprocessing, "categories", None)
    optional = {"preprocessing_features": fitted, "categories": categories, "target_names": model.target_names}
    optional["classes_dtype"] = coded
    return {
        "layers": [layer_description(layer) for layer in model.layers],
        "cost": model.cost.describe(),
        "seed": model.seed,
        "epochs_trained": model.epochs_trained,
        "classes": classes,
        "features": model.features,
        "vector_targets": model.vector_targets,
        "preprocessing": None if model.preprocessing is None else model.preprocessing.kind,
    } | {name: value for name, value in optional.items() if value is not None}


class Saved(NamedTuple):
    """The contents of a file, in the form of `nnkit.state`: a validated network, and its training, if any, as read."""

    arguments: dict[str, Any]
    arrays: Arrays
    epochs_trained: int
    vector_targets: bool
    target_names: list[str] | None
    training: dict[str, Any] | None

    def tell(self, model: Model) -> None:
        """Set what is no argument of a network."""
        model.epochs_trained, model.vector_targets = self.epochs_trained, self.vector_targets
        model.target_names = self.target_names


def read(source: Source) -> Saved:
    """Read a file written by `save`. Raises FileNotFoundError, and ValueError for foreign, damaged or newer files."""
    return parsed(called(source), *read_tensors(source))


def parsed(name: str, tensors: Arrays, metadata: Mapping[str, Any]) -> Saved:
    """Validate the arrays and the description of a network; ValueError that names the file if they are damaged."""
    with damage(name):
        about = json.loads(metadata["network"])
        cost = about["cost"]
        layers = [layer_of(d) for d in about["layers"]]
        arrays = {name: array for name, array in tensors.items() if name.startswith("layers.")}
        unknown = [name for name in tensors if not name.startswith(("layers.", "training.", *_OF_DATA))]
        if unknown:
            raise ValueError(f"the tensor {unknown[0]!r} is unknown")
        dtype = _check_parameters(arrays, trainable_layers(layers))
        training = _read_training(metadata)
        arguments = {
            "layers": layers,
            "cost": get_cost(cost) if isinstance(cost, str) else get_cost(**cost),
            "seed": about["seed"],
            "dtype": dtype,
            "preprocessing": _read_preprocessing(about, tensors),
            "target_scaling": _read_target_scaling(tensors),
            "classes": _read_classes(about.get("classes"), about.get("classes_dtype")),
            "features": about.get("features"),
        }
        return Saved(
            arguments,
            arrays if training is None else arrays | _below("training.", tensors),
            whole("", "epochs_trained", about["epochs_trained"], 0),
            flag("", "vector_targets", about.get("vector_targets", False)),
            about.get("target_names"),
            training,
        )


def _read_classes(classes: Any, dtype: str | None) -> Any:
    """The names of classes, as `description` has written them."""
    return classes if dtype is None else np.array(classes, np.int64).astype(dtype)


_TO_KNOW = {
    "activation": "register a custom one with nnkit.register_activation before loading",
    "cost": "register a custom one with nnkit.register_cost before loading",
    "layer": "register it with nnkit.register_layer before loading",
    "optimizer": "resume with a custom one by fit(..., optimizer=..., checkpoint=..., resume=True)",
}


@contextmanager
def damage(path: str | PathLike[str]) -> Iterator[None]:
    """Turn errors from a damaged description or unknown names into a ValueError that names the file."""
    try:
        yield
    except UnknownNameError as error:
        todo = _TO_KNOW.get(error.kind)
        if todo is None or not isinstance(error.name, str):
            raise ValueError(f"{path}: the description of the network is damaged: {error!r}") from error
        raise ValueError(f"{path} contains the unknown {error.kind} {error.name!r}; {todo}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path}: the description of the network is damaged: {error!r}") from error


def _check_parameters(arrays: Arrays, layers: list[Layer]) -> str:
    """The common dtype of all arrays; raises ValueError or KeyError unless they match the layers and their shapes."""
    expected = {f"layers.{i}.{name}": s for i, layer in enumerate(layers) for name, s in layer.shapes.items()}
    if not layers or len(arrays) != len(expected):
        raise ValueError(f"there are {len(arrays)} tensors for {len(layers)} layers")
    first = arrays[next(iter(expected))].dtype
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}; expected {shape}")
        if arrays[name].dtype != first:
            raise ValueError(f"{name} has dtype {arrays[name].dtype}; expected that of the first tensor, {first}")
    return first.name


def _read_preprocessing(about: Mapping[str, Any], tensors: Arrays) -> Preprocessing | None:
    arrays = _below("preprocessing.", tensors)
    if about.get("preprocessing") is None:
        if arrays:  # a damaged name, without which predictions would be others
            raise ValueError("it has the arrays of a preprocessing, but not its kind")
        return None
    from nnkit.data.preprocessing import preprocessing_from  # imports all of nnkit.data, often not needed

    return preprocessing_from(
        about["preprocessing"], arrays, about.get("preprocessing_features"), about.get("categories")
    )


def _read_target_scaling(tensors: Arrays) -> Preprocessing | None:
    arrays = _below("targets.", tensors)
    if not arrays:
        return None
    from nnkit.data.preprocessing import preprocessing_from

    return preprocessing_from("normalization", arrays)


def _read_training(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    if "training" not in metadata:
        return None
    about = json.loads(metadata["training"])
    if not isinstance(about, dict):
        raise ValueError(f"training is {about!r}; expected a JSON object")
    return about


def _below(prefix: str, tensors: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
