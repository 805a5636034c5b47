"""Layers, costs, steps, epochs, predictions, requests from clients of a server, and files."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import Backend
from nnkit.kernels.cost import output_pair
from nnkit.step import step_for

LAYERS = [(10, 784, 30), (128, 784, 100), (256, 784, 256), (1024, 1024, 1024)]
STEPS = [([784, 30, 10], 10), ([784, 100, 10], 32), ([784, 100, 10], 128), ([784, 256, 128, 10], 256)]
Measure = Callable[..., None]
Random = Callable[..., Any]


@pytest.mark.parametrize(("n", "d_in", "d_out"), LAYERS)
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_dense_forward(measure: Measure, random: Random, activation: str, n: int, d_in: int, d_out: int) -> None:
    x, W, b = random((n, d_in)), random((d_out, d_in)), random((d_out,))
    measure(f"dense_forward {n}×{d_in}→{d_out}", lambda: nnkit.dense_forward(x, W, b, activation=activation))


@pytest.mark.parametrize(("n", "d_in", "d_out"), LAYERS)
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_dense_backward(measure: Measure, random: Random, activation: str, n: int, d_in: int, d_out: int) -> None:
    x, W, h, delta = random((n, d_in)), random((d_out, d_in)), random((n, d_out)), random((n, d_out))
    measure(f"dense_backward {n}×{d_in}→{d_out}", lambda: nnkit.dense_backward(delta, x, W, h, activation=activation))


@pytest.mark.parametrize("n", [10, 128, 4096])
@pytest.mark.parametrize("cost", nnkit.cost_names())
@pytest.mark.parametrize("what", ["terms", "delta"])
def test_cost(measure: Measure, random: Random, backend: Backend, what: str, cost: str, n: int) -> None:
    pair, z, scale = output_pair(nnkit.get_cost(cost)), random((n, 10)), backend.asarray(1 / n, "float32")
    y = backend.asarray(np.eye(10)[np.arange(n) % 10], "float32")
    measure(f"{cost} {what} of {n}×10", lambda: getattr(pair, what)(backend, z, y, scale))


@pytest.mark.parametrize(("sizes", "n"), STEPS, ids=[f"{'-'.join(map(str, s))}-batch-{n}" for s, n in STEPS])
@pytest.mark.parametrize("optimizer", [nnkit.SGD(1e-3), nnkit.Adam(1e-6)], ids=["SGD", "Adam"])
def test_step(measure: Measure, random: Random, sizes: list[int], n: int, optimizer: nnkit.SGD | nnkit.Adam) -> None:
    net = nnkit.Network(sizes, cost="cross_entropy", seed=0)
    x, y = abs(random((n, sizes[0]))), np.arange(n) % 10
    step = step_for(net, n, net.optimizer_state(optimizer))
    net.train_step(x, y)
    measure(f"step {'-'.join(map(str, sizes))} batch {n}", step.run)


@pytest.mark.parametrize("batch_size", [10, 32, 128])
def test_epoch_of_digits(measure: Measure, batch_size: int) -> None:
    X, y = nnkit.data.digits()
    net = nnkit.Network([64, 30, 10], cost="cross_entropy", seed=0)
    X, y = net.backend.asarray(X), y
    measure(
        f"epoch of digits, batch {batch_size}", lambda: net.fit(X, y, epochs=1, batch_size=batch_size, progress=False)
    )


def test_epoch_of_mnist(measure: Measure) -> None:
    try:
        images = nnkit.data.mnist()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    net = nnkit.Network([784, 30, 10], cost="cross_entropy", seed=0)
    X, y = net.backend.asarray(images.X_train / np.float32(255), "float32"), images.y_train
    measure("epoch of MNIST, batch 10", lambda: net.fit(X, y, epochs=1, batch_size=10, progress=False))


@pytest.mark.parametrize("n", [1, 32, 4096])
def test_predict(measure: Measure, random: Random, n: int) -> None:
    net, x = nnkit.Network([784, 100, 10], cost="cross_entropy", seed=0), random((n, 784))
    measure(f"predict {n}", net.predict, x)


@pytest.mark.parametrize("what", ["predict", "predict_proba"])
def test_requests(measure: Measure, what: str) -> None:
    net, x = nnkit.Network([784, 100, 10], seed=0), np.random.default_rng(0).random((1, 784), np.float32)
    ask = getattr(net, what)
    measure(f"400 requests to {what}", lambda: [ask(x) for _ in range(400)])


def test_requests_of_8_threads(measure: Measure) -> None:
    net, x = nnkit.Network([784, 100, 10], seed=0), np.random.default_rng(0).random((1, 784), np.float32)
    with ThreadPoolExecutor(8) as clients:
        measure("400 requests to predict", lambda: list(clients.map(lambda _: net.predict(x), range(400))))


def test_save(measure: Measure, tmp_path: Path) -> None:
    measure("files", nnkit.Network([784, 100, 10], seed=0).save, tmp_path / "net.safetensors")


def test_load(measure: Measure, tmp_path: Path) -> None:
    nnkit.Network([784, 100, 10], seed=0).save(tmp_path / "net.safetensors")
    measure("files", nnkit.load, tmp_path / "net.safetensors")


@pytest.mark.parametrize("module", ["numpy", "nnkit"])
def test_import(benchmark: Any, module: str) -> None:
    benchmark.group = "a new process that imports"
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", f"import {module}"],), {"check": True}, rounds=10)
