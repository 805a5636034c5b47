"""Serving: each `step` is one call for the probabilities of the samples of a `bench.epochs.Serving`."""

from typing import Any

import numpy as np

import nnkit
from bench.contenders.base import Contender, peer
from bench.problem import Parameters


class Served(Contender):
    """The base class: `found` are the probabilities of the last call."""

    compared = 3
    found: np.ndarray

    def __init__(self, problem: Any) -> None:
        self.problem, self.X = problem, problem.batch()[0]

    def parameters(self) -> Parameters:
        return [(self.found.astype(self.problem.dtype), np.zeros(0, self.problem.dtype))]


class ServedNnkit(Served):
    """nnkit's `predict_proba`."""

    label = "nnkit predict_proba"
    distributions = ("nnkit",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.net = nnkit.Network(list(problem.size.widths), problem.activation, "softmax_cross_entropy", seed=0)
        self.net.parameters.assign(problem.parameters())

    def step(self) -> None:
        self.found = self.net.predict_proba(self.X)


class ServedOnnx(Served):
    """ONNX Runtime with one thread: Gemm, the activation, and softmax."""

    label = "ONNX Runtime"
    distributions = ("onnxruntime", "onnx")

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        runtime, onnx = peer("onnxruntime", "onnxruntime"), peer("onnx", "onnx")
        helper, nodes, weights, last = onnx.helper, [], [], len(problem.parameters()) - 1
        for i, (W, b) in enumerate(problem.parameters()):
            weights += [onnx.numpy_helper.from_array(W, f"W{i}"), onnx.numpy_helper.from_array(b, f"b{i}")]
            nodes.append(helper.make_node("Gemm", [f"h{i}", f"W{i}", f"b{i}"], [f"z{i}"], transB=1))
            kind = "Softmax" if i == last else "Relu" if problem.activation == "relu" else "Sigmoid"
            nodes.append(helper.make_node(kind, [f"z{i}"], [f"h{i + 1}"]))
        sides = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])
            for name, width in (("h0", problem.size.widths[0]), (f"h{last + 1}", problem.size.widths[-1]))
        ]
        graph = helper.make_graph(nodes, "network", sides[:1], sides[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self.name = f"h{last + 1}"

    def step(self) -> None:
        (self.found,) = self.session.run([self.name], {"h0": self.X})


class ServedScikit(Served):
    """scikit-learn's `predict_proba`."""

    label = "scikit-learn"
    distributions = ("scikit-learn",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        widths, networks = problem.size.widths, peer("sklearn.neural_network", "scikit-learn")
        if widths[-1] == 2:
            raise ValueError("scikit-learn has one output for two classes")
        activation = "relu" if problem.activation == "relu" else "logistic"
        self.net = networks.MLPClassifier(widths[1:-1], activation=activation, random_state=0)
        labels = np.arange(max(widths[-1], 20)) % widths[-1]
        self.net.partial_fit(np.zeros((len(labels), widths[0]), problem.dtype), labels, classes=range(widths[-1]))
        for i, (W, b) in enumerate(problem.parameters()):
            self.net.coefs_[i], self.net.intercepts_[i] = np.ascontiguousarray(W.T), b

    def step(self) -> None:
        self.found = self.net.predict_proba(self.X)
