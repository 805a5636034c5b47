"""All CUDA text that nnkit writes compiles for all architectures; the suite itself compiles each on a part of them."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda.cluster import _PROBE
from nnkit.backends.cuda.formula_text import PRELUDE
from nnkit.backends.cuda.reductions import reduction_source
from nnkit.backends.cuda.rows import ADVANCE, RowSignature, conversion, rows_source
from nnkit.backends.dtypes import FLOATS, numpy_dtype
from nnkit.kernels.activations import activation_names
from nnkit.kernels.costs import cost_names
from nnkit.optimizers import optimizer_names
from nnkit.step import step_for
from nnkit.training.meter import Meter
from nnkit.training.on_device import Replays
from nnkit.training.sources import ArraySource, BytesSource, Known
from tests.backends.cuda.test_cuda_reduction import KERNELS
from tests.backends.cuda.test_cuda_rows import CASTS, KEPT
from tests.one_launch.test_cuda import ALL, text_of
from tests.support import ROOT
from tests.support.host_device import Written
from tests.support.kernels import FORMULAS, variants
from tests.support.nvrtc import ARCHITECTURES, compile_cuda

# The files with text of kernels, and the function of this one that goes through what each writes.
GENERATORS = {
    "backends/cuda/cluster.py": "one_launch",
    "backends/cuda/formula_text.py": "formulas, and steps", "backends/cuda/reductions.py": "reductions, and steps",
    "backends/cuda/rows.py": "rows, and steps", "nnkit/one_launch/text.py": "one_launch",
}  # fmt: skip


def formulas(dtype: str) -> Iterator[str]:
    """Many kernels in a text, which takes a quarter of the time."""
    every = [each.text for key in FORMULAS for each in variants(key, dtype)]
    return (PRELUDE + "".join(every[i : i + 50]) for i in range(0, len(every), 50))


def reductions() -> Iterator[str]:
    return (reduction_source(*each) for each in KERNELS)


def rows() -> Iterator[str]:
    yield ADVANCE
    for source, target in CASTS + KEPT:
        types = conversion(numpy_dtype(source), numpy_dtype(target))
        assert types is not None
        widest = 16 // max(numpy_dtype(source).itemsize, numpy_dtype(target).itemsize)
        for order, lanes, puts in itertools.product(("long long", "int"), (1, widest), (False, True)):
            for index in ("unsigned int", "long long"):
                yield rows_source(RowSignature(*types, order, lanes, puts, index))


def one_launch(blocks: int) -> Iterator[str]:
    return (text_of(replace(case, blocks=blocks), lanes) for case in ALL for lanes in (1, 4))


def steps(device: Written) -> Iterator[str]:
    """What recorded steps and minibatches of `fit` launch, after all passes, of networks that differ in one thing."""
    plain: dict[str, Any] = {
        "activation": "sigmoid", "cost": "cross_entropy", "dtype": "float32", "precision": "highest",
        "optimizer": "sgd", "dropout": False, "bytes": False, "sizes": (12, 20, 16, 4),
    }  # fmt: skip
    options: dict[str, list[Any]] = {
        "activation": activation_names(), "cost": cost_names(), "optimizer": [
            *optimizer_names(), nnkit.SGD(0.1, momentum=0.9, l2=1e-3, clip_norm=1.0),
            nnkit.SGD(0.1, momentum=0.9, nesterov=True, l1=1e-3, clip_value=0.1), nnkit.AdamW(clip_norm=1.0),
        ],
        "dropout": [True], "bytes": [True], "sizes": [(13, 21, 3), (784, 30, 10), (8, 3), (300, 1000, 1)],
    }  # fmt: skip
    for dtype, precision in (("float32", "highest"), ("float32", "medium"), ("float64", "highest")):
        for name, values in options.items():
            for value in values:
                _record(device, plain | {"dtype": dtype, "precision": precision, name: value})
    return iter(device.texts)


def _record(device: Written, options: dict[str, Any]) -> None:
    sizes, batch = options["sizes"], 6
    layers: list[Any] = [nnkit.Dense(a, b, options["activation"]) for a, b in itertools.pairwise(sizes[:-1])]
    layers += [nnkit.Dropout(0.3)] * options["dropout"] + [nnkit.Dense(*sizes[-2:])]
    cost = options["cost"] if sizes[-1] > 1 or "softmax" not in options["cost"] else "cross_entropy"
    net = nnkit.Network(layers, cost=cost, seed=4, dtype=options["dtype"], backend=device)
    X, y = np.zeros((20, sizes[0]), np.uint8 if options["bytes"] else options["dtype"]), np.zeros((20, sizes[-1]))
    given = device.place(X), device.zeros(y.shape, options["dtype"])
    nnkit.set_matmul_precision(options["precision"])
    state = net.optimizer_state(options["optimizer"])
    source = (BytesSource if options["bytes"] else ArraySource)(net, given[0], Known(given[1]))
    meter = Meter(net, 20, batch)
    meter.start(source.start(np.arange(20)))
    for changes in (False, True):
        replays = Replays(net, source, meter, state, batch)
        replays._give([0.1, 0.2] if changes else [0.1])
        replays._record(batch, changes)
    step_for(net, batch, state, drops=True)


def test_every_file_with_kernels_is_covered() -> None:
    files = [
        *(ROOT / "backends").rglob("*.py"),
        *(ROOT / "nnkit").glob("[!b]*/**/*.py"),
        *(ROOT / "nnkit").glob("*.py"),
    ]
    found = {str(file.relative_to(ROOT)) for file in files if "__global__" in file.read_text(encoding="utf-8")}
    assert found == set(GENERATORS)


@pytest.mark.campaign
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("what", [*FLOATS, "reductions", "rows", "steps", "one_launch"])
def test_all_text_compiles(monkeypatch: pytest.MonkeyPatch, what: str, arch: int) -> None:
    if what in FLOATS:
        texts = formulas(what)
    elif what == "steps":
        device = Written(pytest.importorskip("cupy", reason="CuPy is not installed"))
        monkeypatch.setitem(selection._made, "cupy", device)
        try:
            texts = steps(device)
        finally:
            nnkit.set_matmul_precision("highest")
    elif what == "one_launch":
        texts = itertools.chain([_PROBE], *(one_launch(blocks) for blocks in ((1, 2, 4, 8) if arch >= 90 else (1,))))
    else:
        texts = {"reductions": reductions, "rows": rows}[what]()
    for text in dict.fromkeys(texts):
        assert compile_cuda(text, arch).startswith(b"\x7fELF")
