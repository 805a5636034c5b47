"""The straight-line program of a formula: numbered values, each an operand, constant or operation on earlier ones."""

from dataclasses import dataclass

from nnkit.backends.operations import OPERATIONS, Kind


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a program: `op` is an operation's name, `"operand"` or `"constant"`."""

    op: str
    arguments: tuple[int, ...] = ()
    kind: Kind = "real"
    constant: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A straight-line program: operands first; every value uses only earlier ones. Compared by identity."""

    operands: tuple[str, ...]
    values: tuple[Value, ...]
    outputs: tuple[int, ...]

    @property
    def instructions(self) -> list[tuple[int, Value]]:
        """The computed values with their numbers, in order."""
        return [(i, v) for i, v in enumerate(self.values) if v.op in OPERATIONS]

    def last_uses(self) -> dict[int, int]:
        """For each value, the number of the last value that uses it (outputs are live to the end)."""
        last = {argument: i for i, value in enumerate(self.values) for argument in value.arguments}
        return last | dict.fromkeys(self.outputs, len(self.values))

    def without_dead_values(self) -> "Program":
        """Eliminate values that no output depends on; operands are kept."""
        needed = set(self.outputs)
        for i in reversed(range(len(self.values))):
            if i in needed:
                needed.update(self.values[i].arguments)
        kept = [i for i, v in enumerate(self.values) if i in needed or v.op == "operand"]
        renumbered = {old: new for new, old in enumerate(kept)}
        values = []
        for old in kept:
            value = self.values[old]
            arguments = tuple(renumbered[a] for a in value.arguments)
            values.append(Value(value.op, arguments, value.kind, value.constant))
        return Program(self.operands, tuple(values), tuple(renumbered[o] for o in self.outputs))
