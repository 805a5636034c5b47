"""An optimizer of one's own, whose update is not a formula: it runs at every step, after the recorded gradients."""

from typing import Any

import numpy as np

import nnkit
from nnkit.optimizers import OptimizerState


class Signs(OptimizerState):
    def update(self, parameters: Any, gradients: Any) -> None:
        parameters.flat -= self.numbers["learning_rate"] * np.sign(gradients.flat)


class SignDescent(nnkit.SGD):
    def start(self, parameters: Any) -> OptimizerState:
        return Signs(self, parameters)
