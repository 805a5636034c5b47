"""Kernels with more than 48 KB of dynamic shared memory, and clusters of blocks that read each other's shared memory.

The limits depend on the GPU. CuPy launches such kernels like any other, as the source gives the cluster's size
(`__cluster_dims__`) and the shared memory is requested once per device.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PORTABLE_CLUSTER = 8  # blocks, the size that every GPU with clusters supports
_CLUSTERS_SINCE = 90  # compute capability


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The limits of a GPU: bytes of shared memory per block, and blocks per cluster (1 if there are no clusters)."""

    shared_bytes: int
    cluster: int


def limits_of(array: Any) -> BlockLimits:
    """The limits of the GPU of a CuPy array."""
    device = array.device
    shared = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
    return BlockLimits(shared, PORTABLE_CLUSTER if int(device.compute_capability) >= _CLUSTERS_SINCE else 1)


def launch(
    array: Any, text: str, name: str, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
) -> None:
    """Run kernel `name` of a CUDA source as one cluster of blocks, on a CuPy array's device and its current stream.

    The first call compiles it. The arguments are CuPy arrays and NumPy scalars.
    """
    with array.device:
        kernel = _kernel(array.device.id, text, name, shared_bytes)
        kernel((blocks,), (threads,), tuple(arguments), shared_mem=shared_bytes)


@functools.lru_cache(maxsize=64)
def _kernel(device: int, text: str, name: str, shared_bytes: int) -> Any:
    # The device is part of the key and must be current: CuPy compiles for it and sets the attribute of its kernel.
    import cupy

    kernel = cupy.RawKernel(text, name, ("--std=c++17",))
    kernel.max_dynamic_shared_size_bytes = shared_bytes
    return kernel
