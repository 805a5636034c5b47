"""ONNX models: what ONNX Runtime computes from them, and networks read back, also from PyTorch's layout."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.activations import activation_names

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6))
BOUNDS = {"float32": 1e-6, "float64": 1e-12}


def _run(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": x}), strict=True))


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", activation_names())
def test_every_activation(activation: str, dtype: str, opset: int) -> None:
    layers = [nnkit.Dense(6, 9, activation), nnkit.Dropout(0.5), nnkit.Dense(9, 3, activation)]
    network = nnkit.Network(layers, cost="quadratic", seed=0, dtype=dtype)
    found = _run(network.to_onnx(opset=opset), X.astype(dtype))["prediction"]
    expected = network.forward(X)
    assert found.dtype == dtype
    assert np.abs(found - expected).max() <= BOUNDS[dtype] * max(1, np.abs(expected).max())


def test_a_custom_activation() -> None:
    nnkit.register_activation(
        "bump",
        lambda xp, z: xp.where(z > 1, xp.log1p(z * z), xp.expm1(z) * xp.cos(z)),
        lambda xp, z, d: d * xp.where(z > 1, 2 * z / (1 + z * z), xp.exp(z) * xp.cos(z) - xp.expm1(z) * xp.sin(z)),
        "preactivation",
    )
    try:
        network = nnkit.Network([6, 9, 1], "bump", "quadratic", seed=0)
        found = _run(network.to_onnx(), X.astype(np.float32))["prediction"]
        np.testing.assert_allclose(found, network.forward(X), atol=1e-5)
    finally:
        nnkit.unregister_activation("bump")


@pytest.mark.parametrize("classes", [None, ["a", "b", "ç"], [3, 5, 9]], ids=str)
def test_labels_and_probabilities(classes: Any) -> None:
    network = nnkit.Network([6, 9, 3], seed=0, classes=classes)
    found = _run(network.to_onnx(), X.astype(np.float32))
    np.testing.assert_array_equal(found["label"], network.predict(X))
    np.testing.assert_allclose(found["probabilities"], network.predict_proba(X), atol=1e-6)


def test_two_classes_have_two_columns() -> None:
    network = nnkit.Network([6, 9, 1], seed=0, classes=["no", "yes"])
    network.parameters.b[-1][...] -= network.logits(X).mean()
    found = _run(network.to_onnx(), X.astype(np.float32))
    p = network.predict_proba(X)
    assert {*found["label"]} == {"no", "yes"}
    np.testing.assert_array_equal(found["label"], network.predict(X))
    np.testing.assert_allclose(found["probabilities"], np.hstack([1 - p, p]), atol=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_margins_are_scores(outputs: int) -> None:
    network = nnkit.Network([6, 9, outputs], cost="hinge", seed=0)
    found = _run(network.to_onnx(), X.astype(np.float32))
    np.testing.assert_array_equal(found["label"], network.predict(X))
    np.testing.assert_allclose(found["scores"][:, -1], network.forward(X)[:, -1], atol=1e-6)


@pytest.mark.parametrize("far", [0.0, 1e7])
@pytest.mark.parametrize("kind", [nnkit.data.Normalization, nnkit.data.Whitening])
def test_preprocessing_in_the_precision_that_it_needs(kind: Any, far: float) -> None:
    samples = RNG.normal(size=(60, 6)) + far
    network = nnkit.Network([6, 5, 2], cost="quadratic", seed=0, preprocessing=kind.fit(samples))
    model = network.to_onnx()
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    assert far == 0 or dtype == np.float64
    found = _run(model, samples.astype(dtype))["prediction"]
    np.testing.assert_allclose(found, network.forward(samples), atol=1e-5)


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    network = nnkit.Network([6, 9, 3], seed=0, features=list("abcdef"))
    network.to_onnx(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["features"] == '["a", "b", "c", "d", "e", "f"]'
    assert session.get_modelmeta().producer_name == "nnkit"
    assert session.get_inputs()[0].shape == ["n", 6]


@pytest.mark.parametrize("form", ["path", "bytes", "model"])
@pytest.mark.parametrize("preprocessing", [None, nnkit.data.Normalization.fit(X), nnkit.data.Whitening.fit(X)])
def test_a_network_is_read_back(preprocessing: Any, form: str, tmp_path: Path) -> None:
    layers = [nnkit.Dense(6, 9, "gelu"), nnkit.Dropout(0.25), nnkit.Dense(9, 3)]
    network = nnkit.Network(
        layers, seed=5, preprocessing=preprocessing, classes=["a", "b", "c"], features=list("uvwxyz")
    )
    model = network.to_onnx(tmp_path / "net.onnx")
    again = nnkit.from_onnx({"path": tmp_path / "net.onnx", "bytes": model.SerializeToString(), "model": model}[form])
    assert repr(again) == repr(network)
    assert again.features == network.features
    np.testing.assert_array_equal(again.parameters.flat, network.parameters.flat)
    np.testing.assert_allclose(again.forward(X), network.forward(X), atol=1e-6)
    np.testing.assert_array_equal(again.predict(X), network.predict(X))


def test_weights_in_an_external_file_are_those_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = [nnkit.Network([4, 30, 3], "relu", seed=seed) for seed in (1, 2)]
    paths = [tmp_path / name / "model.onnx" for name in ("A", "B")]
    for path, net in zip(paths, nets, strict=True):
        path.parent.mkdir()
        model = net.to_onnx()
        model.graph.node.append(helper.make_node("Identity", ["probabilities"], ["other"]))  # as another program's
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for folder in (tmp_path, paths[1].parent):
        monkeypatch.chdir(folder)
        found = nnkit.from_onnx(paths[0])
        assert found.parameters.vector.tolist() == nets[0].parameters.vector.tolist()
        assert nnkit.from_onnx(onnx.load(paths[0])).parameters.vector.tolist() == found.parameters.vector.tolist()
        for source in (paths[0].read_bytes(), onnx.load(paths[0], load_external_data=False)):
            with pytest.raises(ValueError, match="the model: its constants are in an external file; give the path"):
                nnkit.from_onnx(source)
    (paths[0].parent / "weights.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"model.onnx: (its external file cannot be read|a constant is damaged): "):
        nnkit.from_onnx(paths[0])
    (paths[0].parent / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"model.onnx: its external file cannot be read: "):
        nnkit.from_onnx(paths[0])


def _chain(nodes: list[Any], constants: dict[str, np.ndarray], end: str) -> Any:
    """A model of another program."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("input", end)]
    graph = helper.make_graph(nodes, "other", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


W, B = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
V = RNG.normal(size=(4, 2)).astype(np.float32)


def test_a_chain_of_another_program() -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W", "B"], ["a"], transB=1),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["silu"]),
        helper.make_node("MatMul", ["silu", "V"], ["b"]),
        helper.make_node("Add", ["b", "C"], ["c"]),
        helper.make_node("Softmax", ["c"], ["p"], axis=-1),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1),
    ]
    model = _chain(nodes, {"W": W, "B": B, "V": V, "C": np.ones((1, 2), np.float32)}, "p")
    network = nnkit.from_onnx(model)
    assert repr(network).startswith("Network(6 → 4 silu → 2 softmax, softmax_cross_entropy")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["p"], {"input": X.astype(np.float32)})
    np.testing.assert_allclose(network.forward(X), expected, atol=1e-6)


