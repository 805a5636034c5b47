"""cuBLAS by ctypes: a library of these tests' own, with the functions that cublas_api.h declares, gets what is meant.

It writes down each call and does the products by three loops, so that a wrong type, order or pointer shows.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnkit.backends.cuda import cublas as module
from nnkit.backends.cuda.cublas import CublasError, Handle, Handles, cublas, cublas_version, gemm_arguments
from nnkit.backends.cuda.layouts import stored
from tests.support.accumulating import add_product, replayed
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

# The declarations are cublas_api.h's, with its types spelled out: enumerations are int.
SOURCE = """\
#include <stddef.h>
typedef struct cublasContext *cublasHandle_t;
typedef struct CUstream_st *cudaStream_t;
int fails = 0;
char calls[4096];
static int at = 0;
static int called(char c) { calls[at++] = c; calls[at] = 0; return fails; }
void forget(void) { at = 0; calls[0] = 0; }
void *last[4];
size_t last_size;
int mode[2];

int cublasCreate_v2(cublasHandle_t *handle) { *handle = (cublasHandle_t)0x7fff00001234; return called('C'); }
int cublasGetProperty(int kind, int *value) { *value = 12 - kind; return called('P'); }
int cublasSetPointerMode_v2(cublasHandle_t handle, int m) { mode[0] = m; last[0] = handle; return called('M'); }
int cublasSetMathMode(cublasHandle_t handle, int m) { mode[1] = m; return called('T'); }
int cublasSetStream_v2(cublasHandle_t handle, cudaStream_t s) { last[1] = s; return called('S'); }
int cublasSetWorkspace_v2(cublasHandle_t handle, void *w, size_t size) {
    last[2] = w; last_size = size; return called('W');
}

#define ENTRY(type, X, i, j, ld, t) (((const type *)X)[t ? (j) + (i) * (long long)ld : (i) + (j) * (long long)ld])
#define PRODUCT(type) \\
    for (int i = 0; i < m; ++i) for (int j = 0; j < n; ++j) { \\
        type sum = 0; \\
        for (int l = 0; l < k; ++l) sum += ENTRY(type, A, i, l, lda, ta) * ENTRY(type, B, l, j, ldb, tb); \\
        type *c = (type *)C + i + j * (long long)ldc; \\
        *c = *(const type *)alpha * sum + (*(const type *)beta ? *(const type *)beta * *c : 0); \\
    }

static int product(
    int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int Atype, int lda, const void *B, int Btype,
    int ldb, const void *beta, void *C, int Ctype, int ldc, int compute, int algorithm
) {
    if (Atype != Btype || Btype != Ctype || algorithm != -1 || compute != (Atype ? 70 : 68)) return 7;
    if (Atype == 0) PRODUCT(float) else PRODUCT(double)
    return 0;
}

int cublasGemmEx(
    cublasHandle_t handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int Atype, int lda,
    const void *B, int Btype, int ldb, const void *beta, void *C, int Ctype, int ldc, int compute, int algorithm
) {
    last[0] = handle;
    int wrong = product(ta, tb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algorithm);
    return called('G') ? fails : wrong;
}

long long strides[3];
int cublasGemmStridedBatchedEx(
    cublasHandle_t handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *A, int Atype, int lda,
    long long strideA, const void *B, int Btype, int ldb, long long strideB, const void *beta, void *C, int Ctype,
    int ldc, long long strideC, int count, int compute, int algorithm
) {
    last[0] = handle; strides[0] = strideA; strides[1] = strideB; strides[2] = strideC;
    int size = Atype ? 8 : 4, wrong = 0;
    for (long long i = 0; i < count; ++i)
        wrong |= product(
            ta, tb, m, n, k, alpha, (const char *)A + i * strideA * size, Atype, lda,
            (const char *)B + i * strideB * size, Btype, ldb, beta, (char *)C + i * strideC * size, Ctype, ldc,
            compute, algorithm
        );
    return called('B') ? fails : wrong;
}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler (cc, or what CC names)")
    folder = tmp_path_factory.mktemp("cublas")
    source, library = folder / "cublas.c", folder / "libcublas.so"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-O0", "-fPIC", "-shared", str(source), "-o", str(library)], check=True)
    return str(library)


