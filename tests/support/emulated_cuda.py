"""CUDA emulated below CuPy, for processes that a test starts: CuPy itself is the real one, and so is all of nnkit.

`install` replaces the functions of the CUDA runtime, which CuPy's wheel has inside, by jumps to functions of this file;
the driver, NVRTC, cuBLAS and cuBLASLt, which it loads, are objects with such functions. Device memory is the host's,
streams have done everything at once, a capture is a list of calls. NVRTC's "binary" is the text, which a launch
compiles for the host; of CuPy's own kernels, there are copies.
"""

import atexit
import ctypes
import hashlib
import importlib
import mmap
import os
import re
import struct
import sys
import tempfile
import threading
import types
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_longlong, c_size_t, c_uint, c_void_p
from functools import cache
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from nnkit.backends.cuda.formula_text import PRELUDE
from tests.support import emulated_lt
from tests.support.host_cuda import build, kernel_with_driver, parameters_of
from tests.support.host_device import HostGemm

OK, NOT_INITIALIZED, NOT_SUPPORTED, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 0, 3, 801, 900, 901
CAPTURE_UNJOINED = 904
P, N, S = c_void_p, c_int, c_size_t
_process = os.getpid()  # CUDA does not work in its forks
CAPABILITY = int(os.environ.get("EMULATED_CAPABILITY", "90"))
_load = ctypes.CDLL
libc = _load(None)
libc.aligned_alloc.restype = P
libc.aligned_alloc.argtypes = [S, S]
libc.free.argtypes = [P]

functions: dict[str, Any] = {}  # by their names
calls: list[str] = []  # the names of what was called, in order
refuse: dict[str, list[int]] = {}  # what functions return in their next calls, by their names
kernels: list[str] = []  # the names of what was launched


_code = mmap.mmap(-1, 1 << 15, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_code))  # objects that end after this module still call into it
_called: list[Any] = []  # is kept


def _entry(name: str, function: Any) -> None:
    """Give a function a place that jumps to it until Python ends: mov rax, target; jmp rax."""
    at = 16 * len(_called)
    _called.append(function)
    _code[at : at + 12] = b"\x48\xb8" + struct.pack("<Q", ctypes.cast(function, P).value) + b"\xff\xe0"
    functions[name] = type(function)(ctypes.addressof(ctypes.c_char.from_buffer(_code)) + at)
    functions[name].__name__ = name


@atexit.register
def _end() -> None:
    """What is still called then, when objects end, is done: xor eax, eax; ret."""
    for at in range(0, 16 * len(_called), 16):
        _code[at : at + 3] = b"\x31\xc0\xc3"


def emulated(name: str, *types: Any) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a function of Python one of C with this name, whose status is 0 if it returns None."""

    def made(function: Callable[..., int | None]) -> Callable[..., int | None]:
        def called(*arguments: Any) -> int:
            calls.append(name)
            if os.getpid() != _process:
                return NOT_INITIALIZED
            if refuse.get(name):
                if name == "cudaStreamEndCapture":
                    del captured[own(arguments[0])], capturing[own(arguments[0])]
                return refuse[name].pop(0)
            try:
                return function(*arguments) or OK
            except BaseException as error:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                return 999

        _entry(name, ctypes.CFUNCTYPE(c_int, *types)(called))
        return function

    return made


_ERROR = ctypes.create_string_buffer(b"an emulated error")


def put(pointer: int, value: int, kind: Any = c_void_p) -> None:
    """Write a result."""
    ctypes.cast(pointer, POINTER(kind))[0] = kind(value)


# --- the runtime: devices and memory ----------------------------------------------------------------------------------

sizes: dict[int, int] = {}
captured: dict[int, list[Callable[[], object]]] = {}  # by stream
capturing: dict[int, int] = {}  # the thread of each capture; others may allocate
_running = threading.Lock()
unjoined: set[int] = set()  # streams of captures with work for which no other stream waits
disturbed: set[int] = set()  # streams whose captures are no longer valid
handles: dict[int, Any] = {}
_numbers = count(0x7000)  # no two threads get the same one


def new(value: Any = None) -> int:
    handle = next(_numbers)
    handles[handle] = value
    return handle


def own(stream: int | None) -> int:
    """What tells a stream from others: cudaStreamPerThread, 2, is one of each thread, the default one that of all."""
    return -threading.get_ident() if stream == 2 else stream or 0


def work(stream: int | None, call: Callable[[], object]) -> None:
    """Do some work, or add it to the stream's capture."""
    stream = own(stream)
    if stream in captured:
        captured[stream].append(call)
        unjoined.add(stream)
        return
    with _running:  # kernels of the host are not for several threads
        call()


