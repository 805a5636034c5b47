"""Calls that a product can do before it writes its result: cuBLASLt's epilogues, on a tape that asks for them.

A tape knows what comes after a product. Bias and ReLU or GELU go into the forward product, their derivatives into the
product that gives Δ, the sums of δb into that of δW: each is an array less to go through memory and a kernel less to
start. Whether that is faster depends on the GPU, the types and the version of cuBLASLt: on some it computes the result
and starts a kernel of its own for the rest, which is slower (karpathy/llm.c#338, against #653). NNKIT_EPILOGUES=1 asks
for them; `python -m bench.gpu` measures each beside the kernels of nnkit.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nnkit.backends.cuda.cast_tape import CastTape
from nnkit.backends.cuda.cublas import Product
from nnkit.backends.cuda.cublas_lt import Epilogue
from nnkit.backends.cuda.device_tape import same
from nnkit.backends.cuda.epilogue_product import EpilogueProduct, mask_shape
from nnkit.backends.switches import switch
from nnkit.backends.tape import active_tape

_VARIABLE = "NNKIT_EPILOGUES"
_FORWARD = {
    "bias": Epilogue.BIAS, "bias_relu": Epilogue.RELU_BIAS,
    "bias_gelu": Epilogue.GELU_BIAS, "bias_gelu_aux": Epilogue.GELU_AUX_BIAS,
}  # fmt: skip
_RELU = (Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS)

Empty = Callable[[Sequence[int], Any], Any]


class EpilogueTape(CastTape):
    """A tape on which products take in what follows them, if NNKIT_EPILOGUES=1 asks for it."""

    def __init__(self, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        super().__init__(around)
        self.fuses = switch(_VARIABLE, default=False)

    def absorb(self, known_as: str, operands: Sequence[Any], outs: Sequence[Any], empty: Empty) -> bool:
        """Let a product do what a formula that libraries know would do to its result; False if none can."""
        if known_as in _FORWARD and same(operands[0], outs[-1]):
            auxiliary = outs[0] if len(outs) > 1 else None
            return self._give(operands[0], _FORWARD[known_as], operands[1], auxiliary)
        if known_as == "gelu_grad" and same(operands[1], outs[0]):
            return self._give(operands[1], Epilogue.DGELU, None, operands[0])
        if known_as == "relu_grad" and same(operands[1], outs[0]):
            return self._absorb_relu_grad(operands[0], operands[1], empty)
        return False

    def absorb_sums(self, a: Any, out: Any) -> bool:
        """Let the product (…) = aᵀb write the sums of the columns of a to `out`; False if there is none that can."""
        for place, call in enumerate(self.calls):
            if isinstance(call, Product) and same(call.sources[0], a.mT) and self.unwritten(a, place):
                return self.untouched(out, place) and self._put(place, self._with(place, Epilogue.BGRADB, out, None))
        return False

    def _absorb_relu_grad(self, h: Any, delta: Any, empty: Empty) -> bool:
        """ReLU's derivative from bits that the forward product leaves, which is asked for them now."""
        place = self._product_of(delta)
        forward = self._relu_of(h)
        if place is None or forward is None or place < forward or h.shape != delta.shape:
            return False
        relu = self.calls[forward]
        assert isinstance(relu, EpilogueProduct)
        mask = empty(mask_shape(h.shape), "uint8") if relu.auxiliary is None else relu.auxiliary
        gradient = self._with(place, Epilogue.DRELU, None, mask)
        leaving = None if gradient is None else self._with(forward, Epilogue.RELU_AUX_BIAS, relu.bias, mask)
        return self._put(forward, leaving) and self._put(place, gradient)

    def _give(self, result: Any, epilogue: Epilogue, bias: Any, auxiliary: Any) -> bool:
        place = self._product_of(result)
        if place is None or (bias is not None and not self.unwritten(bias, place)):
            return False
        if auxiliary is not None:
            written = epilogue == Epilogue.GELU_AUX_BIAS
            if not (self.untouched if written else self.unwritten)(auxiliary, place):
                return False
        return self._put(place, self._with(place, epilogue, bias, auxiliary))

    def _with(self, place: int, epilogue: Epilogue, bias: Any, auxiliary: Any) -> EpilogueProduct | None:
        """The product of a place with an epilogue; None if cuBLASLt has none such."""
        call = self.calls[place]
        assert isinstance(call, Product | EpilogueProduct)
        return EpilogueProduct.of(call if isinstance(call, Product) else call.product, epilogue, bias, auxiliary)

    def _put(self, place: int, made: EpilogueProduct | None) -> bool:
        """Put a product with an epilogue, if there is one, in the place of a call."""
        if made is None:
            return False
        self.put(place, made, made.written, made.read)
        return True

    def _product_of(self, result: Any) -> int | None:
        """The place of the product that gives this array, if no call after it knows of that."""
        for place in reversed(range(len(self.calls))):
            call = self.calls[place]
            if isinstance(call, Product) and same(call.placed[2][0], result):
                return place if self.untouched(result, place + 1) else None
        return None

    def _relu_of(self, h: Any) -> int | None:
        """The place of the product that gives h by ReLU, if h is still what it gave."""
        for place in reversed(range(len(self.calls))):
            call = self.calls[place]
            if isinstance(call, EpilogueProduct) and call.epilogue in _RELU and same(call.out, h):
                return place if self.unwritten(h, place + 1) else None
        return None


def fusing_tape() -> EpilogueTape | None:
    """The tape that records in this context, if it asks for epilogues."""
    tape = active_tape()
    return tape if isinstance(tape, EpilogueTape) and tape.fuses else None
