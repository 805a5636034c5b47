"""Weights by PyTorch's names: a dict of arrays like that of `torch.nn.Module.state_dict`, in both directions.

nnkit's W, (d_out, d_in), is the `weight` of a `torch.nn.Linear` unchanged. The default names are those of a
`torch.nn.Sequential` of Linear layers with a module for each activation and dropout between them: "0.weight",
"0.bias", "2.weight", ...
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import check_finite
from nnkit.inputs import on_host
from nnkit.layers import Dense, Dropout
from nnkit.model import Model
from nnkit.tables import as_array

_FIELDS = ("weight", "bias")


def state_dict(network: Model, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """The weights and biases of a network as NumPy arrays in C order, by PyTorch's names.

    Args:
        names: the name of each Linear layer in the PyTorch model, such as ["fc1", "fc2"]; None means those of a
            `torch.nn.Sequential`.

    With preprocessing, the PyTorch model needs preprocessed samples, and its outputs are logits if it has no output
    activation; with `target_scaling`, they are (h − μ)/σ. Raises TypeError for custom layers, and ValueError for
    another number of names.

    >>> net = nnkit.Network([4, 3, 2], "relu", seed=0)
    >>> {name: array.shape for name, array in net.state_dict().items()}
    {'0.weight': (3, 4), '0.bias': (3,), '2.weight': (2, 3), '2.bias': (2,)}
    """
    arrays = {}
    for name, own in zip(_names(network, names), network.parameters.layers, strict=True):
        for field, key in zip(_FIELDS, "Wb", strict=True):
            # A copy: safetensors and others write memory unchanged, and the first W may be in column-major order.
            arrays[f"{name}.{field}"] = np.array(network.backend.to_numpy(own[key]), order="C")
    return arrays


def load_state_dict(network: Any, state: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Set the weights and biases from a dict by PyTorch's names, of tensors or arrays of any library.

    Args:
        state: such as `model.state_dict()` or `safetensors.numpy.load_file(path)`; a layer may have no bias, which
            becomes 0. Its dtype may be another one.
        names: the name of each Linear layer, the first first. None means those of a `torch.nn.Sequential`, or others
            whose numbers give their order, such as "fc1", "fc2", ..., "fc10", or whose shapes do. The order of `state`
            does not: that of a file is often the alphabetical one.

    The network keeps its activations, cost, preprocessing and optimizer. Raises ValueError, before anything changes,
    for missing, unknown or ambiguous names, other shapes, and numbers that are not finite in the network's dtype;
    TypeError for custom layers and other numbers than real ones, and RuntimeError if another thread trains.

    >>> net, other = (nnkit.Network([4, 3, 2], "relu", seed=seed) for seed in (0, 1))
    >>> net.load_state_dict(other.state_dict())
    >>> np.array_equal(net.parameters.W[0], other.parameters.W[0])
    True
    """
    found = _layers_of(state)
    expected = _names(network, names)
    if names is None and {*expected} != {*found}:
        expected = _in_order(found, [(layer.units, layer.inputs) for layer in network.dense])
    missing, unknown = ([name for name in a if name not in b] for a, b in ((expected, found), (found, expected)))
    if missing or unknown:
        texts = [f"{what} {', '.join(names)}" for what, names in (("no", missing), ("the unknown", unknown)) if names]
        raise ValueError(f"state has {' and '.join(texts)}; expected the layers {', '.join(expected)}")
    values = []
    for name, layer in zip(expected, network.dense, strict=True):
        W, b = found[name].get("weight"), found[name].get("bias", np.zeros(layer.units))
        pair = []
        for field, array, shape in (("weight", W, (layer.units, layer.inputs)), ("bias", b, (layer.units,))):
            if array is None or array.shape != shape:
                given = "is missing" if array is None else f"has shape {array.shape}"
                raise ValueError(f"{name}.{field} {given}; expected {shape}")
            with np.errstate(over="ignore"):
                pair.append(array.astype(network.dtype))
            check_finite(pair[-1], f"{name}.{field}", f"finite numbers in {network.dtype}")
        values.append(pair)
    with network.turn:
        network.parameters.assign(values)
        network.average_anew()


def _names(network: Model, names: Iterable[str] | None) -> list[str]:
    """The given names of the layers, or those of a Sequential."""
    for i, layer in enumerate(network.layers):
        if not isinstance(layer, Dense | Dropout):
            raise TypeError(f"layer {i} is a {type(layer).__name__}; only Dense layers have names in PyTorch")
    count = len(network.dense)
    if names is not None:
        given: Any = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else names
        texts = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
        if not len({*texts}) == len(texts) == count or texts != given:
            raise ValueError(f"names is {given!r}; expected {count} different names, one for each Dense layer")
        return texts
    found, place = [], 0
    for layer in network.layers:
        if isinstance(layer, Dense):
            found.append(str(place))
            place += layer.activation != "identity"  # its own module
        place += 1
    return found


def _layers_of(state: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """The arrays of each layer, in the order of `state`."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state is a {type(state).__name__}; expected a dict of arrays by PyTorch's names")
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key, value in state.items():
        name, _, field = str(key).rpartition(".")
        if field not in _FIELDS:
            raise ValueError(f"state has the entry {key!r}; expected weights and biases of Linear layers")
        if hasattr(value, "detach"):  # a tensor of PyTorch, whose bfloat16 NumPy does not know
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() and value.element_size() < 4 else value
        array = np.asarray(on_host(as_array(value, str(key))))
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"{key} has dtype {array.dtype}; expected real numbers")
        found.setdefault(name, {})[field] = array
    return found


def _in_order(found: Mapping[str, Mapping[str, NDArray[Any]]], shapes: list[tuple[int, int]]) -> list[str]:
    """The names of layers in the order that their numbers or these shapes of their weights give; else ValueError."""
    names, count = [*found], len(shapes)
    if len(names) != count:
        raise ValueError(f"state has {len(names)} layers, {', '.join(names)}; expected {count}")
    if (ordered := _by_numbers(names)) is None:
        ordered = [""] * count
        for shape in {*shapes}:  # of those of one shape, the numbers give the order
            alike = [name for name in names if "weight" in found[name] and found[name]["weight"].shape == shape]
            places = [i for i, expected in enumerate(shapes) if expected == shape]
            for i, name in zip(places, _by_numbers(alike) or (), strict=False):
                ordered[i] = name
    if {*ordered} != {*names}:
        raise ValueError(
            f"state has the layers {', '.join(names)}, in an unclear order; give names=[...], the first first"
        )
    return ordered


def _by_numbers(names: list[str]) -> list[str] | None:
    """Names that differ in their numbers alone, in ascending order, if they are given so or sorted as text."""
    numbered = sorted(names, key=lambda name: [int(number) for number in re.findall(r"[0-9]+", name)])
    alike = len({re.sub(r"[0-9]+", "0", name) for name in names}) <= 1
    return numbered if alike and names in (numbered, sorted(names)) else None
