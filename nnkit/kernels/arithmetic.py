"""Sums and products of arrays as formulas."""

from typing import Any

from nnkit.backends.formula import formula


@formula
def product(xp: Any, a: Any, b: Any) -> Any:
    """a b."""
    return a * b


@formula
def divided(xp: Any, a: Any, b: Any) -> Any:
    """a/b."""
    return a / b


@formula
def scaled_sum(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
    """a + α b."""
    return a + alpha * b
