"""CuPy: each formula as one CUDA kernel, products by cuBLAS, a recording as a CUDA graph."""

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

from nnkit.backends.cuda.elementwise import ElementwiseCall, clobbers, layout_of
from nnkit.backends.cuda.products import CupyProducts
from nnkit.backends.cuda.reductions import CupyReductions
from nnkit.backends.cuda.rows import CupyRows
from nnkit.backends.dtypes import FLOATS
from nnkit.backends.formulas.program import Program, Traceable
from nnkit.backends.recording import active_tape, perform


class CupyBackend(CupyRows, CupyReductions, CupyProducts):
    """CuPy arrays on one CUDA device; created by `get_backend("cupy")`, which checks that it works."""

    types = FLOATS
    runs_programs = True

    def elementwise(
        self, formula: Traceable, operands: Sequence[Any], out: Any = None, constants: Mapping[str, float] | None = None
    ) -> Any:
        with self.here():
            program = formula.program(constants)
            made = self.prepared.made(program, operands, out)
            if made is None:
                made = super().elementwise(formula, operands, out, constants)
                if out is None:
                    self.prepared.keep_new(program, operands, made)
        return made

    def run_program(self, program: Program, name: str, operands: Sequence[Any], outs: Sequence[Any]) -> None:
        with self.here():
            if self.prepared.made(program, operands, tuple(outs)) is not None:
                return  # operands were numbers
            # The kernel writes in C order; results with other strides get a copy.
            made = [o if o.flags.c_contiguous else self.empty(o.shape, o.dtype) for o in outs]
            if made[0].size:
                ready, layouts = zip(*(self._ready(array, made) for array in operands), strict=True)
                call = ElementwiseCall(self, program, name, ready, layouts, made)
                perform(*call.node)
                if active_tape() is None and all(map(is_, (*ready, *made), (*operands, *outs))):
                    self.prepared.keep(program, operands, outs, call.prepared())
            for array, out in zip(made, outs, strict=True):
                if array is not out:
                    self.copy(array, out)

    def _ready(self, array: Any, outs: Sequence[Any]) -> tuple[Any, str]:
        """An operand and its layout; copied if the kernel cannot read it, or would overwrite it first."""
        layout = layout_of(array.shape, outs[0].shape)
        if layout is None:
            array, layout = self.xp.broadcast_to(array, outs[0].shape), "full"
        pointer = array.data.ptr
        if any(clobbers(o, o.data.ptr, array, pointer, layout) for o in outs):
            return self.copy(array, self.empty(array.shape, array.dtype)), layout
        return self.contiguous(array), layout


def make_cupy_backend(detail: str) -> CupyBackend:
    """The CuPy backend on device `detail` ("" is 0); BackendUnavailableError says what is missing."""
    from nnkit.backends.cuda.check import checked_cupy, trial

    cupy, device = checked_cupy(detail)
    backend = CupyBackend(cupy, device)
    backend.tried = trial(backend, cupy)
    return backend
