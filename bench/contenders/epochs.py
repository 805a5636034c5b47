"""Epochs: each `step` is one pass over the samples of a `bench.epochs.Epochs`, in the order of that epoch."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

import nnkit
from bench.contenders.base import Contender, peer
from bench.contenders.floor import Floor
from bench.contenders.pytorch import torch_for
from bench.epochs import EPOCHS, Epochs
from bench.problem import BETA1, BETA2, Parameters


class Epoch(Contender):
    """The base class: counts epochs."""

    compared = EPOCHS

    def __init__(self, problem: Any) -> None:
        self.problem: Epochs = problem
        self.done = 0
        self.X, self.labels = problem.data

    def next_order(self) -> np.ndarray:
        self.done += 1
        return self.problem.order(self.done - 1)

    def rows(self) -> Iterator[np.ndarray]:
        """The row numbers of each minibatch of the next epoch."""
        return iter(self.next_order().reshape(self.problem.steps, -1))


class Products(Floor):
    """The products of the steps alone, as NumPy does them."""

    compared = 1

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.times = problem.steps

    def step(self) -> None:
        for _ in range(self.times):
            super().step()


class Fit(Epoch):
    """nnkit's `fit`, which also measures cost and accuracy."""

    label = "nnkit fit"
    distributions = ("nnkit",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        rate, widths = problem.learning_rate, list(problem.size.widths)
        made = nnkit.SGD(rate) if problem.optimizer == "sgd" else nnkit.Adam(rate, BETA1, BETA2, problem.epsilon)
        self.net = nnkit.Network(widths, problem.activation, "softmax_cross_entropy", seed=0, dtype=problem.dtype)
        self.net.optimizer = made
        self.net.parameters.assign(problem.parameters())

    def step(self) -> None:
        self.steps(1)

    def steps(self, count: int) -> None:
        self.net.fit(self.X, self.labels, epochs=count, batch_size=self.problem.size.batch, progress=False)

    def parameters(self) -> Parameters:
        found = self.net.parameters
        return [(W.copy(), b.copy()) for W, b in zip(found.W, found.b, strict=True)]


class WithoutNumba(Epoch):
    """A base class of contenders without native code in all of their process, as where numba is not installed."""

    def __init__(self, problem: Any) -> None:
        os.environ["NNKIT_NATIVE"] = "0"
        super().__init__(problem)


class FitWithoutNumba(WithoutNumba, Fit):
    """`Fit` by ufuncs."""

    label = "nnkit fit, without numba"


class JaxScan(Epoch):
    """JAX: one compiled call for an epoch, with `lax.scan` over its minibatches and donated parameters."""

    label = "JAX lax.scan"
    distributions = ("jax",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        jax = peer("jax", "jax")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        self.jax, jnp = jax, jax.numpy
        Y = np.eye(problem.size.widths[-1], dtype=problem.dtype)[self.labels]
        self.data = (jax.device_put(self.X), jax.device_put(Y))
        weights = [(jax.device_put(W.T.copy()), jax.device_put(b)) for W, b in problem.parameters()]
        zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(2 if problem.optimizer == "adam" else 0)]
        self.state = (weights, jnp.zeros((), problem.dtype), *zeros)
        rate, epsilon = problem.learning_rate, problem.epsilon
        activation = jax.nn.relu if problem.activation == "relu" else jax.nn.sigmoid

        def cost(weights: Any, x: Any, y: Any) -> Any:
            for W, b in weights[:-1]:
                x = activation(x @ W + b)
            z = x @ weights[-1][0] + weights[-1][1]
            return -jnp.sum(y * jax.nn.log_softmax(z)) / x.shape[0]

        def sgd(state: Any, g: Any) -> Any:
            return jax.tree.map(lambda p, g: p - rate * g, state[0], g), state[1]

        def adam(state: Any, g: Any) -> Any:
            weights, t, mean, square = state
            t = t + 1
            mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, g)
            square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, square, g)
            first, second = (-jnp.expm1(t * np.log(beta).item()) for beta in (BETA1, BETA2))
            weights = jax.tree.map(
                lambda p, m, v: p - rate * (m / first) / (jnp.sqrt(v / second) + epsilon), weights, mean, square
            )
            return weights, t, mean, square

        update = sgd if problem.optimizer == "sgd" else adam
        self.cost, self.update = cost, update

        def epoch(state: Any, X: Any, Y: Any, rows: Any) -> Any:
            def step(state: Any, chosen: Any) -> Any:
                return update(state, jax.grad(cost)(state[0], X[chosen], Y[chosen])), None

            return jax.lax.scan(step, state, rows)[0]

        self._epoch = jax.jit(epoch, donate_argnums=0)

    def step(self) -> None:
        rows = self.next_order().astype(np.int32).reshape(self.problem.steps, -1)
        self.state = self._epoch(self.state, *self.data, rows)

    def wait(self) -> None:
        self.jax.block_until_ready(self.state)

    def parameters(self) -> Parameters:
        return [(np.array(W).T.copy(), np.array(b)) for W, b in self.state[0]]


