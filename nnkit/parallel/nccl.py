"""Ranks by NCCL, each with a GPU of its own: the sum is a node of the step's CUDA graph.

What is small, and on the host, goes through the communicator of another kind that NCCL needs to start, usually MPI's.
All ranks capture a graph with a sum in it, or none (NCCL's user guide, "Using NCCL with CUDA Graphs"). Graphs must end
before their communicator (pytorch#115388), so communicators last as long as the process.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from nnkit.backends.base import Array, Backend
from nnkit.backends.cuda.graph import Shared, graphs_wanted
from nnkit.backends.recording import perform
from nnkit.parallel.communicator import Communicator

T = TypeVar("T")
_LOOK = 256  # steps between two questions whether a rank wants to stop: the host must not wait for the device in each

_made: dict[tuple[Any, ...], Any] = {}  # NCCL's communicators by the GPUs of the ranks


class NcclCommunicator(Communicator):
    """The ranks of another communicator, whose arrays are added by NCCL."""

    def __init__(self, host: Communicator, comm: Any, nccl: Any) -> None:
        super().__init__()
        self.rank, self.size, self._host, self._comm, self._nccl = host.rank, host.size, host, comm, nccl
        self._steps = 0

    def everyone(self, value: T) -> list[T]:
        return self._host.everyone(value)

    def agreed(self) -> AbstractContextManager[None]:
        return self._host.agreed()

    def knows(self, error: BaseException) -> bool:
        return self._host.knows(error)

    def abort(self, error: BaseException) -> None:
        self._host.abort(error)

    def stops(self, wish: bool) -> bool:
        self._steps += 1
        if self._steps % _LOOK == 0:
            self.stopped = any(self.everyone(wish))
        return self.stopped

    def add_up(self, backend: Backend, message: Array) -> None:
        kind, count = self._kind(message), message.size

        def call(stream: int) -> None:
            self._comm.allReduce(message.data.ptr, message.data.ptr, count, kind, self._nccl.NCCL_SUM, stream)

        self._perform(call, message)

    def gather(self, backend: Backend, rows: Array, counts: Sequence[int]) -> None:
        kind, width, size = self._kind(rows), rows.shape[1], rows.itemsize

        def call(stream: int) -> None:
            start = rows.data.ptr
            self._nccl.groupStart()
            for rank, count in enumerate(counts):
                self._comm.broadcast(start, start, count * width, kind, rank, stream)
                start += count * width * size
            self._nccl.groupEnd()

        self._perform(call, rows)

    def _kind(self, array: Array) -> int:
        return int({"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}[array.dtype.name])

    def _perform(self, call: Callable[[int], None], array: Array) -> None:
        import cupy

        def on_current_stream() -> None:
            call(cupy.cuda.get_current_stream().ptr)

        perform(Shared(on_current_stream, lambda done: all(self.everyone(done))), (array,), (array,), "add_up")


def with_nccl(host: Communicator, backend: Backend) -> Communicator:
    """The communicator for arrays of this backend: NCCL's, if each rank has a GPU of its own, else the given one."""
    with host.agreed():
        import cupy

        index = int(backend.name.partition(":")[2] or 0)
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        nccl = _library()
        mine = (bytes(properties["uuid"]), nccl is not None, graphs_wanted())
    gpus = host.everyone(mine)
    with host.agreed():
        if len({graphs for *_, graphs in gpus}) > 1:
            raise ValueError("NNKIT_CUDA_GRAPHS differs between the ranks; set it for all or none")
    if len({uuid for uuid, *_ in gpus}) < host.size or not all(available for _, available, _ in gpus):
        return host
    key = (host.rank, *(uuid for uuid, *_ in gpus))
    if not all(host.everyone(key in _made)):
        identity = host.broadcast(nccl.get_unique_id)
        # NVLink's own sums need not have the same bits twice (nccl#1497).
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
        with host.agreed(), cupy.cuda.Device(index):
            _made[key] = nccl.NcclCommunicator(host.size, identity, host.rank)
    return NcclCommunicator(host, _made[key], nccl)


def _library() -> Any:
    """CuPy's binding of NCCL; None if the library is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    return nccl if nccl.available else None