def test_a_model_exported_by_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)
    ).eval()
    path, x = str(tmp_path / "torch.onnx"), torch.tensor(X, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter that needs no other package
        torch.onnx.export(model, (x,), path, dynamo=False)
    network = nnkit.from_onnx(path)
    assert [layer.activation for layer in network.dense] == ["tanh", "relu", "identity"]
    np.testing.assert_allclose(network.forward(X), model(x).detach().numpy(), atol=1e-6)


GEMM = helper.make_node("Gemm", ["input", "W", "B"], ["a"], transB=1)
HARD = helper.make_node("HardSigmoid", ["a"], ["b"])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Conv", ["input", "W"], ["b"])], "Conv is not supported"),
        ([helper.make_node("Gemm", ["input", "W", "B"], ["b"], transB=1, alpha=2.0)], "Gemm '' is not a dense layer"),
        ([GEMM, helper.make_node("Elu", ["a"], ["b"], alpha=0.5)], "Elu has alpha=0.5; nnkit's elu has 1"),
        ([GEMM, HARD], "HardSigmoid has alpha=0.2; nnkit's hard_sigmoid has 0.166667"),
        ([GEMM, helper.make_node("Sin", ["a"], ["b"])], "Sin is not supported"),
    ],
)
def test_models_that_are_not_dense_networks(nodes: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnkit.from_onnx(_chain(nodes, {"W": W, "B": B}, "b"))


MATMUL = helper.make_node("MatMul", ["input", "V6"], ["a"])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([MATMUL, helper.make_node("Sub", ["a", "C"], ["s"]), helper.make_node("Relu", ["s"], ["b"])], "Sub is not"),
        ([MATMUL, helper.make_node("Sub", ["C", "a"], ["s"]), helper.make_node("Relu", ["s"], ["b"])], "Sub is not"),
        ([MATMUL, helper.make_node("Softmax", ["a"], ["b"], axis=0)], "Softmax has axis=0"),
        (
            [
                MATMUL,
                helper.make_node("Cast", ["a"], ["i"], to=TensorProto.INT32),
                helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
                helper.make_node("Relu", ["f"], ["b"]),
            ],
            "Cast is not supported",
        ),
        ([MATMUL, helper.make_node("Add", ["a", "a"], ["b"])], "the bias 'a' is not constant"),
        (
            [MATMUL, helper.make_node("Add", ["a", "wide"], ["b"])],
            r"the bias 'wide' has shape \(5, 2\); expected \(2,\)",
        ),
        ([MATMUL, helper.make_node("Identity", ["a"], ["c"]), helper.make_node("Relu", ["c"], ["b"])], "output 'c' is"),
        ([MATMUL, helper.make_node("Neg", ["a"], ["b"])], "Neg is not"),
        ([MATMUL, helper.make_node("Sub", ["one", "a"], ["b"])], "Sub is not"),
        ([MATMUL, helper.make_node("Softmax", ["a"], ["p"]), helper.make_node("Neg", ["p"], ["b"])], "Neg is not"),
        ([MATMUL, helper.make_node("Gather", ["a", "last"], ["b"], axis=1)], "Gather is not"),
        ([MATMUL, helper.make_node("Concat", ["a", "a"], ["b"], axis=1)], "Concat is not"),
        (
            [MATMUL, helper.make_node("Sigmoid", ["a"], ["p"]), helper.make_node("Sub", ["one", "p"], ["b"])],
            "Sub is not",
        ),
        (
            [MATMUL, helper.make_node("Neg", ["a"], ["n"]), helper.make_node("ArgMax", ["n"], ["b"], axis=1)],
            "Neg is not",
        ),
        ([MATMUL, helper.make_node("ArgMax", ["a"], ["b"])], "no operator is not"),
        ([MATMUL, helper.make_node("Relu", ["a"], ["b"], domain="own")], "own.Relu is not"),
        ([MATMUL, helper.make_node("Add", ["a", "C"], ["b"], domain="own")], "own.Add is not"),
    ],
)
def test_nothing_of_a_model_is_left_out(nodes: list[Any], message: str) -> None:
    constants = {"V6": RNG.normal(size=(6, 2)), "C": np.ones((1, 2)), "wide": np.ones((5, 2)), "one": np.ones(())}
    constants = {name: array.astype(np.float32) for name, array in constants.items()} | {"last": np.array([1])}
    model = _chain(nodes, constants, "b")
    if any("c" in node.output for node in nodes):
        model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    with pytest.raises(ValueError, match=message):
        nnkit.from_onnx(model)


