"""ReLU inside products: the numbers and the nodes, over an emulation of cuBLASLt, and the way back of each failure."""

import warnings
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda import cublas_lt, epilogues
from nnkit.backends.cuda import recording as passes_of_gpus
from nnkit.backends.errors import BackendFallbackWarning
from nnkit.backends.formula import compose
from nnkit.backends.recording import Tape, discard, recording
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import biased, layer_backward, layer_forward
from nnkit.step import step_for
from tests.conftest import gpu_backend
from tests.support import emulated_lt
from tests.support.accumulating import add_product
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

Refuse = dict[str, int]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refuse]:
    """The statuses that functions of cuBLASLt return instead of doing their work."""
    yield emulated_lt.install(monkeypatch)
    nnkit.set_matmul_precision("highest")
    assert not emulated_lt.made  # every descriptor is destroyed


@pytest.fixture
def host(refuse: Refuse) -> HostDevice:
    return HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))


LAYERS = [get_activation(name) for name in ("relu", "relu", "identity")]


class Layers:
    """Two layers with ReLU and one without, forward and backward as a step records them, on small whole numbers.

    They are exact in bfloat16, so that results are NumPy's, in any order of sums. The middle layer has 136 units: its
    mask has 256 bits for each sample.
    """

    def __init__(
        self, host: HostDevice, passes: Any = passes_of_gpus.PASSES, between: str = "", samples: int = 12
    ) -> None:
        rng = np.random.default_rng(1)

        def some(*shape: int) -> Any:
            return host.asarray(rng.integers(-1, 2, shape), "float32")

        self.x, self.b = some(samples, 16), [some(136), some(24), some(8)]
        self.W = [some(136, 16), some(24, 136), some(8, 24)]
        for W in self.W[1:]:
            on_host(W)[:, rng.permutation(W.shape[1])[6:]] = 0  # so that the numbers stay small
        self.delta, self.other = some(samples, 8), host.zeros((samples, 136), "float32")
        self.dW, self.db = ([host.zeros(array.shape, "float32") for array in arrays] for arrays in (self.W, self.b))
        with recording(Tape(passes)) as self.tape:
            h = [self.x]
            for f, W, b in zip(LAYERS, self.W, self.b, strict=True):
                h.append(layer_forward(host, f, h[-1], W, b))
                if between == "h is read" and len(h) == 2:
                    host.copy(h[1], self.other)
            deltas = [self.delta]
            if between == "h is written first":
                host.copy(self.other, h[1])
            if between == "precision changes":
                nnkit.set_matmul_precision("high")
            for i in (2, 1, 0):
                outs = (None, self.dW[i], self.db[i])
                dx, *_ = layer_backward(host, LAYERS[i], deltas[-1], h[i], self.W[i], h[i + 1], outs, i > 0, i < 2)
                if between == "delta is read" and i == 1:
                    host.copy(dx, self.other)
                if between == "h is written" and i == 1:
                    host.copy(self.other, h[1])
                deltas.append(dx)
            if between == "h is written last":
                host.copy(self.other, h[1])
            if between != "nothing is discarded":
                discard(*h[1:-1], *deltas[1:-1])
        self.out = h[-1]

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.tape.nodes]

    def results(self) -> list[Any]:
        self.tape.replay()
        return [on_host(array).copy() for array in (self.out, *self.dW, *self.db)]

    def expected(self) -> list[Any]:
        """By NumPy, in float64."""
        x, delta, *flat = (on_host(array).astype(float) for array in (self.x, self.delta, *self.W, *self.b))
        W, b = flat[: len(self.W)], flat[len(self.W) :]
        h = [x]
        for i in range(len(W)):
            z = h[-1] @ W[i].T + b[i]
            h.append(z if i == len(W) - 1 else z * (z > 0))
        dW: list[Any] = []
        db: list[Any] = []
        for i in reversed(range(len(W))):
            if i < len(W) - 1:
                delta = delta * (h[i + 1] > 0)
            dW.insert(0, delta.T @ h[i])
            db.insert(0, delta.sum(0))
            delta = delta @ W[i]
        return [h[-1], *dW, *db]


