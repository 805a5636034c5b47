"""The launch of a formula's kernel, which can be asked later to write a result in another type too."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from nnkit.backends.cuda_launch import THREADS, grid, signature_of
from nnkit.backends.cuda_source import STORAGE, kernel_name, kernel_source
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.program import Program


class ElementwiseCall:
    """The call of a program's kernel on a device of CuPy's.

    The operands are those that the kernel can read as they are, each with its layout (`nnkit.backends.cuda_source`);
    the results `outs` are in C order, and have entries.
    """

    __slots__ = (
        "_arguments",
        "_blocks",
        "_device",
        "_kernel",
        "_layouts",
        "_program",
        "_real",
        "name",
        "operands",
        "outs",
    )

    def __init__(
        self,
        device: Any,
        program: Program,
        name: str,
        operands: Sequence[Any],
        layouts: Sequence[str],
        outs: Sequence[Any],
    ) -> None:
        self._device, self._program, self.name = device, program, name
        self.operands, self._layouts, self.outs = operands, layouts, outs
        signature = signature_of(operands, layouts, outs, [a.data.ptr for a in (*operands, *outs)])
        index = np.uint32 if signature.index == "unsigned int" else np.int64
        n, columns = outs[0].size, outs[0].shape[-1] if outs[0].ndim else 1
        self._blocks, self._real = (grid(n, signature.lanes, device.multiprocessors),), signature.real
        self._arguments = (*operands, *outs, index(n), index(columns))
        self._kernel = device.kernel(kernel_source(program, name, signature), kernel_name(name))

    def __call__(self) -> None:
        self._kernel(self._blocks, (THREADS,), self._arguments)

    def is_exact(self, number: int) -> bool:
        """Whether a result is what the kernel computed, without another rounding."""
        return STORAGE[dtype_name(self.outs[number].dtype)] == self._real

    def with_copy(self, number: int, copy: Any) -> "ElementwiseCall":
        """The call that writes one of its results to an array of another dtype too."""
        program = _repeated(self._program, number)
        return ElementwiseCall(self._device, program, self.name, self.operands, self._layouts, (*self.outs, copy))


@lru_cache(maxsize=1024)
def _repeated(program: Program, number: int) -> Program:
    """A program that gives one of its results twice."""
    return replace(program, outputs=(*program.outputs, program.outputs[number]))
