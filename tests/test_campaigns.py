"""Campaigns of random input against what nnkit promises: short in the suite, long with -m campaign.

Each is a loop of so many cases from a seed; a failure names the case, and the same seed gives it again.
"""

import gc
import io
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.kernels.activations import get_activation

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(30, 4)), np.arange(30) % 3


def long(count: int) -> Any:
    """The number of cases of the long form."""
    return pytest.param(count, marks=pytest.mark.campaign)


def network(seed: int = 0, **options: Any) -> nnkit.Network:
    return nnkit.Network([4, 6, 3], seed=seed, **options)


def damaged(rng: np.random.Generator, content: bytes, kinds: int = 6) -> bytes:
    """Some bytes changed, by the first two kinds of damage in place; put in, left out, repeated or cut."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break  # all of it has been cut
        at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 9))
        match rng.integers(0, kinds):
            case 0:
                data[at] ^= int(rng.integers(1, 256))
            case 1:
                data[at] = int(rng.choice(bytearray(b'0123456789-eE.,:"[]{}nua\\')))
            case 2:
                data[at:at] = rng.bytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.filterwarnings("ignore:.* is loaded without its optimizer")  # whose name is damaged
@pytest.mark.parametrize("count", [300, long(40_000)])
def test_damaged_model_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path, rng = tmp_path / "net.safetensors", np.random.default_rng(1)
    net = network(preprocessing=nnkit.data.Normalization.fit(X), features=list("abcd"))
    net.fit(X, LABELS, epochs=1, optimizer="adam", checkpoint=path, progress=False)
    content = path.read_bytes()
    for case in range(count):
        # The header is a small part of a file, but most of what can go wrong.
        first = content[:2000] if case % 2 else content
        path.write_bytes(damaged(rng, first, 6 if case % 8 == 0 else 2) + content[len(first) :])
        try:
            found = nnkit.load(path)
        except ValueError as error:
            assert str(path) in str(error), case  # noqa: PT017
        else:
            assert found.parameters.count == net.parameters.count, case


@pytest.mark.parametrize("count", [300, long(18_000)])
def test_damaged_data_files_are_read_or_refused(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, np.arange(12.0).reshape(4, 3))
    np.savez(npz, X=np.arange(8.0).reshape(4, 2), y=np.arange(4))
    text = b'a,b,kind\n1.5,2,"x, y"\n3,4e-3,z\n-5,6,"x, y"\n'
    files: list[tuple[str, bytes, int | str]] = [
        ("a.npy", npy.getvalue(), 2),
        ("a.npz", npz.getvalue(), "y"),
        ("a.csv", text, "kind"),
    ]
    for case in range(count):
        name, content, target = files[case % 3]
        path = tmp_path / name
        path.write_bytes(damaged(rng, content))
        try:
            found = nnkit.data.read(path, target)
        except ValueError as error:
            assert str(path) in str(error), case  # noqa: PT017
        else:
            assert len(found.X) == len(np.asarray(found.y)), case


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
@pytest.mark.parametrize("every", [9, long(1)])
def test_a_write_killed_at_any_point(every: int, tmp_path: Path) -> None:
    """A process that ends at any call of the writing leaves the old file or the new one, and at most one temporary."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path, old, new = tmp_path / "net.safetensors", network(1), network(2)
    old.save(path)
    place, status = 0, 1
    while status:
        place += every
        old.save(path)
        child = os.fork()
        if child == 0:
            _end_at(place)
            new.save(path)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        found = nnkit.load(path).parameters.flat
        assert np.array_equal(found, old.parameters.flat) or np.array_equal(found, new.parameters.flat), place
        assert len(list(tmp_path.iterdir())) <= 2, place
    assert place > 20
    old.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def _end_at(place: int) -> None:
    """End this process, as a kill would, at the call of this number that nnkit.files makes or is made by."""
    seen = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        if frame.f_code.co_filename.endswith("files.py"):
            seen += 1
            if seen == place:
                os._exit(9)

    sys.setprofile(count)


NAMES = ("relu", "leaky_relu", "elu", "selu", "tanh", "softsign", "sigmoid", "identity")
SLOPES: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: 1.0 + 0 * z,
    "relu": lambda z: (z > 0) * 1.0,
    "leaky_relu": lambda z: np.where(z > 0, 1.0, 0.01),
    "elu": lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, 1.0, 1.6732632423543772 * np.exp(np.minimum(z, 0))),
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "softsign": lambda z: 1 / (1 + np.abs(z)) ** 2,
    "sigmoid": lambda z: 1 / (2 + 2 * np.cosh(z)),
}


