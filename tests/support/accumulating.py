"""Accumulating products and column sums in a recording."""

from collections.abc import Callable
from typing import Any

from nnkit.backends import Backend
from nnkit.backends.accumulate import Accumulate
from nnkit.backends.recording import perform
from nnkit.kernels.arithmetic import scaled_sum


def accumulate(backend: Backend, pairs: list[tuple[Any, Any]], alpha: Any) -> None:
    """out ← out + α x for each pair (out, x)."""

    def add() -> None:
        for out, x in pairs:
            backend.elementwise(scaled_sum, (out, x, alpha), out=out)

    outs, xs = zip(*pairs, strict=True)
    perform(Accumulate(add, pairs, alpha), (*outs, *xs, alpha), (*outs, *xs))


def add_product(backend: Backend, a: Any, b: Any, out: Any, alpha: Any) -> None:
    """out ← out + α ab."""
    accumulate(backend, [(out, backend.matmul(a, b))], alpha)


def add_column_sums(backend: Backend, a: Any, out: Any, alpha: Any) -> None:
    """out ← out + α 1ᵀa."""
    accumulate(backend, [(out, backend.sum(a, axis=0))], alpha)


def replayed(backend: Backend, do: Callable[[], object]) -> list[str]:
    """Record a function and replay the recording; returns the names of its nodes."""
    with backend.recording() as tape:
        do()
    tape.replay()
    return [node.name for node in tape.nodes]
