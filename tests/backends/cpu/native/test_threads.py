"""Threads that train and predict with native code get the bits of each alone: a stress in place of a sanitizer."""

import contextlib
import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import nnkit

pytest.importorskip("numba", reason="compiles")
threadpool_limits = pytest.importorskip("threadpoolctl", reason="limits BLAS").threadpool_limits

OPTIMIZERS = ("sgd", "adam", nnkit.SGD(0.1, momentum=0.9), nnkit.Adam(0.01, clip_norm=0.1))


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def trained(seed: int) -> bytes:
    """The bits of a training of a drawn kind, and of predictions and costs of its network."""
    rng = np.random.default_rng(seed)
    d_in, d_out, dtype = int(rng.integers(2, 40)), int(rng.integers(2, 6)), str(rng.choice(["float32", "float64"]))
    hidden = [int(width) for width in rng.integers(2, 70, rng.integers(0, 3))]
    activation, n = str(rng.choice(["relu", "sigmoid", "tanh", "gelu"])), int(rng.integers(20, 400))
    layers: list[Any] = [d_in, *hidden, d_out]
    if hidden and rng.random() < 0.3:
        layers = [nnkit.Dense(d_in, hidden[0], activation), nnkit.Dropout(0.3), nnkit.Dense(hidden[0], d_out)]
    net = nnkit.Network(layers, None if isinstance(layers[0], nnkit.Dense) else activation, seed=seed, dtype=dtype)
    X, y = rng.standard_normal((n, d_in)).astype(dtype), rng.integers(0, d_out, n)
    batch, optimizer = int(rng.integers(1, 60)), OPTIMIZERS[rng.integers(len(OPTIMIZERS))]
    options: dict[str, Any] = {"batch_size": batch, "optimizer": optimizer, "progress": False}
    try:
        history = net.fit(X, y, epochs=3, validation_data=(X, y), **options)
    except nnkit.DivergenceError as error:
        history = error.history or nnkit.History()
    net.train_step(X[:5], y[:5])
    found = [net.parameters.flat, net.predict_proba(X), net.logits(X[:3]), net.logits(X[:3]), nnkit.sigmoid(X)]
    return b"".join(np.ascontiguousarray(a).tobytes() for a in [*found, np.array(history.get("validation_cost", []))])


def together(seeds: list[int], shared: Callable[[], bytes], threads: int) -> None:
    """Compare trainings in threads that also use one network together with what each gives alone.

    All with one BLAS thread: while a training has that, so has `train_step` beside it, which rounds otherwise with
    several.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("scipy.linalg.blas")  # whose BLAS would have several
    with threadpool_limits(1, "blas"):
        compare(seeds, shared, threads)


def compare(seeds: list[int], shared: Callable[[], bytes], threads: int) -> None:
    alone, answer = {seed: trained(seed) for seed in seeds}, shared()
    assert shared() == answer
    wrong, waiting = list[Any](), threading.Barrier(threads)

    def work(own: list[int]) -> None:
        try:
            waiting.wait()
            for seed in own:
                wrong.extend([seed] if trained(seed) != alone[seed] else [])
                wrong.extend(["shared"] if any(shared() != answer for _ in range(5)) else [])
        except Exception as error:
            wrong.append(error)

    made = [threading.Thread(target=work, args=(seeds[i:] + seeds[:i],)) for i in range(threads)]
    with switching_often():
        for thread in made:
            thread.start()
        for thread in made:
            thread.join()
    assert wrong == []


def shared(seed: int) -> Callable[[], bytes]:
    """Predictions of few and many samples by one network."""
    rng = np.random.default_rng(seed)
    net, X = nnkit.Network([20, 64, 3], "relu", seed=seed), rng.standard_normal((700, 20)).astype(np.float32)
    return lambda: b"".join(net.predict_proba(X[:n]).tobytes() for n in (1, 7, 700, 1, 256, 300))


def test_threads_get_the_bits_of_each_alone() -> None:
    together([1, 2], shared(0), threads=3)


@pytest.mark.campaign
def test_threads_for_five_minutes() -> None:
    start, seed = time.monotonic(), 0
    while time.monotonic() - start < 300:
        together(list(range(seed, seed + 10)), shared(seed), threads=8)
        seed += 10
