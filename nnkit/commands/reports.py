"""nnkit verify, doctor and formulas: the error of each equation, what works here, and the code of formulas."""

import argparse
import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from nnkit import data
from nnkit.backends.cpu.native.formulas import native_source
from nnkit.backends.cuda.formula_text import formula_source
from nnkit.backends.formula import Formula, list_formulas
from nnkit.checks import named
from nnkit.commands.arguments import Commands, add_backend, add_command, add_flag, add_option, at_least, known
from nnkit.jacobian import jacobian
from nnkit.kernels import arithmetic, classification, dense, regression, softmax
from nnkit.kernels.costs import cost_names, get_cost

_TYPES = ("float16", "bfloat16", "float32", "float64")
_DESCRIPTION = """
Without a name, list all formulas and the functions that use them. With a name, show what it computes, as comments,
and the CUDA code of its formulas; matrix products and sums are those of CUDA's libraries and of nnkit."""


def add(commands: Commands) -> None:
    """Add the three commands and their arguments."""
    parser = add_command(commands, "verify", "measure the error of every equation of the lecture on a backend", _verify)
    add_backend(parser)
    add_option(parser, "--seed", "SEED", at_least(0), "of the random numbers (default: 0)", default=0)
    style = parser.add_mutually_exclusive_group()
    add_flag(style, "--markdown", "print a Markdown table")
    add_flag(style, "--json", "print JSON")
    add_command(commands, "doctor", "show what is installed, which backends work, and why others do not", _doctor)
    purpose = "list the formulas, or show one and its CUDA kernel; needs no GPU"
    parser = add_command(commands, "formulas", purpose, _formulas, _DESCRIPTION)
    add_option(parser, "name", "name", str, "show this formula and its CUDA code; 'all' shows every one", nargs="?")
    add_flag(parser, "--native", "show the loop that numba compiles for the CPU instead of CUDA code")
    add_option(parser, "--dtype", "NAME", known("dtype", _TYPES), f"dtype: {', '.join(_TYPES)} (default: float32)")


def _verify(options: argparse.Namespace) -> int:
    """Print the measured error of every equation; return 1 if one exceeds the bound."""
    from nnkit import verify
    from nnkit.backends import get_backend

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


def _doctor(options: argparse.Namespace) -> int:
    """Print the report."""
    from nnkit import doctor

    print(doctor.report())
    return 0


class Entry(NamedTuple):
    """A function and its formulas; for a formula, the formula itself."""

    function: Callable[..., Any]
    formulas: list[Formula]


def _formulas(options: argparse.Namespace) -> int:
    """Print the names of all formulas and functions, or the code of one or all."""
    entries = {name.rpartition(".")[2]: Entry(made, [made]) for name, made in list_formulas().items()} | functions()
    if options.name is None:
        if options.dtype is not None:
            raise ValueError(f"--dtype {options.dtype} has no effect without the name of a formula")
        if options.native:
            raise ValueError("--native has no effect without the name of a formula")
        for name, entry in entries.items():
            print(f"{name}({', '.join(_operands(entry.function))})")
        return 0
    chosen = list(entries.values()) if options.name == "all" else [named("formula", options.name, entries, ["all"])]
    dtype, mark = options.dtype or "float32", "#" if options.native else "//"
    source = native_source if options.native else formula_source
    for entry in chosen:
        if isinstance(entry.function, Formula) or options.name != "all":
            print(_comment(entry.function, mark))
            for made in entry.formulas:
                if made is not entry.function:
                    print(_comment(made, mark))
                print(source(made, dtype))
    return 0


def functions() -> dict[str, Entry]:
    """The functions that combine several formulas, by their names in `nnkit verify`."""
    found = {
        "dense_forward": Entry(dense.dense_forward, [dense.biased]),
        "dense_backward": Entry(dense.dense_backward, []),
        "softmax": Entry(softmax.softmax, [softmax.shifted_exp, arithmetic.divided]),
        "softmax_grad": Entry(softmax.softmax_grad, [arithmetic.product, softmax.softmax_pullback]),
        "Network.jacobian": Entry(jacobian, [softmax.softmax_pullback]),
        "data.Normalization": Entry(data.Normalization, [arithmetic.normalized]),
        "data.Whitening": Entry(data.Whitening, [arithmetic.centered]),
    }
    for name in cost_names():
        home = next((module for module in (regression, classification) if hasattr(module, name)), None)
        if home is None:  # a user-defined cost
            continue
        cost = get_cost(name)
        terms, delta = cost.from_logits or (cost.terms, cost.delta)
        pieces = {name: [terms], f"{name}_delta": [delta]}
        if cost.output == "softmax":
            pieces = {
                name: [softmax.shifted_exp, softmax.softmax_terms],
                f"{name}_delta": [softmax.shifted_exp, softmax.softmax_delta],
            }
        found |= {called: Entry(getattr(home, called), made) for called, made in pieces.items()}
    return found


def _operands(function: Callable[..., Any]) -> list[str]:
    if isinstance(function, Formula):
        return list(function.operands)
    return list(inspect.signature(function).parameters)


def _comment(function: Callable[..., Any], mark: str = "//") -> str:
    """Comments with a function's equation and, for a formula, its Python code.

    >>> from nnkit.kernels.arithmetic import divided
    >>> print(_comment(divided))
    // divided(a, b)
    // a/b.
    //     return a / b
    """
    plain = function.function if isinstance(function, Formula) else function
    lines = [f"{function.__name__}({', '.join(_operands(function))})"]
    lines += re.split(r"\n\n(?:Args:|>>>)", inspect.getdoc(plain) or "")[0].splitlines()
    if isinstance(function, Formula):
        lines += textwrap.indent(_python(plain), "    ").splitlines()
    return "\n".join(f"{mark} {line}".rstrip() for line in lines)


def _python(function: Callable[..., Any]) -> str:
    """The statements of a function without its docstring; "" if the source is unavailable."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):  # defined at a prompt, or within an expression
        return ""
    made = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
    if made is None:
        return ""
    statements = made.body[1:] if ast.get_docstring(made) is not None else made.body
    return "\n".join(ast.unparse(statement) for statement in statements)
