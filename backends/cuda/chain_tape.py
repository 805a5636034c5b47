"""A tape on which a kernel goes on with what the kernel before it computes: one launch, and an array less to read.

A GPU's compiler may round a product and a sum that meet so once instead of twice: the bits are those of the tape, with
a graph and without, and may be others than those of calls that no tape has seen.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.backends.cuda.device_tape import DeviceTape, same
from nnkit.backends.cuda.elementwise_call import ElementwiseCall
from nnkit.backends.tape import Call


class ChainTape(DeviceTape):
    """A `DeviceTape` that makes one kernel of two formulas where the second takes a result of the first."""

    def leave(self, call: Call, written: Sequence[Any], read: Sequence[Any]) -> None:
        last = self.calls[-1] if self.calls else None
        both = None
        if isinstance(last, ElementwiseCall) and isinstance(call, ElementwiseCall):
            both = last.followed_by(call)
        if both is None:
            super().leave(call, written, read)
        else:
            super().put(len(self.calls) - 1, both, both.written, both.operands)

    def sums(self, array: Any, empty: Callable[[tuple[int, int]], Any]) -> Any:
        """Sums of the columns of a matrix, each of some of its rows, by the kernel that gives it; None if none can."""
        given = self.giver(array)
        made = None if given is None else given[1].with_sums(given[2], empty)
        if given is None or made is None:
            return None
        super().put(given[0], made[0], made[0].written, made[0].operands)
        return made[1]

    def giver(self, array: Any) -> tuple[int, ElementwiseCall, int] | None:
        """The place of the kernel that gives an array, the kernel, and as which of its results; None if none does."""
        for place, call in enumerate(self.calls):
            if isinstance(call, ElementwiseCall):
                for number, out in enumerate(call.outs):
                    if same(out, array) and self.unwritten(array, place + 1):
                        return place, call, number
        return None
