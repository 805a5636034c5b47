"""A product of matrices with an epilogue: which of nnkit's arrays are what to cuBLASLt."""

from typing import Any

from nnkit.backends.cuda.cublas import Product
from nnkit.backends.cuda.cublas_lt import Epilogue, Matmul, Place, Plan
from nnkit.backends.cuda.gemm import DATA_TYPES, gemm_arguments
from nnkit.backends.dtypes import dtype_name

_ALIGNED = 16  # bytes, of a vector and of what RELU and GELU leave
_NOT_OF_ONE_TERM = (Epilogue.DRELU, Epilogue.DGELU, Epilogue.BGRADB)  # as nvmath-python's documentation has it


class EpilogueProduct:
    """The call of a `Product` and of what an epilogue adds to it; make one with `of`.

    Attributes:
        out: the result. bias: the vector that is added, or for BGRADB the sums. auxiliary: what RELU and GELU leave
            for their derivatives, or what those read.
        read, written: the arrays.
    """

    def __init__(self, product: Product, epilogue: Epilogue, bias: Any, auxiliary: Any, plan: Plan) -> None:
        self.product, self.epilogue, self.bias, self.auxiliary = product, epilogue, bias, auxiliary
        self._plan = plan
        (a, _), (b, _), (self.out, _) = product.placed
        sums, leaves = epilogue == Epilogue.BGRADB, epilogue in (Epilogue.RELU_AUX_BIAS, Epilogue.GELU_AUX_BIAS)
        extra = [(bias, sums), (auxiliary, leaves)]
        self.read = [a, b, *product.scales, *(array for array, writes in extra if array is not None and not writes)]
        self.read += [self.out] if product.accumulates else []
        self.written = [self.out, *(array for array, writes in extra if array is not None and writes)]

    @classmethod
    def of(cls, product: Product, epilogue: Epilogue, bias: Any, auxiliary: Any) -> "EpilogueProduct | None":
        """A product with an epilogue; None where cuBLASLt is not known to take it, or has no algorithm for it."""
        if not _takes(product, epilogue, bias, auxiliary):
            return None
        plan = product.handles.get().plan(_matmul(product, epilogue, bias, auxiliary))
        return None if plan is None else cls(product, epilogue, bias, auxiliary, plan)

    def __call__(self) -> None:
        self.product.handles.get().run(self._plan)


def mask_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The bytes that hold a bit for each entry of an (n, d) array as cuBLASLt leaves them: rows of whole 128 bits.

    >>> mask_shape((5, 100)), mask_shape((5, 129))
    ((5, 16), (5, 32))
    """
    return shape[0], -(-shape[1] // 128) * 16


def _takes(product: Product, epilogue: Epilogue, bias: Any, auxiliary: Any) -> bool:
    """Whether this is one product of matrices into a float32 matrix, and the other arrays are as an epilogue has them.

    Only results without gaps: cuBLASLt was seen to leave out the bias otherwise (dfyz/cublaslt-bias-epilogue).
    """
    a, (out, _) = product.placed[0][0], product.placed[2]
    if out.ndim != 2 or dtype_name(out.dtype) != "float32" or not out.flags.c_contiguous:
        return False
    if product.accumulates and epilogue != Epilogue.BGRADB:
        return False
    if a.shape[-1] == 1 and epilogue in _NOT_OF_ONE_TERM:
        return False
    length = out.shape[0 if epilogue == Epilogue.BGRADB else 1]
    if bias is not None and not (bias.shape == (length,) and _plain(bias)):
        return False
    if epilogue in (Epilogue.GELU_AUX_BIAS, Epilogue.DGELU):
        return bool(auxiliary.shape == out.shape and out.shape[1] % 8 == 0 and _plain(auxiliary))
    return True


def _plain(array: Any) -> bool:
    aligned = array.data.ptr % _ALIGNED == 0
    return bool(aligned and array.flags.c_contiguous and dtype_name(array.dtype) == "float32")


def _matmul(product: Product, epilogue: Epilogue, bias: Any, auxiliary: Any) -> Matmul:
    """The product in column order, where it is outᵀ = bᵀaᵀ: cuBLAS's A is b, and its rows are columns of `out`."""
    (a, in_a), (b, in_b), (out, in_out) = product.placed
    kind, result = (DATA_TYPES[name] for name in product.types)
    flag_a, flag_b, *sizes = gemm_arguments(out.shape[0], out.shape[1], a.shape[1], in_a, in_b)
    alpha, beta = product.scales
    bits = 8 if auxiliary is not None and dtype_name(auxiliary.dtype) == "uint8" else 1
    return Matmul(
        (flag_a, flag_b), (sizes[0], sizes[1], sizes[2]), Place(b.data.ptr, kind, in_b.ld),
        Place(a.data.ptr, kind, in_a.ld), Place(out.data.ptr, result, in_out.ld), alpha.data.ptr, beta.data.ptr,
        product.compute, epilogue, 0 if bias is None else bias.data.ptr,
        0 if auxiliary is None else auxiliary.data.ptr, 0 if auxiliary is None else auxiliary.shape[1] * bits,
    )  # fmt: skip
