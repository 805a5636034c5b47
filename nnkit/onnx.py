"""Networks as ONNX models, for ONNX Runtime and other programs, and networks from ONNX models.

A model has one input, X (n, width), the samples before any preprocessing, and as outputs `label` (n,) and
`probabilities` (n, k) for a classifier, `prediction` (n, d_out) for a regression. Activations with an ONNX operator
become that operator; others, also custom ones, become the operations of their traced program.
"""

import json
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from nnkit.backends.formulas.program import Program
from nnkit.checkpoint import description, parsed
from nnkit.checks import whole
from nnkit.files import existing_file, replacing
from nnkit.kernels.activations import get_activation
from nnkit.layers import Dense, trainable_layers
from nnkit.model import Model
from nnkit.network import Network
from nnkit.state import restore
from nnkit.version import __version__

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    onnx = None  # type: ignore[assignment]

# Activations with an operator: its name, its attributes, and the opset that has it.
_NATIVE: dict[str, tuple[str, dict[str, Any], int]] = {
    "identity": ("Identity", {}, 13), "relu": ("Relu", {}, 13), "sigmoid": ("Sigmoid", {}, 13),
    "tanh": ("Tanh", {}, 13), "exponential": ("Exp", {}, 13), "softmax": ("Softmax", {"axis": -1}, 13),
    "softplus": ("Softplus", {}, 13), "softsign": ("Softsign", {}, 13),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}, 13), "elu": ("Elu", {"alpha": 1.0}, 13),
    "selu": ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}, 13),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, 13),
    "gelu": ("Gelu", {"approximate": "none"}, 20), "gelu_tanh": ("Gelu", {"approximate": "tanh"}, 20),
    "mish": ("Mish", {}, 18), "silu": ("Swish", {"alpha": 1.0}, 24),
}  # fmt: skip
# ONNX Runtime has no float64 form of the others on the CPU.
_NATIVE_IN_FLOAT64 = ("identity", "relu", "sigmoid", "tanh", "exponential", "softmax")
_OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "negative": "Neg", "abs": "Abs",
    "sqrt": "Sqrt", "pow": "Pow", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tanh": "Tanh",
    "floor": "Floor", "sign": "Sign", "maximum": "Max", "minimum": "Min", "where": "Where", "less": "Less",
    "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual", "equal": "Equal",
    "logical_and": "And", "logical_or": "Or", "logical_not": "Not",
}  # fmt: skip


