"""Products of CuPy arrays without a GPU: what cuBLAS is asked for is the product, wherever its operands lie."""

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnkit
from nnkit.backends.cuda.cublas import COMPUTE_DOUBLE, COMPUTE_FLOAT, COMPUTE_TF32, CublasError
from nnkit.backends.dtypes import FLOATS, compute_type, numpy_dtype
from nnkit.backends.recording import perform
from nnkit.kernels.updates import gradient_descent
from tests.support.accumulating import add_column_sums, add_product, replayed
from tests.support.host_device import HostDevice, HostGemm, views
from tests.support.host_memory import on_host
from tests.support.rounding import spacing

Array = NDArray[Any]
SIZES = [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 4, 1), (1, 1, 1)]


@pytest.fixture
def host() -> HostDevice:
    return HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    nnkit.set_matmul_precision(request.param)
    yield request.param
    nnkit.set_matmul_precision("highest")


def assert_products_agree(found: Array, a: Array, b: Array, dtype: str) -> None:
    expected, magnitude = a.astype(float) @ b.astype(float), abs(a.astype(float)) @ abs(b.astype(float))
    bound = 2 * a.shape[-1] * spacing(magnitude, compute_type(dtype)) + spacing(expected, dtype)
    assert np.all(abs(found.astype(float) - expected) <= bound)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("lead_a", "lead_b"), [((), ()), ((3,), (3,)), ((3,), ()), ((2, 3), (2, 1))])
