"""Kernels with more than 48 KB of dynamic shared memory, and clusters of blocks that read each other's shared memory.

The limits depend on the GPU. CuPy launches such kernels like any other, as the source gives the cluster's size
(`__cluster_dims__`) and the shared memory is requested once per device.
"""

import ctypes
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnkit.backends.cuda.launch import THREADS

PORTABLE_CLUSTER = 8  # blocks, the largest size for which kernels are written
_CLUSTERS_SINCE = 90  # compute capability
_PROBE = 'extern "C" __global__ void nnkit_probe() {}\n'


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The limits of a GPU: bytes of shared memory per block, and blocks per cluster (1 if there are no clusters).

    `reason` says why clusters are smaller than on other GPUs.
    """

    shared_bytes: int
    cluster: int
    reason: str = ""


def limits_of(array: Any) -> BlockLimits:
    """The limits of the GPU of a CuPy array."""
    device = array.device
    shared = int(device.attributes["MaxSharedMemoryPerBlockOptin"])
    if int(device.compute_capability) < _CLUSTERS_SINCE:
        return BlockLimits(shared, 1)
    with device:
        return _limits(device.id, shared)


@functools.lru_cache(maxsize=64)
def _limits(device: int, shared: int) -> BlockLimits:
    """The limits of the current device: a small GPU, or a part of one by MIG, may run few blocks at a time."""
    try:
        function = _kernel(device, _PROBE, "nnkit_probe", shared).kernel.ptr
        size = potential_cluster(function, THREADS, shared)
    except (OSError, AttributeError, RuntimeError) as error:
        return BlockLimits(shared, 1, f"the driver does not say which clusters it runs: {error}")
    reason = "" if size >= PORTABLE_CLUSTER else f"the largest cluster that the GPU runs has size {size}"
    return BlockLimits(shared, min(size, PORTABLE_CLUSTER), reason)


class LaunchConfig(ctypes.Structure):
    """`CUlaunchConfig` of cuda.h."""

    _fields_ = (
        *((f"{what}Dim{axis}", ctypes.c_uint) for what in ("grid", "block") for axis in "XYZ"),
        ("sharedMemBytes", ctypes.c_uint),
        ("hStream", ctypes.c_void_p),
        ("attrs", ctypes.c_void_p),
        ("numAttrs", ctypes.c_uint),
    )


def potential_cluster(function: int, threads: int, shared_bytes: int) -> int:
    """The largest cluster of blocks of a kernel (CUfunction), by `cuOccupancyMaxPotentialClusterSize` of the driver.

    RuntimeError for an error of the driver, OSError or AttributeError if it lacks the function.
    """
    driver, size = _driver(), ctypes.c_int()
    config = LaunchConfig(PORTABLE_CLUSTER, 1, 1, threads, 1, 1, shared_bytes)
    call = driver.cuOccupancyMaxPotentialClusterSize
    status = call(ctypes.byref(size), ctypes.c_void_p(function), ctypes.byref(config))
    if status:
        raise RuntimeError(f"cuOccupancyMaxPotentialClusterSize failed with status {status}")
    return max(1, size.value)


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def launch(
    array: Any, text: str, name: str, blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
) -> None:
    """Run kernel `name` of a CUDA source, whose blocks are one cluster or several, on the current stream of a device.

    The device is that of a CuPy array. The first call compiles it. The arguments are CuPy arrays and NumPy scalars.
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