class TorchEager(Epoch):
    """PyTorch: modules, autograd and a fused optimizer; rows are gathered by index."""

    label = "PyTorch"
    distributions = ("torch",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.torch = torch = torch_for(problem)
        self.data = (torch.from_numpy(self.X), torch.from_numpy(self.labels))
        layers = []
        for W, b in problem.parameters():
            linear = torch.nn.Linear(W.shape[1], W.shape[0], dtype=self.data[0].dtype)
            linear.weight.data, linear.bias.data = torch.from_numpy(W), torch.from_numpy(b)
            layers += [linear, torch.nn.ReLU() if problem.activation == "relu" else torch.nn.Sigmoid()]
        self.net, rate = torch.nn.Sequential(*layers[:-1]), problem.learning_rate
        if problem.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(self.net.parameters(), rate, fused=True)
        else:
            betas = (BETA1, BETA2)
            self.optimizer = torch.optim.Adam(self.net.parameters(), rate, betas, problem.epsilon, fused=True)

    def step(self) -> None:
        X, labels = self.data
        for rows in self.torch.from_numpy(self.next_order()).split(self.problem.size.batch):
            self.optimizer.zero_grad()
            self.torch.nn.functional.cross_entropy(self.net(X[rows]), labels[rows]).backward()
            self.optimizer.step()

    def parameters(self) -> Parameters:
        found = [p.detach().numpy().copy() for p in self.net.parameters()]
        return list(zip(found[::2], found[1::2], strict=True))


class TorchCompiled(TorchEager):
    """The same step, with gather, gradient and update as one compiled function."""

    label = "PyTorch compiled"

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        torch, X, labels = self.torch, *self.data
        torch.compiler.reset()
        self.weights = [p.detach() for p in self.net.parameters()]
        self.means = [[torch.zeros_like(p) for p in self.weights] for _ in range(2)]
        self.t, rate, functional = torch.zeros((), dtype=X.dtype), problem.learning_rate, torch.nn.functional
        activation = torch.relu if problem.activation == "relu" else torch.sigmoid

        def cost(weights: Any, x: Any, y: Any) -> Any:
            for i in range(0, len(weights), 2):
                x = functional.linear(activation(x) if i else x, weights[i], weights[i + 1])
            return functional.cross_entropy(x, y)

        def step(weights: Any, t: Any, means: Any, squares: Any, rows: Any) -> None:
            gradient = torch.func.grad(cost)(weights, X[rows], labels[rows])
            t += 1
            for p, m, v, g in zip(weights, means, squares, gradient, strict=True):
                if problem.optimizer == "sgd":
                    p.sub_(g, alpha=rate)
                    continue
                m.mul_(BETA1).add_(g, alpha=1 - BETA1)
                v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
                first, second = (-torch.expm1(t * float(np.log(beta))) for beta in (BETA1, BETA2))
                p.sub_(rate * (m / first) / ((v / second).sqrt() + problem.epsilon))

        self._step = torch.compile(step, fullgraph=True, dynamic=False)

    def step(self) -> None:
        with self.torch.no_grad():
            for rows in self.torch.from_numpy(self.next_order()).split(self.problem.size.batch):
                self._step(self.weights, self.t, *self.means, rows)

    def parameters(self) -> Parameters:
        found = [p.numpy().copy() for p in self.weights]
        return list(zip(found[::2], found[1::2], strict=True))


class ScikitEpoch(Epoch):
    """scikit-learn: `partial_fit` on the shuffled samples, one epoch in minibatches; it also computes the cost."""

    label = "scikit-learn"
    distributions = ("scikit-learn",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        classes = range(problem.size.widths[-1])
        if len(classes) == 2:
            raise ValueError("scikit-learn has one output for two classes")
        if problem.optimizer == "adam" and problem.dtype == "float64":
            raise ValueError("scikit-learn adds Adam's epsilon at another place, which shows in float64")
        networks = peer("sklearn.neural_network", "scikit-learn")
        self.net = networks.MLPClassifier(
            hidden_layer_sizes=problem.size.widths[1:-1],
            activation="relu" if problem.activation == "relu" else "logistic", solver=problem.optimizer,
            alpha=0.0, batch_size=problem.size.batch, learning_rate_init=problem.learning_rate,
            momentum=0.0, nesterovs_momentum=False, beta_1=BETA1, beta_2=BETA2, epsilon=problem.epsilon, shuffle=False,
            random_state=0,
        )  # fmt: skip
        self.net.partial_fit(self.X[: problem.size.batch], self.labels[: problem.size.batch], classes=classes)
        del self.net._optimizer  # discards the state after this step
        for i, (W, b) in enumerate(problem.parameters()):
            self.net.coefs_[i][...] = W.T
            self.net.intercepts_[i][...] = b

    def step(self) -> None:
        order = self.next_order()
        self.net.partial_fit(self.X[order], self.labels[order])

    def parameters(self) -> Parameters:
        return [(W.T.copy(), b.copy()) for W, b in zip(self.net.coefs_, self.net.intercepts_, strict=True)]


class NumpyEpoch(Epoch):
    """Plain NumPy, as a student would write it."""

    label = "plain NumPy"
    distributions = ("numpy",)

    def __init__(self, problem: Any) -> None:
        super().__init__(problem)
        self.Y = np.eye(problem.size.widths[-1], dtype=problem.dtype)[self.labels]
        pairs = problem.parameters()
        self.p = [np.ascontiguousarray(W.T) for W, _ in pairs] + [b for _, b in pairs]
        self.mean, self.square, self.t = [np.zeros_like(p) for p in self.p], [np.zeros_like(p) for p in self.p], 0

    def step(self) -> None:
        relu, layers = self.problem.activation == "relu", len(self.p) // 2
        for rows in self.rows():
            hs, W = [self.X[rows]], self.p[:layers]
            for i in range(layers):
                z = hs[-1] @ W[i] + self.p[layers + i]
                if i == layers - 1:
                    e = np.exp(z - z.max(axis=1, keepdims=True))
                    delta = (e / e.sum(axis=1, keepdims=True) - self.Y[rows]) / len(rows)
                else:
                    hs.append(np.maximum(z, 0) if relu else 1 / (1 + np.exp(-z)))
            dW: list[np.ndarray] = []
            db: list[np.ndarray] = []
            for i in reversed(range(layers)):
                dW.insert(0, hs[i].T @ delta)
                db.insert(0, delta.sum(axis=0))
                if i:
                    delta = delta @ W[i].T * ((hs[i] > 0) if relu else hs[i] * (1 - hs[i]))
            self._update(dW + db)

    def _update(self, gradients: list[np.ndarray]) -> None:
        problem, self.t = self.problem, self.t + 1
        for i, (p, g) in enumerate(zip(self.p, gradients, strict=True)):
            if problem.optimizer == "adam":
                self.mean[i] = BETA1 * self.mean[i] + (1 - BETA1) * g
                self.square[i] = BETA2 * self.square[i] + (1 - BETA2) * g**2
                mean, square = self.mean[i] / (1 - BETA1**self.t), self.square[i] / (1 - BETA2**self.t)
                g = mean / (np.sqrt(square) + problem.epsilon)
            p -= problem.learning_rate * g

    def parameters(self) -> Parameters:
        half = len(self.p) // 2
        return [(W.T.copy(), b.copy()) for W, b in zip(self.p[:half], self.p[half:], strict=True)]