@pytest.fixture
def library(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The library, found where CuPy finds its own."""
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="CuPy is not installed")
    wanted: list[str] = []

    def load(name: str) -> Any:
        wanted.append(name)
        return SimpleNamespace(abs_path=path)

    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", load)
    cublas.cache_clear()
    found = cublas()
    assert wanted == ["cublas"]
    found.forget()
    yield found
    ctypes.c_int.in_dll(found, "fails").value = 0
    cublas.cache_clear()


def calls(library: ctypes.CDLL) -> str:
    return (ctypes.c_char * 4096).in_dll(library, "calls").value.decode()


def without_device() -> Any:
    """What handles ask of CuPy that needs a device: the current stream, and memory on it."""
    place = SimpleNamespace(
        get_current_stream=lambda: SimpleNamespace(ptr=0x7FFF00005678),
        alloc=lambda size: SimpleNamespace(ptr=0x7FFF00009ABC, size=size),
    )
    return SimpleNamespace(cuda=place)


@pytest.fixture
def host(library: ctypes.CDLL) -> HostDevice:
    """The CuPy backend over the host's memory, with its own calls of cuBLAS."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    backend = HostDevice(cupy)
    backend.handles = Handles(without_device(), 3 << 30)
    return backend


def test_a_handle_of_a_finished_thread_is_used_again_without_its_workspaces(host: HostDevice) -> None:
    """In which products of that thread's own default stream may still run."""
    used: list[tuple[Handle, int]] = []

    def work() -> None:
        handle = host.handles.get()
        used.append((handle, len(handle.workspaces)))
        handle.workspace(SimpleNamespace(ptr=2))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert used[0][0] is used[1][0]
    assert [count for _, count in used] == [0, 0]


def test_version(library: ctypes.CDLL) -> None:
    assert cublas_version() == "12.11.10"


def test_a_handle_is_made_for_numbers_on_the_device(host: HostDevice, library: ctypes.CDLL) -> None:
    handle = host.handles.get()
    assert calls(library) == "CMT"
    assert handle._handle == 0x7FFF00001234
    assert list((ctypes.c_int * 2).in_dll(library, "mode")) == [1, 16]
    assert ctypes.c_void_p.in_dll(library, "last").value == 0x7FFF00001234


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_products_agree_with_numpy(
    host: HostDevice, library: ctypes.CDLL, dtype: str, transposed: tuple[bool, bool], lead: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    shapes = [(*lead, 4, 5), (*lead, 5, 6)]
    a, b = (
        rng.integers(-9, 9, (*s[:-2], s[-1], s[-2]) if t else s).astype(dtype)
        for s, t in zip(shapes, transposed, strict=True)
    )
    on_device = [host.asarray(array) for array in (a, b)]
    found = host.matmul(*(array.mT if t else array for array, t in zip(on_device, transposed, strict=True)))
    expected = (a.mT if transposed[0] else a) @ (b.mT if transposed[1] else b)
    np.testing.assert_array_equal(on_host(found), expected)  # whole numbers: exact in any order
    assert calls(library).endswith("SWB" if lead else "SWG")  # the stream, which takes the workspace away, comes first
    places = (ctypes.c_void_p * 4).in_dll(library, "last")
    assert places[:3] == [0x7FFF00001234, 0x7FFF00005678, 0x7FFF00009ABC]
    assert ctypes.c_size_t.in_dll(library, "last_size").value == 3 << 30


def test_accumulating_products(host: HostDevice) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-9, 9, shape).astype("f4") for shape in ((4, 5), (5, 6), (4, 6)))
    out = host.asarray(c.copy())
    alpha = host.asarray(np.float32(-0.5))
    names = replayed(host, lambda: add_product(host, host.asarray(a), host.asarray(b), out, alpha))
    assert names == ["add_product"]
    np.testing.assert_array_equal(on_host(out), c - 0.5 * (a @ b))


def test_distances_of_matrices_may_need_64_bits(library: ctypes.CDLL) -> None:
    one = np.ones((), np.float32)
    far = 2**40 + 1
    place = (one.ctypes.data, 0, 1)
    library.cublasGemmStridedBatchedEx(
        1, 0, 0, 1, 1, 1, one.ctypes.data, *place, far, *place, far + 1, one.ctypes.data, *place, -far, 1, 68, -1
    )
    assert list((ctypes.c_longlong * 3).in_dll(library, "strides")) == [far, far + 1, -far]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("cublasCreate_v2", lambda: Handle(without_device(), 1)),
        ("cublasGetProperty", cublas_version),
    ],
)
def test_a_failed_call_is_an_error_with_its_name(library: ctypes.CDLL, name: str, call: Callable[[], object]) -> None:
    ctypes.c_int.in_dll(library, "fails").value = 13
    with pytest.raises(CublasError, match=rf"^{name} of cuBLAS failed with status 13$"):
        call()


def test_a_product_that_fails_is_an_error(host: HostDevice, library: ctypes.CDLL) -> None:
    a = host.asarray(np.ones((2, 2), np.float32))
    handle = host.handles.get()
    arguments = (0, 0, 2, 2, 2, a.data.ptr, *(a.data.ptr, 0, 2) * 2, a.data.ptr, a.data.ptr, 0, 2, 68, 4)
    with pytest.raises(CublasError, match=r"^cublasGemmEx of cuBLAS failed with status 7$"):
        handle.gemm(arguments)  # of an algorithm that does not exist


def test_a_missing_cublas(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        module.bound(str(tmp_path / "nowhere.so"))


@pytest.mark.parametrize(("m", "n", "k"), [(2**31, 1, 1), (1, 2**31, 1), (1, 1, 2**31)])
def test_sizes_beyond_32_bits_are_refused(m: int, n: int, k: int) -> None:
    a, b = stored((m, k), (k, 1)), stored((k, n), (n, 1))
    assert a is not None
    assert b is not None
    with pytest.raises(ValueError, match=r"a matrix has 2147483648 rows or columns; expected at most 2147483647$"):
        gemm_arguments(m, n, k, a, b)
    a, b = stored((m - 1, k), (k, 1)), stored((k, n - 1), (n, 1))
    assert a is not None
    assert b is not None
    if k == 1:
        assert gemm_arguments(m - 1, n - 1, k, a, b)[2:] == (n - 1, m - 1, k)
