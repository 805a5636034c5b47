"""The kernels of nnkit.one_launch compiled as C++ for the host, where threads play the threads of a cluster's blocks.

Each thread of each block has a stack of its own, and runs until it waits at a barrier of its block or of the cluster;
for ThreadSanitizer they are threads of the host. Blocks read each other's shared memory by plain pointers. It is full
of NaN when a kernel starts.
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
from nnkit.one_launch.layout import Layout, Recipe
from nnkit.one_launch.text import arguments, epoch_text
from tests.support.host_cuda import C_HEADERS

Array = NDArray[Any]

_HOST = """\
#include <stdlib.h>
#define __device__

struct Coordinate { unsigned int x; };
static thread_local Coordinate threadIdx, blockDim;
struct Barrier { int here, size; long long phase; };
static thread_local Barrier *block, *cluster;
static thread_local long long arrived;
static thread_local float *own, *const *memories;

#ifdef __SANITIZE_THREAD__
#include <pthread.h>
#include <sched.h>
static void others() { sched_yield(); }
#else
#include <ucontext.h>
static ucontext_t host, each[1024];
static char stacks[1024][1 << 16], ended[1024];
static unsigned running;
static void others() {
    const Coordinate index = threadIdx;
    Barrier *const of_block = block;
    const long long phase = arrived;
    float *const memory = own;
    swapcontext(&each[running], &host);
    threadIdx = index; block = of_block; arrived = phase; own = memory;
}
#endif

// No mutex: one that is taken again on waking would order more than a barrier does.
static long long arrive(Barrier &b) {
    const long long now = __atomic_load_n(&b.phase, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&b.here, 1, __ATOMIC_ACQ_REL) == b.size) {
        __atomic_store_n(&b.here, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&b.phase, now + 1, __ATOMIC_RELEASE);
    }
    return now;
}
static void wait(Barrier &b, long long arrived) {
    while (__atomic_load_n(&b.phase, __ATOMIC_ACQUIRE) == arrived) others();
}
static inline void block_sync() { wait(*block, arrive(*block)); }
static inline void cluster_arrive() { arrived = arrive(*cluster); }
static inline void cluster_wait() { wait(*cluster, arrived); }
static inline Pack<float, 4> load_peer(const float *p, unsigned int rank) {
    return *reinterpret_cast<const Pack<float, 4> *>(memories[rank] + (p - own));
}
template <int BYTES> static inline void copy_early(void *to, const void *from) { memcpy(to, from, BYTES); }
static inline void copies_done() {}
"""
_DRIVER = """
static void **p;
static long long samples, member, stride;
static int threads;
static Barrier whole, of_blocks[64];
static float *memory[64];

static void play(int number) {
    const int rank = number / threads;
    threadIdx.x = number % threads; blockDim.x = threads; block = &of_blocks[rank]; cluster = &whole;
    own = memory[rank]; memories = memory;
    epoch(own, rank, member, ARGUMENTS);
}

#ifdef __SANITIZE_THREAD__
static void *play_thread(void *number) { play((int)(long long)number); return 0; }
static void play_all(int count) {
    pthread_t playing[1024];
    for (long long i = 0; i < count; ++i) pthread_create(&playing[i], 0, play_thread, (void *)i);
    for (int i = 0; i < count; ++i) pthread_join(playing[i], 0);
}
#else
static void play_running() { const unsigned me = running; play(me); ended[me] = 1; }
static void play_all(int count) {
    for (int i = 0; i < count; ++i) {
        getcontext(&each[i]);
        each[i].uc_stack.ss_sp = stacks[i]; each[i].uc_stack.ss_size = sizeof stacks[i]; each[i].uc_link = &host;
        makecontext(&each[i], play_running, 0);
        ended[i] = 0;
    }
    for (int left = count; left; ) for (running = 0; running < (unsigned)count; ++running)
        if (!ended[running]) { swapcontext(&host, &each[running]); left -= ended[running]; }
}
#endif

extern "C" void run(void **given, long long all_samples, int blocks, int threads_of_block, long long bytes,
                    long long members = 1, long long entries = 0) {
    p = given; samples = all_samples; threads = threads_of_block; stride = entries;
    for (member = 0; member < members; ++member) {
        whole = {0, blocks * threads, 0};
        for (int rank = 0; rank < blocks; ++rank) {
            of_blocks[rank] = {0, threads, 0};
            memory[rank] = (float *)aligned_alloc(16, bytes);
            for (int i = 0; i < bytes / 4; ++i) memory[rank][i] = NAN;
        }
        play_all(blocks * threads);
        for (int rank = 0; rank < blocks; ++rank) free(memory[rank]);
    }
}
"""


def host_text(recipe: Recipe, layout: Layout, starts: Sequence[int], lanes: int) -> str:
    """A kernel's text and a function `run` that plays its cluster."""
    machine = _HOST.replace(
        "#define __device__\n", "#define __device__\n" + PRELUDE[PRELUDE.index("template <typename T, int N> struct") :]
    )
    given = [f"({kind})p[{i}]" for i, (kind, _) in enumerate(arguments(recipe)[:-2])]
    driver = _DRIVER.replace("ARGUMENTS", ", ".join([*given, "samples", "stride"]))
    return C_HEADERS + machine + epoch_text(recipe, layout, starts, lanes) + driver


def compiled(text: str, folder: Path, *options: str) -> Path:
    """A C++ text as a library, or with other options a program; skips the test where there is no C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++, or what CXX names)")
    source, made = folder / "epoch.cpp", folder / "epoch.so"
    source.write_text(text)
    kind = options or ("-fPIC", "-shared")
    command = [compiler, "-std=c++17", "-nostdinc++", "-O1", "-ffp-contract=off", "-w", *kind, "-pthread"]
    done = subprocess.run([*command, str(source), "-o", str(made), "-lm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return made


def run(
    library: ctypes.CDLL, layout: Layout, threads: int, samples: int, arrays: Sequence[Array | None], members: int = 1
) -> None:
    """Run an epoch on NumPy arrays, with so many threads a block; of several members, one cluster after another."""
    for array in arrays:
        assert array is None or array.flags.c_contiguous
    pointers = (ctypes.c_void_p * len(arrays))(*(None if a is None else a.ctypes.data for a in arrays))
    sizes = ctypes.c_int(layout.blocks), ctypes.c_int(threads), ctypes.c_longlong(layout.bytes)
    entries = arrays[4].shape[-1] if arrays[4] is not None else 0
    library.run(pointers, ctypes.c_longlong(samples), *sizes, ctypes.c_longlong(members), ctypes.c_longlong(entries))


def steps_of(samples: int, batch_size: int) -> int:
    """How many minibatches an epoch has."""
    return -(-samples // batch_size)


def noise(shape: tuple[int, ...], seed: int) -> Array:
    """Numbers of size 1 in float32."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
