"""Epochs of several networks: each `step` is one pass of all over the samples of a `bench.ensembles.Together`."""

from typing import Any

import numpy as np

import nnkit
from bench.contenders.epochs import Epoch, JaxScan, WithoutNumba
from bench.ensembles import Together as Problem
from bench.problem import BETA1, BETA2, Parameters


class Networks(Epoch):
    """The base class of nnkit's: networks of several seeds, with the problem's start."""

    distributions = ("nnkit",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.several: Problem = problem
        rate, widths = problem.learning_rate, list(problem.size.widths)
        self.optimizer = nnkit.SGD(rate) if problem.optimizer == "sgd" else nnkit.Adam(rate, BETA1, BETA2)
        self.ensemble = nnkit.Ensemble(
            widths, problem.activation, seeds=range(problem.members), order="own" if problem.own else "shared",
            dtype=problem.dtype,
        )  # fmt: skip
        for k, member in enumerate(self.ensemble.members):
            member.parameters.assign(problem.parameters(k))
        self.options = {"batch_size": problem.size.batch, "progress": False, "optimizer": self.optimizer}

    def step(self) -> None:
        self.steps(1)

    def parameters(self) -> Parameters:
        found = [member.parameters for member in self.ensemble.members]
        return [(W.copy(), b.copy()) for each in found for W, b in zip(each.W, each.b, strict=True)]


class OneByOne(Networks):
    """The networks one after the other, by `Network.fit`."""

    label = "nnkit, alone"

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        for member in self.ensemble.members:
            member.seed = member.seed if problem.own else 0

    def steps(self, count: int) -> None:
        for member in self.ensemble.members:
            member.fit(self.X, self.labels, epochs=count, **self.options)


class Together(Networks):
    """All in one pass, by `Ensemble.fit`."""

    label = "nnkit, ensemble"

    def steps(self, count: int) -> None:
        self.ensemble.fit(self.X, self.labels, epochs=count, **self.options)


class OneByOneUfuncs(WithoutNumba, OneByOne):
    """`OneByOne` with NNKIT_NATIVE=0."""

    label = "nnkit, alone, ufuncs"


class TogetherUfuncs(WithoutNumba, Together):
    """`Together` with NNKIT_NATIVE=0."""

    label = "nnkit, ensemble, ufuncs"


class JaxVmap(JaxScan):
    """JAX: `lax.scan` over the minibatches, `vmap` over the networks."""

    label = "JAX vmap"

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.several: Problem = problem
        jax, count = self.jax, problem.members
        starts = [problem.parameters(k) for k in range(count)]
        stacked = [
            tuple(jax.device_put(np.stack(a)) for a in zip(*layer, strict=True)) for layer in zip(*starts, strict=True)
        ]
        weights = [(W.swapaxes(1, 2), b) for W, b in stacked]
        zeros = [jax.tree.map(jax.numpy.zeros_like, weights) for _ in self.state[2:]]
        self.state = (weights, self.state[1], *zeros)
        rows = 0 if problem.own else None
        gradients = jax.vmap(jax.grad(self.cost), (0, rows, rows))

        def epoch(state: Any, X: Any, Y: Any, rows: Any) -> Any:
            def step(state: Any, chosen: Any) -> Any:
                return self.update(state, gradients(state[0], X[chosen], Y[chosen])), None

            return jax.lax.scan(step, state, rows)[0]

        self._epoch = jax.jit(epoch, donate_argnums=0)

    def step(self) -> None:
        problem, epoch = self.several, self.done
        self.done += 1
        if not problem.own:
            rows = problem.order(epoch).reshape(problem.steps, -1)
        else:
            orders = [problem.order(epoch, k).reshape(problem.steps, -1) for k in range(problem.members)]
            rows = np.stack(orders, axis=1)
        self.state = self._epoch(self.state, *self.data, rows.astype(np.int32))

    def parameters(self) -> Parameters:
        weights = [(np.asarray(W), np.asarray(b)) for W, b in self.state[0]]
        return [(W[k].T.copy(), b[k].copy()) for k in range(self.several.members) for W, b in weights]