@pytest.mark.parametrize("sizes", SIZES)
def test_matmul_of_all_views(
    host: HostDevice, dtype: str, lead_a: tuple[int, ...], lead_b: tuple[int, ...], sizes: tuple[int, int, int]
) -> None:
    m, k, n = sizes
    for (kind_a, a), (kind_b, b) in itertools.product(
        views((*lead_a, m, k), dtype, 1), views((*lead_b, k, n), dtype, 2)
    ):
        found = host.matmul(host.place(a), host.place(b))
        assert found.dtype == numpy_dtype(dtype), (kind_a, kind_b)
        assert found.flags.c_contiguous
        assert_products_agree(on_host(found), a, b, dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_into_all_views(host: HostDevice, dtype: str) -> None:
    a, b = (next(views(shape, dtype))[1] for shape in ((2, 3, 4), (2, 4, 5)))
    for kind, out in views((2, 3, 5), dtype):
        if "again" in kind:  # several entries in one place
            continue
        target = host.place(out)
        assert host.matmul(host.place(a), host.place(b), out=target) is target
        assert_products_agree(out, a, b, dtype)


def test_matmul_into_an_operand_and_into_another_type(host: HostDevice) -> None:
    a, b = (next(views((4, 4), "float32", seed))[1] for seed in (1, 2))
    for out in (0, 1):
        operands = [host.asarray(a.copy()), host.asarray(b.copy())]
        host.matmul(operands[0], operands[1], out=operands[out])
        assert_products_agree(on_host(operands[out]), a, b, "float32")
    wide, half = host.empty((4, 4), "float64"), host.empty((4, 4), "float16")
    host.matmul(host.place(a), host.place(b), out=wide)
    assert_products_agree(on_host(wide), a, b, "float32")
    mixed = host.matmul(host.place(a), host.place(b.astype(np.float64)))
    assert mixed.dtype == np.float64
    assert_products_agree(on_host(mixed), a, b, "float64")
    c = a.astype(np.float16)
    host.matmul(host.place(c), host.place(c), out=half)
    assert_products_agree(on_host(half), c, c, "float16")
    single = host.matmul(host.place(c), host.place(c), out=host.empty((4, 4), "float32"))
    assert_products_agree(on_host(single), c, c, "float32")  # the sums are not rounded to float16


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_added(host: HostDevice, dtype: str) -> None:
    out = host.asarray(np.ones((3, 5)), dtype)
    alpha, exact = host.asarray(-0.5, dtype), np.ones((3, 5))
    for (_, a), (_, b) in itertools.product(views((3, 4), dtype, 1), views((4, 5), dtype, 2)):
        with host.recording() as tape:
            add_product(host, host.place(a), host.place(b), out, alpha)
        assert tape.nodes[-1].name == "add_product"  # after copies of factors that cuBLAS cannot read
        assert "matmul" not in [node.name for node in tape.nodes]
        for rate in (-0.5, 0.25):  # read at each replay
            on_host(alpha)[...] = rate
            tape.replay()
            exact += rate * (a.astype(float) @ b.astype(float))
    np.testing.assert_allclose(on_host(out), exact, rtol=0, atol=2000 * float(np.finfo(dtype).eps))


def test_unsupported_products_do_not_accumulate(host: HostDevice) -> None:
    """To a matrix that is not in row order, with a factor or α of another type, and in half precision."""
    a, b, half = np.arange(12.0).reshape(3, 4), np.arange(20.0).reshape(4, 5), host.asarray(-0.5, "float16")
    single, double = (host.asarray(-0.5, dtype) for dtype in ("float32", "float64"))
    for dtype, out, alpha in (
        ("float32", host.zeros((5, 3), "float32").mT, single),
        ("float32", host.zeros((3, 10), "float32")[:, ::2], single),
        ("float32", host.zeros((3, 5), "float64"), double),
        ("float16", host.zeros((3, 5), "float16"), half),
        ("float16", host.zeros((3, 5), "float32"), single),
    ):
        x, y = host.asarray(a, dtype), host.asarray(b, dtype)
        names = replayed(host, partial(add_product, host, x, y, out, alpha))
        assert "add_product" not in names
        np.testing.assert_array_equal(on_host(out), -0.5 * a @ b, err_msg=f"{dtype} {out.dtype}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_column_sums_are_added(host: HostDevice, dtype: str, rows: int) -> None:
    a = np.random.default_rng(rows).normal(size=(rows, 5)).astype(dtype)
    out, alpha = host.asarray(np.full(5, 3.0), dtype), host.asarray(-0.25, dtype)
    names = replayed(host, partial(add_column_sums, host, host.asarray(a), out, alpha))
    assert set(names) == {"sum"}  # whose last kernel adds
    exact = 3 - 0.25 * a.astype(np.longdouble).sum(0)
    np.testing.assert_allclose(on_host(out), exact.astype(float), rtol=0, atol=rows * float(np.finfo(dtype).eps))


class Asked(HostGemm):
    """What was asked of cuBLAS: the types of A, B and C and the type of the arithmetic."""

    def __init__(self) -> None:
        self.types: list[tuple[int, ...]] = []

    def gemm(self, arguments: tuple[Any, ...]) -> None:
        self.types.append((arguments[7], arguments[10], arguments[14], arguments[16]))
        super().gemm(arguments)


def test_products_have_the_selected_precision(host: HostDevice, precision: str) -> None:
    host.handles = asked = Asked()
    for dtype in FLOATS:
        a = host.asarray(np.ones((2, 2)), dtype)
        host.matmul(a, a)
    single = {
        "highest": (0, 0, 0, COMPUTE_FLOAT),
        "high": (0, 0, 0, COMPUTE_TF32),
        "medium": (14, 14, 0, COMPUTE_FLOAT),
    }
    half, brain, double = (2, 2, 2, COMPUTE_FLOAT), (14, 14, 14, COMPUTE_FLOAT), (1, 1, 1, COMPUTE_DOUBLE)
    assert asked.types == [half, brain, single[precision], double]


def test_medium_rounds_only_the_factors(host: HostDevice) -> None:
    a, b = (next(views(shape, "float32", 3))[1] for shape in ((30, 40), (40, 50)))
    nnkit.set_matmul_precision("medium")
    try:
        with host.recording() as tape:
            product = host.matmul(host.place(a), host.place(b))
    finally:
        nnkit.set_matmul_precision("highest")
    tape.replay()  # as it was when recorded
    left, right = (matrix.astype(numpy_dtype("bfloat16")).astype(np.float32) for matrix in (a, b))
    assert_products_agree(on_host(product), left, right, "float32")
    off = abs(on_host(product) - a @ b) / (abs(a) @ abs(b))
    assert 1e-4 < off.max() < 2**-7


def test_a_matrix_is_cast_once_until_it_changes(host: HostDevice) -> None:
    a, b = host.asarray(np.ones((4, 4)), "float32"), host.asarray(np.ones((4, 4)), "float32")
    small = host.asarray(np.ones((2, 2)), "float32")
    nnkit.set_matmul_precision("medium")
    try:
        with host.recording() as inner:
            host.copy(b, a)
        with host.recording() as tape:
            products = [host.matmul(a, b)]
            products.append(host.matmul(a.mT, b))  # no cast
            host.elementwise(gradient_descent, (a[:2, :2], small, 0.5), out=a[:2, :2])
            products.append(host.matmul(a, b))  # of a again
            inner.replay()
            products.append(host.matmul(b, a))  # of a once more
            perform(lambda: None)
            products.append(host.matmul(b, a))  # of both: who knows what that call wrote
    finally:
        nnkit.set_matmul_precision("highest")
    made = [node.name for node in tape.nodes if node.name in ("rounded", "matmul")]
    cast, product = "rounded", "matmul"
    assert made == [cast, cast, product, product, cast, product, cast, product, cast, cast, product]
    tape.replay()
    halves = np.ones((4, 4))
    halves[:2, :2] = 0.5
    ones = np.ones((4, 4))
    for found, expected in zip(products, [ones @ ones] * 2 + [halves @ ones] + [ones @ ones] * 2, strict=True):
        np.testing.assert_array_equal(on_host(found), expected)


@pytest.mark.parametrize("between", ["nothing", "a read", "a write"])
def test_a_kernel_writes_its_result_in_both_types(host: HostDevice, between: str) -> None:
    """A product's factor that a kernel gives is not read again to be rounded, but where it has changed since."""
    a, b = (next(views((8, 8), "float32", seed))[1] for seed in (1, 2))
    nnkit.set_matmul_precision("medium")
    try:
        x, out = host.asarray(a), host.asarray(b)
        with host.recording() as tape:
            h = host.elementwise(nnkit.tanh, (x,))
            if between == "a read":
                host.elementwise(nnkit.tanh, (h,), out=out)
            if between == "a write":
                host.elementwise(gradient_descent, (h, out, 0.5), out=h)
            found = [host.matmul(h, out), host.matmul(h.mT, out)]
    finally:
        nnkit.set_matmul_precision("highest")
    # tanh with what is between; the rounding of `out`, if no kernel gave it; two products.
    assert len(tape.calls) == {"nothing": 4, "a read": 3, "a write": 4}[between]
    tape.replay()
    tanh = np.tanh(a)
    h, second = {
        "nothing": (tanh, b), "a read": (tanh, np.tanh(tanh)), "a write": (tanh - np.float32(0.5) * b, b),
    }[between]  # fmt: skip
    left, right = (matrix.astype(numpy_dtype("bfloat16")).astype(np.float32) for matrix in (h, second))
    assert_products_agree(on_host(found[0]), left, right, "float32")
    assert_products_agree(on_host(found[1]), left.T, right, "float32")


def test_rounded_results_are_rounded_again(host: HostDevice) -> None:
    """A float16 result in a float32 product is the number that float16 holds, not what the kernel had before."""
    a = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float16)
    b = np.eye(8, dtype=np.float32)
    x, unit = host.asarray(a), host.asarray(b)
    with host.recording() as tape:
        found = host.matmul(host.elementwise(nnkit.tanh, (x,)), unit)
    tape.replay()
    once = host.matmul(host.elementwise(nnkit.tanh, (x,)), unit)
    np.testing.assert_array_equal(on_host(found), on_host(once))
    assert np.array_equal(on_host(found), on_host(found).astype(np.float16))


def test_errors_name_shapes_that_do_not_match(host: HostDevice) -> None:
    a = host.empty((2, 3), "float32")
    with pytest.raises(ValueError, match=r"matmul: a has shape \(2, 3\) and b \(2, 3\), which do not match"):
        host.matmul(a, a)
    with pytest.raises(ValueError, match=r"matmul: out has shape \(3, 3\); expected \(2, 2\)"):
        host.matmul(a, a.mT, out=host.empty((3, 3), "float32"))
    with pytest.raises(TypeError, match="matmul: operands are complex64; expected one of float16,"):
        host.matmul(host.empty((2, 3), "complex64"), host.empty((3, 2), "complex64"))


@pytest.mark.parametrize("precision", ["high", "medium"], indirect=True)
def test_gpus_before_ampere_compute_in_float32_and_say_so_once(
    host: HostDevice, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    gemm = host.handles.gemm

    def noted(arguments: Any) -> None:
        asked.append(arguments)
        gemm(arguments)

    monkeypatch.setattr(host.handles, "gemm", noted)
    host.capability = 75
    a, b = (host.place(next(views(shape, "float32", 1))[1]) for shape in ((3, 4), (4, 5)))
    expected = rf"^cupy computes products of precision '{precision}' in float32: they need compute .* 8.0, it has 7.5$"
    with pytest.warns(nnkit.BackendFallbackWarning, match=expected):
        first = host.matmul(a, b)
    second = host.matmul(a, b)  # a warning would be an error
    nnkit.set_matmul_precision("highest")
    third = host.matmul(a, b)
    for found in (first, second):
        np.testing.assert_array_equal(on_host(found), on_host(third))
    kinds = {(arguments[7], arguments[10], arguments[-2]) for arguments in asked}
    assert kinds == {(0, 0, COMPUTE_FLOAT)}


class Lacking(HostGemm):
    """A cuBLAS without TensorFloat-32 and 16-bit factors."""

    def __init__(self) -> None:
        self.refused = 0

    def gemm(self, arguments: tuple[Any, ...]) -> None:
        self._refuse(arguments[7], arguments[-2])
        super().gemm(arguments)

    def gemm_strided_batched(self, arguments: tuple[Any, ...]) -> None:
        self._refuse(arguments[7], arguments[-2])
        super().gemm_strided_batched(arguments)

    def _refuse(self, kind: int, compute: int) -> None:
        if kind in (2, 14) or compute == COMPUTE_TF32:
            self.refused += 1
            raise CublasError("cublasGemmEx", 15)


@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_that_cublas_does_not_support_are_computed_in_float32(
    host: HostDevice, dtype: str, lead: tuple[int, ...]
) -> None:
    host.handles = Lacking()
    every = zip(views((*lead, 3, 4), dtype, 1), views((*lead, 4, 5), dtype, 2), strict=True)
    pairs = [(a, b) for (_, a), (_, b) in every]
    with pytest.warns(nnkit.BackendFallbackWarning) as caught:
        results = [host.matmul(host.place(a), host.place(b)) for a, b in pairs]
    assert [str(warning.message) for warning in caught] == [
        f"cupy computes products of {dtype} in float32: cublasGemmEx of cuBLAS failed with status 15"
    ]
    for found, (a, b) in zip(results, pairs, strict=True):
        assert found.dtype == numpy_dtype(dtype)
        assert_products_agree(on_host(found), a, b, dtype)


@pytest.mark.parametrize("precision", ["high", "medium"], indirect=True)
def test_a_recording_asks_once_for_what_cublas_does_not_support(host: HostDevice, precision: str) -> None:
    """Each of its products, and in the replays that are captured nothing is allocated."""
    host.handles = lacking = Lacking()
    a, b, out = (next(views(shape, "float32", 1))[1] for shape in ((3, 4), (4, 5), (3, 5)))
    expected, on_device, alpha = out + 0.5 * (a @ b) * 3, host.place(out), host.asarray(np.float32(0.5))
    with host.recording() as tape:
        product = host.matmul(host.place(a), host.place(b))
        add_product(host, host.place(a), host.place(b), on_device, alpha)
    with pytest.warns(
        nnkit.BackendFallbackWarning, match="^cupy computes products (in TensorFloat-32|of bfloat16) in "
    ):
        tape.replay()
    assert lacking.refused == 2
    empty = host.empty
    host.empty = None  # type: ignore[method-assign,assignment]
    tape.replay(2)
    host.empty = empty  # type: ignore[method-assign]
    assert lacking.refused == 2
    near = 1e-6 if precision == "high" else 2e-2
    np.testing.assert_allclose(on_host(product), a @ b, rtol=near, atol=near)
    np.testing.assert_allclose(on_host(on_device), expected, rtol=near, atol=near)


@pytest.mark.parametrize(("dtype", "status"), [("float64", 15), ("float32", 15), ("float16", 13)])
def test_other_failures_of_products_are_errors(
    host: HostDevice, monkeypatch: pytest.MonkeyPatch, dtype: str, status: int
) -> None:
    def fail(*_: object) -> None:
        raise CublasError("cublasGemmEx", status)

    monkeypatch.setattr(HostGemm, "gemm", fail)
    a = host.asarray(np.ones((2, 2)), dtype)
    with pytest.raises(CublasError, match=f"status {status}$"):
        host.matmul(a, a)
