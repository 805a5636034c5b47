"""Nielsen's first result of chapter 3 on the real MNIST; deselected with -m "not mnist"."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

import nnkit
from tests.support import ROOT


def find_mnist() -> Path:
    """The folder with the MNIST files; skips the test, with where it looked, if there is none."""
    beside = ROOT.parent / "shared" / "data" / "mnist"
    folders = [beside]
    if os.environ.get("NNKIT_DATA"):
        data = Path(os.environ["NNKIT_DATA"])
        folders = [data, data / "mnist", beside]
    for folder in folders:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder
    pytest.skip(f"MNIST is not in {' or '.join(map(str, folders))}; set NNKIT_DATA to its folder")


@pytest.mark.mnist
def test_nielsens_cross_entropy_run() -> None:
    """784-30-10, cross-entropy, large start, batch 10, η = 0.5, 30 epochs: 95.49 % is published for the best epoch."""
    X_train, y_train, X_test, y_test = nnkit.data.mnist(find_mnist())
    X, Xt = X_train[:50_000].astype(np.float32) / 255, X_test.astype(np.float32) / 255
    net = nnkit.Network([784, 30, 10], cost="cross_entropy", init="nielsen_large", seed=0)
    started = time.perf_counter()
    history = net.fit(
        X,
        y_train[:50_000],
        epochs=30,
        batch_size=10,
        optimizer=nnkit.SGD(0.5),
        validation_data=(Xt, y_test),
        progress=False,
    )
    best = max(history["validation_accuracy"])
    print(f"best test accuracy {best:.4f}, {time.perf_counter() - started:.1f} s")  # pytest -rP shows it
    assert 0.95 <= best < 0.97  # three seeds gave 0.9555 to 0.9561; more would mean that it had seen the test images
    assert history["accuracy"][-1] > 0.96
