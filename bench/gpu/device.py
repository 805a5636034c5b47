"""The measured device in the parent process, and its description in a result."""

import re
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import machine
from bench.gpu.contenders.base import device_seconds
from nnkit.backends import Backend, get_backend


class Device:
    """A GPU with CuPy or, for "cpu", the processor with NumPy, to check that everything runs.

    Raises BackendUnavailableError, which says what is missing.
    """

    def __init__(self, device: str) -> None:
        self.kind = device
        self.backend: Backend = get_backend("cupy" if device == "cuda" else "numpy")
        self.xp: Any = self.backend.xp if device == "cuda" else np

    def free_bytes(self) -> int:
        """Free memory of the device; 0 on the CPU, where it is not used."""
        if self.kind != "cuda":
            return 0
        self.backend.release()
        free: int = self.xp.cuda.runtime.memGetInfo()[0]
        return free

    def times(self, work: Callable[[], object], calls: int, times: int) -> dict[str, float]:
        """Seconds per call, of `calls` calls between two events; minimum and median of `times` repetitions."""

        def repeated() -> None:
            for _ in range(calls):
                work()

        work()
        found = [device_seconds(self.backend, repeated) / calls for _ in range(times)]
        return {"minimum": min(found), "median": median(found)}

    def clocks(self) -> dict[str, str]:
        """What the driver's tool says of clocks, temperature and power at this moment; empty without it."""
        if self.kind != "cuda":
            return {}
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--query-gpu={','.join(_CLOCKS)}", "--format=csv,noheader", "-i", self._bus()],
                capture_output=True, text=True, check=True, timeout=20,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return {}
        return dict(zip(_CLOCKS, (field.strip() for field in done.stdout.split(",")), strict=False))

    def _bus(self) -> str:
        """The PCI address, as CUDA and the tool may number GPUs differently."""
        return str(self.xp.cuda.runtime.deviceGetPCIBusId(self.xp.cuda.Device().id))

    def describe(self) -> dict[str, Any]:
        """The GPU, the versions of its libraries, and the machine."""
        found = {"gpu": machine.cpu_model(), "driver": None, "cuda_runtime": None, "memory_bytes": None}
        if self.kind == "cuda":
            runtime = self.xp.cuda.runtime
            properties = runtime.getDeviceProperties(self.xp.cuda.Device().id)
            found = {
                "gpu": properties["name"].decode(),
                "driver": _driver() or f"for CUDA {_dotted(runtime.driverGetVersion())}",
                "cuda_runtime": _dotted(runtime.runtimeGetVersion()),
                "memory_bytes": properties["totalGlobalMem"],
                "multiprocessors": properties["multiProcessorCount"],
                "compute_capability": f"{properties['major']}.{properties['minor']}",
                "l2_bytes": properties.get("l2CacheSize"),
            }
        around = machine.describe()
        kept = {key: around[key] for key in ("cpu", "cores", "os", "python", "numpy", "nnkit", "commit", "date")}
        versions = {name: _version(*names) for name, names in _DISTRIBUTIONS.items()}
        return found | versions | kept

    def file_name(self) -> str:
        """The GPU's name in the form for file names, such as nvidia-h100-80gb-hbm3."""
        if self.kind == "cpu":
            return "cpu"
        return re.sub(r"[^a-z0-9]+", "-", str(self.describe()["gpu"]).lower()).strip("-")


_CLOCKS = (
    "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "temperature.gpu", "power.draw", "power.limit",
)  # fmt: skip
_DISTRIBUTIONS = {
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"),
    "torch": ("torch",),
    "jax": ("jax",),
}


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _dotted(number: int) -> str:
    """Format CUDA's 12040 as 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str | None:
    """The driver's version, from its file or tool; None if neither exists."""
    try:
        found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+[\d.]+)", Path("/proc/driver/nvidia/version").read_text())
        if found is not None:
            return found[1]
    except OSError:
        pass
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True,
            check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[0] if done.stdout.split() else None
