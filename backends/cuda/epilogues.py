"""ReLU inside large products, by cuBLASLt: h is written once, instead of written, read and written again.

    h = max(xWᵀ + b, 0)    is one call instead of a product and a kernel
    δh̄ = H(h) ⊙ (δW)       is one call, with the signs of h as a mask of one bit for each entry

In precision "medium", in which products read bfloat16, h and δh̄ are written as bfloat16 at once if only products and
sums of columns read them. cuBLASLt requires that b is rounded to bfloat16 then.

Each GPU and cuBLASLt is asked whether it does this, and as nnkit does: small products must have the exact numbers, NaN
must stay NaN, there must be an algorithm for the product, and at its first use that must keep NaN, too. Otherwise,
there is one warning with the reason, and the product and the kernel are two calls.
"""

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnkit.backends.cuda.cublas import COMPUTE_TF32, CublasError, Product
from nnkit.backends.cuda.cublas_lt import DRELU, RELU_AUX_BIAS, RELU_BIAS, LtProduct, mask_shape
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.backends.cuda.launch import ColumnSums, reads, same, touched, writes
from nnkit.backends.dtypes import dtype_name
from nnkit.backends.formula import Formula
from nnkit.backends.recording import Discard, Node, Nodes, nodes_of

_DROPS_NAN = "the ReLU of cuBLASLt turns NaN into 0"


@functools.lru_cache(maxsize=64)
def check(device: Any, kind: str, compute: int, result: str, masked: bool) -> None:
    """Compare small products with NumPy's, which are of whole numbers and so exact; RuntimeError if they differ.

    `kind` and `result` are the dtypes of factors and result. With `masked`, the derivative is compared as well.
    """
    rng = np.random.default_rng(0)
    x, W, delta, V = (rng.integers(-1, 2, shape) for shape in ((48, 64), (136, 64), (48, 40), (40, 136)))
    b = np.where(np.arange(136) == 0, np.nan, rng.integers(-1, 2, 136))
    on_device = [device.asarray(array, kind) for array in (x, W, delta, V)]
    h, back = (device.empty((48, 136), result) for _ in range(2))
    mask = device.empty(mask_shape(48, 136), np.uint8) if masked else None
    product = Product(device, (on_device[0], on_device[1].mT), h, kind, compute)
    calls = [LtProduct(product, RELU_AUX_BIAS if masked else RELU_BIAS, device.asarray(b, result), mask)]
    if masked:
        calls.append(LtProduct(Product(device, (on_device[2], on_device[3]), back, kind, compute), DRELU, mask=mask))
    for call in calls:
        call.choose()
        call()
    found, expected = device.to_numpy(h).astype(float), np.maximum(x @ W.T + b, 0)
    if not np.isnan(found[:, 0]).all():
        raise RuntimeError(_DROPS_NAN)
    pairs = [(found, expected)]
    if masked:
        pairs.append((device.to_numpy(back).astype(float), np.where(expected <= 0, 0, delta @ V)))
    if any(not np.array_equal(one[:, 1:], other[:, 1:]) for one, other in pairs):
        raise RuntimeError("a small product of cuBLASLt has other numbers")