@emulated("cudaGetDeviceCount", P)
def _(result: int) -> None:
    put(result, 1, c_int)


@emulated("cudaGetDevice", P)
def _(device: int) -> None:
    put(device, 0, c_int)


emulated("cudaDriverGetVersion", P)(lambda version: put(version, 13010, c_int))
for _name in ("cudaSetDevice", "cudaGetLastError", "cudaPeekAtLastError", "cudaStreamDestroy", "cudaEventDestroy",
              "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaGraphUpload"):  # fmt: skip
    emulated(_name, P)(lambda *_: None)


@emulated("cudaDeviceGetAttribute", P, N, N)
def _(value: int, attribute: int, device: int) -> None:
    known = {75: CAPABILITY // 10, 76: CAPABILITY % 10, 16: 4, 97: 227 << 10}
    put(value, known.get(attribute, 1), c_int)


def _properties(properties: int, device: int) -> None:
    """cudaDeviceProp of driver_types.h; CUDA 13 has the number of multiprocessors at another place than CUDA 12."""
    ctypes.memmove(properties, b"Emulated GPU\0", 13)
    ctypes.memmove(properties + 256, os.environ.get("PMI_RANK", "").encode().ljust(16), 16)  # its UUID
    put(properties + 288, 1 << 33, c_size_t)
    for place, value in ((360, CAPABILITY // 10), (364, CAPABILITY % 10), (384, 4), (388, 4)):
        put(properties + place, value, c_int)


for _name in ("cudaGetDeviceProperties", "cudaGetDeviceProperties_v2"):
    emulated(_name, P, N)(_properties)


@emulated("cudaDeviceGetPCIBusId", c_void_p, N, N)
def _(text: int, length: int, device: int) -> None:
    ctypes.memmove(text, b"0000:01:00.0\0", 13)


@emulated("cudaMemGetInfo", P, P)
def _(free: int, total: int) -> None:
    put(free, 1 << 32, c_size_t)
    put(total, 1 << 33, c_size_t)


@emulated("cudaMalloc", P, S)
def _(pointer: int, size: int) -> int | None:
    if threading.get_ident() in capturing.values():
        return CAPTURE_UNSUPPORTED
    place = libc.aligned_alloc(512, -(-size // 512) * 512)
    ctypes.memset(place, 0x7F, size)
    sizes[place] = size
    put(pointer, place)
    return OK


@emulated("cudaFree", P)
def _(pointer: int | None) -> None:
    if pointer:
        del sizes[pointer]
        libc.free(pointer)


@emulated("cudaHostAlloc", P, S, c_uint)
def _(pointer: int, size: int, flags: int) -> None:
    put(pointer, libc.aligned_alloc(512, -(-size // 512) * 512))


@emulated("cudaFreeHost", P)
def _(pointer: int) -> None:
    libc.free(pointer)


@emulated("cudaMemcpy", P, P, S, N)
def _(to: int, source: int, size: int, kind: int) -> int | None:
    if threading.get_ident() in capturing.values():
        return CAPTURE_UNSUPPORTED
    ctypes.memmove(to, source, size)
    return OK


@emulated("cudaMemcpyAsync", P, P, S, N, P)
def _(to: int, source: int, size: int, kind: int, stream: int) -> None:
    work(stream, lambda: ctypes.memmove(to, source, size))


@emulated("cudaMemsetAsync", P, N, S, P)
def _(to: int, value: int, size: int, stream: int) -> None:
    work(stream, lambda: ctypes.memset(to, value, size))


@emulated("cudaPointerGetAttributes", P, P)
def _(attributes: int, pointer: int) -> None:
    ctypes.memset(attributes, 0, 32)
    put(attributes, 2 if any(start <= pointer < start + size for start, size in list(sizes.items())) else 0, c_int)


# --- streams, events and graphs ---------------------------------------------------------------------------------------


@emulated("cudaStreamCreateWithPriority", P, c_uint, N)
def _(stream: int, flags: int, priority: int) -> None:
    put(stream, new())


for _name in ("cudaStreamSynchronize", "cudaStreamQuery"):
    emulated(_name, P)(lambda stream: CAPTURE_UNSUPPORTED if own(stream) in captured else OK)


@emulated("cudaDeviceSynchronize")
def _() -> int:
    """Of any thread: during a capture it is refused, and so is the capture at its end."""
    disturbed.update(captured)
    return CAPTURE_UNSUPPORTED if captured else OK


@emulated("cudaStreamIsCapturing", P, P)
def _(stream: int | None, status: int) -> None:
    put(status, int(own(stream) in captured), c_int)


@emulated("cudaStreamBeginCapture", P, N)
def _(stream: int, mode: int) -> None:
    captured[own(stream)], capturing[own(stream)] = [], threading.get_ident()


@emulated("cudaStreamEndCapture", P, P)
def _(stream: int, graph: int) -> int:
    stream = own(stream)
    done = captured[stream]
    all_streams = [each for each, calls in captured.items() if calls is done]
    for each in all_streams:
        del captured[each], capturing[each]
    unjoined.discard(stream)
    if stream in disturbed:
        disturbed.difference_update(all_streams)
        return CAPTURE_INVALIDATED
    if unjoined.intersection(all_streams):
        unjoined.difference_update(all_streams)
        return CAPTURE_UNJOINED
    put(graph, new(done))
    return OK


@emulated("cudaGraphInstantiate", P, P, c_longlong)
def _(executable: int, graph: int, flags: int) -> None:
    put(executable, graph)


@emulated("cudaGraphLaunch", P, P)
def _(executable: int, stream: int) -> None:
    for call in handles[executable]:
        work(stream, call)


@emulated("cudaEventCreateWithFlags", P, c_uint)
def _(event: int, flags: int) -> None:
    put(event, new())


@emulated("cudaEventCreate", P)
def _(event: int) -> None:
    put(event, new())


@emulated("cudaEventRecord", P, P)
def _(event: int, stream: int | None) -> None:
    stream = own(stream)
    handles[event] = (stream, captured[stream]) if stream in captured else perf_counter()


for _name in ("cudaEventSynchronize", "cudaEventQuery"):
    emulated(_name, P)(lambda *_: None)


@emulated("cudaStreamWaitEvent", P, P, c_uint)
def _(stream: int | None, event: int, flags: int) -> None:
    """A stream that waits for one that is captured is captured, too."""
    if isinstance(handles[event], tuple):
        other, done = handles[event]
        captured[own(stream)], capturing[own(stream)] = done, threading.get_ident()
        unjoined.discard(other)


@emulated("cudaEventElapsedTime", P, P, P)
def _(milliseconds: int, start: int, end: int) -> None:
    ctypes.cast(milliseconds, POINTER(ctypes.c_float))[0] = 1e3 * (handles[end] - handles[start])


# --- the driver: kernels ----------------------------------------------------------------------------------------------


@emulated("cuModuleLoadData", P, P)
def _(module: int, image: int) -> None:
    put(module, new(ctypes.string_at(image).decode()))


@emulated("cuModuleGetFunction", P, P, c_char_p)
def _(function: int, module: int, name: bytes) -> None:
    put(function, new((handles[module], name.decode())))


for _name in ("cuGetErrorName", "cuGetErrorString"):
    emulated(_name, N, P)(lambda status, text: put(text, ctypes.addressof(_ERROR)))
emulated("cuModuleUnload", P)(lambda *_: None)
emulated("cuFuncSetAttribute", P, N, N)(lambda *_: None)


@emulated("cuFuncGetAttribute", P, N, P)
def _(value: int, attribute: int, function: int) -> None:
    put(value, 1024 if attribute == 0 else 0, c_int)


@emulated("cuLaunchKernel", P, *[c_uint] * 7, P, P, P)
def _(function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: int, given: int,
      extra: int) -> int | None:  # fmt: skip
    text, name = handles[function]
    if "cluster" in text and "__cluster_dims__" in text:
        return NOT_SUPPORTED
    kernels.append(name)
    pointers = ctypes.cast(given, POINTER(P))
    kept = [
        ctypes.create_string_buffer(ctypes.string_at(pointers[i], size), size)
        for i, size in enumerate(_bytes(text, name))
    ]
    places = (P * len(kept))(*map(ctypes.addressof, kept))
    run = getattr(_built(_for_host(text), name), f"run_{name}")
    work(stream, lambda: (run(places, c_uint(gx), c_uint(gy), c_uint(bx)), kept))
    return OK


@cache
def _built(text: str, name: str) -> ctypes.CDLL:
    """The kernel for the host, compiled once for all processes that have the same folder EMULATED_CACHE."""
    folder = Path(os.environ.get("EMULATED_CACHE") or tempfile.mkdtemp())
    file = folder / f"{hashlib.sha1(text.encode()).hexdigest()}.so"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            build(kernel_with_driver(text.removeprefix(PRELUDE), name), Path(place))
            os.replace(Path(place, "kernels.so"), file)
    return _load(str(file))


def _for_host(text: str) -> str:
    """A kernel's text with what CuPy's own include."""
    if "#include <cupy/" in text:
        return _CUPY + re.sub(r'#include [<"]cupy/.*', "", text)
    return text


@cache
def _bytes(text: str, name: str) -> list[int]:
    """How much a launch keeps of each argument: of an array and an index of CuPy's, its shape and strides too."""
    axes = [re.search(r"C(?:Array<.*?,|Indexer<) ?(\d+)", parameter) for parameter in parameters_of(text, name)]
    return [8 if found is None else 16 + 16 * int(found[1]) for found in axes]


# What CuPy's own kernels include, as far as they use it.
_CUPY = """\
#include <stddef.h>
struct float16 {
    _Float16 value;
    float16() {}
    float16(float x) : value((_Float16)x) {}
    operator float() const { return (float)value; }
};
struct bfloat16 { unsigned short bits; };  // is copied, and not converted
template <class T, int N, bool C, bool S> struct CArray {
    T *data;
    ptrdiff_t count, shape[N], strides[N];
    T &operator[](const ptrdiff_t *at) const {
        char *p = (char *)data;
        for (int i = 0; i < N; ++i) p += at[i] * strides[i];
        return *(T *)p;
    }
    T &operator[](ptrdiff_t i) const {
        char *p = (char *)data;
        for (int k = N - 1; k >= 0; i /= shape[k], --k) p += i % shape[k] * strides[k];
        return *(T *)p;
    }
    ptrdiff_t size() const { return count; }
};
template <int N, bool S> struct CIndexer {
    ptrdiff_t count, shape[N], at[N];
    void set(ptrdiff_t i) { for (int k = N - 1; k >= 0; i /= shape[k], --k) at[k] = i % shape[k]; }
    const ptrdiff_t *get() const { return at; }
    ptrdiff_t size() const { return count; }
};
#define CUPY_FOR(i, n) for (ptrdiff_t i = (ptrdiff_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \
                            i += (ptrdiff_t)blockDim.x * gridDim.x)
#define __popc __builtin_popcount
template <class T> T max(T a, T b) { return a < b ? b : a; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
"""


# --- NVRTC ------------------------------------------------------------------------------------------------------------


@emulated("nvrtcVersion", P, P)
def _(major: int, minor: int) -> None:
    put(major, 12, c_int)
    put(minor, 9, c_int)


@emulated("nvrtcGetNumSupportedArchs", P)
def _(result: int) -> None:
    put(result, 3, c_int)


@emulated("nvrtcGetSupportedArchs", P)
def _(archs: int) -> None:
    for i, arch in enumerate((75, 80, 90)):
        put(archs + 4 * i, arch, c_int)


@emulated("nvrtcCreateProgram", P, c_char_p, c_char_p, N, P, P)
def _(program: int, source: bytes, *_: Any) -> None:
    put(program, new(source + b"\0"))


for _name in ("nvrtcCompileProgram", "nvrtcDestroyProgram", "nvrtcAddNameExpression"):
    emulated(_name, P)(lambda *_: None)
for _kind in ("CUBIN", "PTX"):
    emulated(f"nvrtcGet{_kind}Size", P, P)(lambda program, size: put(size, len(handles[program]), c_size_t))
    emulated(f"nvrtcGet{_kind}", P, P)(
        lambda program, to: ctypes.memmove(to, handles[program], len(handles[program])) and OK
    )
_entry("nvrtcGetErrorString", ctypes.CFUNCTYPE(P, N)(lambda status: ctypes.addressof(_ERROR)))
emulated("nvrtcGetProgramLogSize", P, P)(lambda program, size: put(size, len(_ERROR), c_size_t))
emulated("nvrtcGetProgramLog", P, P)(lambda program, to: ctypes.memmove(to, _ERROR, len(_ERROR)) and OK)


# --- cuBLAS -----------------------------------------------------------------------------------------------------------

stream_of: dict[int, int] = {}  # by handle


def _product(name: str, *arguments: Any) -> int:
    work(stream_of.get(arguments[0], 0), lambda: getattr(HostGemm(), name)(arguments[1:]))
    return OK


emulated("cublasCreate_v2", P)(lambda handle: put(handle, new()))
emulated("cublasGetProperty", N, P)(lambda part, value: put(value, (12, 9, 1)[part], c_int))
for _name in ("cublasSetPointerMode_v2", "cublasSetMathMode"):
    emulated(_name, P, N)(lambda *_: None)
emulated("cublasSetWorkspace_v2", P, P, S)(lambda *_: None)
emulated("cublasSetStream_v2", P, P)(lambda handle, stream: stream_of.update({handle: stream or 0}))
emulated("cublasGemmEx", P, *[N] * 5, P, *[P, N, N] * 2, P, P, N, N, N, N)(lambda *a: _product("gemm", *a))
emulated("cublasGemmStridedBatchedEx", P, *[N] * 5, P, *[P, N, N, c_longlong] * 2, P, P, N, N, c_longlong, N, N, N)(
    lambda *a: _product("gemm_strided_batched", *a)
)


def _lt_product(*arguments: Any) -> int:
    done = emulated_lt.matmul(*arguments)
    if done is None:
        return emulated_lt.NOT_SUPPORTED
    work(arguments[-1], done)
    return OK


for _name, (_types, _function) in emulated_lt.FUNCTIONS.items():
    emulated(_name, *_types)(_lt_product if _name == emulated_lt.MATMUL else _function)


# --- how they get there -----------------------------------------------------------------------------------------------


def install() -> None:
    """Put all of it in the place of CUDA, before CuPy is imported."""
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"  # nobody else may find these kernels
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB is compiled code of CuPy, for a GPU

    def cdll(name: Any, *arguments: Any, **options: Any) -> Any:
        base = Path(str(name)).name
        if re.match(r"lib(cuda|nvrtc|cublas|cublasLt)\.so", base) or options.get("handle") == 1:
            return types.SimpleNamespace(**functions)
        return _load(name, *arguments, **options)

    ctypes.CDLL = cdll  # type: ignore[misc,assignment]
    import cuda.pathfinder

    def found(name: str) -> Any:
        return types.SimpleNamespace(abs_path=f"/emulated/lib{name}.so", _handle_uint=1)

    cuda.pathfinder.load_nvidia_dynamic_lib = found
    file = str(importlib.import_module("cupy_backends.cuda.api.runtime").__file__)
    base = _base_of(file)
    for name, offset in _symbols(Path(file)).items():
        if re.fullmatch(r"cuda[A-Z]\w+", name) and not name.endswith(("_ptsz", "_ptds")) and "Error" not in name:
            if name == "cudaRuntimeGetVersion":  # needs no driver
                continue
            if name not in functions:
                emulated(name, P)(lambda *_, name=name: print("not emulated:", name, file=sys.stderr) or NOT_SUPPORTED)
            page = base + offset & -mmap.PAGESIZE
            assert libc.mprotect(P(page), S(base + offset + 12 - page), 7) == 0
            target = struct.pack("<Q", ctypes.cast(functions[name], P).value)
            ctypes.memmove(base + offset, b"\x48\xb8" + target + b"\xff\xe0", 12)


def _base_of(file: str) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(file):
            return int(line.partition("-")[0], 16)
    raise OSError(f"{file} is not loaded")


def _symbols(file: Path) -> dict[str, int]:
    """The addresses of the functions in an ELF file, local ones too."""
    content = file.read_bytes()
    start, size, count = struct.unpack_from("<Q", content, 40)[0], *struct.unpack_from("<HH", content, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, start + i * size) for i in range(count)]
    found: dict[str, int] = {}
    for _, kind, _, _, place, length, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = sections[link][4]
        for at in range(place, place + length, 24):
            name, info, _, _, value, _ = struct.unpack_from("<IBBHQQ", content, at)
            if info & 15 == 2:  # STT_FUNC
                end = content.index(b"\0", names + name)
                found[content[names + name : end].decode()] = value
    return found


def pytest_configure() -> None:
    """As a plugin: `python -m pytest -p tests.support.emulated_cuda -m gpu` runs the tests for a GPU without one."""
    install()
