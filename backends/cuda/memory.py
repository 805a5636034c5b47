"""The memory of CuPy's devices: out-of-memory errors, and the release of cached memory."""

from abc import abstractmethod
from typing import Any

from nnkit.backends.base import Backend
from nnkit.backends.errors import OutOfMemoryError

_MEMORY_ALLOCATION = 2  # CUDA's status cudaErrorMemoryAllocation


class CupyMemory(Backend):
    """The memory operations of `CupyBackend`."""

    def out_of_memory(self, error: BaseException) -> OutOfMemoryError | None:
        cuda = self.xp.cuda
        if not memory_is_full(cuda, error):
            return super().out_of_memory(error)
        with self.here():
            (free, total), pool = self._room(), self.xp.get_default_memory_pool()
            if pool.get_limit():
                free = min(free, max(0, pool.get_limit() - pool.used_bytes()))
        return OutOfMemoryError(self.name, getattr(error, "_size", None), free, total)

    def release(self) -> None:
        with self.here():
            self.xp.get_default_memory_pool().free_all_blocks()

    def has_room(self, size: int) -> bool:
        with self.here():
            free, _ = self._room()
        return bool(size < 0.8 * free)

    @abstractmethod
    def here(self) -> Any:
        """The device as a context manager; CuPy keeps the previous device on a stack per thread."""

    def _room(self) -> tuple[int, int]:
        """The free bytes of the current device and CuPy's pool, and the total bytes of the device."""
        free, total = self.xp.cuda.runtime.memGetInfo()
        return free + self.xp.get_default_memory_pool().free_bytes(), total


def memory_is_full(cuda: Any, error: BaseException) -> bool:
    """Whether an error of CuPy, with the module `cupy.cuda`, means that a device is out of memory."""
    if isinstance(error, cuda.memory.OutOfMemoryError):
        return True
    # Memory outside CuPy's pool, such as for a kernel's code or a graph.
    return isinstance(error, cuda.runtime.CUDARuntimeError) and error.status == _MEMORY_ALLOCATION
