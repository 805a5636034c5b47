"""The formulas of a training step, their arrays in shared memory, and the number of blocks that share the work.

The blocks of a cluster divide the columns of the first layer's weights and of the minibatch, the largest arrays of a
network that fits. Each block holds and computes all other layers itself, with the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nnkit.backends.cuda.cluster import BlockLimits
from nnkit.backends.formula import Formula
from nnkit.backends.formulas.program import Program
from nnkit.kernels.activations import get_activation
from nnkit.kernels.arithmetic import divided
from nnkit.kernels.cost import OutputPair
from nnkit.kernels.regularization import treated
from nnkit.kernels.softmax import shifted_exp, softmax_delta, softmax_pullback
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
        rates: the factors of the learning rate for each layer's `W` and `b`.
    """

    widths: tuple[int, ...]
    programs: Mapping[str, Program]
    saves_z: tuple[bool, ...]
    softmax: bool
    pullback: bool
    vectors: tuple[str, ...]
    numbers: tuple[str, ...]
    rates: Sequence[Mapping[str, float]]


def recipe_of(model: Model, state: OptimizerState) -> Recipe | None:
    """The step of a network, or None if the kernel does not support it.

    Dropout, float64, clipping by the global norm, moving averages, custom updates and a scaling of the targets are not
    supported.
    """
    if (
        model.dtype != "float32"
        or model.layers != list(model.dense)
        or model.target_scaling is not None
        or type(state) is not OptimizerState
        or "clip_norm" in state.options
        or state.average is not None
    ):
        return None
    hidden = [get_activation(str(layer.activation)) for layer in model.dense[:-1]]
    programs = {f"forward{i}": f.forward.program() for i, f in enumerate(hidden)}
    programs |= {f"gradient{i}": f.gradient.program() for i, f in enumerate(hidden)}
    programs |= _output(model.output) | _updates(state)
    vectors = tuple(name for name in state.arrays if "clock" not in programs or name != "t")
    known = ("p", "g", "learning_rate", "rate_factor", *_CLOCK, *vectors)
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
        rates=[{"W": 1.0, "b": 1.0} for _ in model.dense] if (rates := model.parameters.rates) is None else rates,
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
    of_all = [name for name in state.options if name in ("rate_factor", "clip_value")]
    options = {"weights": state.options, "biases": of_all}
    made = {name: treated(formula, *chosen).program(constants) for name, chosen in options.items()}
    corrects = "correction1" in formula.operands
    return made | ({"clock": adam_clock.program()} if corrects else {})


THREADS = 256  # in a block
_LARGEST_TILE = 8  # rows that a thread computes together; more would exceed the available registers

# Estimates in clock cycles (1.7 to 2 per nanosecond), counted from the source and not measured yet. For 784-30-10 and
# batches of 10, eight blocks take 1400 for the products, 1250 for the barriers and 800 to exchange sums: about 2 µs.
_PRODUCTS_PER_CYCLE = 50  # per block, limited by the bandwidth of shared memory, 128 bytes per cycle
_BARRIER = 250  # for each phase of a step, besides its products: latencies, the barrier, idle threads
_EXCHANGE = 800  # a cluster barrier, and reads from other blocks
_GRAPH_NODE = 1700  # the minimum for a kernel in a captured graph, about 1 µs; a step has about 2 + 5 per layer


@dataclass(frozen=True, slots=True)
class Array:
    """A float32 array in shared memory: its byte offset, the number of rows, and the length of a row in entries."""

    offset: int
    rows: int
    row: int


@dataclass(frozen=True)
class Layout:
    """A network's step in the shared memory of `blocks` blocks.

    Attributes:
        columns: the number of first-layer inputs per block, a multiple of 4; the last blocks may have fewer.
        rows: the number of rows of minibatch arrays: the batch size, rounded up so that tiles end within the arrays.
        tiles: for each layer, the number of rows that a thread computes together, forward and backward.
        arrays: by name: `x` and `y`, double-buffered because the next minibatch is read during a step, the indices of
            its samples `index` (8 bytes each), `W0`, `b0`, `h0`, `z0`, `delta0`, ..., `v0_W0` for the optimizer's first
            vector, `partial`, and `exponential`, `error`, `p` for softmax.
        bytes: the shared memory per block.
        cycles: an estimate of the clock cycles per step.
    """

    blocks: int
    batch_size: int
    columns: int
    rows: int
    tiles: tuple[tuple[int, int], ...]
    arrays: dict[str, Array]
    bytes: int
    cycles: int

    @property
    def pays(self) -> bool:
        """Whether a step is estimated to be faster than in a captured graph; not measured."""
        return self.cycles <= _GRAPH_NODE * (2 + 5 * len(self.tiles))