def to_onnx(network: Model, path: str | PathLike[str] | None = None, *, opset: int = 13) -> Any:
    """Return a network as an `onnx.ModelProto`, and write it to `path` if given.

    Args:
        opset: the version of ONNX's operators, at least 13, which every runtime of recent years reads. From 20 on,
            gelu is one operator instead of several.

    X has the network's dtype, or float64 if its preprocessing needs that (`Normalization.precision`). For a single
    sigmoid output, `probabilities` has a column for each of the two classes; for the hinge cost these are margins,
    called `scores` (n, k). Class names are part of the model, feature names part of its metadata.
    Raises ImportError without the package onnx, TypeError for custom layers and preprocessing, ValueError for another
    opset and for a custom activation with operations on bits.

    >>> model = nnkit.Network([4, 8, 3], "relu", seed=0).to_onnx()
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    _check_package()
    version = whole("to_onnx", "opset", opset, 13)
    if version > onnx.defs.onnx_opset_version():
        known = onnx.defs.onnx_opset_version()
        raise ValueError(f"to_onnx: opset is {version}; the installed onnx {onnx.__version__} knows 13 to {known}")
    graph = _Graph(network.dtype, version)
    inputs, x = _preprocessed(graph, network)
    for i, layer in enumerate(trainable_layers(network.layers)):
        if not isinstance(layer, Dense):
            raise TypeError(f"layer {i} is a {type(layer).__name__}; only Dense and Dropout can be exported to ONNX")
        own = network.parameters.layers[i]
        arrays = [graph.constant(network.backend.to_numpy(own[name]), f"layers.{i}.{name}") for name in "Wb"]
        x = graph.activation(str(layer.activation), graph.add("Gemm", x, *arrays, transB=1))
    outputs = _outputs(graph, network, x)
    body = helper.make_graph(graph.nodes, "nnkit", [inputs], outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", version)]
    model = helper.make_model(
        body, opset_imports=opsets, producer_name="nnkit", producer_version=__version__,
        ir_version=helper.find_min_ir_version_for(opsets, True),
    )  # fmt: skip
    about = {"nnkit": json.dumps(description(network))}
    if network.features is not None:
        about["features"] = json.dumps(network.features)
    helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        with replacing(path) as file:
            file.write(model.SerializeToString())
    return model


def _check_package() -> None:
    if onnx is None:
        raise ImportError("ONNX models need the package onnx: python -m pip install onnx", name="onnx")


class _Graph:
    """Nodes and constants of a model."""

    def __init__(self, dtype: str, opset: int) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.dtype, self._opset = dtype, opset

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        output = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, array: np.ndarray, name: str) -> str:
        """Add a constant of this name, unless it is there already."""
        if name not in self.constants:
            if array.dtype.kind == "U":
                texts = [text.encode() for text in array.tolist()]
                self.constants[name] = helper.make_tensor(name, TensorProto.STRING, array.shape, texts)
            else:
                self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def number(self, value: float) -> str:
        """Add a number."""
        return self.constant(np.array(value, self.dtype), f"number {value!r}")

    def activation(self, name: str, x: str) -> str:
        """Add f(x)."""
        operator, attributes, since = _NATIVE.get(name, ("", {}, 0))
        if operator == "Identity":
            return x
        if operator and since <= self._opset and (self.dtype == "float32" or name in _NATIVE_IN_FLOAT64):
            return self.add(operator, x, **attributes)
        return self.program(name, get_activation(name).forward.program(), x)

    def program(self, activation: str, program: Program, x: str) -> str:
        """Add the operations of the program of a formula of one operand."""
        values: list[str] = []
        for value in program.values:
            a = [values[i] for i in value.arguments]
            if value.op == "operand":
                values.append(x)
            elif value.op == "constant":
                values.append(self.number(value.constant))
            elif value.op == "square":
                values.append(self.add("Mul", a[0], a[0]))
            elif value.op == "expm1":
                values.append(self.add("Sub", self.add("Exp", a[0]), self.number(1.0)))
            elif value.op == "log1p":
                values.append(self.add("Log", self.add("Add", a[0], self.number(1.0))))
            elif value.op == "not_equal":
                values.append(self.add("Not", self.add("Equal", *a)))
            elif value.op == "astype(dtype)":
                values.append(self.add("Cast", a[0], to=_element(self.dtype)))
            elif value.op in _OPERATORS:
                values.append(self.add(_OPERATORS[value.op], *a))
            else:
                raise ValueError(f"activation {activation!r} has the operation {value.op}, which ONNX models lack")
        return values[program.outputs[0]]


def _element(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _preprocessed(graph: _Graph, network: Model) -> tuple[Any, str]:
    """The input X of a model, and its preprocessing, of which the first layer's inputs are cast to the dtype."""
    fitted = network.preprocessing
    if fitted is None:
        return helper.make_tensor_value_info("X", _element(network.dtype), ["n", network.width]), "X"
    if fitted.kind not in ("normalization", "whitening"):
        raise TypeError(f"preprocessing is a {type(fitted).__name__}; expected nnkit.data.Normalization or Whitening")
    dtype = fitted.precision(network.dtype)
    arrays = {name: array.astype(dtype) for name, array in fitted.arrays.items()}
    x = graph.add("Sub", "X", graph.constant(arrays["mean"], "preprocessing.mean"))
    if fitted.kind == "normalization":
        x = graph.add("Div", x, graph.constant(arrays["deviation"], "preprocessing.deviation"))
    else:
        x = graph.add("MatMul", x, graph.constant(arrays["rotation"], "preprocessing.rotation"))
        roots = np.sqrt(fitted.arrays["singular_values"]).astype(dtype)
        x = graph.add("Div", x, graph.constant(roots, "preprocessing.roots"))
    x = x if dtype == network.dtype else graph.add("Cast", x, to=_element(network.dtype))
    return helper.make_tensor_value_info("X", _element(dtype), ["n", network.width]), x


