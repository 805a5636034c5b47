"""Thinc: a chain of its layers, with the output error computed by hand for its callbacks."""

import numpy as np

from bench.contenders.base import Contender, peer
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem


class Thinc(Contender):
    """begin_update, the callback, finish_update; float32 only. It also computes the gradient of the batch X."""

    label = "Thinc"
    distributions = ("thinc",)

    def __init__(self, problem: Problem) -> None:
        api = peer("thinc.api", "thinc")
        if problem.dtype != "float32":
            raise ValueError("supports float32 parameters only")
        api.set_current_ops(api.NumpyOps())
        self.X, self.Y = problem.batch()
        hidden = api.Relu if problem.activation == "relu" else api.Sigmoid
        layers = []
        for i, (W, b) in enumerate(problem.parameters()):
            last = i == len(problem.size.widths) - 2
            layer = (api.Linear if last else hidden)(W.shape[0], W.shape[1])
            layer.initialize()
            layer.set_param("W", W)
            layer.set_param("b", b)
            layers.append(layer)
        self.net, self.layers, self.sigmoid = api.chain(*layers), layers, api.NumpyOps().sigmoid
        rate = problem.learning_rate
        self.optimizer = (
            api.SGD(rate, grad_clip=0.0, use_averages=False)
            if problem.optimizer == "sgd"
            else api.Adam(rate, beta1=BETA1, beta2=BETA2, eps=EPSILON, L2=0.0, grad_clip=0.0, use_averages=False)
        )

    def step(self) -> None:
        z, backward = self.net.begin_update(self.X)
        backward((self.sigmoid(z) - self.Y) / len(self.X))
        self.net.finish_update(self.optimizer)

    def parameters(self) -> Parameters:
        return [(np.array(layer.get_param("W")), np.array(layer.get_param("b"))) for layer in self.layers]
