"""The commands verify and formulas."""

import argparse

from nnkit import verify
from nnkit.backends import get_backend
from nnkit.backends.cuda_source import formula_source
from nnkit.backends.formula import list_formulas
from nnkit.kernels.names import unknown_name


def run_verify(options: argparse.Namespace) -> int:
    """Print every equation with its measured error; 1 if one is out of bounds."""
    backend = get_backend(options.backend)
    rows = verify.verify(backend, options.seed)
    failed = [row for row in rows if not row.passed]
    if options.json:
        print(verify.as_json(rows, backend.name))
    elif options.markdown:
        print(verify.as_markdown(rows))
    else:
        print(verify.as_text(rows))
        outcome = f"{len(failed)} of {len(rows)} failed" if failed else f"all {len(rows)} within"
        print(f"\n{outcome} the bound of {verify.BOUND:g}, in float64 on {backend.name}, seed {options.seed}")
    return 1 if failed else 0


def list_cuda(options: argparse.Namespace) -> int:
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
