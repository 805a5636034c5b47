"""Two programs as one: the second goes on with what the first has computed, without a way through memory."""

from dataclasses import replace
from functools import lru_cache

from nnkit.backends.program import Program, Value


@lru_cache(maxsize=1024)
def chained(first: Program, second: Program, links: tuple[int | None, ...], kept: tuple[int, ...]) -> Program:
    """The program that does one after the other.

    `links` says for each operand of the second which result of the first it is, or None for one of its own; those
    follow the operands of the first. Its results are those of the first that are `kept`, by number, and then all of the
    second.
    """
    own = [j for j, link in enumerate(links) if link is None]
    operands = first.operands + tuple(second.operands[j] for j in own)
    values = [Value("operand")] * len(operands)
    places = _append(values, first, list(range(len(first.operands))))
    results = [places[number] for number in first.outputs]
    linked = [
        len(first.operands) + own.index(j) if link is None else results[link] for j, link in enumerate(links)
    ]  # where the second finds its operands
    outputs = [results[number] for number in kept]
    places = _append(values, second, linked)
    outputs += [places[number] for number in second.outputs]
    return Program(operands, tuple(values), tuple(outputs)).without_dead_values()


def _append(values: list[Value], program: Program, operands: list[int]) -> list[int]:
    """Append a program's values, with operands from these places; returns the place of each."""
    places = list(operands)
    for value in program.values[len(program.operands) :]:
        places.append(len(values))
        values.append(replace(value, arguments=tuple(places[argument] for argument in value.arguments)))
    return places