def test_what_other_programs_add_to_a_model_of_nnkit_is_not_left_out() -> None:
    model = nnkit.Network([6, 3], cost="quadratic", seed=0).to_onnx()
    model.graph.node.append(helper.make_node("Neg", ["prediction"], ["negative"]))
    model.graph.output[0].name = "negative"
    with pytest.raises(ValueError, match="Neg is not supported"):
        nnkit.from_onnx(model)


def test_classifiers_of_scikit_learn() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier

    for classes in (2, 3):
        fitted = MLPClassifier((5,), max_iter=5, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            fitted.fit(X, np.arange(len(X)) % classes)
        for zipmap in (True, False):
            model = skl2onnx.to_onnx(fitted, X[:1].astype(np.float32), options={"zipmap": zipmap})
            found = nnkit.from_onnx(model).forward(X)
            np.testing.assert_allclose(found, fitted.predict_proba(X)[:, -found.shape[1] :], atol=1e-6)


@pytest.mark.parametrize("count", [60, pytest.param(20000, marks=pytest.mark.campaign)])
def test_what_is_read_of_any_graph_computes_the_same(count: int) -> None:
    """Random graphs: ONNX Runtime's outputs that are no labels are the network's, or a classifier's p beside 1 - p."""
    rng, read, refused = np.random.default_rng(7), 0, 0
    while min(read, refused) < count:
        model = _random_graph(rng)
        try:
            found = list(_run_any(model))
        except Exception:  # a graph that has no meaning
            continue
        for output, values in zip(model.graph.output, found, strict=True):
            output.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        try:
            network = nnkit.from_onnx(model)
        except ValueError:
            refused += 1
            continue
        read += 1
        expected = network.forward(X)
        for values in found:
            if values.dtype.kind == "f" and values.shape == (len(X), 2) != expected.shape:
                assert all(label.dtype.kind == "i" for label in found if label is not values) or len(found) == 1
                values = values[:, 1:]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
            elif expected.shape[1] > 1:  # labels, of one of the largest numbers
                chosen = np.take_along_axis(expected, values.reshape(-1, 1), axis=1)
                np.testing.assert_allclose(chosen[:, 0], expected.max(axis=1), rtol=1e-5, atol=1e-5)


def _run_any(model: Any) -> list[np.ndarray]:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"input": X.astype(np.float32)})
    return found


