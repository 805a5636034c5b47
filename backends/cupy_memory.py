"""CuPy's memory: what an error says where it is full, and giving back what is held but not used."""

from typing import Any

from nnkit.backends.base import Backend
from nnkit.backends.errors import OutOfMemoryError

_MEMORY_ALLOCATION = 2  # CUDA's status cudaErrorMemoryAllocation


class CupyMemory(Backend):
    """What `CupyBackend` knows of its device's memory."""

    def out_of_memory(self, error: BaseException) -> OutOfMemoryError | None:
        cuda = self.xp.cuda
        if not memory_is_full(cuda, error):
            return super().out_of_memory(error)
        with self._this_device():
            (free, total), pool = cuda.runtime.memGetInfo(), self.xp.get_default_memory_pool()
            free += pool.free_bytes()
            if pool.get_limit():
                free = min(free, max(0, pool.get_limit() - pool.used_bytes()))
        return OutOfMemoryError(self.name, getattr(error, "_size", None), free, total)

    def release(self) -> None:
        with self._this_device():
            self.xp.get_default_memory_pool().free_all_blocks()

    def _this_device(self) -> Any:
        return self.xp.cuda.Device(int(self.name.partition(":")[2] or 0))


def memory_is_full(cuda: Any, error: BaseException) -> bool:
    """Whether an error of CuPy's, whose module `cuda` is given, says that a device has no memory left."""
    if isinstance(error, cuda.memory.OutOfMemoryError):
        return True
    # What is not allocated through CuPy's pool, such as a kernel's code or a graph.
    return isinstance(error, cuda.runtime.CUDARuntimeError) and error.status == _MEMORY_ALLOCATION
