"""`python -m tests.support.host_time`: what a call of a CuPy function costs the host, over the emulated CUDA.

Launches and products do nothing. The emulation's `cudaGetDevice` is machine code here, as Python takes over a
microsecond for what the driver looks up. Minima of the thread's time, in µs, for arrays of 64 × 64 in float32.
"""

import ctypes
import time
from collections.abc import Callable

import numpy as np

import nnkit
from nnkit.backends import get_backend
from nnkit.backends.cuda import cublas
from tests.support import emulated_cuda

_DEVICE_0 = b"\xc7\x07\x00\x00\x00\x00\x31\xc0\xc3"  # mov dword [rdi], 0; xor eax, eax; ret


def least(call: Callable[[], object], calls: int = 25, rounds: int = 400) -> float:
    """The least mean time of a call in these rounds, in µs."""
    found = []
    for _ in range(rounds):
        start = time.thread_time_ns()
        for _ in range(calls):
            call()
        found.append(time.thread_time_ns() - start)
    return min(found) / calls / 1000


def main() -> None:
    emulated_cuda.install()
    backend = get_backend("cupy")
    place = ctypes.cast(emulated_cuda.functions["cudaGetDevice"], ctypes.c_void_p).value
    assert place is not None
    ctypes.memmove(place, _DEVICE_0, len(_DEVICE_0))
    type(backend).kernel = lambda self, text, name: lambda *launch: None  # type: ignore[attr-defined]
    cublas.Handle.gemm = lambda self, arguments: None  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    a, b, W, bias, out = (
        backend.asarray(rng.normal(size=shape), "float32") for shape in ((64, 64), (64, 64), (64, 64), 64, (64, 64))
    )
    calls: dict[str, Callable[[], object]] = {
        "sigmoid": lambda: nnkit.sigmoid(a),
        "sigmoid, out": lambda: nnkit.sigmoid(a, out=out),
        "sigmoid_grad": lambda: nnkit.sigmoid_grad(a, b),
        "sigmoid_grad, out": lambda: nnkit.sigmoid_grad(a, b, out=out),
        "matmul": lambda: backend.matmul(a, b),
        "matmul, out": lambda: backend.matmul(a, b, out=out),
        "dense_forward": lambda: nnkit.dense_forward(a, W, bias, "sigmoid"),
        "dense_forward, out": lambda: nnkit.dense_forward(a, W, bias, "sigmoid", out=out),
    }
    for name, call in calls.items():
        print(f"{name:20}{least(call):6.1f}")


if __name__ == "__main__":
    main()
