"""nnkit doctor: what is installed, which backends work, which do not and why."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from nnkit.backends import BackendUnavailableError, backend_names, get_backend
from nnkit.backends.cpu.threads import usable_cpus
from nnkit.version import __version__

# The distributions that nnkit can use, and what for.
_PACKAGES = {
    "numpy": "arrays on the CPU",
    "array-api-compat": "arrays of other namespaces",
    "threadpoolctl": "BLAS threads",
    "tqdm": "progress bars",
    "safetensors": "models in files",
    "filelock": "checkpoints",
    "matplotlib": "pictures",
    "scipy": "faster plain gradient descent",
    "pooch": "downloads of MNIST",
    "ml_dtypes": "bfloat16",
    "cupy-cuda12x": "arrays on the GPU, CUDA 12",
    "cupy-cuda13x": "arrays on the GPU, CUDA 13",
    "nvmath-python": "products on the GPU",
    "array-api-strict": "tests",
}


def report() -> str:
    """Everything, as text for a terminal.

    >>> "backend numpy" in nnkit.doctor.report()
    True
    """
    lines = [f"nnkit {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}", ""]
    lines += ["packages"] + [f"  {name:<17} {_installed(name):<14} {purpose}" for name, purpose in _PACKAGES.items()]
    lines += ["", "BLAS"] + [f"  {line}" for line in _blas()]
    lines += ["", *_backends()]
    variable = os.environ.get("NNKIT_BACKEND")
    lines += ["", f"NNKIT_BACKEND is {variable!r}" if variable else "NNKIT_BACKEND is not set: numpy is selected"]
    return "\n".join(lines)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _blas() -> list[str]:
    """Each thread pool that computes products, its library and its threads."""
    from threadpoolctl import threadpool_info

    found = [
        f"{pool['internal_api']} {pool.get('version') or ''}, {pool['num_threads']} threads"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return [*found, f"{usable_cpus()} CPUs usable by this process"]


def _backends() -> list[str]:
    lines = []
    for name in backend_names():
        try:
            backend = get_backend(name)
        except BackendUnavailableError as error:
            lines.append(f"backend {name} does not work: {error}")
            continue
        details = ", ".join(f"{key} {value}" for key, value in backend.describe().items())
        lines.append(f"backend {name} works: {details}")
    return lines
