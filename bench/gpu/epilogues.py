"""What cuBLASLt's epilogues are worth: products with what follows them in kernels of nnkit, and in the product."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import nnkit
from bench.gpu.budget import Budget
from bench.gpu.contenders.nnkit_gpu import PRECISIONS
from bench.gpu.device import Device
from nnkit.backends.base import Array
from nnkit.backends.cuda.epilogue_product import EpilogueProduct
from nnkit.backends.tape import Tape
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import dense_backward, dense_forward

SIZES = [(128, 128), (256, 256), (1024, 512), (8192, 4096)]  # samples, and inputs and units of a layer
# By norms: both ways multiply the same numbers, but a unit near its kink may come out on either side of it, and sums of
# δb may be of numbers that were rounded to bfloat16.
TOLERANCE = 1e-2


class Layer:
    """Arrays of a layer of as many units as inputs, and what is recorded of it."""

    def __init__(self, device: Device, samples: int, width: int) -> None:
        rng = np.random.default_rng([samples, width])
        self.backend = device.backend
        self.x, self.delta = (self._normal(rng, samples, width) for _ in range(2))
        self.W, self.V = (self._normal(rng, width, width, scale=width**-0.5) for _ in range(2))
        self.b = self._normal(rng, width)
        self.h = self.backend.asarray(rng.random((samples, width), np.float32))

    def _normal(self, rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
        return self.backend.asarray(rng.standard_normal(shape, np.float32) * np.float32(scale))

    def bias(self) -> list[Array]:
        """The forward pass without an activation."""
        return [dense_forward(self.x, self.W, self.b)]

    def gradients(self) -> list[Array]:
        """δW and δb of a sigmoid layer, whose kernel for δh̄ begins to sum it where nothing else does."""
        _, dW, db = dense_backward(self.delta, self.x, self.W, self.h, "sigmoid", need_dx=False)
        return [dW, db]

    def activated(self, name: str) -> list[Array]:
        """The forward pass with an activation, and δh̄ from the Δ that the layer behind gives."""
        f = get_activation(name)
        z = self.backend.empty(self.x.shape, "float32") if f.gradient_from == "preactivation" else None
        h = dense_forward(self.x, self.W, self.b, name, z=z)
        dh = self.backend.matmul(self.delta, self.V)
        return [h, self.backend.elementwise(f.gradient, (h if z is None else z, dh), out=dh)]


CASES: dict[str, Callable[[Layer], list[Array]]] = {
    "bias": Layer.bias,
    "ReLU, forward and backward": lambda layer: layer.activated("relu"),
    "GELU (tanh), forward and backward": lambda layer: layer.activated("gelu_tanh"),
    "δh̄, δW and δb": Layer.gradients,
}


def measure_epilogues(
    device: Device, sizes: list[tuple[int, int]], precisions: list[str], calls: int, budget: Budget
) -> list[dict[str, Any]]:
    """For each layer, precision and case: the times apart and together, and which epilogues there were."""
    found = []
    for samples, width in sizes:
        layer: Layer | None = None
        for precision in precisions if device.kind == "cuda" else precisions[:1]:
            if not budget.allows(f"epilogues: {samples} × {width}, {precision}", 5.0):
                continue
            for what in CASES:
                row: dict[str, Any] = {"samples": samples, "width": width, "precision": precision, "what": what}
                try:
                    layer = layer or Layer(device, samples, width)
                    row |= _measure(device, layer, what, precision, calls)
                except Exception as error:  # one that fails is a line of the result
                    row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0]
                found.append(row)
                device.backend.release()
    return found


def _measure(device: Device, layer: Layer, what: str, precision: str, calls: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    results = []
    for way, asked in (("apart", "0"), ("together", "1")):
        with _asked(asked, PRECISIONS[precision]), device.backend.recording() as tape:
            arrays = CASES[what](layer)
        for _ in range(3):  # call by call, captured, replayed
            tape.replay()
        results.append([device.backend.to_numpy(array) for array in arrays])
        row[way] = device.times(tape.replay, calls, 5)
        row["epilogues"] = _taken(tape)
    for one, other in zip(*results, strict=True):
        error = float(np.linalg.norm(one - other) / np.linalg.norm(one))
        row["error"] = max(row.get("error", 0.0), error)
        if not error <= TOLERANCE:
            row["failed"] = f"computes something else: off by {error:.1e}, more than {TOLERANCE:.0e}"
    return row


def _taken(tape: Tape) -> list[str]:
    return [call.epilogue.name for call in tape.calls if isinstance(call, EpilogueProduct)]


@contextmanager
def _asked(epilogues: str, precision: str) -> Iterator[None]:
    """Recordings in the `with` block ask for epilogues, or do not, in a precision."""
    before = os.environ.get("NNKIT_EPILOGUES"), nnkit.get_matmul_precision()
    os.environ["NNKIT_EPILOGUES"] = epilogues
    nnkit.set_matmul_precision(precision)
    try:
        yield
    finally:
        nnkit.set_matmul_precision(before[1])
        del os.environ["NNKIT_EPILOGUES"]
        if before[0] is not None:
            os.environ["NNKIT_EPILOGUES"] = before[0]
