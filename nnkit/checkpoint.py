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
from os import PathLike, fspath
from typing import IO, Any, NamedTuple

import numpy as np

from nnkit import state
from nnkit.checks import UnknownNameError, flag, whole
from nnkit.classes import listed
from nnkit.files import existing_file, replacing
from nnkit.kernels.costs import get_cost
from nnkit.layers import Layer, layer_description, layer_of, trainable_layers
from nnkit.model import Model
from nnkit.preprocessing import Preprocessing, is_custom
from nnkit.state import Arrays
from nnkit.version import __version__

FORMATS = ("nnkit-network-1", "nnkit-network-2")
ENSEMBLE = "nnkit-ensemble-1"  # members.0.layers.0.W, ...; metadata: the network, and "members": seeds, epochs, order
_OF_DATA = ("preprocessing.", "targets.")  # before the names of their arrays in files
_OWN = ("seed", "epochs_trained")  # lists of each member in files of ensembles, beside whatever else differs
_NAMES = (str, int, float, bool)  # types of class names in files

_MISSING = "saving and loading models needs safetensors: python -m pip install safetensors"


# A path, the content of a file, or a file open for reading.
Source = str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


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
    _write_tensors(path, tensors, metadata)


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
    _write_tensors(path, tensors, metadata)


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


def called(source: Source) -> str:
    """What messages call a file."""
    if isinstance(source, str | PathLike):
        return fspath(source)
    return "the bytes" if isinstance(source, bytes) else str(getattr(source, "name", "the file"))


def parsed(name: str, tensors: Arrays, metadata: Mapping[str, Any]) -> Saved:
    """Validate the arrays and the description of a network; ValueError that names the file if they are damaged."""
    with damage(name):
        about = json.loads(metadata["network"])
        cost = about["cost"]
        layers = [layer_of(d) for d in about["layers"]]
        arrays = {name: array for name, array in tensors.items() if name.startswith("layers.")}
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
    if about.get("preprocessing") is None:
        return None
    from nnkit.data.preprocessing import preprocessing_from  # imports all of nnkit.data, often not needed

    arrays = _below("preprocessing.", tensors)
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


# --- safetensors files, written atomically -------------------------------------------------------------------------


def check_safetensors() -> None:
    """Raise ImportError with the installation command if safetensors is missing."""
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(_MISSING) from None


def _write_tensors(
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
        path.write(content)


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
        if isinstance(source, bytes) or hasattr(source, "read"):
            return _from_content(source if isinstance(source, bytes) else source.read(), called(source), formats)
        with safe_open(existing_file(source), framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(
                metadata, called(source), formats
            )  # first: other programs' tensors may have dtypes that NumPy lacks
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{called(source)}: not a complete safetensors file: {error}") from error


def _from_content(content: bytes, name: str, formats: tuple[str, ...]) -> tuple[Arrays, dict[str, Any]]:
    """`read_tensors` of a file's content."""
    from safetensors import deserialize
    from safetensors.numpy import load

    if not isinstance(content, bytes):
        raise TypeError(f"{name} holds {type(content).__name__}; expected bytes, of a file opened in binary mode")
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
