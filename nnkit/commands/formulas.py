"""nnkit formulas: the elementwise kernels, and the CUDA text that is made of them."""

import argparse

from nnkit.backends.cuda.formula_text import formula_source
from nnkit.backends.formula import list_formulas
from nnkit.commands.arguments import Commands, add_command, known
from nnkit.kernels.names import unknown_name

_TYPES = ("float16", "bfloat16", "float32", "float64")


def add(commands: Commands) -> None:
    """The command and its arguments."""
    parser = add_command(commands, "formulas", "list the formulas, or the CUDA kernel made of one; needs no GPU", run)
    parser.add_argument("name", nargs="?", help="print the CUDA text of this formula; 'all' prints every one")
    parser.add_argument(
        "--dtype", type=known("dtype", _TYPES), default="float32", metavar="NAME",
        help=f"its type: {', '.join(_TYPES)} (default: float32)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print the names of nnkit's formulas, or the CUDA text of one or of all."""
    formulas = {name.rpartition(".")[2]: formula for name, formula in list_formulas().items()}
    if options.name is None:
        for name, formula in formulas.items():
            print(f"{name}({', '.join(formula.operands)})")
        return 0
    if options.name != "all" and options.name not in formulas:
        raise unknown_name("formula", options.name, formulas)
    chosen = formulas if options.name == "all" else {options.name: formulas[options.name]}
    for formula in chosen.values():
        print(formula_source(formula, options.dtype))
    return 0
