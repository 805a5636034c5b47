"""CUDA kernels compiled as C++ for the host, where one thread after the other runs them, to its end or a barrier.

Everything but the hardware is CUDA's own text: loads, index arithmetic, packs, the formula, rounding and stores. Only
the float16 conversions, which are PTX, are replaced by the compiler's.
"""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends.cuda.formula_text import PRELUDE, STORAGE
from tests.support.kernels import Variant

Array = NDArray[Any]

# C's headers alone: those of C++ take longer to read than a kernel to compile. CUDA's functions are of float too.
_FUNCTIONS = ("fabs", "sqrt", "exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "floor")
C_HEADERS = """\
#include <math.h>
#include <string.h>
"""
C_HEADERS += "".join(f"static inline float {name}(float x) {{ return {name}f(x); }}\n" for name in _FUNCTIONS)
C_HEADERS += "static inline float pow(float x, float y) { return powf(x, y); }\n"
_HOST = """\
#define __device__
#define __global__
struct Coordinate { unsigned int x, y; };
static Coordinate blockIdx, threadIdx, gridDim, blockDim;
static inline float __uint_as_float(unsigned int u) { float f; memcpy(&f, &u, 4); return f; }
static inline unsigned int __float_as_uint(float f) { unsigned int u; memcpy(&u, &f, 4); return u; }
"""
_PTX = {
    'asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h.bits));': "_Float16 x; memcpy(&x, &h.bits, 2); f = x;",
    'asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));': "_Float16 y = (_Float16)x; memcpy(&h.bits, &y, 2);",
}
_EACH_THREAD = """\
    gridDim.x = blocks; blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
"""


# Kernels whose threads wait for each other: each runs on a stack of its own until it waits, then the next one runs. All
# read what the ones after them have not yet written where a barrier is missing.
_WAITING = """\
#include <ucontext.h>
#define __shared__ static
static ucontext_t host, each[1024];
static char stacks[1024][1 << 15], ended[1024];
static void **p;
static void __syncthreads() { swapcontext(&each[threadIdx.x], &host); }
"""
_ONE_THREAD = """\
static void run_thread() { CALL ended[threadIdx.x] = 1; }
"""
_ALL_THREADS = """\
    p = given; gridDim.x = blocks;
    for (blockIdx.y = 0; blockIdx.y < rows; ++blockIdx.y) for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        for (unsigned t = 0; t < threads; ++t) {
            getcontext(&each[t]);
            each[t].uc_stack.ss_sp = stacks[t]; each[t].uc_stack.ss_size = sizeof stacks[t]; each[t].uc_link = &host;
            makecontext(&each[t], run_thread, 0);
            ended[t] = 0;
        }
        for (unsigned left = threads; left; ) for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            if (!ended[threadIdx.x]) { swapcontext(&host, &each[threadIdx.x]); left -= ended[threadIdx.x]; }
    }
"""


def parameters_of(text: str, name: str) -> list[str]:
    """The parameters of a kernel as its text declares them."""
    found = re.search(rf"void {name}\(\s*([^)]*)\)", text)
    assert found
    return [parameter.strip() for parameter in re.split(r",(?![^<>]*>)", found[1])]


def kernel_with_driver(text: str, name: str) -> str:
    """A kernel's text without PRELUDE, and a function `run_NAME(pointers to the arguments, blocks, parts, threads)`."""
    types = [re.sub(r"\w+$", "", parameter) for parameter in parameters_of(text, name)]
    call = f"{name}({', '.join(f'*({kind}*)p[{i}]' for i, kind in enumerate(types))});"
    head = f'extern "C" void run_{name}(void **given, unsigned blocks, unsigned rows, unsigned threads) {{\n'
    if "__syncthreads" in text:
        return f"{_WAITING}{text}{_ONE_THREAD.replace('CALL', call)}{head}{_ALL_THREADS}}}\n"
    return f"{text}{head}    void **p = given;\n{_EACH_THREAD}            {call}\n}}\n"


def build(text: str, folder: Path) -> ctypes.CDLL:
    """A loaded library of C++ that may use PRELUDE; skips the test where there is no C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++, or what CXX names)")
    prelude = PRELUDE
    for ptx, host in _PTX.items():
        assert ptx in prelude
        prelude = prelude.replace(ptx, host)
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(C_HEADERS + _HOST + prelude + text)
    # No contraction of a * b + c: NumPy rounds both. Not optimized: that takes longer than the kernels run.
    options = ["-std=c++17", "-nostdinc++", "-O0", "-fPIC", "-shared", "-ffp-contract=off"]
    done = subprocess.run(
        [compiler, *options, str(source), "-o", str(library), "-lm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


def with_driver(variant: Variant) -> str:
    """The text of a kernel, and of a function `run_NAME` that plays the grid."""
    signature = variant.signature
    pointers = [f"(const {STORAGE[dtype]} *)p[{j}]" for j, dtype in enumerate(signature.dtypes)]
    count = len(pointers)
    pointers += [f"({STORAGE[dtype]} *)p[{count + j}]" for j, dtype in enumerate(signature.out_dtypes)]
    space = f"of_{variant.name}"
    call = f"{space}::{variant.c_name}({', '.join(pointers)}, ({space}::I)n, ({space}::I)columns);"
    head = f"void run_{variant.name}(void **p, long long n, long long columns, unsigned blocks, unsigned threads)"
    return f'{variant.text}extern "C" {head} {{\n{_EACH_THREAD}            {call}\n}}\n'


def launch(library: ctypes.CDLL, variant: Variant, operands: Sequence[Array], outs: Sequence[Array]) -> None:
    """Run a kernel on NumPy arrays, with so few threads that each does several entries, and some of them none."""
    arrays = [*operands, *outs]
    for array in arrays:
        assert array.flags.c_contiguous
        assert array.ctypes.data % 16 == 0
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    n, columns = outs[0].size, outs[0].shape[-1]
    run = getattr(library, f"run_{variant.name}")
    run(pointers, ctypes.c_longlong(n), ctypes.c_longlong(columns), ctypes.c_uint(3), ctypes.c_uint(7))


def aligned(values: Array) -> Array:
    """A C-ordered copy at an address that 16-byte accesses can use."""
    memory = np.empty(values.nbytes + 16, np.uint8)
    start = -memory.ctypes.data % 16
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy
