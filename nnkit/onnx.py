"""Networks as ONNX models, for ONNX Runtime and other programs; `nnkit.onnx_import` reads such models.

A model has one input, X (n, width), the samples before any preprocessing, and as outputs `label` (n,) and
`probabilities` (n, k) for a classifier, `prediction` (n, d_out) for a regression. Activations with an ONNX operator
become that operator; others, also custom ones, become the operations of their traced program.
"""

import json
from os import PathLike
from typing import Any

import numpy as np

from nnkit.backends.formulas.program import Program
from nnkit.checkpoint import description
from nnkit.checks import whole
from nnkit.data.columns import EXACT
from nnkit.files import replacing
from nnkit.kernels.activations import get_activation
from nnkit.layers import Dense, Scaling, trainable_layers
from nnkit.model import Model
from nnkit.preprocessing import is_custom
from nnkit.version import __version__

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    onnx = None  # type: ignore[assignment]

# Activations with an operator: its name, its attributes, and the opset that has it.
NATIVE: dict[str, tuple[str, dict[str, Any], int]] = {
    "identity": ("Identity", {}, 13), "relu": ("Relu", {}, 13), "sigmoid": ("Sigmoid", {}, 13),
    "tanh": ("Tanh", {}, 13), "exponential": ("Exp", {}, 13), "softmax": ("Softmax", {"axis": -1}, 13),
    "softplus": ("Softplus", {}, 13), "softsign": ("Softsign", {}, 13),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}, 13), "elu": ("Elu", {"alpha": 1.0}, 13),
    "selu": ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}, 13),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, 13),
    "gelu": ("Gelu", {"approximate": "none"}, 20), "gelu_tanh": ("Gelu", {"approximate": "tanh"}, 20),
    "mish": ("Mish", {}, 18), "silu": ("Swish", {"alpha": 1.0}, 24),
}  # fmt: skip
_ML = "ai.onnx.ml"  # the operators for text
# ONNX Runtime has no float64 form of the others on the CPU.
_IN_FLOAT64 = ("identity", "relu", "sigmoid", "tanh", "exponential", "softmax")
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

    X has the network's dtype, or float64 if its preprocessing needs that (`Normalization.precision`). For a table with
    categories (`nnkit.data.TableEncoding`), there is an input (n, 1) for each column instead, of its name: numbers are
    float64, with NaN for a missing one, and text is strings, with "" for a missing one; ONNX has no operator that
    removes outer spaces, so that text must have none. For a single
    sigmoid output, `probabilities` has a column for each of the two classes; for the hinge cost these are margins,
    called `scores` (n, k). Class names are part of the model, feature names part of its metadata. The labels of classes
    that are integers or truth values are int64, all others text.
    Raises ImportError without the package onnx, TypeError for custom layers and preprocessing, ValueError for another
    opset, for a custom activation with operations on bits, and for a column with both empty text and missing values,
    with codes above 2⁵³, or called like an output or a constant of the model.

    >>> model = nnkit.Network([4, 8, 3], "relu", seed=0).to_onnx()
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    check_package()
    version = whole("to_onnx", "opset", opset, 13)
    if version > onnx.defs.onnx_opset_version():
        known = onnx.defs.onnx_opset_version()
        raise ValueError(f"to_onnx: opset is {version}; the installed onnx {onnx.__version__} knows 13 to {known}")
    graph = _Graph(network.dtype, version)
    inputs, x = _preprocessed(graph, network)
    for i, layer in enumerate(trainable_layers(network.layers)):
        if type(layer) is Scaling:
            s = network.backend.to_numpy(network.parameters.layers[i]["s"])
            x = graph.add("Mul", x, graph.constant(s, f"layers.{i}.s"))
            continue
        if not isinstance(layer, Dense):
            raise TypeError(
                f"layer {i} is a {type(layer).__name__}; only Dense, Dropout and Scaling can be exported to ONNX"
            )
        own = {name: network.backend.to_numpy(array) for name, array in network.parameters.layers[i].items()}
        if layer is network.dense[-1] and network.target_scaling is not None:
            mean, deviation = network.target_scaling.arrays.values()
            own = {"W": deviation[:, None] * own["W"], "b": deviation * own["b"] + mean}
        arrays = [graph.constant(own[name].astype(network.dtype), f"layers.{i}.{name}") for name in "Wb"]
        z = graph.add("Gemm", x, *arrays, transB=1)
        x = graph.activation(str(layer.activation), z)
    outputs = _outputs(graph, network, z, x)
    _check_names(inputs, graph)
    body = helper.make_graph(graph.nodes, "nnkit", inputs, outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", version)]
    if any(node.domain == _ML for node in graph.nodes):
        opsets.append(helper.make_opsetid(_ML, 2))
    model = helper.make_model(
        body, opset_imports=opsets, producer_name="nnkit", producer_version=__version__,
        ir_version=helper.find_min_ir_version_for(opsets, True),
    )  # fmt: skip
    about = {"nnkit": json.dumps(description(network))}
    if fitted := _fitted(network):
        about["fitted"] = json.dumps(fitted)
    if network.features is not None:
        about["features"] = json.dumps(network.features)
    helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        with replacing(path) as file:
            file.write(model.SerializeToString())
    return model


def _fitted(network: Model) -> dict[str, list[float]]:
    """The arrays that a model has only as part of others: those of a table's encoding and of scaled targets."""
    encoding: Any = network.preprocessing
    parts = {
        "preprocessing": encoding if encoding is not None and encoding.kind == "table" else None,
        "targets": network.target_scaling,
    }
    return {
        f"{prefix}.{name}": array.tolist()
        for prefix, part in parts.items()
        if part is not None
        for name, array in part.arrays.items()
    }


def check_package() -> None:
    """Raise ImportError if the package onnx is not installed."""
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
        operator, attributes, since = NATIVE.get(name, ("", {}, 0))
        if operator == "Identity":
            return x
        if operator and since <= self._opset and (self.dtype == "float32" or name in _IN_FLOAT64):
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


def _check_names(inputs: list[Any], graph: _Graph) -> None:
    """ValueError for an input, a column of a table, that is called like another value of the model."""
    taken = {"", *graph.constants, *(output for node in graph.nodes for output in node.output)}
    for given in inputs:
        if given.name in taken:
            hint = "fit the encoding to a table with another name"
            raise ValueError(f"column {given.name!r} is called like another value of the ONNX model; {hint}")


def _element(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _preprocessed(graph: _Graph, network: Model) -> tuple[list[Any], str]:
    """The input X of a model, or one for each column of a table, and the first layer's inputs, cast to the dtype."""
    fitted: Any = network.preprocessing
    if fitted is None:
        return [helper.make_tensor_value_info("X", _element(network.dtype), ["n", network.width])], "X"
    if is_custom(fitted):
        raise TypeError(f"preprocessing is a {type(fitted).__name__}; expected nnkit.data.Normalization or Whitening")
    if fitted.kind == "table":
        inputs, x = _encoded(graph, fitted)
        return inputs, graph.add("Cast", x, to=_element(network.dtype))
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
    return [helper.make_tensor_value_info("X", _element(dtype), ["n", network.width])], x


def _encoded(graph: _Graph, encoding: Any) -> tuple[list[Any], str]:
    """The inputs and the encoding of a table, in float64: X if all columns are numbers, else one (n, 1) for each."""
    width, double = encoding.inputs, TensorProto.DOUBLE
    constants = (encoding.mean, encoding.deviation, encoding.inverse_bound)
    if all(names is None for names in encoding.categories):
        z, missing = _scaled(graph, "X", "preprocessing", *constants)
        both = graph.add("Concat", z, graph.add("Cast", missing, to=double), axis=1)
        flagged = enumerate(encoding.flagged)
        places = np.array([at + shift for at, flag in flagged for shift in ((0, width) if flag else (0,))])
        x = graph.add("Gather", both, graph.constant(places, "preprocessing.columns"), axis=1)
        return [helper.make_tensor_value_info("X", double, ["n", width])], x
    inputs, parts = [], []
    for at, names in enumerate(encoding.categories):
        name = f"column {at}" if encoding.features is None else encoding.features[at]
        where, text = f"preprocessing.{at}", names is not None and isinstance(names[0], str)
        inputs.append(helper.make_tensor_value_info(name, TensorProto.STRING if text else double, ["n", 1]))
        if names is None:
            value, missing = _scaled(graph, name, where, *(array[at : at + 1] for array in constants))
            parts.append(value)
        elif text:
            if "" in names and encoding.flagged[at]:
                raise ValueError(
                    f"column {name!r} had both empty text and missing values, which ONNX cannot tell apart"
                )
            known = {category: code for code, category in enumerate(names)}
            keys = list(known | {"": known.get("", len(names))})  # without a value, text is empty
            code = graph.add(
                "LabelEncoder", name, domain=_ML, keys_strings=keys,
                values_int64s=[known.get(key, len(names)) for key in keys], default_int64=-1,
            )  # fmt: skip
            missing = graph.add("Equal", code, graph.constant(np.array([len(names)]), f"{where}.missing"))
            codes = graph.constant(np.arange(len(names)), f"{where}.codes")
            parts.append(graph.add("Cast", graph.add("Equal", code, codes), to=double))
        else:
            if any(abs(code) >= EXACT for code in names):
                raise ValueError(f"column {name!r} has codes of 2**53 and more, which ONNX's float64 cannot tell apart")
            missing = graph.add("IsNaN", name)
            numbers, given = np.array(names, np.float64), name
            if (numbers % 1).any() and len({*numbers.astype(np.float32).tolist()}) == len(numbers):
                # 0.1 may come from float32 or float64
                numbers, given = numbers.astype(np.float32), graph.add("Cast", name, to=TensorProto.FLOAT)
            codes = graph.constant(numbers, f"{where}.codes")
            parts.append(graph.add("Cast", graph.add("Equal", given, codes), to=double))
        if encoding.flagged[at]:
            parts.append(graph.add("Cast", missing, to=double))
    return inputs, graph.add("Concat", *parts, axis=1)


def _scaled(graph: _Graph, x: str, where: str, mean: Any, deviation: Any, inverse_bound: Any) -> tuple[str, str]:
    """z/√(1 + (c z)²) of z = (x − μ)/σ, 0 where x is missing; and where it is."""

    def constant(name: str, array: Any) -> str:
        return graph.constant(array, f"{where}.{name}")

    missing = graph.add("IsNaN", x)
    z = graph.add("Div", graph.add("Sub", x, constant("mean", mean)), constant("deviation", deviation))
    if inverse_bound.any():
        with np.errstate(divide="ignore"):
            largest = 1e15 / inverse_bound  # as in nnkit.kernels.arithmetic.encoded
        z = graph.add("Min", graph.add("Max", z, constant("least", -largest)), constant("largest", largest))
        c = graph.add("Mul", z, constant("inverse_bound", inverse_bound))
        root = graph.add("Sqrt", graph.add("Add", graph.add("Mul", c, c), constant("one", np.ones(1))))
        z = graph.add("Div", z, root)
    return graph.add("Where", missing, constant("zero", np.zeros(1)), z), missing


def _outputs(graph: _Graph, network: Model, z: str, h: str) -> list[Any]:
    """The outputs of a model, from the logits z and outputs h of the network, whose class it predicts."""
    element, k = _element(network.dtype), network.d_out
    if not network.classifies:
        graph.add("Identity", h, name="prediction")
        return [helper.make_tensor_value_info("prediction", element, ["n", k])]
    margins = network.cost.domain not in ("unit", "distribution") or network.cost.threshold != 0.5
    pair = network.output
    values, decides, limit = h, z if pair.by_logits else h, pair.logit_threshold
    if k == 1:
        other = graph.add("Neg", h) if margins else graph.add("Sub", graph.number(1.0), h)
        values = graph.add("Concat", other, h, axis=1)
        twice = graph.number(2 * (network.cost.threshold if limit is None else limit))
        decides = graph.add("Concat", graph.add("Sub", twice, decides), decides, axis=1)
    name = "scores" if margins else "probabilities"
    graph.add("Identity", values, name=name)
    number = graph.add("ArgMax", decides, axis=1, keepdims=0)
    names = np.arange(max(k, 2)) if network.classes is None else network.classes
    if names.dtype.kind == "u" and names.max() > np.iinfo(np.int64).max:
        raise ValueError(f"classes holds {names.max()}; the labels of an ONNX model are text or int64")
    names = names.astype(np.int64) if names.dtype.kind in "biu" else names.astype(str)
    graph.add("Gather", graph.constant(names, "classes"), number, name="label")
    kind = TensorProto.INT64 if names.dtype.kind == "i" else TensorProto.STRING
    return [
        helper.make_tensor_value_info("label", kind, ["n"]),
        helper.make_tensor_value_info(name, element, ["n", max(k, 2)]),
    ]
