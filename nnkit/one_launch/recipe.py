"""The computation of a training step as programs, one per formula, under the formula's name in the kernel source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnkit.backends.formula import Formula
from nnkit.backends.formulas.program import Program
from nnkit.kernels.activations import get_activation
from nnkit.kernels.output import OutputPair
from nnkit.kernels.regularization import treated
from nnkit.kernels.softmax import divided, shifted_exp, softmax_delta, softmax_pullback
from nnkit.kernels.updates import adam_clock
from nnkit.model import Model
from nnkit.optimizers import OptimizerState

_CLOCK = ("t", "correction1", "correction2")  # the results of `adam_clock`


@dataclass(frozen=True)
class Recipe:
    """The formulas of a step.

    Attributes:
        widths: d_in of the first layer, and each layer's d_out.
        programs: `forward0` and `gradient0` (f and f′ ⊙ Δ), and so on for each hidden layer; the output error `delta`
            from z, y and scale or, with softmax, `shifted_exp` and the formulas after it; the updates of `weights` and
            `biases`; the `clock` of a bias correction.
        saves_z: for each hidden layer, whether its gradient is computed from the pre-activation.
        softmax: whether the output activation is softmax. pullback: whether its cost needs the Jacobian of softmax.
        vectors: the names of the optimizer's vectors. numbers: the names of its scalars except the learning rate.
    """

    widths: tuple[int, ...]
    programs: Mapping[str, Program]
    saves_z: tuple[bool, ...]
    softmax: bool
    pullback: bool
    vectors: tuple[str, ...]
    numbers: tuple[str, ...]


def recipe_of(model: Model, state: OptimizerState) -> Recipe | None:
    """The step of a network, or None if the kernel does not support it.

    Dropout, float64, clipping by the global norm and optimizers with a custom `update` are not supported.
    """
    if (
        model.dtype != "float32"
        or model.layers != list(model.dense)
        or type(state) is not OptimizerState
        or "clip_norm" in state.options
    ):
        return None
    hidden = [get_activation(str(layer.activation)) for layer in model.dense[:-1]]
    programs = {f"forward{i}": f.forward.program() for i, f in enumerate(hidden)}
    programs |= {f"gradient{i}": f.gradient.program() for i, f in enumerate(hidden)}
    programs |= _output(model.output) | _updates(state)
    vectors = tuple(name for name in state.arrays if "clock" not in programs or name != "t")
    known = ("p", "g", "learning_rate", *_CLOCK, *vectors)
    updates = (programs[name] for name in ("weights", "biases", "clock") if name in programs)
    numbers = dict.fromkeys(o for program in updates for o in program.operands if o not in known)
    return Recipe(
        widths=(model.d_in, *(layer.units for layer in model.dense)),
        programs=programs,
        saves_z=tuple(f.gradient_from == "preactivation" for f in hidden),
        softmax=model.output.activation is None,
        pullback="softmax_pullback" in programs,
        vectors=vectors,
        numbers=tuple(numbers),
    )


def _output(output: OutputPair) -> dict[str, Program]:
    """The formulas of the output error."""
    if output.activation is not None:
        made = Formula(lambda xp, *zys: output.delta(_Traced(xp), *zys), "delta", ["z", "y", "scale"])  # type: ignore[arg-type]
        return {"delta": made.program()}
    shifted = {"shifted_exp": shifted_exp.program()}
    if output.cost.name == "softmax_cross_entropy":
        return shifted | {"softmax_delta": softmax_delta.program()}
    delta = output.cost.delta.program(output.constants)
    return shifted | {"divided": divided.program(), "delta": delta, "softmax_pullback": softmax_pullback.program()}


class _Traced:
    """Replaces a backend while tracing: calls the formulas directly with traced values."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def elementwise(
        self,
        formula: Formula,
        operands: tuple[Any, ...],
        out: None = None,
        constants: Mapping[str, float] | None = None,
    ) -> Any:
        return formula.function(self.xp, *operands, **(constants or {}))


def _updates(state: OptimizerState) -> dict[str, Program]:
    """The optimizer's updates of weights and of biases, which are not regularized, as in `OptimizerState`."""
    optimizer, formula = state.optimizer, state.optimizer.formula
    assert formula is not None  # as the update is `OptimizerState`'s
    constants = {name: getattr(optimizer, name) for name in formula.defaults}
    options = {"weights": state.options, "biases": [name for name in state.options if name == "clip_value"]}
    made = {name: treated(formula, *chosen).program(constants) for name, chosen in options.items()}
    corrects = "correction1" in formula.operands
    return made | ({"clock": adam_clock.program()} if corrects else {})
