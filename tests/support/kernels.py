"""Every formula of nnkit, and the variants of its CUDA kernel that the tests go through."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnkit
from nnkit.backends.cuda.formula_text import PRELUDE, KernelSignature, kernel_name, kernel_source, widest_lanes
from nnkit.backends.formula import Formula, compose, list_formulas
from nnkit.backends.formulas.program import Program
from nnkit.kernels.activations import activation_names, get_activation
from nnkit.kernels.dense import biased

Array = NDArray[Any]

LAYOUTS = ("full", "row", "column", "scalar")
_INDEX_TYPES = ("unsigned int", "long long")


def _every_formula() -> dict[str, Formula]:
    found = {name: f for name, f in list_formulas().items() if name.startswith(f"{nnkit.__name__}.")}
    found["biased"] = biased
    for name in activation_names():
        forward = get_activation(name).forward
        for keep_inner in (False, True):  # as dense_forward composes them
            made = compose(forward, biased, keep_inner)
            found[made.name] = made
    return found


# Collected when the tests are, before any of them can add a formula of its own.
FORMULAS = _every_formula()


def suited(formula: Formula, operands: Sequence[Array]) -> list[Array]:
    """Operands with whole numbers in place of those that the formula makes bits of: below 251, for bfloat16's sake.

    And with absolute values in place of those that it raises to a power: C's pow of −∞ is not NumPy's.
    """
    values = formula.program().values
    whole, bases = ({v.arguments[0] for v in values if v.op == op} for op in ("astype(uint32)", "pow"))
    some = [_whole(array) if i in whole else array for i, array in enumerate(operands)]
    return [abs(array) if i in bases else array for i, array in enumerate(some)]


def _whole(array: Array) -> Array:
    finite = np.nan_to_num(array.astype(np.float64), nan=7, posinf=77, neginf=177)
    numbers: Array = (np.floor(abs(finite)) % 251).astype(array.dtype)
    return numbers


@dataclass(frozen=True)
class Variant:
    """One kernel of a formula."""

    formula: Formula
    name: str
    signature: KernelSignature

    @property
    def program(self) -> Program:
        return self.formula.program()

    @property
    def c_name(self) -> str:
        return kernel_name(self.name)

    @property
    def text(self) -> str:
        """Its CUDA text in a namespace of its own, after a PRELUDE that is shared with others."""
        text = kernel_source(self.program, self.name, self.signature)
        assert text.startswith(PRELUDE)
        return f"namespace of_{self.name} {{\n{text.removeprefix(PRELUDE)}}}\n"


def variants(key: str, dtype: str) -> Iterator[Variant]:
    """Four kernels of a formula: each number of lanes with each index type, and each operand in each layout once."""
    number, formula = list(FORMULAS).index(key), FORMULAS[key]
    for turn in range(4):
        layouts = tuple(LAYOUTS[(j + turn) % 4] for j in range(len(formula.operands)))
        lanes = widest_lanes([dtype]) if (turn + number) % 2 else 1
        yield variant(formula, f"{formula.name}_{number}_{turn}", dtype, layouts, lanes, (turn // 2 + number // 2) % 2)


def variant(formula: Formula, name: str, dtype: str, layouts: tuple[str, ...], lanes: int, index: int = 0) -> Variant:
    """The kernel of a formula whose operands have one dtype."""
    outs = (dtype,) * len(formula.program().outputs)
    signature = KernelSignature((dtype,) * len(layouts), layouts, outs, lanes, _INDEX_TYPES[index])
    return Variant(formula, name, signature)