class ReluProduct:
    """The call of a product with ReLU, or with its derivative if `forward` is the call that writes the mask.

    Where cuBLASLt fails, the product and the kernel that follows it are called instead.
    """

    def __init__(
        self, product: Product, kernel: ElementwiseCall, out: Any, bias: Any, mask: Any = None, forward: Any = None
    ) -> None:
        self.plain, self.forward, self.fails, self._tried = (product, kernel), forward, False, forward is not None
        epilogue = DRELU if forward is not None else RELU_BIAS if mask is None else RELU_AUX_BIAS
        direct = Product(product.device, product.factors, out, product.kind, product.compute)
        self.call = LtProduct(direct, epilogue, bias, mask)

    @property
    def node(self) -> Node:
        """Its node in a recording."""
        return Node(self, self.call.read, self.call.written, f"matmul_{self.plain[1].name}")

    def with_mask(self) -> "ReluProduct":
        """The forward product that also writes the mask."""
        if self.call.mask is not None:
            return self
        out, device = self.call.product.out, self.call.product.device
        return ReluProduct(*self.plain, out, self.call.bias, device.empty(mask_shape(*out.shape), np.uint8))

    def __call__(self) -> None:
        if not self.fails and (self.forward is None or not self.forward.fails):
            try:
                if not self._tried:
                    self._try()
                self.call()
                return
            except (CublasError, FloatingPointError) as error:  # all that it reads is as it was
                self.fails = True
                _lacks(self.call, error)
        for call in self.plain:
            call()

    def _try(self) -> None:
        """Raise FloatingPointError if the algorithm loses NaN; what this writes, the call overwrites."""
        bias, device, out = self.call.bias, self.call.product.device, self.call.product.out
        self.call(device.asarray(np.full(bias.shape, np.nan), dtype_name(bias.dtype)))
        if not np.isnan(device.to_numpy(out[:1]).astype(float)).all():
            raise FloatingPointError(_DROPS_NAN)
        self._tried = True


def _kind(call: LtProduct) -> str:
    """The kind of a call, of which a device has all or none."""
    product = call.product
    what = "the derivative of ReLU" if call.epilogue == DRELU else "ReLU"
    return f"of {'TensorFloat-32' if product.compute == COMPUTE_TF32 else product.kind} with {what}"


def _lacks(call: LtProduct, reason: object) -> None:
    """Warn, once, that this device lacks products of this kind, which it remembers."""
    call.product.device.lacks(_kind(call), str(reason).strip().partition("\n")[0], "in two calls")


def works(calls: Sequence[LtProduct]) -> bool:
    """Whether the device has these products, of the same dtypes; warns, once, if not."""
    device, masked = calls[-1].product.device, calls[-1].mask is not None
    kinds = {(call.product.kind, call.product.compute, dtype_name(call.product.out.dtype)) for call in calls}
    if _kind(calls[-1]) in device.lacking or len(kinds) > 1:
        return False
    try:
        with device.here():
            check(device, *kinds.pop(), masked)
            for call in calls:
                call.choose()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        _lacks(calls[-1], error)
        return False
    return True


# --- the pass -----------------------------------------------------------------------------------------------------

LEAST = 1 << 20  # entries of a result; smaller ones stay in the cache between two kernels
_EVEN, _ALIGNED = 8, 16  # entries of a row, of which sizes are multiples, and bytes, of which addresses are

_relu = Formula(lambda xp, product, b: xp.maximum(product + b, 0.0), "relu", ["product", "b"])
_relu_grad = Formula(lambda xp, h, delta: xp.where(h <= 0, 0.0, delta), "relu_grad", ["h", "delta"])


def into_products(nodes: Nodes) -> Nodes:
    """Fuse bias and ReLU into the product before them, and its derivative into the product that gives Δ."""
    discarded = [array for node in nodes if isinstance(node.call, Discard) for array in node.call.arrays]
    done = list(nodes)
    for node in nodes:
        done = _with_relu(done, node, discarded) or _with_derivative(done, node, discarded) or done
    return done


class _Pair(NamedTuple):
    """A product and the kernel that changes its result.

    Attributes:
        nodes: the list, in which sums read `out`. place, number: where the product and the kernel are.
        kernel: the kernel, which writes only `out`.
    """

    nodes: Nodes
    place: int
    number: int
    product: Product
    kernel: ElementwiseCall
    out: Any

    def replaced(self, made: ReluProduct, casts: Nodes) -> Nodes:
        """The list with a product instead of both, after casts of what it reads."""
        nodes, place, number = self.nodes, self.place, self.number
        return [*nodes[:place], *casts, made.node, *nodes[place + 1 : number], *nodes[number + 1 :]]


