"""CuPy: each formula as one CUDA kernel, products by cuBLAS, a recording as a CUDA graph."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnkit.backends.cuda.elementwise_call import ElementwiseCall
from nnkit.backends.cuda.launch import clobbers, layout_of
from nnkit.backends.cuda.products import CupyProducts
from nnkit.backends.cuda.reductions import CupyReductions
from nnkit.backends.cuda.rows import CupyRows
from nnkit.backends.dtypes import FLOATS, dtype_name, promote
from nnkit.backends.program import Program
from nnkit.backends.recording import perform
from nnkit.backends.results import broadcast_shape

if TYPE_CHECKING:
    from nnkit.backends.formula import Formula


class CupyBackend(CupyRows, CupyReductions, CupyProducts):
    """CuPy arrays on one CUDA device; make one with `get_backend("cupy")`, which checks that it can work."""

    def elementwise(
        self,
        formula: "Formula",
        operands: Sequence[Any],
        out: Any = None,
        constants: Mapping[str, float] | None = None,
    ) -> Any:
        arrays = self.operands(formula.operands, operands)
        dtype = promote(dict(zip(formula.operands, arrays, strict=True)))
        if dtype not in FLOATS:
            raise TypeError(f"{formula.name}: operands are {dtype}, which CuPy's kernels are not written for")
        program = formula.program(constants)
        results = self._results(formula, arrays, dtype, len(program.outputs), out)
        with self.here():
            # The kernel writes C order; a result of other strides gets a copy.
            outs = [r if r.flags.c_contiguous else self.empty(r.shape, r.dtype) for r in results]
            if outs[0].size:
                self._launch(program, formula.name, arrays, outs)
            for made, result in zip(outs, results, strict=True):
                if made is not result:
                    self.copy(made, result)
        return out if out is not None else results[0] if len(results) == 1 else tuple(results)

    def _results(self, formula: "Formula", arrays: Sequence[Any], dtype: str, count: int, out: Any) -> list[Any]:
        """The arrays that the results go to, checked if they were given."""
        name, shape = formula.name, broadcast_shape(formula, arrays)
        if out is None:
            return [self.empty(shape, dtype) for _ in range(count)]
        outs = list(out) if isinstance(out, tuple) else [out]
        if len(outs) != count or any(o.shape != shape for o in outs):
            raise ValueError(f"{name}: out has shape(s) {[o.shape for o in outs]}; expected {count} of {shape}")
        for array in outs:
            if dtype_name(array.dtype) not in FLOATS:
                raise TypeError(f"{name}: out has dtype {array.dtype}; expected one of {', '.join(FLOATS)}")
        return outs

    def _launch(self, program: Program, name: str, arrays: Sequence[Any], outs: Sequence[Any]) -> None:
        ready, layouts = zip(*(self._ready(array, outs) for array in arrays), strict=True)
        perform(*ElementwiseCall(self, program, name, ready, layouts, outs).node)

    def _ready(self, array: Any, outs: Sequence[Any]) -> tuple[Any, str]:
        """An operand and its layout; a copy where the kernel could not read it as it is, or not in time."""
        layout = layout_of(array.shape, outs[0].shape)
        if layout is None:
            array, layout = self.xp.broadcast_to(array, outs[0].shape), "full"
        pointer = array.data.ptr
        if any(clobbers(o, o.data.ptr, array, pointer, layout) for o in outs):
            return self.copy(array, self.empty(array.shape, array.dtype)), layout
        return self.contiguous(array), layout


def make_cupy_backend(detail: str) -> CupyBackend:
    """The CuPy backend on device `detail` ("" is 0), or BackendUnavailableError with what is missing."""
    from nnkit.backends.cuda.check import checked_cupy, trial

    cupy, device = checked_cupy(detail)
    backend = CupyBackend(cupy, device)
    backend.tried = trial(backend, cupy)
    return backend
