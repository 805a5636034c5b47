"""Networks from ONNX models, of nnkit or other programs."""

import json
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.checkpoint import damage, parsed
from nnkit.files import existing_file
from nnkit.layers import Dense
from nnkit.network import Network
from nnkit.onnx import NATIVE, check_package, to_onnx
from nnkit.state import restore

try:
    import onnx
    from onnx import external_data_helper, helper, numpy_helper
except ImportError:
    onnx = None  # type: ignore[assignment]

_KNOWN = {operator: name for name, (operator, _, _) in NATIVE.items()} | {"Gelu": ""}
_COSTS = {"softmax": "softmax_cross_entropy", "sigmoid": "cross_entropy", "exponential": "poisson"}
_SKIPPED = ("Identity", "Dropout", "Cast", "Flatten")
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_INCREASING = ("sigmoid", "softmax", "tanh")
_NAMING = ("ArrayFeatureExtractor", "Gather")
_OF_LABELS = (*_NAMING, "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_REALS = (1, 10, 11, 16)  # TensorProto's float32, float16, float64 and bfloat16


def from_onnx(source: str | PathLike[str] | bytes | Any, *, cost: str | None = None) -> Network:
    """The network of an ONNX model: a path, its bytes, or an `onnx.ModelProto`.

    A model written by `to_onnx` gives an equal network; with `target_scaling`, the last layer is equal up to rounding.
    Others must be a chain of Gemm, or of MatMul with or without Add, and activations that nnkit knows, whose last
    values are an output of the model. Other outputs may be labels, by ArgMax of these or of their logits, of which a
    constant may have the names. The output of a classifier may be 1 − p beside p in the place of p, and −h beside h.

    Args:
        cost: the cost for further training; None means the one paired with the last activation, or quadratic.

    Raises FileNotFoundError, and ValueError that names the operator which is not supported.

    >>> net = nnkit.Network([4, 8, 3], "silu", seed=0)
    >>> nnkit.from_onnx(net.to_onnx())
    Network(4 → 8 silu → 3 softmax, softmax_cross_entropy, 67 parameters in float32 on numpy, seed 0)
    """
    check_package()
    name, model = _read(source)
    try:
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: a constant is damaged: {error!r}") from error
    about = {entry.key: entry.value for entry in model.metadata_props}
    if model.producer_name == "nnkit" and "nnkit" in about and cost is None:
        with damage(name):
            arrays = _arrays(constants, about)
        saved = parsed(name, arrays, {"network": about["nnkit"]})
        network = Network(**saved.arguments)
        saved.tell(network)
        restore(network.placement, saved.arrays, training=False)
        own = to_onnx(network, opset=model.opset_import[0].version).graph
        if (
            _encodes_alike(own, constants, about)
            and list(own.node) == list(model.graph.node)
            and list(own.output) == list(model.graph.output)
        ):
            return network  # else another program has changed the graph
    chain = _Chain(name, model.graph, constants)
    layers, values = chain.layers()
    last = str(layers[-1].activation)
    network = Network(
        layers, cost=_COSTS.get(last, "quadratic") if cost is None else cost, seed=0, dtype=values[0][0].dtype.name
    )
    network.parameters.assign(values)
    classes = chain.classes(max(2, network.d_out))
    if classes is not None and classes.tolist() != [*range(len(classes))]:
        network.classes = classes
    return network


def _arrays(constants: dict[str, np.ndarray], about: dict[str, str]) -> dict[str, np.ndarray]:
    """The arrays of a network, by their names in its files, from the constants of its model."""
    found = {name: np.asarray(values) for name, values in json.loads(about.get("fitted", "{}")).items()}
    if "preprocessing.mean" in found:  # of a table, whose columns have constants of their own
        constants = {name: array for name, array in constants.items() if not name.startswith("preprocessing.")}
    own = ("layers.", "preprocessing.")  # other constants are numbers of formulas
    found = {name: array for name, array in constants.items() if name.startswith(own)} | found
    if "preprocessing.roots" in found:
        found["preprocessing.singular_values"] = np.square(found.pop("preprocessing.roots"))
    if "targets.mean" in found:  # which the last layer's constants include
        mean, deviation = found["targets.mean"], found["targets.deviation"]
        last = max(int(name.split(".")[1]) for name in found if name.startswith("layers."))
        W, b = (found[f"layers.{last}.{name}"] for name in "Wb")
        found[f"layers.{last}.W"] = (W / deviation[:, None]).astype(W.dtype)
        found[f"layers.{last}.b"] = ((b - mean) / deviation).astype(b.dtype)
    return found


def _encodes_alike(graph: Any, constants: dict[str, np.ndarray], about: dict[str, str]) -> bool:
    """Whether a graph encodes a table, if it does, with these constants."""
    if "preprocessing.mean" not in about.get("fitted", ""):
        return True
    own = [tensor for tensor in graph.initializer if tensor.name.startswith("preprocessing.")]
    return all(np.array_equal(numpy_helper.to_array(tensor), constants.get(tensor.name, ())) for tensor in own)


def _read(source: Any) -> tuple[str, Any]:
    """A name for messages and the model; ValueError if it is not one.

    A path's external files, of large weights, are read from its folder.
    """
    if isinstance(source, onnx.ModelProto):
        return "the model", _complete(source, "the model", None)
    content, name, folder = source, "the model", None
    if not isinstance(source, bytes):
        path = existing_file(source, "source")
        content, name, folder = path.read_bytes(), fspath(source), path.parent
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, whose module depends on its version
        raise ValueError(f"{name}: not an ONNX model: {error}") from error
    if not model.graph.input:
        raise ValueError(f"{name}: not an ONNX model: it has no input")
    return name, _complete(model, name, folder)


def _complete(model: Any, name: str, folder: Path | None) -> Any:
    """The model, with the content of external files, whose names are relative to the folder of a path."""
    nodes = [node for node in model.graph.node if node.op_type == "Constant"]
    tensors = [*model.graph.initializer, *(attribute.t for node in nodes for attribute in node.attribute)]
    if not any(map(external_data_helper.uses_external_data, tensors)):
        return model
    if folder is None:
        raise ValueError(f"{name}: its constants are in an external file; give the path, or load it with onnx.load")
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ValueError(f"{name}: its external file cannot be read: {error}") from error
    return model


def _known(node: Any) -> Any:
    """A node, whose operator has another name if it is not one of ONNX."""
    if node.domain in _DOMAINS:
        return node
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.op_type = f"{node.domain}.{node.op_type}"
    return other


class _Chain:
    """A chain of dense layers in a graph."""

    def __init__(self, name: str, graph: Any, constants: dict[str, np.ndarray]) -> None:
        self._name, self._constants = name, constants
        for node in graph.node:
            if node.op_type == "Constant":
                value = helper.get_attribute_value(node.attribute[0])
                tensor = isinstance(value, onnx.TensorProto)
                constants[node.output[0]] = numpy_helper.to_array(value) if tensor else np.asarray(value)
        inputs = [value.name for value in graph.input if value.name not in constants]
        if len(inputs) != 1:
            raise ValueError(f"{name} has the inputs {inputs}; expected one")
        self._nodes, self._x = [_known(node) for node in graph.node], inputs[0]
        self._outputs = {value.name for value in graph.output}
        decide = [node for node in self._nodes if node.op_type == "ArgMax"]
        reals = {value.name for value in graph.output if value.type.tensor_type.elem_type in _REALS}
        labels = {node.output[0] for node in decide}
        self._labels = labels | (self._after(labels) - reals)
        self._wanted = self._outputs - self._labels or {n.input[0] for n in decide if self._by_row(n, 0)}
        self._logits, self._same = set[str](), {self._x}  # names of the values before the last activation, and of x

    def layers(self) -> tuple[list[Dense], list[tuple[np.ndarray, np.ndarray]]]:
        """The layers and their W and b, from the input on."""
        activations: list[str] = []
        values: list[tuple[np.ndarray, np.ndarray]] = []
        while True:
            before, users = self._x, [node for node in self._nodes if self._x in node.input and self._matters(node)]
            product = next((node for node in users if node.op_type in ("Gemm", "MatMul")), None)
            activation = self._activation(users) if values else None
            if product is not None and len(users) == 1:
                values.append(self._dense(product))
                activations.append("identity")
            elif activation is not None:
                if activations[-1] != "identity":
                    raise ValueError(f"{self._name}: two activations in a row, {activations[-1]} and {activation}")
                activations[-1], self._logits = activation, self._same
            elif len(users) == 1 and self._is_identity(users[0]):
                self._x = users[0].output[0]
                self._same.add(self._x)
                continue
            else:
                break
            self._same = {self._x}
            if before in self._outputs:
                raise ValueError(f"{self._name}: its output {before!r} is not the last layer; expected one chain")
        if not values:
            raise self._unsupported(users)
        self._check_outputs(activations[-1], len(values[-1][1]))
        self._check_labels(activations[-1], len(values[-1][1]))
        layers = [Dense(W.shape[1], W.shape[0], name) for (W, _), name in zip(values, activations, strict=True)]
        return layers, values

    def classes(self, count: int) -> np.ndarray | None:
        """The names of the classes, from which nodes take those of the labels; None if there is no such node."""
        found: list[np.ndarray] = []
        named: set[str] = set()
        for node in self._nodes:
            if node.op_type in _NAMING and node.input[1] in self._labels:
                if node.input[1] in named:
                    raise ValueError(f"{self._name}: its labels are names of names; expected those of classes")
                named |= self._after({*node.output})
                names = self._constants[node.input[0]].reshape(-1)
                found.append(names.astype(str) if names.dtype == object else names)
        for names in found:
            if len(names) != count:
                raise ValueError(f"{self._name}: its labels have {len(names)} names; expected {count}, one per class")
            if not np.array_equal(names, found[0]):
                raise ValueError(f"{self._name}: two constants name its labels; expected one")
        return found[0] if found else None

    def _unsupported(self, nodes: Sequence[Any]) -> ValueError:
        found = ", ".join(sorted({node.op_type for node in nodes})) or "no operator"
        return ValueError(f"{self._name}: {found} is not supported; expected a chain of Gemm and activations")

    def _matters(self, node: Any) -> bool:
        """Whether an output of the graph depends on a node: one other than labels, if there is one."""
        values = {*node.output} - self._labels
        return bool(values & self._wanted) or any(self._matters(user) for user in self._nodes if values & {*user.input})

    def _after(self, values: set[str], kept: Callable[[Any], bool] = lambda node: True) -> set[str]:
        """These values, and what nodes that `kept` accepts compute from them and constants; nodes are in order."""
        values = {*values}
        for node in self._nodes:
            given = [name for name in node.input if name and name not in self._constants]
            if given and values.issuperset(given) and kept(node):
                values.update(node.output)
        return values

    def _check_outputs(self, activation: str, units: int) -> None:
        """Raise ValueError unless each output of the graph is x, the last layer's, or decides between its classes.

        The two columns 1 - p and p of a classifier, or -h and h, are one output here.
        """
        same = self._after({self._x}, self._is_identity)
        pairs = self._pairs(same) if units == 1 else {}
        if activation != "sigmoid" and not self._labels & self._outputs:
            pairs.clear()
        known = same | self._after({*pairs}, self._is_identity)
        known |= {n.output[0] for n in self._nodes if n.op_type == "ZipMap" and known.issuperset(n.input)}
        if not self._wanted <= known:
            users = [node for node in self._nodes if same & {*node.input} and not known & {*node.output}]
            raise self._unsupported([node for node in users if self._matters(node)])

    def _check_labels(self, activation: str, units: int) -> None:
        """Raise ValueError unless the labels among the outputs are the classes that the last layer decides, or names.

        Before an activation that increases, and before softmax, the same value is the largest as after it.
        """
        same = self._after(self._same, self._is_identity)
        before = self._after(self._logits, self._is_identity) if activation in _INCREASING else set()
        if units == 1:
            half = [1.0] if activation == "sigmoid" else [0.0, 1.0]  # p > 1 - p, z > -z
            pairs = {name for name, one in self._pairs(same).items() if one in half}
            same, before = pairs, {name for name, one in self._pairs(before).items() if one == 0}
        decisive = self._after(same | before, self._is_identity)
        for node in self._nodes:
            if not self._labels & self._outputs & self._after({*node.output}):
                continue
            if node.op_type == "ArgMax":
                if node.input[0] not in decisive or not self._by_row(node, 0):
                    raise ValueError(f"{self._name}: its labels are the ArgMax of other values than the last layer's")
            elif self._labels & {*node.input} and not (
                node.op_type in _OF_LABELS and (node.op_type not in _NAMING or node.input[0] in self._constants)
            ):
                raise self._unsupported([node])

    def _pairs(self, same: set[str]) -> dict[str, float]:
        """Matrices that have 1 - p or -p before p, a value of `same`, and the number from which p is subtracted."""
        found: dict[str, float] = {}
        for node in self._nodes:
            if node.op_type != "Concat" or len(node.input) != 2 or node.input[1] not in same or not self._by_row(node):
                continue
            other = next((other for other in self._nodes if node.input[0] in other.output), None)
            if other is None or other.input[-1] not in same:
                continue
            one = self._constants.get(other.input[0]) if other.op_type == "Sub" else None
            if other.op_type == "Neg":
                found[node.output[0]] = 0.0
            elif one is not None and one.size == 1 and one.ndim <= 2 and one.item() in (0, 1):
                found[node.output[0]] = float(one.item())
        return found

    @staticmethod
    def _by_row(node: Any, default: int | None = None) -> bool:
        """Whether a node works on the entries of each row of a matrix."""
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        return given.get("axis", default) in (1, -1)

    def _is_identity(self, node: Any) -> bool:
        """Whether a node does not change the values of a matrix; a cast to integers would."""
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Cast":
            return given["to"] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        if node.op_type == "Dropout" and any(node.input[2:]):  # it may be training
            return False
        return node.op_type in _SKIPPED and given.get("axis", 1) == 1

    def _dense(self, node: Any) -> tuple[np.ndarray, np.ndarray]:
        """W and b of a product; its output, with the bias, is the next x."""
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        W = self._constants.get(node.input[1])
        scaled = given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA")
        if W is None or W.ndim != 2 or scaled or node.input[0] != self._x:
            raise ValueError(f"{self._name}: {node.op_type} {node.name!r} is not a dense layer with constant weights")
        W = W if given.get("transB") else W.T
        b = np.zeros(W.shape[0], W.dtype)
        bias = node.input[2] if len(node.input) > 2 else None
        self._x = node.output[0]
        if node.op_type == "MatMul":
            users = [user for user in self._nodes if self._x in user.input]
            if len(users) == 1 and users[0].op_type == "Add":
                bias = next((name for name in users[0].input if name != self._x), self._x)
                self._x = users[0].output[0]
        if bias:
            if bias not in self._constants:
                raise ValueError(f"{self._name}: the bias {bias!r} is not constant")
            if self._constants[bias].shape not in ((), (1,), b.shape, (1, *b.shape)):
                raise ValueError(
                    f"{self._name}: the bias {bias!r} has shape {self._constants[bias].shape}; expected {b.shape}"
                )
            b = np.broadcast_to(self._constants[bias].reshape(-1), b.shape)
        return W, b

    def _activation(self, users: Sequence[Any]) -> str | None:
        """The activation that these nodes compute of x, which becomes its output; None if nnkit has none."""
        operators = sorted(user.op_type for user in users)
        if operators == ["Mul", "Sigmoid"]:  # as PyTorch exports SiLU
            sigmoid = next(user for user in users if user.op_type == "Sigmoid")
            product = next(user for user in users if user.op_type == "Mul")
            if sigmoid.output[0] in product.input:
                self._x = product.output[0]
                return "silu"
        if len(users) != 1 or users[0].op_type not in _KNOWN or users[0].op_type == "Identity":
            return None
        node = users[0]
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Gelu":
            name = "gelu_tanh" if given.get("approximate") == b"tanh" else "gelu"
        else:
            name = _KNOWN[node.op_type]
            for attribute, value in NATIVE[name][1].items():
                default = onnx.defs.get_schema(node.op_type).attributes[attribute].default_value
                found = given.get(attribute, helper.get_attribute_value(default))
                if attribute == "axis" and found not in (-1, 1):
                    raise ValueError(f"{self._name}: {node.op_type} has axis={found}; expected the last axis")
                if attribute != "axis" and abs(found - value) > 1e-6:
                    raise ValueError(
                        f"{self._name}: {node.op_type} has {attribute}={found:g}; nnkit's {name} has {value:g}"
                    )
        self._x = node.output[0]
        return name
