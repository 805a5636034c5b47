"""nnkit verify: every equation of the lecture, measured on a backend."""

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from nnkit.backends import Backend, get_backend
from nnkit.equations import equations
from nnkit.measurements import Problem
from nnkit.ranges import whole

__all__ = ["BOUND", "Row", "as_json", "as_markdown", "as_text", "verify"]

BOUND = 1e-13


@dataclass(frozen=True, slots=True)
class Row:
    """An equation with its measured error: the largest difference, relative to the largest entry of the reference."""

    equation: str
    statement: str
    function: str
    error: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return self.error <= BOUND


def verify(backend: str | Backend | None = None, seed: int = 0) -> list[Row]:
    """Measure every equation on a backend, in float64, with random numbers of this seed.

    Raises BackendUnavailableError if the backend cannot work.

    >>> all(row.passed for row in nnkit.verify.verify("numpy"))
    True
    """
    problem = Problem(get_backend(backend), whole("verify", "seed", seed, 0))
    return [Row(e.number, e.statement, e.function, e.error(problem)) for e in equations()]


def as_text(rows: Sequence[Row]) -> str:
    """The rows as a table for a terminal."""
    lines = [("equation", "what it says", "function", "error", "")]
    lines += [(r.equation, r.statement, r.function, f"{r.error:.1e}", "" if r.passed else "FAILED") for r in rows]
    widths = [max(_width(line[column]) for line in lines) for column in range(4)]
    padded = ([cell + " " * (w - _width(cell)) for cell, w in zip(line, widths, strict=False)] for line in lines)
    return "\n".join("  ".join([*cells, line[4]]).rstrip() for cells, line in zip(padded, lines, strict=True))


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: the bar of h̄ takes none."""
    return sum(not unicodedata.combining(character) for character in text)


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| equation | what it says | function | error |", "|---|---|---|---|"]
    for r in rows:
        statement = r.statement.replace("|", "\\|")
        lines.append(
            f"| {r.equation} | {statement} | `{r.function}` | {r.error:.1e}{'' if r.passed else ' **failed**'} |"
        )
    return "\n".join(lines)


def as_json(rows: Sequence[Row], backend: str) -> str:
    """The rows as JSON: backend, bound, passed, and a list of equations; an error that is not a number is null."""
    found = [
        {
            "equation": r.equation,
            "statement": r.statement,
            "function": r.function,
            "error": r.error if math.isfinite(r.error) else None,
            "passed": r.passed,
        }
        for r in rows
    ]
    passed = all(r.passed for r in rows)
    content = {"backend": backend, "bound": BOUND, "passed": passed, "equations": found}
    return json.dumps(content, indent=2, ensure_ascii=False)


def __dir__() -> list[str]:
    return sorted(__all__)
