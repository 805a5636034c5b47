"""A converter for skl2onnx, so that pipelines with nnkit's estimators become ONNX models."""

from copy import copy
from typing import Any

from nnkit.sklearn.estimators import DenseClassifier, DenseRegressor


def register_converters() -> None:
    """Let `skl2onnx.to_onnx` convert `DenseClassifier` and `DenseRegressor`, also inside a Pipeline.

    Classifiers of several labels, or with a cost of real numbers, are not supported. Raises ImportError without the
    package skl2onnx.

    >>> from nnkit.sklearn.onnx import register_converters
    >>> register_converters()
    >>> import skl2onnx
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), np.arange(50) % 3
    >>> model = make_pipeline(StandardScaler(), DenseClassifier(solver="lbfgs", tol=0.1)).fit(X, y)
    >>> [output.name for output in skl2onnx.to_onnx(model, X[:1], options={"zipmap": False}).graph.output]
    ['label', 'probabilities']
    """
    try:
        from skl2onnx import update_registered_converter
        from skl2onnx.common import shape_calculator as shapes
    except ImportError as error:
        hint = "register_converters needs skl2onnx: python -m pip install skl2onnx"
        raise ImportError(hint, name="skl2onnx") from error
    options = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True], "nocl": [True, False]}
    of_classifier = shapes.calculate_linear_classifier_output_shapes
    update_registered_converter(DenseClassifier, "NnkitDenseClassifier", of_classifier, _convert, options=options)
    of_regressor = shapes.calculate_linear_regressor_output_shapes
    update_registered_converter(DenseRegressor, "NnkitDenseRegressor", of_regressor, _convert)


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of an estimator's network to a model of skl2onnx."""
    from onnx import helper

    estimator = operator.raw_operator
    network = copy(estimator.network_)
    if isinstance(estimator, DenseClassifier):
        if estimator._multilabel:
            raise TypeError("classifiers of several labels per sample cannot be converted to ONNX")
        if not network.classifies:
            raise TypeError(f"classifiers with the cost {network.cost.name} cannot be converted to ONNX")
        network.classes = estimator.classes_
    opset = min(container.target_opset, 20)
    graph = network.to_onnx(opset=opset).graph
    if len(graph.input) > 1:
        raise TypeError(
            "an estimator fitted to a table with categories is converted alone: estimator.network_.to_onnx(path)"
        )
    names = {"": ""}
    for tensor in graph.initializer:
        names[tensor.name] = scope.get_unique_variable_name(tensor.name.replace(" ", "_"))
        content = list(tensor.string_data) or tensor  # a copy of a tensor of text would be raw bytes
        container.add_initializer(names[tensor.name], tensor.data_type, list(tensor.dims), content)
    names["X"] = scope.get_unique_variable_name("X")
    _cast(scope, container, operator.inputs[0].full_name, names["X"], graph.input[0].type.tensor_type.elem_type)
    for node in graph.node:
        names |= {output: scope.get_unique_variable_name(output) for output in node.output}
        container.add_node(
            node.op_type, [names[name] for name in node.input], [names[name] for name in node.output],
            name=scope.get_unique_operator_name(node.op_type), op_version=opset,
            **{attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
        )  # fmt: skip
    if isinstance(estimator, DenseClassifier) and network.cost.output == "sigmoid" and network.d_out > 1:
        _share(scope, container, names, graph.output[1])
    for variable, value in zip(operator.outputs, graph.output, strict=True):
        wanted = variable.type.to_onnx_type().tensor_type.elem_type
        _cast(scope, container, names[value.name], variable.full_name, wanted)


def _share(scope: Any, container: Any, names: dict[str, str], probabilities: Any) -> None:
    """Divide outputs of a sigmoid by their sum, as `predict_proba` does."""
    from onnx import TensorProto

    output, kind = probabilities.name, probabilities.type.tensor_type.elem_type
    parts = ("axes", "total", "least", "divisor", "shares")
    axes, total, least, divisor, shares = (scope.get_unique_variable_name(f"{output}_{part}") for part in parts)
    container.add_initializer(axes, TensorProto.INT64, [1], [1])
    container.add_initializer(least, kind, [1, 1], [1.2e-38])  # without it, 0/0 where all are 0
    nodes = (
        ("ReduceSum", names[output], axes, total),
        ("Max", total, least, divisor),
        ("Div", names[output], divisor, shares),
    )
    for operator, one, other, made in nodes:
        container.add_node(operator, [one, other], [made], name=scope.get_unique_operator_name(operator), op_version=13)
    names[output] = shares


def _cast(scope: Any, container: Any, source: str, target: str, element: int) -> None:
    container.add_node(
        "Cast", [source], [target], name=scope.get_unique_operator_name("Cast"), op_version=13, to=element
    )