def _outputs(graph: _Graph, network: Model, h: str) -> list[Any]:
    """The outputs of a model, from the network's h."""
    element, k = _element(network.dtype), network.d_out
    if not network.classifies:
        graph.add("Identity", h, name="prediction")
        return [helper.make_tensor_value_info("prediction", element, ["n", k])]
    margins = network.cost.domain not in ("unit", "distribution") or network.cost.threshold != 0.5
    values = h
    if k == 1:
        other = graph.add("Neg", h) if margins else graph.add("Sub", graph.number(1.0), h)
        values = graph.add("Concat", other, h, axis=1)
    name = "scores" if margins else "probabilities"
    graph.add("Identity", values, name=name)
    number = graph.add("ArgMax", values, axis=1, keepdims=0)
    names = np.arange(max(k, 2)) if network.classes is None else network.classes
    names = names.astype(np.int64) if names.dtype.kind in "biu" else names.astype(str)
    graph.add("Gather", graph.constant(names, "classes"), number, name="label")
    kind = TensorProto.INT64 if names.dtype.kind == "i" else TensorProto.STRING
    return [
        helper.make_tensor_value_info("label", kind, ["n"]),
        helper.make_tensor_value_info(name, element, ["n", max(k, 2)]),
    ]


# --- import ---------------------------------------------------------------------------------------------------------

_KNOWN = {operator: name for name, (operator, _, _) in _NATIVE.items()} | {"Gelu": ""}
_COSTS = {"softmax": "softmax_cross_entropy", "sigmoid": "cross_entropy", "exponential": "poisson"}
_SKIPPED = ("Identity", "Dropout", "Cast", "Flatten")


def from_onnx(source: str | PathLike[str] | bytes | Any, *, cost: str | None = None) -> Network:
    """The network of an ONNX model: a path, its bytes, or an `onnx.ModelProto`.

    A model written by `to_onnx` gives an equal network. Others must be a chain of Gemm, or of MatMul with or without
    Add, and activations that nnkit knows; operators after the last activation, such as ArgMax, are ignored.

    Args:
        cost: the cost for further training; None means the one paired with the last activation, or quadratic.

    Raises FileNotFoundError, and ValueError that names the operator which is not supported.

    >>> net = nnkit.Network([4, 8, 3], "silu", seed=0)
    >>> nnkit.from_onnx(net.to_onnx())
    Network(4 → 8 silu → 3 softmax, softmax_cross_entropy, 67 parameters in float32 on numpy, seed 0)
    """
    _check_package()
    name, model = _read(source)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
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

    def layers(self) -> tuple[list[Dense], list[tuple[np.ndarray, np.ndarray]]]:
        """The layers and their W and b, from the input on."""
        activations: list[str] = []
        values: list[tuple[np.ndarray, np.ndarray]] = []
        while True:
            users = [node for node in self._nodes if self._x in node.input]
            product = next((node for node in users if node.op_type in ("Gemm", "MatMul")), None)
            activation = self._activation(users) if values else None
            if product is not None and len(users) == 1:
                values.append(self._dense(product))
                activations.append("identity")
            elif activation is not None:
                if activations[-1] != "identity":
                    raise ValueError(f"{self._name}: two activations in a row, {activations[-1]} and {activation}")
                activations[-1] = activation
            elif len(users) == 1 and users[0].op_type in _SKIPPED:
                self._x = users[0].output[0]
            else:
                break
        if not values or any(user.op_type not in ("ArgMax", "ZipMap", "Concat", "Sub", *_SKIPPED) for user in users):
            found = ", ".join(sorted({user.op_type for user in users})) or "no operator"
            raise ValueError(f"{self._name}: {found} is not supported; expected a chain of Gemm and activations")
        layers = [Dense(W.shape[1], W.shape[0], name) for (W, _), name in zip(values, activations, strict=True)]
        return layers, values

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
                bias = next(name for name in users[0].input if name != self._x)
                self._x = users[0].output[0]
        if bias:
            if bias not in self._constants:
                raise ValueError(f"{self._name}: the bias {bias!r} is not constant")
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
            for attribute, value in _NATIVE[name][1].items():
                default = onnx.defs.get_schema(node.op_type).attributes[attribute].default_value
                found = given.get(attribute, helper.get_attribute_value(default))
                if attribute != "axis" and abs(found - value) > 1e-6:
                    raise ValueError(
                        f"{self._name}: {node.op_type} has {attribute}={found:g}; nnkit's {name} has {value:g}"
                    )
        self._x = node.output[0]
        return name
