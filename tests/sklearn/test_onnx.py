"""Pipelines with nnkit's estimators as ONNX models, computed by ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxruntime")

import onnxruntime as runtime
import skl2onnx
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nnkit.sklearn import DenseClassifier, DenseRegressor
from nnkit.sklearn.onnx import register_converters

X, y = load_iris(return_X_y=True)
OPTIONS: dict[str, Any] = {"solver": "lbfgs", "tol": 0.01, "random_state": 0}


register_converters()


def _run(model: Any, x: Any, **options: Any) -> list[Any]:
    converted = skl2onnx.to_onnx(model, x[:1], **options)
    session = runtime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {session.get_inputs()[0].name: x})
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "labels", [y, np.array(["a", "b", "c"])[y], y > 0, y + 1.0], ids=["numbers", "names", "two", "floats"]
)
def test_a_pipeline_of_a_classifier(labels: Any, dtype: Any) -> None:
    samples = X.astype(dtype)
    model = make_pipeline(StandardScaler(), DenseClassifier((9,), **OPTIONS)).fit(samples, labels)
    label, probabilities = _run(model, samples, options={"zipmap": False})
    np.testing.assert_array_equal(label, model.predict(samples).astype(label.dtype))
    np.testing.assert_allclose(probabilities, model.predict_proba(samples), atol=1e-5)


def test_a_pipeline_of_a_regressor() -> None:
    samples = X.astype(np.float32)
    model = make_pipeline(StandardScaler(), DenseRegressor(hidden_layer_sizes=(9,), **OPTIONS)).fit(samples, X[:, :2])
    (found,) = _run(model, samples)
    np.testing.assert_allclose(found, model.predict(samples), atol=1e-5)


def test_what_is_no_classifier_of_one_label_is_refused() -> None:
    samples, truths = make_multilabel_classification(30, random_state=0)
    model = DenseClassifier(solver="lbfgs", tol=0.1).fit(samples, truths)
    with pytest.raises(TypeError, match="several labels per sample"):
        skl2onnx.to_onnx(model, samples[:1].astype(np.float32))
    model = DenseClassifier(loss="quadratic", solver="lbfgs", tol=0.1).fit(samples, truths[:, 0])
    with pytest.raises(TypeError, match="classifiers with the cost quadratic cannot be converted"):
        skl2onnx.to_onnx(model, samples[:1].astype(np.float32))


def test_the_preset_is_exported_from_a_pipeline_but_a_table_with_categories_alone() -> None:
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), DenseClassifier(preset="tabular", max_iter=5, random_state=0)).fit(X, y)
    exported = skl2onnx.to_onnx(model, X[:1].astype(np.float32), options={"zipmap": False})
    session = runtime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, {"X": X.astype(np.float32)})
    np.testing.assert_allclose(probabilities, model.predict_proba(X.astype(np.float32)), atol=1e-5)
    assert labels.tolist() == model.predict(X).tolist()
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"kind": pandas.Categorical([3, 5] * 30), "size": np.arange(60.0)})
    alone = DenseClassifier((3,), max_iter=300, tol=0.1, random_state=0).fit(table, ["b", "a"] * 30)
    with pytest.raises(
        TypeError, match=r"a table with categories is converted alone: estimator.network_.to_onnx\(path\)"
    ):
        skl2onnx.to_onnx(alone, initial_types=[("X", skl2onnx.common.data_types.DoubleTensorType([None, 2]))])
    session = runtime.InferenceSession(alone.network_.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: table[[name]].to_numpy(np.float64) for name in table.columns}
    assert session.run(["label"], given)[0].tolist() == alone.predict(table).tolist()