def _random_graph(rng: np.random.Generator) -> Any:
    """A few products and other nodes of random earlier values, mostly the last one, with one or two outputs."""
    constants, nodes = {"one": np.ones((), np.float32), "three": np.full(1, 3, np.float32), "i": np.array([0])}, []
    values, widths = ["input"], [6]
    steps = ["dense"] * 3 + ["Relu", "Sigmoid", "Softmax", "Tanh", "Neg", "Sub", "Concat", "Gather", "ArgMax", "Cast"]
    steps += ["Identity", "Flatten", "Mul", "Add", "Dropout"]
    for i in range(rng.integers(1, 7)):
        step = "dense" if i == 0 else str(rng.choice(steps))
        a = len(values) - 1 if rng.random() < 0.7 else int(rng.integers(len(values)))
        b = int(rng.integers(len(values)))
        x, given, width = [values[a]], {}, widths[a]
        if step == "dense":
            width, step = int(rng.integers(1, 4)), "MatMul"
            constants[f"W{i}"] = rng.normal(size=(widths[a], width)).astype(np.float32)
            x.append(f"W{i}")
        elif step in ("Sub", "Add", "Mul"):
            x = [str(rng.choice(["one", "one", "three", values[b]])), values[a]]
            x = x if rng.random() < 0.7 else x[::-1]
        elif step == "Concat":
            x, given, width = [values[b], values[a]], {"axis": 1}, widths[a] + widths[b]
        elif step == "Gather":
            x, given, width = [values[a], "i"], {"axis": 1}, 1
        elif step == "ArgMax":
            given = {"axis": int(rng.integers(2))}
        elif step == "Cast":
            given = {"to": int(rng.choice([TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64]))}
        nodes.append(helper.make_node(step, x, [f"v{i}"], **given))
        values.append(f"v{i}")
        widths.append(width)
    model = _chain(nodes, constants, values[-1])
    model.graph.output[0].ClearField("type")
    if rng.random() < 0.4 and len(values) > 2:
        model.graph.output.append(onnx.ValueInfoProto(name=values[-2]))
    return model


