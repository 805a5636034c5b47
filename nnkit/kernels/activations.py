"""The activations by name: f, its gradient kernel, and which of h̄ and h = f(h̄) the gradient is computed from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnkit.backends.formula import Formula, as_formula
from nnkit.checks import check_agreement, check_new_name, named, one_of
from nnkit.kernels import rectifiers, sigmoidal, smooth


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """An elementwise activation: `forward(z)` and `gradient(saved, delta)`, where saved is h or h̄."""

    name: str
    forward: Formula
    gradient: Formula
    gradient_from: Literal["output", "preactivation"] = "output"


_activations: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("identity", rectifiers.identity, rectifiers.identity_grad),
        Activation("sigmoid", sigmoidal.sigmoid, sigmoidal.sigmoid_grad),
        Activation("tanh", sigmoidal.tanh, sigmoidal.tanh_grad),
        Activation("relu", rectifiers.relu, rectifiers.relu_grad),
        Activation("leaky_relu", rectifiers.leaky_relu, rectifiers.leaky_relu_grad),
        Activation("elu", rectifiers.elu, rectifiers.elu_grad),
        Activation("selu", rectifiers.selu, rectifiers.selu_grad),
        Activation("gelu", smooth.gelu, smooth.gelu_grad, "preactivation"),
        Activation("gelu_tanh", smooth.gelu_tanh, smooth.gelu_tanh_grad, "preactivation"),
        Activation("silu", smooth.silu, smooth.silu_grad, "preactivation"),
        Activation("mish", smooth.mish, smooth.mish_grad, "preactivation"),
        Activation("softplus", smooth.softplus, smooth.softplus_grad),
        Activation("exponential", smooth.exponential, smooth.exponential_grad),
        Activation("softsign", sigmoidal.softsign, sigmoidal.softsign_grad),
        Activation("hard_sigmoid", sigmoidal.hard_sigmoid, sigmoidal.hard_sigmoid_grad),
    )
}
_BUILT_IN = frozenset(_activations)
_registrations = 0


def activation_names() -> list[str]:
    """The names that `activation=` takes."""
    return list(_activations)


def get_activation(name: str | Activation) -> Activation:
    """The activation with this name; raises ValueError, with similar names, if there is none.

    >>> get_activation("relu").gradient_from
    'output'
    >>> get_activation("sigmiod")
    Traceback (most recent call last):
    nnkit.checks.UnknownNameError: unknown activation 'sigmiod'; did you mean 'sigmoid' or 'hard_sigmoid'?
    """
    if isinstance(name, Activation):
        return name
    return named("activation", name, _activations)


def register_activation(
    name: str,
    forward: Formula | object,
    gradient: Formula | object,
    gradient_from: Literal["output", "preactivation"] = "output",
) -> Activation:
    """Register a custom activation: two formulas f(xp, z) and g(xp, saved, delta) = f′ ⊙ Δ.

    `saved` is the output h = f(z) or, with `gradient_from="preactivation"`, the pre-activation z. The pair is checked
    immediately: at points in [−4, 4], g must agree with the complex-step derivative of f to 1e-10. Networks and their
    files have the name: if it is removed and registered anew, existing networks compute the new function. Raises
    ValueError if the pair does not agree, if the name is taken, or if `gradient_from` has another value.

    >>> cube = nnkit.register_activation(
    ...     "cube", lambda xp, z: z**3, lambda xp, z, delta: 3 * z**2 * delta, gradient_from="preactivation")
    >>> net = nnkit.Network([2, 3, 1], activation="cube", cost="quadratic", seed=0)
    >>> nnkit.unregister_activation("cube")
    """
    check_new_name("activation", name, [*_activations, "softmax"])  # softmax is an output activation
    one_of("", "gradient_from", gradient_from, ["output", "preactivation"])
    made = Activation(name, as_formula(forward, name), as_formula(gradient, f"{name}_grad"), gradient_from)
    _check(made)
    _activations[name] = made
    global _registrations
    _registrations += 1
    return made


def unregister_activation(name: str) -> None:
    """Remove a registered activation, which networks with its name then lack until it is registered again.

    Raises KeyError if there is none with this name, and ValueError for one that is built in.
    """
    if name in _BUILT_IN:
        raise ValueError(f"activation {name!r} is built in and cannot be removed")
    del _activations[name]


def registrations() -> int:
    """How many activations have been registered so far: a name may mean another function after each."""
    return _registrations


def _check(activation: Activation) -> None:
    """Check the pair at fixed points that avoid the usual kinks at 0 and ±3."""
    z = np.linspace(-4, 4, 42)
    exact = activation.forward(z + 1e-30j).imag / 1e-30
    saved = activation.forward(z) if activation.gradient_from == "output" else z
    delta = np.linspace(1, 3, 42)  # not all ones: a gradient that ignores Δ must fail
    found = activation.gradient(saved, delta) / delta
    check_agreement(f"activation {activation.name!r}", "the gradient differs from f′ =", found, exact, z=z)
