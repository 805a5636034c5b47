"""The kernels of nnkit.one_launch compiled as C++ for the host, where threads play the threads of a cluster's blocks.

Each thread of each block is a thread of its own, with barriers for __syncthreads and for the cluster, and blocks read
each other's shared memory by plain pointers. Shared memory is full of NaN when a kernel starts.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends.cuda.formula_text import PRELUDE
from nnkit.one_launch.layout import Layout
from nnkit.one_launch.recipe import Recipe
from nnkit.one_launch.text import arguments, epoch_text

Array = NDArray[Any]

_HOST = """\
#include <atomic>
#include <limits>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <thread>
#include <vector>
#define __device__

class Barrier {  // no mutex: one that is taken again on waking would order more than a barrier does
    std::atomic<int> here{0};
    std::atomic<long long> phase{0};
    const int size;
public:
    explicit Barrier(int size) : size(size) {}
    long long arrive() {
        const long long now = phase.load(std::memory_order_relaxed);
        if (here.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            here.store(0, std::memory_order_relaxed);
            phase.store(now + 1, std::memory_order_release);
        }
        return now;
    }
    void wait(long long arrived) {
        while (phase.load(std::memory_order_acquire) == arrived) std::this_thread::yield();
    }
};
struct Coordinate { unsigned int x; };
static thread_local Coordinate threadIdx, blockDim;
static thread_local Barrier *block, *cluster;
static thread_local long long arrived;
static thread_local float *own, *const *memories;
static inline void block_sync() { block->wait(block->arrive()); }
static inline void cluster_arrive() { arrived = cluster->arrive(); }
static inline void cluster_wait() { cluster->wait(arrived); }
static inline Pack<float, 4> load_peer(const float *p, unsigned int rank) {
    return *reinterpret_cast<const Pack<float, 4> *>(memories[rank] + (p - own));
}
template <int BYTES> static inline void copy_early(void *to, const void *from) { memcpy(to, from, BYTES); }
static inline void copies_done() {}
"""
_DRIVER = """
extern "C" void run(void **p, long long samples, int blocks, int threads, long long bytes) {
    Barrier all(blocks * threads);
    std::vector<Barrier *> barriers;
    std::vector<float *> memory;
    for (int rank = 0; rank < blocks; ++rank) {
        barriers.push_back(new Barrier(threads));
        memory.push_back((float *)aligned_alloc(16, bytes));
        for (int i = 0; i < bytes / 4; ++i) memory[rank][i] = std::numeric_limits<float>::quiet_NaN();
    }
    auto play = [&](int rank, int thread) {
        threadIdx.x = thread; blockDim.x = threads; block = barriers[rank]; cluster = &all;
        own = memory[rank]; memories = memory.data();
        epoch(own, rank, ARGUMENTS);
    };
    std::vector<std::thread> playing;
    for (int i = 0; i < blocks * threads; ++i) playing.emplace_back(play, i / threads, i % threads);
    for (auto &one : playing) one.join();
    for (int rank = 0; rank < blocks; ++rank) { delete barriers[rank]; free(memory[rank]); }
}
"""


def host_text(recipe: Recipe, layout: Layout, starts: Sequence[int], lanes: int) -> str:
    """A kernel's text and a function `run` that plays its cluster."""
    machine = _HOST.replace(
        "#define __device__\n", "#define __device__\n" + PRELUDE[PRELUDE.index("template <typename T, int N> struct") :]
    )
    given = [f"({kind})p[{i}]" for i, (kind, _) in enumerate(arguments(recipe)[:-1])]
    driver = _DRIVER.replace("ARGUMENTS", ", ".join([*given, "samples"]))
    return machine + epoch_text(recipe, layout, starts, lanes) + driver


def compiled(text: str, folder: Path, *options: str) -> Path:
    """A C++ text as a library, or with other options a program; skips the test where there is no C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++, or what CXX names)")
    source, made = folder / "epoch.cpp", folder / "epoch.so"
    source.write_text(text)
    command = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-w", *(options or ("-fPIC", "-shared"))]
    done = subprocess.run(
        [*command, str(source), "-o", str(made), "-pthread"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:4000]
    return made


def run(library: ctypes.CDLL, layout: Layout, threads: int, samples: int, arrays: Sequence[Array | None]) -> None:
    """Run an epoch on NumPy arrays, with so many threads a block."""
    for array in arrays:
        assert array is None or array.flags.c_contiguous
    pointers = (ctypes.c_void_p * len(arrays))(*(None if a is None else a.ctypes.data for a in arrays))
    sizes = ctypes.c_int(layout.blocks), ctypes.c_int(threads), ctypes.c_longlong(layout.bytes)
    library.run(pointers, ctypes.c_longlong(samples), *sizes)


def steps_of(samples: int, batch_size: int) -> int:
    """How many minibatches an epoch has."""
    return -(-samples // batch_size)


def noise(shape: tuple[int, ...], seed: int) -> Array:
    """Numbers of size 1 in float32."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