def agrees(layers: Layers) -> None:
    for found, expected in zip(layers.results(), layers.expected(), strict=True):
        np.testing.assert_array_equal(found, expected)


PRECISIONS = ["highest", "high", "medium"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_with_relu_and_its_derivative(host: HostDevice, precision: str) -> None:
    nnkit.set_matmul_precision(precision)
    layers = Layers(host)
    rounded = "_rounded" if precision == "medium" else ""
    assert [layers.names.count(f"matmul_{name}{rounded}") for name in ("biased_relu", "relu_grad")] == [2, 2]
    assert not {"biased_relu", "relu_grad", "biased_relu_rounded", "relu_grad_rounded"} & {*layers.names}
    expected = layers.expected()
    assert np.mean(expected[0] != 0) > 0.2
    assert all(len(np.unique(each)) > 2 for each in expected)
    agrees(layers)
    agrees(layers)  # with what the first replay left


@pytest.mark.parametrize("precision", PRECISIONS)
def test_passes_in_any_order(host: HostDevice, precision: str) -> None:
    nnkit.set_matmul_precision(precision)
    fused = 0
    for seed in range(25):
        passes = Random(seed).sample(passes_of_gpus.PASSES, len(passes_of_gpus.PASSES))
        layers = Layers(host, passes, samples=1024 if seed < 5 else 12)  # with many, kernels begin sums of columns
        fused += sum(name.startswith("matmul_") for name in layers.names)
        agrees(layers)
    assert fused > 10


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize(
    ("between", "in_float32", "in_bfloat16"),
    [
        ("h is read", 4, 2),  # the first of two layers needs h in float32, and so has no mask
        ("delta is read", 3, 3),
        ("h is written", 3, 2),
        ("h is written first", 3, 2),
        ("h is written last", 3, 2),
        ("precision changes", 2, None),
        ("nothing is discarded", 4, 0),
    ],
)
def test_what_else_reads_or_writes_the_arrays(
    host: HostDevice, precision: str, between: str, in_float32: int, in_bfloat16: int | None
) -> None:
    nnkit.set_matmul_precision(precision)
    layers = Layers(host, between=between)
    count = sum(name.startswith("matmul_") for name in layers.names)
    nnkit.set_matmul_precision(precision)
    plain = Layers(host, (), between=between)
    for found, expected in zip(layers.results(), plain.results(), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(on_host(layers.other), on_host(plain.other))
    expected_count = in_bfloat16 if precision == "medium" else in_float32
    assert expected_count in (count, None)


@pytest.mark.parametrize("between", ["nothing", "the copy is written"])
def test_sums_read_a_copy_unless_it_changes(host: HostDevice, between: str) -> None:
    rng = np.random.default_rng(1)
    x, W, other = (host.asarray(rng.integers(-1, 2, (16, 16)), "bfloat16") for _ in range(3))
    b, z, copy = host.zeros((16,), "float32"), host.empty((16, 16), "float32"), host.empty((16, 16), "bfloat16")
    with host.recording() as tape:
        host.matmul(x, W, out=z)
        host.elementwise(compose(LAYERS[0].forward, biased), (z, b), out=z)
        host.round(z, copy)
        if between != "nothing":
            host.copy(other, copy)
        sums = host.sum(z, axis=0)
        discard(z)
    assert any(node.name.startswith("matmul_") for node in tape.nodes) == (between == "nothing")
    tape.replay()
    left, right, written = (on_host(array).astype(float) for array in (x, W, other))
    expected = np.maximum(left @ right, 0)
    np.testing.assert_array_equal(on_host(sums), expected.sum(axis=0))
    np.testing.assert_array_equal(on_host(copy).astype(float), expected if between == "nothing" else written)


FAILURES: dict[str, Any] = {
    "no library": OSError("libcublasLt.so is missing"),
    "too old": AttributeError("undefined symbol: cublasLtMatmul"),
    "no operation": ("cublasLtMatmulDescCreate", 3),
    "no algorithm": ("cublasLtMatmulAlgoGetHeuristic", 15),
    "no product": ("cublasLtMatmul", 15),
}


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("failure", [*FAILURES, "none found", "other numbers", "no NaN"])
def test_what_fails_at_the_recording(
    host: HostDevice, refuse: Refuse, monkeypatch: pytest.MonkeyPatch, failure: str, precision: str
) -> None:
    nnkit.set_matmul_precision(precision)
    given = FAILURES.get(failure)
    reason = str(given)
    if isinstance(given, Exception):

        def fails() -> Any:
            raise given

        monkeypatch.setattr(cublas_lt, "cublas_lt", fails)
    elif given is not None:
        refuse |= [given]
        reason = f"{given[0]} of cuBLAS failed with status {given[1]}"
    elif failure == "none found":
        emulated_lt.options.without, reason = (6, 134), "cublasLtMatmulAlgoGetHeuristic of cuBLAS failed with status 15"
    elif failure == "other numbers":
        emulated_lt.options.added, reason = {6: 1, 134: 1}, "a small product of cuBLASLt has other numbers"
    else:
        emulated_lt.options.drops_nan, reason = True, "the ReLU of cuBLASLt turns NaN into 0"
    kind = "bfloat16" if precision == "medium" else "float32"
    with pytest.warns(
        BackendFallbackWarning, match=f"^cupy computes products of {kind} with ReLU in two calls: {reason}"
    ):
        layers = Layers(host)
    assert layers.names == Layers(host, [p for p in passes_of_gpus.PASSES if p is not epilogues.into_products]).names
    agrees(layers)  # and there was one warning, as others are errors


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("failure", ["none found", "other numbers"])
def test_a_gpu_without_the_derivative_still_has_relu(host: HostDevice, precision: str, failure: str) -> None:
    nnkit.set_matmul_precision(precision)
    if failure == "none found":
        emulated_lt.options.without = (136,)
    else:
        emulated_lt.options.added = {136: 1}
    with pytest.warns(BackendFallbackWarning, match="with the derivative of ReLU in two calls"):
        layers = Layers(host)
    assert [name[:17] for name in layers.names if name.startswith("matmul_")] == ["matmul_biased_rel"] * 2
    assert sum(name.startswith("relu_grad") for name in layers.names) == 2
    assert not any(node.name.startswith("matmul_") and len(node.written or ()) > 1 for node in layers.tape.nodes)
    agrees(layers)


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("failure", ["product", "derivative", "NaN", "error"])
def test_what_fails_at_the_first_use(host: HostDevice, refuse: Refuse, precision: str, failure: str) -> None:
    nnkit.set_matmul_precision(precision)
    layers = Layers(host)
    emulated_lt.options.unsupported = {"product": (134,), "derivative": (136,)}.get(failure, ())
    emulated_lt.options.drops_nan = failure == "NaN"
    if failure == "error":
        refuse["cublasLtMatmul"] = 13
    what = "the derivative of ReLU" if failure == "derivative" else "ReLU"
    with pytest.warns(BackendFallbackWarning, match=f"with {what} in two calls") as caught:
        agrees(layers)
    assert len(caught) == 1
    refuse.clear()
    agrees(layers)
    again = Layers(host)  # without what the device is known to lack
    assert sum(name.startswith("matmul_") for name in again.names) == (2 if failure == "derivative" else 0)
    agrees(again)


@pytest.mark.parametrize("where", ["samples", "weights"])
def test_nan_stays_nan(host: HostDevice, where: str) -> None:
    found = []
    for passes in (passes_of_gpus.PASSES, ()):
        layers = Layers(host, passes)
        on_host(layers.x if where == "samples" else layers.W[0])[3] = np.nan
        found.append(np.concatenate([np.isnan(array).ravel() for array in layers.results()[:4]]))  # outputs and δW
    assert found[0].any()
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
    "what",
    [
        "small", "columns", "terms", "bias", "samples", "float64", "float16", "leaky_relu", "a stack", "a matrix added",
        "logits kept", "a sum of products",
    ],
)  # fmt: skip
def test_products_for_which_it_is_not_asked(host: HostDevice, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(cublas_lt, "cublas_lt", lambda: pytest.fail("asked"))
    if what == "small":
        monkeypatch.setattr(epilogues, "LEAST", 12 * 16 + 1)
    dtype = what if what in ("float64", "float16") else "float32"
    columns, terms = 20 if what == "columns" else 16, 20 if what == "terms" else 24
    x, W, b = (host.zeros(shape, dtype) for shape in ((12 * terms + 1,), (columns, terms), (columns + 1,)))
    x, b = x[what == "samples" :][: 12 * terms].reshape(12, terms), b[what == "bias" :][:columns]
    if what == "a stack":
        x, W, b = x.reshape(2, 6, terms), host.zeros((2, columns, terms), dtype), host.zeros((2, columns), dtype)
    f = get_activation("leaky_relu" if what == "leaky_relu" else "relu")
    with host.recording() as tape:
        z = host.matmul(x, W.mT) if what in ("a matrix added", "logits kept") else host.zeros((12, columns), "float32")
        other = host.zeros((12, columns), "float32")
        if what == "a matrix added":
            host.elementwise(compose(f.forward, biased), (z, other), out=z)
        elif what == "logits kept":
            host.elementwise(compose(f.forward, biased, keep_inner=True), (z, b), out=(other, z))
            discard(other)
        elif what == "a sum of products":
            add_product(host, x, W.mT, z, host.asarray(np.float32(1)))
            host.elementwise(compose(f.forward, biased), (z, b), out=z)
        else:
            layer_forward(host, f, x, W, b)
    assert not any(node.name.startswith("matmul_") for node in tape.nodes)


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.Adam(0.01)], ids=["SGD", "Adam"])
def test_steps_of_a_network(host: HostDevice, monkeypatch: Any, optimizer: Any) -> None:
    """In float32 the same numbers up to rounding, in bfloat16 numbers as far from those as without ReLU inside."""
    monkeypatch.setitem(selection._made, "cupy", host)
    rng = np.random.default_rng(1)
    X, classes, moved = rng.normal(size=(96, 16)), rng.integers(8, size=96), rng.normal(size=2256)

    def change(precision: str, least: int) -> Any:
        monkeypatch.setattr(epilogues, "LEAST", least)
        nnkit.set_matmul_precision(precision)
        net = nnkit.Network([16, 40, 24, 8], "relu", seed=1, backend=host)
        on_host(net.parameters.flat)[...] += 0.1 * moved[: net.parameters.flat.size]
        step = step_for(net, 96, net.optimizer_state(optimizer))
        assert sum(node.name.startswith("matmul_") for node in step.nodes) == (4 if least == 1 else 0)
        first = on_host(net.parameters.flat).copy()
        on_host(step.x)[...], on_host(step.y)[...] = X, np.eye(8)[classes]
        for _ in range(5):
            step.replay()
        return on_host(net.parameters.flat) - first

    plain = change("highest", 1 << 20)
    off = [
        np.linalg.norm(change(precision, least) - plain) / np.linalg.norm(plain)
        for precision, least in (("highest", 1), ("high", 1), ("medium", 1), ("medium", 1 << 20))
    ]
    assert max(off[:2]) < 1e-5
    assert 0 < off[2] < 1.1 * off[3] < 0.2


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "off"), [("highest", 1e-4), ("high", 1e-2), ("medium", 5e-2)])
def test_on_this_gpu(monkeypatch: pytest.MonkeyPatch, precision: str, off: float) -> None:
    """Whether or not its cuBLASLt has the epilogues; a warning says if not."""
    backend, rng, found = gpu_backend(), np.random.default_rng(1), []
    X, y = rng.normal(size=(192, 64)).astype(np.float32), rng.integers(8, size=192)
    nnkit.set_matmul_precision(precision)
    try:
        for least in (1, 1 << 20):
            monkeypatch.setattr(epilogues, "LEAST", least)
            net = nnkit.Network([64, 136, 128, 8], "relu", seed=1, backend=backend)
            first = backend.to_numpy(net.parameters.flat).copy()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BackendFallbackWarning)
                net.fit(X, y, epochs=4, batch_size=96, optimizer=nnkit.SGD(0.1), progress=False)
            found.append(backend.to_numpy(net.parameters.flat) - first)
    finally:
        nnkit.set_matmul_precision("highest")
    assert np.linalg.norm(found[0] - found[1]) < off * np.linalg.norm(found[1])