def _pair(
    nodes: Nodes, node: Node, formula: Formula, operand: int, layouts: tuple[str, str], discarded: Sequence[Any]
) -> _Pair | None:
    """The pair of a kernel of this formula, and of the product that computes one of its operands; None if unsafe.

    Of several results, only the last one, which products read, may be needed: sums can read it, too.
    """
    kernel, values = node.call, formula.program().values
    if not isinstance(kernel, ElementwiseCall) or not kernel.is_plain or kernel.layouts != layouts:
        return None
    if kernel.program.values != values or {*kernel.program.outputs} != {len(values) - 1}:
        return None
    matrix, out = kernel.operands[operand], kernel.outs[-1]
    number = next(i for i, other in enumerate(nodes) if other is node)
    place = next((i for i in reversed(range(number)) if writes(nodes[i], matrix)), None)
    product = None if place is None else nodes[place].call
    if place is None or not isinstance(product, Product) or not _fits(product, matrix, out):
        return None
    lost = [array for array in (product.out, *kernel.outs) if not same(array, out)]
    after = [_summing(node, lost, out) for node in nodes[number + 1 :]]
    between, others = nodes[place + 1 : number], [*nodes[:place], *nodes[place + 1 : number], *after]
    for array in lost:
        gone = any(same(array, other) for other in discarded)
        if not gone or any(reads(other, array) or writes(other, array) for other in others):
            return None
    inputs = tuple(array for array in kernel.operands if array is not matrix)
    if touched(between, inputs, (out,)) or (lost and any(writes(other, out) for other in others)):
        return None
    kernel = kernel.without(range(len(kernel.outs) - 1)) if len(kernel.outs) > 1 else kernel
    return _Pair([*nodes[: number + 1], *after], place, number, product, kernel, out)


def _fits(product: Product, matrix: Any, out: Any) -> bool:
    """Whether a product is large enough, and its arrays are as cuBLASLt needs them."""
    if product.alpha is not None or product.arguments is None or not same(product.out, matrix) or matrix.ndim != 2:
        return False
    types = dtype_name(matrix.dtype) == "float32" and dtype_name(out.dtype) in ("float32", "bfloat16")
    sizes = (matrix.shape[1], product.factors[0].shape[1])
    aligned = all(array.data.ptr % _ALIGNED == 0 for array in (*product.factors, out))
    return types and out.size >= LEAST and aligned and not any(size % _EVEN for size in sizes)


def _summing(node: Node, lost: Sequence[Any], out: Any) -> Node:
    """Sums of the columns of `out`, if they are those of what is lost, of which it is a copy."""
    call = node.call
    if isinstance(call, ColumnSums) and any(same(call.a, array) for array in lost):
        return ColumnSums(call.device, out, call.out, call.alpha).node
    return node


def _with_relu(nodes: Nodes, node: Node, discarded: Sequence[Any]) -> Nodes | None:
    """The list with bias and ReLU inside a product, or None."""
    pair = _pair(nodes, node, _relu, 0, ("full", "row"), discarded)
    if pair is None:
        return None
    device, b, result = pair.product.device, pair.kernel.operands[1], dtype_name(pair.out.dtype)
    bias = b if result == "float32" else device.empty(b.shape, result)
    made = ReluProduct(pair.product, pair.kernel, pair.out, bias)
    if b.data.ptr % _ALIGNED or not works([made.call]):
        return None
    return pair.replaced(made, [] if bias is b else nodes_of(partial(device.round, b, bias)))


def _with_derivative(nodes: Nodes, node: Node, discarded: Sequence[Any]) -> Nodes | None:
    """The list with the derivative of ReLU inside a product, and the mask from the product that gave h, or None."""
    pair = _pair(nodes, node, _relu_grad, 1, ("full", "full"), discarded)
    if pair is None:
        return None
    h = pair.kernel.operands[0]
    writers = [place for place, other in enumerate(pair.nodes) if writes(other, h)]
    forward = pair.nodes[writers[0]].call if len(writers) == 1 and writers[0] < pair.place else None
    if not isinstance(forward, ReluProduct) or forward.forward is not None or not same(forward.call.product.out, h):
        return None
    masked = forward.with_mask()
    made = ReluProduct(pair.product, pair.kernel, pair.out, None, masked.call.mask, masked)
    if not works([masked.call, made.call]):
        return None
    pair.nodes[writers[0]] = masked.node
    return pair.replaced(made, [])
