"""nnkit train: a network on the handwritten digits that come with the package, its model and its learning curve."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from nnkit import data
from nnkit.backends import get_backend
from nnkit.history import History
from nnkit.network import Network
from nnkit.optimizers import SGD
from nnkit.pictures import picture_path
from nnkit.plots import learning_curve
from nnkit.training import fit

_LINES = 10  # of progress, where there is no terminal for a bar


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of nnkit train."""
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training images (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the start and the batches (default: 0)")
    model, picture = Path("nnkit-model.safetensors"), Path("nnkit-curve.png")
    parser.add_argument("--model", type=Path, default=model, help="where to write the network (default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=picture, help="the learning curve (default: %(default)s)")
    parser.add_argument("--no-model", action="store_true", help="write no model")
    parser.add_argument("--no-picture", action="store_true", help="draw no picture")


def run_train(options: argparse.Namespace) -> int:
    """Train 64-100-10 with ReLU and softmax cross-entropy, test it, write what was asked for."""
    model = None if options.no_model else _writable(options.model, "--model", "safetensors")
    picture = None if options.no_picture else _writable(options.picture, "--picture", "matplotlib")
    backend = get_backend(options.backend)
    network = Network([64, 100, 10], "relu", "softmax_cross_entropy", seed=options.seed, backend=backend)
    X, y, X_test, y_test = data.split(*data.digits(), seed=options.seed)
    print(f"digits: {len(X)} images to train on, {len(X_test)} to test")
    print(network)
    history = fit(
        network,
        X,
        y,
        epochs=options.epochs,
        batch_size=32,
        optimizer=SGD(0.1, momentum=0.9),
        validation_data=(X_test, y_test),
        callbacks=[] if sys.stderr.isatty() else [_Lines(options.epochs)],
    )
    accuracy = network.evaluate(X_test, y_test)["accuracy"]
    print(f"seed {network.seed}, backend {backend.name}: test accuracy {accuracy:.4f}", end="")
    print(f" after {history.epochs} epochs in {sum(history.get('seconds', [])):.1f} s")
    if model is not None:
        network.save(model)
        print(f"model written to {model}")
    if picture is not None and history.epochs:
        learning_curve(history, picture, title=f"Digits, 64-100-10, seed {network.seed}")
        print(f"learning curve written to {picture}")
    return 130 if history.interrupted else 0


class _Lines:
    """A callback that prints a line now and then, where there is no terminal for a bar."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.every = max(1, epochs // _LINES)

    def __call__(self, network: Network, history: History) -> None:
        if history.epochs % self.every == 0 or history.epochs == self.epochs:
            last = history.last
            measured = f"cost {last['cost']:.4f}   accuracy {last['accuracy']:.4f}"
            tested = f"test accuracy {last['validation_accuracy']:.4f}"
            print(f"epoch {history.epochs:>3} of {self.epochs}   {measured}   {tested}", flush=True)


def _writable(path: Path, option: str, package: str) -> Path:
    """The path, if a file can be written there with this package: told before the training, not after it."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{option} needs {package}: python -m pip install {package}   (or give --no-{option[2:]})")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{option}: the folder {path.parent} cannot be written to")
    return picture_path(path) if option == "--picture" else path
