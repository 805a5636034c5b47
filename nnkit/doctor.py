"""nnkit doctor: installed packages, and which backends work or why they do not."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from nnkit.backends import BackendUnavailableError, backend_names, get_backend
from nnkit.backends.cpu.blocks import usable_cpus
from nnkit.version import __version__

__all__ = ["report"]

# The distributions that nnkit can use, and their purpose.
_PACKAGES = {
    "numpy": "arrays on the CPU",
    "array-api-compat": "arrays of other namespaces",
    "threadpoolctl": "BLAS threads",
    "tqdm": "progress bars",
    "safetensors": "models and checkpoints in files",
    "matplotlib": "pictures",
    "numba": "native code for the CPU",
    "scipy": "faster plain gradient descent",
    "pooch": "downloads of MNIST",
    "ml_dtypes": "bfloat16",
    "cupy-cuda12x": "arrays on the GPU, CUDA 12",
    "cupy-cuda13x": "arrays on the GPU, CUDA 13",
    "array-api-strict": "tests",
}


def report() -> str:
    """The full report as text for a terminal.

    >>> "backend numpy" in nnkit.doctor.report()
    True
    """
    lines = [f"nnkit {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}", ""]
    lines += ["packages"] + [f"  {name:<17} {_installed(name):<14} {purpose}" for name, purpose in _PACKAGES.items()]
    lines += ["", "BLAS"] + [f"  {line}" for line in _blas()]
    lines += ["", *_backends()]
    variable = os.environ.get("NNKIT_BACKEND")
    try:
        selected = f"{get_backend().name} is selected"
    except Exception as error:  # as above
        selected = _reason(error).removeprefix("NNKIT_BACKEND: ")
    lines += ["", f"NNKIT_BACKEND is {f'{variable!r}' if variable else 'not set'}: {selected}"]
    return "\n".join(lines)


def _installed(name: str) -> str:
    try:
        return version(name) or "damaged"  # None if the metadata are damaged
    except PackageNotFoundError:
        return "not installed"
    except Exception as error:  # as above
        return f"damaged ({_reason(error)})"


def _blas() -> list[str]:
    """Library and number of threads of each BLAS thread pool."""
    cpus = f"{usable_cpus()} CPUs usable by this process"
    try:
        from threadpoolctl import threadpool_info

        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    except ImportError:
        return ["unknown: threadpoolctl is not installed: python -m pip install threadpoolctl", cpus]
    except Exception as error:  # any failure belongs in the report
        return [f"unknown: {_reason(error)}", cpus]
    return [*(f"{p['internal_api']} {p.get('version') or ''}, {p['num_threads']} threads" for p in pools), cpus]


def _backends() -> list[str]:
    lines = []
    for name in backend_names():
        try:
            details = ", ".join(f"{key} {value}" for key, value in get_backend(name).describe().items())
        except Exception as error:  # as above
            lines.append(f"backend {name} does not work: {_reason(error)}")
            continue
        lines.append(f"backend {name} works: {details}")
    return lines


def _reason(error: Exception) -> str:
    """The message of a backend's error; for other errors, the type, too."""
    return str(error) if isinstance(error, BackendUnavailableError) else f"{type(error).__name__}: {error}"


def __dir__() -> list[str]:
    return sorted(__all__)