@pytest.mark.parametrize("count", [150, long(50_000)])
def test_layers_match_their_equations(count: int) -> None:
    """dense_forward and dense_backward in any memory against einsum and derivatives written out, in float64."""
    rng = np.random.default_rng(3)
    for case in range(count):
        n, d_in, d_out = (int(i) for i in rng.integers(1, 40, 3))
        name, dtype = NAMES[case % len(NAMES)], ("float32", "float64", ">f8")[int(rng.integers(3))]
        x, W, delta = (_anywhere(rng, shape, dtype) for shape in ((n, d_in), (d_out, d_in), (n, d_out)))
        b = _anywhere(rng, (d_out,), dtype)
        z = np.einsum("ni,oi->no", x.astype(float), W.astype(float)) + b
        saved: Any = np.empty((n, d_out), x.dtype.newbyteorder("="))
        needs = get_activation(name).gradient_from == "preactivation"
        h = nnkit.dense_forward(x, W, b, name, z=saved if needs else None)
        found = nnkit.dense_backward(delta, x, W, h, name, z=saved if needs else None)
        inner = delta.astype(float) * SLOPES[name](z)
        wanted = np.einsum("no,oi->ni", inner, W.astype(float)), np.einsum("no,ni->oi", inner, x.astype(float))
        near = 2e-5 if dtype == "float32" else 1e-12
        if dtype == "float32" and (np.abs(z) < 1e-4).any():
            continue  # rounding may put it on the other side of a kink
        for array, exact in zip(found, (*wanted, inner.sum(axis=0)), strict=True):
            np.testing.assert_allclose(array, exact, rtol=near, atol=near * max(n, d_in, d_out), err_msg=f"case {case}")


def _anywhere(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random numbers in C or Fortran order, in every second column, backwards or read-only."""
    values = rng.normal(size=shape).astype(dtype)
    match rng.integers(0, 5):
        case 0:
            return np.asfortranarray(values)
        case 1:
            wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
            wide[..., ::2] = values
            return wide[..., ::2]
        case 2:
            return np.ascontiguousarray(values[::-1])[::-1]
        case 3:
            values.flags.writeable = False
    return values


@pytest.mark.parametrize("count", [15, long(3_000)])
def test_gradients_are_exact(count: int) -> None:
    rng = np.random.default_rng(4)
    smooth = ["sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "softplus", "exponential", "identity"]
    costs = ["cross_entropy", "softmax_cross_entropy", "quadratic", "log_cosh", "poisson"]
    for case in range(count):
        sizes = [int(size) for size in rng.integers(1, 8, int(rng.integers(2, 5)))]
        sizes[-1] = max(sizes[-1], 2)
        net = nnkit.Network(sizes, smooth[case % len(smooth)], costs[case % len(costs)], seed=case)
        n = int(rng.integers(1, 6))
        labels = rng.integers(0, sizes[-1], n)
        y = labels if net.classifies else nnkit.data.one_hot(labels, sizes[-1])
        assert nnkit.check_gradients(net, rng.normal(size=(n, sizes[0])), y, entries=20).max_error < 1e-12, case


@pytest.mark.parametrize("count", [60, long(20_000)])
def test_concurrent_clients_get_correct_answers(count: int) -> None:
    """Eight threads, each with requests of its own sizes: every answer is the one that it gets alone."""
    net = network()
    wrong: list[int] = []

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(count):
            x = X[rng.integers(0, len(X), int(rng.integers(1, 6)))]
            ask = (net.predict, net.predict_proba, net.logits)[int(rng.integers(3))]
            one_by_one = np.concatenate([alone[ask.__name__][row] for row in _rows(x)])
            if not np.allclose(ask(x), one_by_one, rtol=1e-5, atol=1e-7):
                wrong.append(seed)

    keys = ("predict", "forward", "logits")
    alone = {key: [np.asarray(getattr(net, key)(X[i : i + 1])) for i in range(len(X))] for key in keys}
    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _rows(x: np.ndarray) -> list[int]:
    return [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in x]


@pytest.mark.parametrize(("predictions", "fits"), [(400, 40), pytest.param(50_000, 4_000, marks=pytest.mark.campaign)])
def test_memory_does_not_grow(predictions: int, fits: int) -> None:
    """Neither memory nor open files, over many predictions and trainings with ever new numbers."""
    net = network()

    def work(count: int, trainings: int) -> None:
        for i in range(count):
            net.predict(X[: i % 7 + 1])
        for _ in range(trainings):
            rate = 0.1 + 1e-6 * next(numbers)
            net.fit(X, LABELS, epochs=1, optimizer=nnkit.SGD(rate, l2=rate), schedule="cosine", progress=False)

    numbers = iter(range(10**6))
    work(200, 40)
    tracemalloc.start()
    try:
        work(20, 5)
        gc.collect()
        before, files = tracemalloc.get_traced_memory()[0], _open_files()
        work(predictions, fits)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
        assert _open_files() == files
    finally:
        tracemalloc.stop()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
