"""CuPy's memory: what an error says where it is full, and giving back what is held but not used."""

from abc import abstractmethod
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
        """The device as a context manager: CuPy keeps what it goes back to on a stack of each thread."""

    def _room(self) -> tuple[int, int]:
        """Bytes that the current device or CuPy's pool can still give, and all that the device has."""
        free, total = self.xp.cuda.runtime.memGetInfo()
        return free + self.xp.get_default_memory_pool().free_bytes(), total


def memory_is_full(cuda: Any, error: BaseException) -> bool:
    """Whether an error of CuPy's, whose module `cuda` is given, says that a device has no memory left."""
    if isinstance(error, cuda.memory.OutOfMemoryError):
        return True
    # What is not allocated through CuPy's pool, such as a kernel's code or a graph.
    return isinstance(error, cuda.runtime.CUDARuntimeError) and error.status == _MEMORY_ALLOCATION
