"""Networks from ONNX models, of nnkit or other programs."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from nnkit.checkpoint import parsed
from nnkit.files import existing_file
from nnkit.layers import Dense
from nnkit.network import Network
from nnkit.onnx import NATIVE, check_package
from nnkit.state import restore

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError:
    onnx = None  # type: ignore[assignment]

_KNOWN = {operator: name for name, (operator, _, _) in NATIVE.items()} | {"Gelu": ""}
_COSTS = {"softmax": "softmax_cross_entropy", "sigmoid": "cross_entropy", "exponential": "poisson"}
_SKIPPED = ("Identity", "Dropout", "Cast", "Flatten")
# After the last layer: which class it is, also from the logits.
_DECIDES = ("ArgMax", "ZipMap", "Concat", "Sub", "Neg", "Gather", "ArrayFeatureExtractor", *_SKIPPED)


def from_onnx(source: str | PathLike[str] | bytes | Any, *, cost: str | None = None) -> Network:
    """The network of an ONNX model: a path, its bytes, or an `onnx.ModelProto`.

    A model written by `to_onnx` gives an equal network. Others must be a chain of Gemm, or of MatMul with or without
    Add, and activations that nnkit knows. What only decides the class after the last of them is ignored: ArgMax, and
    1 − p beside p.

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
        if "preprocessing.roots" in constants:
            constants["preprocessing.singular_values"] = np.square(constants.pop("preprocessing.roots"))
        saved = parsed(name, constants, {"network": about["nnkit"]})
        network = Network(**saved.arguments)
        saved.tell(network)
        restore(network.placement, saved.arrays, training=False)
        return network
    layers, values = _Chain(name, model.graph, constants).layers()
    last = str(layers[-1].activation)
    network = Network(
        layers, cost=_COSTS.get(last, "quadratic") if cost is None else cost, seed=0, dtype=values[0][0].dtype.name
    )
    network.parameters.assign(values)
    return network


def _read(source: Any) -> tuple[str, Any]:
    """A name for messages and the model; ValueError if it is not one."""
    if isinstance(source, onnx.ModelProto):
        return "the model", source
    content, name = source, "the model"
    if not isinstance(source, bytes):
        content, name = existing_file(source, "source").read_bytes(), fspath(source)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's DecodeError, whose module depends on its version
        raise ValueError(f"{name}: not an ONNX model: {error}") from error
    if not model.graph.input:
        raise ValueError(f"{name}: not an ONNX model: it has no input")
    return name, model


class _Chain:
    """A chain of dense layers in a graph."""

    def __init__(self, name: str, graph: Any, constants: dict[str, np.ndarray]) -> None:
        self._name, self._constants = name, constants
        for node in graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        inputs = [value.name for value in graph.input if value.name not in constants]
        if len(inputs) != 1:
            raise ValueError(f"{name} has the inputs {inputs}; expected one")
        self._nodes, self._x = list(graph.node), inputs[0]
        self._outputs = {value.name for value in graph.output}

    def layers(self) -> tuple[list[Dense], list[tuple[np.ndarray, np.ndarray]]]:
        """The layers and their W and b, from the input on."""
        activations: list[str] = []
        values: list[tuple[np.ndarray, np.ndarray]] = []
        while True:
            every = [node for node in self._nodes if self._x in node.input]
            users = [node for node in every if not self._decides(node)]
            if self._x in self._outputs and users:
                raise ValueError(f"{self._name}: its output {self._x!r} is not the last layer; expected one chain")
            product = next((node for node in users if node.op_type in ("Gemm", "MatMul")), None)
            activation = self._activation(users) if values else None
            if product is not None and len(users) == 1:
                values.append(self._dense(product))
                activations.append("identity")
            elif activation is not None:
                if activations[-1] != "identity":
                    raise ValueError(f"{self._name}: two activations in a row, {activations[-1]} and {activation}")
                activations[-1] = activation
            elif len(users) == 1 and self._is_identity(users[0]):
                self._x = users[0].output[0]
            else:
                break
        if not values or users:
            found = ", ".join(sorted({user.op_type for user in users})) or "no operator"
            raise ValueError(f"{self._name}: {found} is not supported; expected a chain of Gemm and activations")
        layers = [Dense(W.shape[1], W.shape[0], name) for (W, _), name in zip(values, activations, strict=True)]
        return layers, values

    def _decides(self, node: Any) -> bool:
        """Whether a node, and all that use its output, only decide the class: no layer follows."""
        if node.op_type not in _DECIDES or (node.op_type in _SKIPPED and not self._is_identity(node)):
            return False
        if node.op_type == "Sub" and not (node.input[0] in self._constants and node.input[1] == self._x):
            return False
        if node.op_type == "Sub" and self._constants[node.input[0]].size != 1:
            return False
        return self._ends(node)

    def _ends(self, node: Any) -> bool:
        """Whether no layer uses the output of a node, also through others."""
        users = [user for user in self._nodes if set(node.output) & set(user.input)]
        return all(user.op_type in _DECIDES and self._ends(user) for user in users)

    def _is_identity(self, node: Any) -> bool:
        """Whether a node does not change the values of a matrix; a cast to integers would."""
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Cast":
            return given["to"] in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
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
