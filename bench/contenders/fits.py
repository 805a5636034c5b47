"""Small fits: each `step` trains a new network on the rows of a `bench.epochs.Fitting`, for twenty epochs."""

import warnings
from typing import Any, ClassVar

import numpy as np

import nnkit
from bench.contenders.base import Contender, peer
from bench.problem import Parameters

EPOCHS = 20


class Fitted(Contender):
    """The base class: `found` are the probabilities by the last network."""

    compared = 2
    found: np.ndarray

    def __init__(self, problem: Any) -> None:
        self.problem, (self.X, self.labels) = problem, problem.data()

    def parameters(self) -> Parameters:
        return [(self.found.astype(self.problem.dtype), np.zeros(0, self.problem.dtype))]


class FitNetwork(Fitted):
    """nnkit's `Network.fit`."""

    label = "nnkit Network"
    distributions = ("nnkit",)

    def step(self) -> None:
        net = nnkit.Network(list(self.problem.size.widths), "relu", "softmax_cross_entropy", seed=0)
        batch = self.problem.size.batch
        net.fit(self.X, self.labels, epochs=EPOCHS, batch_size=batch, optimizer="adam", progress=False)
        self.found = net.predict_proba(self.X)


class FitEstimator(Fitted):
    """nnkit's estimator with the interface of scikit-learn."""

    label = "nnkit DenseClassifier"
    distributions: ClassVar[tuple[str, ...]] = ("nnkit", "scikit-learn")
    module, kind = "nnkit.sklearn", "DenseClassifier"

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.make = getattr(peer(self.module, "scikit-learn"), self.kind)

    def step(self) -> None:
        size = self.problem.size
        estimator = self.make(size.widths[1:-1], batch_size=size.batch, max_iter=EPOCHS, random_state=0)
        with warnings.catch_warnings():  # that more epochs would help
            warnings.simplefilter("ignore")
            estimator.set_params(n_iter_no_change=EPOCHS + 1).fit(self.X, self.labels)
        self.found = estimator.predict_proba(self.X)


class FitScikit(FitEstimator):
    """scikit-learn's MLPClassifier."""

    label = "scikit-learn"
    distributions = ("scikit-learn",)
    module, kind = "sklearn.neural_network", "MLPClassifier"
