"""Preprocessing in the precision of the data: a network is given what plain float64 arithmetic of NumPy gives it."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.data import Normalization, Whitening, open_npy

if TYPE_CHECKING:
    from tests.conftest import Arrays
    from tests.support.host_device import HostDevice

KINDS = [Normalization, Whitening]
N, D = 70, 3
RNG = np.random.default_rng(5)
Z = RNG.normal(size=(N, D)) @ RNG.normal(size=(D, D))
LABELS = (Z[:, 0] > 0).astype(int) + (Z[:, 1] > 0)
FAR = 1.7e9 + 30 * Z  # seconds, which float32 holds to 128


def by_hand(fitted: Any, X: Any) -> np.ndarray:
    """What the first layer gets: float64 throughout, rounded once."""
    exact: np.ndarray = np.asarray(X, np.float64) - fitted.mean
    if isinstance(fitted, Normalization):
        exact /= fitted.deviation
    else:
        exact = exact @ (fitted.rotation / np.sqrt(fitted.singular_values))
    return exact.astype(np.float32)


def network(arrays: "Arrays", fitted: Any = None, inputs: int = D, **options: Any) -> nnkit.Network:
    cost = {"cost": "softmax_cross_entropy"} | options
    return nnkit.Network([inputs, 8, 3], "tanh", seed=3, preprocessing=fitted, backend=arrays.backend, **cost)


def close(arrays: "Arrays", found: Any, wanted: Any) -> None:
    """Equal but for the order of sums in products of some rows or all."""
    found, wanted = (np.asarray(a if isinstance(a, float) else arrays.backend.to_numpy(a)) for a in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


# The samples as files, columns and libraries have them: far from 0, tiny, whole numbers above 2²⁴, halves.
CASES: dict[str, np.ndarray] = {
    "float64": FAR,
    "big-endian": FAR.astype(">f8"),
    "tiny": 1e-42 * (1 + 0.2 * Z),
    "tiny in float32": (2.0**-130 * Z).astype(np.float32),
    "huge": 1e100 * (1 + 0.2 * Z),
    "int64": (1_700_000_000_000 + 1000 * Z).astype(np.int64),
    "uint32": (3_000_000_000 + 1000 * Z).astype(np.uint32),
    "int16": (30_000 + 50 * Z).astype(np.int16),
    "float32": (16_777_216 + 30 * Z).astype(np.float32),
    "float16": (2000 + 9 * Z).astype(np.float16),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_every_method_uses_the_given_precision(arrays: "Arrays", kind: Any, case: str) -> None:
    X = CASES[case]
    fitted = kind.fit(X)
    exact, given = by_hand(fitted, X), X.copy()
    assert np.abs(exact).max() < 10
    assert np.ptp(exact, axis=0).min() > 1  # so that a test can see it
    net, plain = network(arrays, fitted), network(arrays)
    close(arrays, net.logits(X), plain.logits(exact))
    close(arrays, net.forward(X[:1]), plain.forward(exact[:1]))
    close(arrays, net.predict_proba(X), plain.predict_proba(exact))
    assert arrays.backend.to_numpy(net.predict(X)).tolist() == arrays.backend.to_numpy(plain.predict(exact)).tolist()
    for name, value in net.evaluate(X, LABELS).items():
        close(arrays, value, plain.evaluate(exact, LABELS)[name])
    for pair, wanted in zip(net.gradients(X, LABELS)[1], plain.gradients(exact, LABELS)[1], strict=True):
        for gradient, other in zip(pair, wanted, strict=True):
            close(arrays, gradient, other)
    close(arrays, net.train_step(X, LABELS, nnkit.SGD(0.5)), plain.train_step(exact, LABELS, nnkit.SGD(0.5)))
    close(arrays, net.parameters.flat, plain.parameters.flat)
    assert np.array_equal(X, given)


def ways(X: np.ndarray, folder: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Samples and labels as `fit` takes them, from memory, from disks and one minibatch after the other."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    np.save(folder / "X.npy", X)
    with h5py.File(folder / "X.h5", "w") as file:
        file["X"] = X
    yield "list", (X.tolist(), LABELS)
    yield "array", (X, LABELS)
    yield "columns", (np.asfortranarray(X), LABELS)
    yield "memmap", (np.load(folder / "X.npy", mmap_mode="r"), LABELS)
    yield "open_npy", (open_npy(folder / "X.npy"), LABELS)
    yield "HDF5", (h5py.File(folder / "X.h5")["X"], LABELS)
    yield "stream", (lambda: ((X[i : i + 16], LABELS[i : i + 16]) for i in range(0, N, 16)), None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_data(arrays: "Arrays", kind: Any, tmp_path: Path) -> None:
    fitted = kind.fit(FAR)
    options: Any = {"epochs": 3, "batch_size": 16, "shuffle": False, "progress": False, "optimizer": nnkit.SGD(0.5)}
    plain = network(arrays)
    wanted = plain.fit(by_hand(fitted, FAR), LABELS, validation_data=(by_hand(fitted, FAR), LABELS), **options)
    for _, (X, y) in ways(FAR, tmp_path):
        net = network(arrays, fitted)
        if y is None:  # minibatches are taken as they come
            options = {name: value for name, value in options.items() if name not in ("batch_size", "shuffle")}
        history = net.fit(X, y, validation_data=(FAR, LABELS), **options)
        close(arrays, net.parameters.flat, plain.parameters.flat)
        np.testing.assert_allclose(history["cost"], wanted["cost"], rtol=2e-5)
        np.testing.assert_allclose(history["validation_cost"], wanted["validation_cost"], rtol=2e-5)
        if y is not None:
            assert net.evaluate(X, y)["accuracy"] == plain.evaluate(by_hand(fitted, FAR), LABELS)["accuracy"]


def test_a_network_learns_far_from_0() -> None:
    z = np.random.default_rng(0).normal(size=(2000, 2))
    X, y = 1.7e9 + 30 * z, (z[:, 0] > 0).astype(int)
    fitted = Normalization.fit(X)
    for data, preprocessing in ((X, fitted), (fitted.transform(X), None)):
        net = nnkit.Network([2, 16, 2], "tanh", "softmax_cross_entropy", seed=0, preprocessing=preprocessing)
        net.fit(data, y, epochs=20, optimizer=nnkit.Adam(0.01), progress=False)
        assert net.evaluate(data, y)["accuracy"] > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_bytes_of_little_spread(arrays: "Arrays", kind: Any, shuffle: bool) -> None:
    """A pixel that is hardly ever not 254: (x − μ)/σ with μ/σ = 2000, of which float32 would leave 3 digits."""
    X = np.full((40_000, 2), 254, np.uint8)
    X[7, 0], X[8, 1] = 255, 0
    fitted = kind.fit(X)
    X, labels = X[:20], np.arange(20) % 3
    exact = by_hand(fitted, X)
    options: Any = {"epochs": 1, "batch_size": 4, "shuffle": shuffle, "progress": False, "optimizer": nnkit.SGD(1e-3)}
    net, plain = network(arrays, fitted, 2), network(arrays, None, 2)
    net.fit(X, labels, **options)
    plain.fit(exact, labels, **options)
    close(arrays, net.parameters.flat, plain.parameters.flat)
    close(arrays, net.logits(X), plain.logits(exact))
    np.testing.assert_allclose(
        arrays.backend.to_numpy(net.samples(X)), exact, rtol=1e-6 if kind is Normalization else 1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_float32_suffices_for_small_means(arrays: "Arrays", dtype: Any) -> None:
    X = np.random.default_rng(0).integers(0, 256, (500, 4)).astype(dtype)
    for fitted in (Normalization.fit(X), Normalization.pixels(4)):
        assert fitted.precision("float32") == "float32"
        found = arrays.backend.to_numpy(network(arrays, fitted, 4).samples(X))
        # Units in the last place of 1 or of the result, whichever is larger.
        assert (np.abs(found - by_hand(fitted, X)) <= 3 * np.spacing(np.float32(2))).all()
        assert np.array_equal(found, by_hand(fitted, X)) or fitted.mean.any()


def test_float64_is_used_for_large_means() -> None:
    for mean, deviation in ((5.0, 1.0), (-5.0, 1.0), (0.0, 1e-40), (0.0, 1e39), (1e9, 1.0)):
        assert Normalization([0.0, mean], [1.0, deviation]).precision("float32") == "float64"
        assert Normalization([0.0, mean], [1.0, deviation]).precision("float16") == "float64"
    assert Normalization([4.0], [1.0]).precision("float32") == "float32"
    assert Whitening([0.0], [[1.0]], [1.0]).precision("float32") == "float64"


def test_halves_of_other_libraries(arrays: "Arrays") -> None:
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    X = (300 + 20 * Z).astype(bfloat16)
    exact = by_hand(fitted := Normalization.fit(X), X.astype(np.float64))
    net = network(arrays, fitted)
    np.testing.assert_allclose(arrays.backend.to_numpy(net.samples(X)), exact, rtol=1e-6, atol=1e-7)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.tensor(X.astype(np.float32)).to(torch.bfloat16)
    np.testing.assert_allclose(arrays.backend.to_numpy(net.samples(tensor)), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_apply_rounds_once(arrays: "Arrays", kind: Any) -> None:
    """Whatever the dtype of the samples: the mean is not rounded to it."""
    for dtype in ("float32", "float64"):
        X = (16_777_216.3 + 30 * Z).astype(dtype)
        fitted = kind.fit(X)
        found = arrays.numpy(fitted.apply(arrays.backend, arrays(X, dtype)), dtype)
        np.testing.assert_allclose(found.astype(np.float32), by_hand(fitted, X), rtol=1e-6, atol=1e-7)
        out = arrays.backend.empty((N, fitted.outputs), "float32")
        assert fitted.apply(arrays.backend, arrays(X, dtype), out) is out
        np.testing.assert_allclose(arrays.numpy(out), by_hand(fitted, X), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_of_a_gpu(host: "HostDevice", kind: Any) -> None:
    fitted = kind.fit(FAR)
    for out in (None, host.empty((N, D), "float32")):
        found = fitted.apply(host, host.asarray(FAR), out)
        np.testing.assert_allclose(host.to_numpy(found), by_hand(fitted, FAR), rtol=1e-6, atol=1e-7)
    net = nnkit.Network([D, 3], seed=3, backend=host, preprocessing=fitted)
    np.testing.assert_allclose(host.to_numpy(net.samples(FAR)), by_hand(fitted, FAR), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_blocks_equal_the_whole(arrays: "Arrays", kind: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X = (1e6 + 1000 * Z).astype(dtype)
    net = network(arrays, kind.fit(X))
    monkeypatch.setattr("nnkit.preprocessing._TOGETHER", 16 * D)
    for given in (X, arrays.backend.asarray(X)):
        found = arrays.backend.to_numpy(net.samples(given))
        np.testing.assert_allclose(found, by_hand(net.preprocessing, X), rtol=1e-6, atol=1e-7)


def test_no_copy_of_all_samples_in_float64() -> None:
    X = np.random.default_rng(0).normal(1e6, 1, (40_000, 50)).astype(np.float32)
    y = np.zeros(len(X), int)
    for fitted in (Normalization.fit(X), Whitening.fit(X)):
        net = nnkit.Network([50, 2], "sigmoid", "softmax_cross_entropy", seed=0, preprocessing=fitted)
        net.fit(X[:64], y[:64], epochs=1, progress=False)
        tracemalloc.start()
        try:
            net.fit(X, y, epochs=1, batch_size=1000, progress=False)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2.2 * X.nbytes  # what the first layer gets, the targets, and two megabytes and a half in float64


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_not_finite_are_named(arrays: "Arrays", kind: Any, tmp_path: Path) -> None:
    fitted, bad = kind.fit(FAR), FAR.copy()
    bad[60, 2] = -np.inf
    np.save(tmp_path / "bad.npy", bad)
    net = network(arrays, fitted)
    stream = iter([(FAR[:4], LABELS[:4]), (bad[56:], LABELS[56:])])
    for X, y, message in (
        (bad, LABELS, r"X holds -inf at \[60, 2\]; expected finite numbers"),
        (open_npy(tmp_path / "bad.npy"), LABELS, r"X holds -inf at \[60, 2\]; expected finite numbers"),
        (stream, None, r"X of minibatch 1 of X holds -inf at \[4, 2\]; expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            net.fit(X, y, progress=False)


def test_numbers_that_overflow_the_dtype_are_named() -> None:
    X = np.array([[0.0, 1.0], [1e100, 2.0]])
    net = nnkit.Network([2, 2], seed=0, preprocessing=Normalization([0.0, 0.0], [1.0, 1.0]))
    message = r"X: the normalization of sample 1 holds inf; expected finite numbers in float32"
    with pytest.raises(ValueError, match=message):
        net.fit(X, [0, 1], progress=False)
    nnkit.Network([2, 2], seed=0, preprocessing=Normalization.fit(X)).fit(X, [0, 1], progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_passes_preprocess_in_each_precision(arrays: "Arrays", kind: Any) -> None:
    """One pass serves samples of any type, in any order: float32 ones must not leave float64 ones rounded."""
    fitted = kind.fit(FAR) if kind is Whitening else Normalization([1e9, 0.0, 3.0], [5e8, 1.0, 1.0])
    X = FAR if kind is Whitening else 1e9 + Z * [5e8, 1e-3, 1.0]
    net, plain = network(arrays, fitted), network(arrays)
    for dtype in ("float32", "float64", "int64", "float32", "float64", "int16", "float64"):
        given = (X % 1000 if dtype == "int16" else X).astype(dtype)[:3]
        exact = by_hand(fitted, given)
        close(arrays, net.forward(given), plain.forward(exact))
        close(arrays, net.logits(given), plain.logits(exact))
    with pytest.raises(ValueError, match=r"X holds nan at \[1, 0\]; expected finite numbers"):
        net.predict(np.where([[0], [1], [0]], np.nan, X[:3]))
    net.preprocessing = other = Normalization(fitted.mean, np.full(D, 2e9))
    close(arrays, net.forward(X[:3]), plain.forward(by_hand(other, X[:3])))


@pytest.mark.parametrize("offset", [1e15, 1.7e15])
def test_times_in_microseconds_have_the_mean_and_deviation_of_their_differences(offset: float) -> None:
    """A sum of the samples would lose their digits: the deviation was twice the right one."""
    small = np.random.default_rng(0).integers(0, 50, (9000, 2)).astype("float64")
    X = offset + small
    assert np.array_equal(X - offset, small)
    found = nnkit.data.Normalization.fit(X)
    np.testing.assert_allclose(found.deviation, small.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.mean - offset, small.mean(axis=0), rtol=0, atol=0.13)  # half the spacing there
    whitened = nnkit.data.Whitening.fit(X).transform(X)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(2), atol=1e-3)
