"""JAX: the whole step under jit with donated parameters, and the gradient by automatic differentiation."""

from typing import Any

import numpy as np

from bench.contenders.base import Contender, peer
from bench.problem import BETA1, BETA2, EPSILON, Parameters, Problem

_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}


class Jax(Contender):
    """One call of the compiled step for each batch, which is on JAX's device."""

    label = "JAX jit"
    distributions = ("jax",)

    def __init__(self, problem: Problem) -> None:
        jax = peer("jax", "jax")
        jax.config.update("jax_platforms", problem.device)
        jax.config.update("jax_enable_x64", problem.dtype == "float64")
        # By default, JAX uses tf32 for float32 if the GPU supports it.
        jax.config.update("jax_default_matmul_precision", _PRECISIONS[problem.precision])
        self.X, self.Y = (jax.device_put(a) for a in problem.batch())
        weights = [(jax.device_put(W.T.copy()), jax.device_put(b)) for W, b in problem.parameters()]
        zeros = [jax.tree.map(jax.numpy.zeros_like, weights) for _ in range(2 if problem.optimizer == "adam" else 0)]
        # The state includes Adam's step count t and its means, in the shapes of the parameters.
        self.state = (weights, jax.numpy.zeros((), problem.dtype), *zeros)
        self.jax, self._step = jax, jax.jit(_step(jax, problem), donate_argnums=0)

    def step(self) -> None:
        self.state = self._step(self.state, self.X, self.Y)

    def wait(self) -> None:
        self.jax.block_until_ready(self.state)

    def parameters(self) -> Parameters:
        return [(np.array(W).T.copy(), np.array(b)) for W, b in self.state[0]]


def _step(jax: Any, problem: Problem) -> Any:
    """The function (state, X, Y) → state to compile."""
    jnp, rate = jax.numpy, problem.learning_rate
    activation = jax.nn.relu if problem.activation == "relu" else jax.nn.sigmoid

    def product(X: Any, W: Any) -> Any:
        if problem.precision != "bf16":
            return X @ W
        return (X.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16)).astype(W.dtype)

    def cost(weights: Any, X: Any, Y: Any) -> Any:
        for W, b in weights[:-1]:
            X = activation(product(X, W) + b)
        z = product(X, weights[-1][0]) + weights[-1][1]
        return jnp.sum(jax.nn.softplus(z) - Y * z) / X.shape[0]

    def descent(state: Any, X: Any, Y: Any) -> Any:
        weights, t = state
        return jax.tree.map(lambda p, g: p - rate * g, weights, jax.grad(cost)(weights, X, Y)), t

    def adam(state: Any, X: Any, Y: Any) -> Any:
        weights, t, mean, square = state
        gradient, t = jax.grad(cost)(weights, X, Y), t + 1
        mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, gradient)
        square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, square, gradient)
        first, second = (-jnp.expm1(t * np.log(beta).item()) for beta in (BETA1, BETA2))  # 1 − βᵗ, exact in float32
        weights = jax.tree.map(
            lambda p, m, v: p - rate * (m / first) / (jnp.sqrt(v / second) + EPSILON), weights, mean, square
        )
        return weights, t, mean, square

    return descent if problem.optimizer == "sgd" else adam