def layout_for(recipe: Recipe, batch_size: int, limits: BlockLimits) -> Layout | None:
    """The layout with the fewest estimated cycles that fits into shared memory; None if none does."""
    quads = -(-recipe.widths[0] // 4)
    sizes = [blocks for blocks in (1, 2, 4, 8) if blocks <= min(limits.cluster, quads)]
    made = [layout(recipe, batch_size, blocks) for blocks in sizes]
    return min((m for m in made if m.bytes <= limits.shared_bytes), key=lambda m: m.cycles, default=None)


def layout(recipe: Recipe, batch_size: int, blocks: int) -> Layout:
    """The layout for a given number of blocks, whether it fits or not.

    >>> from nnkit.one_launch.layout import recipe_of
    >>> net = nnkit.Network([784, 30, 10], cost="cross_entropy", seed=0)
    >>> made = layout(recipe_of(net, net.optimizer_state()), 10, blocks=8)
    >>> made.columns, made.arrays["W0"].row, made.bytes
    (100, 100, 27376)
    """
    widths = recipe.widths
    columns = 4 * -(-widths[0] // (4 * blocks))
    backward = [1, *(_tile(width, batch_size) for width in widths[1:-1])]  # the first layer has no predecessor
    tiles = tuple(zip((_tile(width, batch_size) for width in widths[1:]), backward, strict=True))
    largest = max(max(pair) for pair in tiles)
    rows = -(-batch_size // largest) * largest
    arrays, end = {}, 0
    for name, count, row in _arrays(recipe, columns, rows, blocks):
        arrays[name] = Array(end, count, row)
        end += -(-4 * count * row // 16) * 16
    return Layout(blocks, batch_size, columns, rows, tiles, arrays, end, _cycles(widths, batch_size, columns, blocks))


def _arrays(recipe: Recipe, columns: int, rows: int, blocks: int) -> list[tuple[str, int, int]]:
    """The name, number of rows and row length of each array."""
    widths, last = recipe.widths, len(recipe.widths) - 2
    found = [("index", 2, 2 * rows), ("x", 2 * rows, padded(columns)), ("y", 2, rows * widths[-1])]
    if blocks > 1:
        found.append(("partial", rows, padded(widths[1])))
    for i, (inputs, units) in enumerate(_pairs(widths)):
        row = padded(columns if i == 0 else inputs)
        for prefix in ("", *(f"v{j}_" for j in range(len(recipe.vectors)))):
            found += [(f"{prefix}W{i}", units, row), (f"{prefix}b{i}", 1, units)]
        found.append((f"delta{i}", rows, padded(units)))
        if i < last:
            found += [(f"{name}{i}", rows, padded(units)) for name in ("h", "z")[: 1 + recipe.saves_z[i]]]
    if recipe.softmax:
        found += [(f"z{last}", rows, padded(widths[-1])), ("exponential", rows, padded(widths[-1]))]
    if recipe.pullback:
        found += [(name, rows, padded(widths[-1])) for name in ("p", "error")]
    return found


def padded(length: int) -> int:
    """The padded length of a row in shared memory: an odd multiple of 16 bytes (see `machine.LOOPS`).

    >>> padded(30), padded(100), padded(1)
    (36, 100, 4)
    """
    return 4 * (-(-length // 4) | 1)


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(widths))


def _tile(width: int, batch_size: int) -> int:
    """The smallest number of rows per thread with which one pass of the block's threads covers all rows."""
    tile = 1
    while tile < min(_LARGEST_TILE, batch_size) and width * -(-batch_size // tile) > THREADS:
        tile *= 2
    return tile


def _cycles(widths: Sequence[int], batch_size: int, columns: int, blocks: int) -> int:
    products = 2 * columns * widths[1] + sum(3 * inputs * units for inputs, units in _pairs(widths[1:]))
    phases = 2 * len(widths) - 1
    return batch_size * products // _PRODUCTS_PER_CYCLE + _BARRIER * phases + _EXCHANGE * (blocks > 1)
