"""From the Python text of a function to the address of its machine code, by numba, once per machine.

A text defines `def f(arguments):` over a pointer to int64 and returns nothing; it can use
`nnkit.backends.cpu.native.intrinsics.NAMES` and the functions of `nnkit.backends.cpu.native.mathematics`. Arithmetic is
not contracted or reordered, and dividing by zero is not an error.

The object code lies in nnkit's cache directory, under a key of all that it depends on. Loading it needs llvmlite, not
numba, whose import takes half a second: the first compilation takes about two seconds, each further one 0.15, and
loading 2 ms (measured).
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from nnkit.backends.errors import BackendFallbackWarning
from nnkit.backends.loading import loading
from nnkit.backends.recording import by_handler
from nnkit.backends.selection import cache_folder, switch

T = TypeVar("T")


class Address(int):
    """The address of a function, whose code lives as long as this object."""

    engine: Any


LOADED, KEPT = 1024, 2000  # functions in memory that nobody uses, and files of the cache
_addresses: dict[str, Address] = {}
_HERE = __name__.rpartition(".")[0]


@cache
def _installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("numba", "llvmlite"))


def enabled() -> bool:
    """Whether recordings on NumPy are compiled: numba is installed, and NNKIT_NATIVE is not 0."""
    return _failed is None and _installed() and switch("NNKIT_NATIVE", True)


_failed: Exception | None = None


def turn_off(error: Exception) -> None:
    """Use no native code in this process any more, with a warning: numba or LLVM does not work."""
    global _failed
    if _failed is None:
        _failed = error
        text = f"formulas are computed without native code: {type(error).__name__}: {error}"
        warnings.warn(f"{text}; NNKIT_NATIVE=0 turns it off", BackendFallbackWarning, stacklevel=2)


def tried(make: Callable[..., T | None], *arguments: Any) -> T | None:
    """What a function makes of its arguments; None, and native code turned off, if numba or LLVM fails."""
    try:
        return make(*arguments)
    except MemoryError:
        raise
    except Exception as error:
        if by_handler(error):
            raise
        turn_off(error)
        return None


def describe() -> str:
    """Whether recordings are compiled, and by what, or why not."""
    if not _installed():
        return "off: numba is not installed: python -m pip install numba"
    if _failed is not None:
        return f"off: {type(_failed).__name__}: {_failed}"
    return f"by numba {version('numba')}" if enabled() else "off: NNKIT_NATIVE=0"


def address_of(text: str) -> Address:
    """The address of the C function `void f(int64_t *arguments)` that a text defines; keep the object to use it."""
    address = _addresses.get(text)
    if address is None:
        with loading():
            address = _addresses.get(text)
            if address is None:
                address = _addresses[text] = _load(text)
                while len(_addresses) > LOADED:
                    del _addresses[next(iter(_addresses))]
    return address


def _load(text: str) -> Address:
    name = "nnkit_" + hashlib.sha256("\0".join((text, *_surroundings())).encode()).hexdigest()[:40]
    path = cache_folder() / "native" / f"{name}.o"
    code = _read(path)
    if code is None:
        code = _compile(text, name)
        _write(path, code)
    return _linked(code, name)


@cache
def _surroundings() -> tuple[str, ...]:
    """What compiled code depends on besides its text."""
    import llvmlite
    import llvmlite.binding as llvm

    sources = []
    for module in ("compiler", "intrinsics", "mathematics"):
        loader: Any = importlib.util.find_spec(f"{_HERE}.{module}").loader  # type: ignore[union-attr]
        sources.append(loader.get_source(f"{_HERE}.{module}") or "")
    host = (llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return (*sources, *host, llvmlite.__version__, version("numba"), sys.version)


def _read(path: Path) -> bytes | None:
    """The code in a file of the cache; None if there is none, or it is damaged."""
    try:
        digest, _, code = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return code if digest == hashlib.sha256(code).hexdigest().encode() else None


def _write(path: Path, code: bytes) -> None:
    """Write a file of the cache, completely or not at all; without a writable directory, the code is not kept."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    """Delete the oldest files if there are too many, such as those of other versions; missing ones are made again."""
    files = list(folder.glob("*.o"))
    if len(files) > KEPT:
        for file in sorted(files, key=lambda file: file.stat().st_mtime)[: KEPT // 4]:
            file.unlink(missing_ok=True)


def _machine() -> Any:
    """LLVM for this CPU, new in each call: an engine owns its machine, and frees it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    if features.get("f16c") is False:  # an x86 CPU, for which LLVM would call functions that are not there
        raise RuntimeError("this CPU has no instructions for float16 (F16C)")
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3, codemodel="jitdefault", jit=True
    )


_spent = 0.0  # seconds of compiling


def _compile(text: str, name: str) -> bytes:
    global _spent
    start = time.perf_counter()
    import llvmlite.binding as llvm

    if text.startswith("declare"):  # LLVM's own text
        module = llvm.parse_assembly(text.replace("@NAME", f"@{name}"))
    else:
        import numba

        from nnkit.backends.cpu.native.intrinsics import NAMES

        space = dict(NAMES)
        exec(compile(text, "<native>", "exec"), space)
        made: Any = numba.cfunc(numba.void(numba.types.CPointer(numba.int64)), error_model="numpy")(space["f"])
        source = made.inspect_llvm()
        if "@numba_gil_ensure" in source and "@llvm.mem" in source:
            # Exceptions, which are never raised, need functions of numba's, which are not found. Then no function is,
            # such as the C library's for loops that set or copy memory: all addresses are 0.
            raise RuntimeError("native code needs functions that cannot be found")
        module = llvm.parse_assembly(source)
        module.get_function(made.native_name).name = name
    code: bytes = _machine().emit_object(module)
    before, _spent = _spent, _spent + time.perf_counter() - start
    if before < 1 <= _spent and sys.stderr is not None and sys.stderr.isatty():
        print(f"nnkit: compiling for this CPU, once; kept in {cache_folder() / 'native'}", file=sys.stderr)
    return code


def _linked(code: bytes, name: str) -> Address:
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = Address(engine.get_function_address(name))
    address.engine = engine
    return address
