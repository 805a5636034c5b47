"""Products of CuPy arrays: prepared once, then one call of cuBLAS per replay."""

import warnings
from functools import partial
from operator import is_
from typing import Any

from nnkit.backends.cuda.cublas import COMPUTE_DOUBLE, COMPUTE_FLOAT, COMPUTE_TF32, Product
from nnkit.backends.cuda.device import AMPERE, CupyDevice
from nnkit.backends.cuda.launch import overlap
from nnkit.backends.cuda.layouts import Stored, stored, strides_of
from nnkit.backends.cuda.recording import ROUNDED
from nnkit.backends.dtypes import compute_type, dtype_name, promote
from nnkit.backends.errors import BackendFallbackWarning
from nnkit.backends.precision import get_matmul_precision
from nnkit.backends.recording import active_tape, perform


class CupyProducts(CupyDevice):
    """Products, in the precision set at the time of the call."""

    lacking: frozenset[str] = frozenset()  # the kinds of products that the GPU turned out to lack

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        with self.here():
            what = get_matmul_precision()
            made = self.prepared.made(what, (a, b), out)
            if made is None:
                made = super().matmul(a, b, out)
                if out is None:
                    self.prepared.keep_new(what, (a, b), made)
        return made

    def run_matmul(self, a: Any, b: Any, out: Any) -> Any:
        with self.here():
            dtype = promote({"a": a, "b": b})
            if a.shape[-1] == 0:
                perform(partial(out.fill, 0), (), (out,), "zeros")
            elif out.size:
                fits = dtype_name(out.dtype) in (dtype, compute_type(dtype)) and _in_row_order(out)
                direct = fits and not overlap(out, a) and not overlap(out, b)
                target = out if direct else self.empty(out.shape, dtype)
                product = self._multiply(a, b, target, dtype)
                if target is not out:
                    self.copy(target, out)
                elif active_tape() is None and product.is_everywhere and all(map(is_, product.factors, (a, b))):
                    self.prepared.keep(get_matmul_precision(), (a, b), (out,), product.prepared())
        return out

    def _multiply(self, a: Any, b: Any, out: Any, dtype: str) -> Product:
        """out ← ab, for non-empty matrices and `out` in row-major order."""
        precision = self._precision() if dtype == "float32" else "highest"
        kind = "bfloat16" if precision == "medium" else dtype
        factors = tuple(self._readable(array, out.shape[:-2]) for array in (a, b))
        compute = {"float64": COMPUTE_DOUBLE}.get(dtype, COMPUTE_TF32 if precision == "high" else COMPUTE_FLOAT)
        product = Product(self, (factors[0], factors[1]), out, kind, compute)
        perform(*product.node)
        return product

    def _precision(self) -> str:
        """The selected precision of float32 products; "highest" on GPUs without the tensor cores for the others."""
        wanted = get_matmul_precision()
        if wanted == "highest" or self.capability >= AMPERE:
            return wanted
        self.lacks(f"of precision {wanted!r}", f"they need compute capability 8.0, it has {self.capability / 10}")
        return "highest"

    def lacks(self, kind: str, reason: object, instead: str = "in float32") -> None:
        """Warn, once, how products of this kind are computed instead."""
        if kind not in self.lacking:
            self.lacking |= {kind}
            text = f"{self.name} computes products {kind} {instead}: {reason}"
            warnings.warn(text, BackendFallbackWarning, stacklevel=4)

    def _readable(self, array: Any, lead: tuple[int, ...]) -> Any:
        """A factor in a layout that cuBLAS supports, copied if necessary, at each replay."""
        if _stored(array, lead) is not None:
            return array
        return self.contiguous(self.xp.broadcast_to(array, (*lead, *array.shape[-2:])))

    def round(self, source: Any, copy: Any) -> Any:
        """Cast a matrix to the dtype of `copy`, which is returned."""
        return self.elementwise(ROUNDED, (source,), out=copy)


def _stored(array: Any, lead: tuple[int, ...]) -> Stored | None:
    return stored(array.shape, strides_of(array), lead)


def _in_row_order(out: Any) -> bool:
    layout = _stored(out, out.shape[:-2])
    return layout is not None and not layout.transposed