@pytest.mark.parametrize(
    ("source", "names", "more", "message"),
    [
        ("p", [7, 3], [], None),
        ("z", [7, 3], [], None),
        ("copy", [7, 3], ["Reshape", "Cast"], None),
        ("p", [7, 3, 9], [], "its labels have 3 names; expected 2, one per class"),
        ("r", [7, 3, 9, 5], [], "its labels are the ArgMax of other values than the last layer's"),
        ("p", [7, 3], ["Neg"], "Neg is not supported"),
        ("p", [7, 3], ["Add"], "Add is not supported"),
        ("p", [1, 0], ["Gather"], "its labels are names of names"),
    ],
)
def test_labels_are_names_of_the_largest_output(
    source: str, names: list[int], more: list[str], message: str | None
) -> None:
    nodes = [
        helper.make_node("Gemm", ["input", "W", "B"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "V"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=1),
        helper.make_node("Identity", ["p"], ["copy"]),
        helper.make_node("ArgMax", [source], ["i"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "i"], ["named"]),
    ]
    given: dict[str, Any] = {"Reshape": ["shape"], "Add": ["shape"]}
    for step in more:
        last = nodes[-1].output[0]
        to = {"to": TensorProto.INT64} if step == "Cast" else {}
        inputs = ["names", last] if step == "Gather" else [last, *given.get(step, [])]
        nodes.append(helper.make_node(step, inputs, [last + step], **to))
    label = nodes[-1].output[0]
    constants = {"W": W, "B": B, "V": V, "names": np.array(names), "shape": np.array([-1])}
    model = _chain(nodes, constants, "copy")
    model.graph.output.append(helper.make_tensor_value_info(label, TensorProto.INT64, [None]))
    if message is not None:
        with pytest.raises(ValueError, match=message):
            nnkit.from_onnx(model)
        return
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run([label], {"input": X.astype(np.float32)})
    assert set(expected) == {3, 7}
    np.testing.assert_array_equal(nnkit.from_onnx(model).predict(X.astype(np.float32)), expected)


def test_one_minus_p_beside_p_decides_the_class() -> None:
    nodes = [
        helper.make_node("MatMul", ["input", "V1"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["both"], axis=1),
        helper.make_node("ArgMax", ["both"], ["label"], axis=1),
    ]
    constants = {"V1": RNG.normal(size=(6, 1)).astype(np.float32), "one": np.ones((), np.float32)}
    network = nnkit.from_onnx(_chain(nodes, constants, "label"))
    assert repr(network).startswith("Network(6 → 1 sigmoid, cross_entropy")
    np.testing.assert_allclose(network.logits(X), X @ constants["V1"], atol=1e-5)


def test_the_largest_logit_decides_among_outputs_that_round_to_the_same(tmp_path: Path) -> None:
    for logits in ([20.0, 25.0, 18.0], [-20.0, -19.0, -25.0]):
        network = nnkit.Network([1, 3], cost="cross_entropy", seed=0)
        network.parameters.W[0][...] = np.array(logits)[:, None]
        x = np.ones((1, 1), np.float32)
        assert _run(network.to_onnx(), x)["label"] == network.predict(x) == [1]


def test_other_files_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not an ONNX model"):
        nnkit.from_onnx(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        nnkit.from_onnx(tmp_path / "absent.onnx")
    for wrong in (0, 51):
        model = nnkit.Network([6, 2], seed=0).to_onnx()
        model.graph.initializer[0].data_type = wrong
        with pytest.raises(ValueError, match="the model: a constant is damaged"):
            nnkit.from_onnx(model)
    network = nnkit.Network([6, 2], seed=0)
    with pytest.raises(ValueError, match="opset is 12; expected a whole number of at least 13"):
        network.to_onnx(opset=12)
    with pytest.raises(ValueError, match="opset is 999"):
        network.to_onnx(tmp_path / "net.onnx", opset=999)
    assert not (tmp_path / "net.onnx").exists()


def test_a_custom_layer_is_refused() -> None:
    from tests.test_own_layers import Scaled

    network = nnkit.Network([Scaled(6, 6), nnkit.Dense(6, 2)], seed=0)
    with pytest.raises(TypeError, match="layer 0 is a Scaled; only Dense, Dropout and Scaling can be exported"):
        network.to_onnx()


@pytest.mark.parametrize(
    ("cost", "activation", "threshold", "x"),
    [
        ("own", "identity", None, np.linspace(-0.9, 1, 20)),  # ½, from the formula
        ("own", "tanh", 0.25, np.linspace(-0.9, 1, 20)),
        ("hinge", None, None, np.linspace(-0.95, 1, 20)),
        ("cross_entropy", "sigmoid", None, np.array([-1.0, -1e-9, 1e-9, 1.0])),  # σ(1e-9) is ½ in float32
    ],
)
def test_a_single_output_is_divided_where_the_network_divides_it(
    cost: str, activation: str | None, threshold: float | None, x: np.ndarray
) -> None:
    if cost == "own":
        nnkit.register_cost(
            "own", lambda xp, h, y, s: (h - y) ** 2 * s, lambda xp, h, y, s: 2 * (h - y) * s,
            output=activation or "identity", classifies=True, threshold=threshold,
        )  # fmt: skip
    try:
        network = nnkit.Network([1, 1], cost=cost, output_activation=activation, seed=0)
        network.parameters.flat[...] = 0
        network.parameters.W[0][...] = 1
        expected = np.asarray(network.predict(x[:, None]))
        assert {0, 1} == set(expected.tolist())
        assert _run(network.to_onnx(), x[:, None].astype(np.float32))["label"].tolist() == expected.tolist()
    finally:
        if cost == "own":
            nnkit.unregister_cost("own")


def test_outputs_that_round_to_one_are_told_apart() -> None:
    network = nnkit.Network([2, 2], cost="cross_entropy", init="zeros", seed=0)
    network.parameters.W[0][...] = np.eye(2)
    x = np.array([[200.0, 300.0], [300.0, 200.0]], np.float32)
    found = _run(network.to_onnx(), x)
    assert found["probabilities"].tolist() == [[1, 1], [1, 1]]
    assert found["label"].tolist() == np.asarray(network.predict(x)).tolist() == [1, 0]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("cost", ["cross_entropy", "softmax_cross_entropy", "hinge"])
def test_a_classifier_is_read_for_another_cost(cost: str, outputs: int) -> None:
    """As the model of another program: what decides between classes is ignored."""
    outputs += cost == "softmax_cross_entropy"
    network = nnkit.Network([6, 9, outputs], "tanh", cost, seed=0)
    again = nnkit.from_onnx(network.to_onnx(), cost="quadratic")
    assert again.cost.name == "quadratic"
    np.testing.assert_allclose(again.forward(X), network.forward(X), rtol=1e-6)


def test_an_encoded_table_has_an_input_for_each_column() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({
        "size": [1.0, None, 3.0, 1e3], "kind": ["a", "b", None, "a"], "code": pandas.Categorical([3, 5, 3, None]),
        "member": [True, False, True, True],
    })  # fmt: skip
    new = pandas.DataFrame({
        "size": [None, 7.0], "kind": ["other", None], "code": pandas.Categorical([9, 5]), "member": [False, True],
    })  # fmt: skip
    for scaling in ("standard", "robust"):
        encoding = nnkit.data.TableEncoding.fit(table, scaling)
        net = nnkit.Network([encoding.outputs, 5, 2], "tanh", seed=0, dtype="float64", preprocessing=encoding)
        session = runtime.InferenceSession(net.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
        used = {name for node in net.to_onnx().graph.node for name in node.input}
        assert used >= {constant.name for constant in net.to_onnx().graph.initializer}  # ONNX Runtime warns of others
        types = {value.name: (value.type, value.shape) for value in session.get_inputs()}
        assert types == {
            "size": ("tensor(double)", ["n", 1]), "kind": ("tensor(string)", ["n", 1]),
            "code": ("tensor(double)", ["n", 1]), "member": ("tensor(double)", ["n", 1]),
        }  # fmt: skip
        for part in (table, new):
            given = {name: part[[name]].to_numpy(np.float64, na_value=np.nan) for name in ("size", "code", "member")}
            given["kind"] = part[["kind"]].fillna("").to_numpy(object)
            (found,) = session.run(["probabilities"], given)
            np.testing.assert_allclose(found, net.forward(part), atol=1e-12)
            assert np.array_equal(nnkit.from_onnx(net.to_onnx()).forward(part), net.forward(part))


@pytest.mark.parametrize("name", ["label", "probabilities", "classes", "layers.0.W", "isnan_0", "", "names"])
def test_a_column_called_like_another_value_is_refused(name: str) -> None:
    pandas = pytest.importorskip("pandas")
    encoding = nnkit.data.TableEncoding.fit(pandas.DataFrame({name: [1.0, 2.0, 4.0], "kind": ["a", "b", "a"]}))
    net = nnkit.Network([encoding.outputs, 2], seed=0, preprocessing=encoding)
    if name == "names":
        assert [value.name for value in net.to_onnx().graph.input] == ["names", "kind"]
        return
    with pytest.raises(ValueError, match=f"column '{name}' is called like another value of the ONNX model"):
        net.to_onnx()


@pytest.mark.parametrize(("classes", "labels"), [([True, False], [1, 0]), ([1.5, 2.0], ["1.5", "2.0"])])
def test_labels_are_integers_or_text(classes: list[Any], labels: list[Any]) -> None:
    network = nnkit.Network([6, 9, 2], seed=0, classes=classes)
    found = _run(network.to_onnx(), X.astype(np.float32))["label"]
    assert [classes[labels.index(label)] for label in found] == network.predict(X).tolist()


def test_text_that_onnx_cannot_tell_from_a_missing_one() -> None:
    pandas = pytest.importorskip("pandas")
    for values, refused in ((["a", "", "b"], False), (["a", None, "b"], False), (["a", "", None], True)):
        encoding = nnkit.data.TableEncoding.fit(pandas.DataFrame({"kind": values, "x": [1.0, 2.0, 4.0]}))
        net = nnkit.Network([encoding.outputs, 2], seed=0, preprocessing=encoding)
        if refused:
            with pytest.raises(ValueError, match="column 'kind' had both empty text and missing values"):
                net.to_onnx()
        else:
            net.to_onnx()


@pytest.mark.parametrize("missing", [False, True])
def test_an_encoding_of_numbers_has_the_input_x(missing: bool) -> None:
    x = X.copy()
    x[::7, 2] = x[0, 4] = np.nan if missing else 0.0
    encoding = nnkit.data.TableEncoding.fit(x, "robust")
    net = nnkit.Network([nnkit.Scaling(encoding.outputs), nnkit.Dense(encoding.outputs, 3)], preprocessing=encoding)
    assert encoding.outputs == 6 + 2 * missing
    model = net.to_onnx()
    found = _run(model, x)["probabilities"]
    np.testing.assert_allclose(found, net.forward(x), atol=1e-6)
    again = nnkit.from_onnx(model)
    assert again.preprocessing == encoding
    assert np.array_equal(again.forward(x), net.forward(x))
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == "preprocessing.mean")
    mean.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(mean) + 1, mean.name))  # by another program
    with pytest.raises(ValueError, match="is not supported"):
        nnkit.from_onnx(model)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_with_scaled_targets_is_read_back_with_them(dtype: str) -> None:
    Y = X[:, :2] * [50.0, 0.2] + [1000.0, -3.0]
    scaling = nnkit.data.Normalization.fit(Y)
    net = nnkit.Network([6, 5, 2], "tanh", "quadratic", seed=0, dtype=dtype, target_scaling=scaling)
    net.fit(X, Y, epochs=3, progress=False)
    again = nnkit.from_onnx(net.to_onnx())
    assert again.target_scaling == scaling
    atol = 1e-12 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(again.parameters.vector, net.parameters.vector, atol=atol)
    assert again.evaluate(X, Y)["cost"] == pytest.approx(net.evaluate(X, Y)["cost"], rel=atol * 10)
