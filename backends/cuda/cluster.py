"""Kernels whose blocks share a lot: dynamic shared memory beyond 48 KB, and clusters of blocks that read each other's.

How much there is depends on the GPU; CuPy launches such kernels like any other, as the size of the cluster stands in
the text (`__cluster_dims__`) and the shared memory is asked for once for each device.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PORTABLE_CLUSTER = 8  # blocks that every GPU with clusters can put together
_CLUSTERS_SINCE = 90  # compute capability


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """What one block of a kernel may have: bytes of shared memory, and how many blocks a cluster (1: no clusters)."""

    shared_bytes: int
    cluster: int


def limits_of(array: Any) -> BlockLimits:
    """The limits of the GPU that a CuPy array lies on."""
    device = array.device
    shared = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
    return BlockLimits(shared, PORTABLE_CLUSTER if int(device.compute_capability) >= _CLUSTERS_SINCE else 1)


def launch(
    array: Any, text: str, name: str, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
) -> None:
    """Run kernel `name` of a CUDA text as one cluster of blocks, on the device of a CuPy array and its current stream.

    Compiled at the first call. The arguments are CuPy arrays and NumPy scalars.
    """
    with array.device:
        kernel = _kernel(array.device.id, text, name, shared_bytes)
        kernel((blocks,), (threads,), tuple(arguments), shared_mem=shared_bytes)


@functools.lru_cache(maxsize=64)
def _kernel(device: int, text: str, name: str, shared_bytes: int) -> Any:
    # The device is part of the key, and current: CuPy compiles for it, and the attribute is that of its kernel.
    import cupy

    kernel = cupy.RawKernel(text, name, ("--std=c++17",))
    kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel
