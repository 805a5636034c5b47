"""NCCL emulated below CuPy's own binding of it, over MPI: each process is a rank with an emulated GPU of its own.

A small library has NCCL's names, whose functions jump to those of this file. What they do to device memory, which is
the host's here, is captured like kernels.
"""

import ctypes
import os
import subprocess
from ctypes import c_int, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from tests.support import emulated_cuda

NAMES = (
    "AllGather", "AllReduce", "Bcast", "Broadcast", "CommAbort", "CommCount", "CommCuDevice", "CommDestroy",
    "CommGetAsyncError", "CommInitAll", "CommInitRankConfig", "CommSplit", "CommUserRank", "GetErrorString",
    "GetUniqueId", "GetVersion", "GroupEnd", "GroupStart", "Recv", "Reduce", "ReduceScatter", "Send",
)  # fmt: skip
DTYPES = {7: "float32", 8: "float64"}  # of nccl.h
SUM = 0
calls: list[str] = []
_kept: list[Any] = []
_group: list[None] = []  # that have begun


def _array(place: int, count: int, kind: int) -> np.ndarray:
    size = count * np.dtype(DTYPES[kind]).itemsize
    memory: Any = (ctypes.c_char * size).from_address(place)
    return np.frombuffer(memory, DTYPES[kind])


def _now(name: str, call: Any, stream: int) -> int:
    calls.append(name)
    emulated_cuda.work(stream, call)
    return 0


def _all_reduce(sent: int, got: int, count: int, kind: int, operation: int, comm: int, stream: int) -> int:
    assert (sent, operation) == (got, SUM)
    return _now("AllReduce", lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, _array(got, count, kind)), stream)


def _broadcast(sent: int, got: int, count: int, kind: int, root: int, comm: int, stream: int) -> int:
    assert _group, "several broadcasts are one group"
    return _now("Broadcast", lambda: MPI.COMM_WORLD.Bcast(_array(got, count, kind), root), stream)


def _init(comm: int, size: int, *rest: Any) -> int:
    assert size == MPI.COMM_WORLD.size
    emulated_cuda.put(comm, 0x99)
    return 0


def _version(version: int) -> int:
    emulated_cuda.put(version, 22907, c_int)
    return 0


def _start() -> int:
    _group.append(None)
    return 0


def _end() -> int:
    _group.pop()
    return 0


P, N, S = c_void_p, c_int, c_size_t
_IDENTITY = type("Identity", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_char * 128)]})
_MADE: dict[str, tuple[Any, ...]] = {
    "AllReduce": (_all_reduce, P, P, S, N, N, P, P), "Broadcast": (_broadcast, P, P, S, N, N, P, P),
    "CommInitRankConfig": (_init, P, N, _IDENTITY, N, P), "GetVersion": (_version, P), "GroupStart": (_start,),
    "GroupEnd": (_end,), "GetUniqueId": (lambda identity: ctypes.memset(identity, 7, 128) * 0, P),
    "CommDestroy": (lambda comm: 0, P), "CommAbort": (lambda comm: 0, P),
}  # fmt: skip


def install(folder: Path) -> None:
    """Load the library before CuPy looks for NCCL's."""
    texts = [
        f'void *at_{name}; int nccl{name}() {{ __asm__ volatile(""); return 0; }}'
        for name in NAMES
        if name not in _MADE
    ]
    jumps = [f".globl nccl{name}\\nnccl{name}: movq at_{name}@GOTPCREL(%rip), %rax\\njmp *(%rax)\\n" for name in _MADE]
    texts += [f"void *at_{name};" for name in _MADE] + [f'__asm__(".text\\n{"".join(jumps)}");']
    source, library = folder / f"nccl-{os.getpid()}.c", folder / f"nccl-{os.getpid()}.so"
    source.write_text("\n".join(texts))
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = emulated_cuda._load(str(library), mode=ctypes.RTLD_GLOBAL)
    for name, (function, *types) in _MADE.items():
        entry = ctypes.CFUNCTYPE(c_int, *types)(function)
        _kept.append(entry)
        c_void_p.in_dll(loaded, f"at_{name}").value = ctypes.cast(entry, P).value
