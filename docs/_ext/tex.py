r"""A formula as mathematics: the statements of its Python function in TeX, so that page and code cannot differ.

>>> from nnkit.kernels.sigmoidal import sigmoid
>>> formula_tex(sigmoid)
'\\mathrm{sigmoid}(z) = \\frac{1}{1 + e^{-z}}'
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from nnkit.backends.formula import Formula

_NAMES = {
    "delta": r"\Delta", "alpha": r"\alpha", "beta": r"\beta", "beta1": r"\beta_1", "beta2": r"\beta_2",
    "epsilon": r"\epsilon", "learning_rate": r"\varepsilon", "momentum": r"\mu", "normal_cdf": r"\Phi",
    "normal_pdf": r"\varphi", "mean": "m", "square": "v", "total": "s", "l2": r"\lambda", "l1": r"\lambda_1",
}  # fmt: skip
_COMPARE = {
    ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge", ast.Eq: "=", ast.NotEq: r"\ne",
}  # fmt: skip
_ADD, _MULTIPLY, _NEGATE, _POWER, _ATOM = 1, 2, 3, 4, 5  # how strongly the parts of an expression hold together


def formula_tex(made: Formula) -> str | None:
    """The statements of a formula, several in `aligned`; None if it has a loop or another statement of Python's."""
    lines = _Writer(made.function).lines(made)
    if lines is None:
        return None
    if len(lines) == 1:
        return " = ".join(lines[0])
    return r"\begin{aligned}" + r" \\ ".join(f"{left} &= {right}" for left, right in lines) + r"\end{aligned}"


class _Writer:
    """Writes the nodes of one function's syntax tree."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = inspect.unwrap(function)

    def lines(self, made: Formula) -> list[tuple[str, str]] | None:
        """Left and right side of each statement."""
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        except (OSError, SyntaxError):
            return None
        found = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
        if found is None:
            return None
        rows: list[tuple[str, str]] = []
        operands = ", ".join(self.name(operand) for operand in made.operands)
        for statement in found.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                rows.append((self(statement.targets[0]), self(statement.value)))
            elif isinstance(statement, ast.Return) and statement.value is not None:
                rows.append((f"{_roman(made.name)}({operands})", self(statement.value)))
            else:
                return None
        return rows

    def name(self, name: str) -> str:
        if name in _NAMES:
            return _NAMES[name]
        value = self.function.__globals__.get(name)
        if isinstance(value, int | float):
            return f"{value:.6g}"
        return name if len(name) == 1 else _roman(name)

    def __call__(self, node: ast.AST, within: int = 0) -> str:
        """The TeX of an expression, in parentheses if what is around it holds more strongly."""
        text, strength = self.expression(node)
        return text if strength >= within else rf"\left({text}\right)"

    def expression(self, node: ast.AST) -> tuple[str, int]:
        match node:
            case ast.Constant():
                return f"{node.value:.6g}" if isinstance(node.value, int | float) else str(node.value), _ATOM
            case ast.Name():
                return self.name(node.id), _ATOM
            case ast.Tuple():
                return ",\\; ".join(map(self, node.elts)), _ATOM
            case ast.UnaryOp(op=ast.USub()):
                return f"-{self(node.operand, _MULTIPLY)}", _NEGATE if isinstance(node.operand, ast.Constant) else _ADD
            case ast.BinOp():
                return self.operation(node)
            case ast.Compare():
                parts = [self(node.left, _ADD)]
                for sign, right in zip(node.ops, node.comparators, strict=True):
                    parts += [_COMPARE[type(sign)], self(right, _ADD)]
                return " ".join(parts), 0
            case ast.Call():
                return self.call(node)
            case _:
                return rf"\mathtt{{{ast.unparse(node)}}}".replace("_", r"\_"), _ATOM

    def operation(self, node: ast.BinOp) -> tuple[str, int]:
        match node.op:
            case ast.Add():
                return f"{self(node.left, _ADD)} + {self(node.right, _ADD)}", _ADD
            case ast.Sub():
                return f"{self(node.left, _ADD)} - {self(node.right, _MULTIPLY)}", _ADD
            case ast.Mult():
                right = self(node.right, _MULTIPLY)
                apart = r" \cdot " if right[0].isdigit() or right.startswith("-") else r"\, "
                return f"{self(node.left, _MULTIPLY)}{apart}{right}", _MULTIPLY
            case ast.Div():
                return rf"\frac{{{self(node.left)}}}{{{self(node.right)}}}", _MULTIPLY
            case ast.Pow():
                return f"{self(node.left, _ATOM)}^{{{self(node.right)}}}", _POWER
            case ast.BitOr():
                return rf"{self(node.left)} \text{{ or }} {self(node.right)}", 0
            case ast.BitAnd():
                return rf"{self(node.left)} \text{{ and }} {self(node.right)}", 0
            case _:
                return rf"\mathtt{{{ast.unparse(node)}}}", _ATOM

    def call(self, node: ast.Call) -> tuple[str, int]:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments = [a for a in node.args if not (isinstance(a, ast.Name) and a.id == "xp")]
        plain = [self(a) for a in arguments]
        match called:
            case "exp":
                return f"e^{{{plain[0]}}}", _POWER
            case "expm1":
                return f"e^{{{plain[0]}}} - 1", _ADD
            case "log":
                return rf"\ln {self(arguments[0], _ATOM)}", _MULTIPLY
            case "log1p":
                return rf"\ln\left(1 + {self(arguments[0], _ADD)}\right)".replace("+ -", "- "), _MULTIPLY
            case "sqrt":
                return rf"\sqrt{{{plain[0]}}}", _ATOM
            case "abs":
                return rf"\left|{plain[0]}\right|", _ATOM
            case "maximum" | "minimum":
                return rf"\{called[:3]}\left({', '.join(plain)}\right)", _ATOM
            case "where":
                condition, first, second = plain
                return rf"\begin{{cases}}{first} & {condition} \\ {second} & \text{{else}}\end{{cases}}", _MULTIPLY
            case "astype":
                return rf"\left[{plain[0]}\right]", _ATOM
            case "tanh" | "sign":
                function = r"\tanh" if called == "tanh" else r"\operatorname{sign}"
                return rf"{function}\left({plain[0]}\right)", _ATOM
            case _:
                return rf"{self.name(called)}\left({', '.join(plain)}\right)", _ATOM


def _roman(name: str) -> str:
    return rf"\mathrm{{{name}}}".replace("_", r"\_")
