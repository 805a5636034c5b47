"""A recorded step as a table: what it does, how many bytes that moves, and that asking changes nothing."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.parameters import Parameters
from nnkit.step import step_for
from nnkit.training.meter import Meter
from nnkit.training.on_device import Replays
from nnkit.training.sources import ArraySource, Known
from tests.support.host_device import HostDevice

WIDTHS = (784, 256, 128, 10)
BATCH = 64
FLOAT = 4


def test_bytes_of_products_and_the_update_follow_from_shapes() -> None:
    made = nnkit.Network(list(WIDTHS), "relu", seed=0).explain_step(BATCH, "adam")
    moved = [(node.bytes_read, node.bytes_written) for node in made.nodes if node.name == "matmul"]
    layers = list(pairwise(WIDTHS))
    forward = [(BATCH * d_in + d_out * d_in, BATCH * d_out) for d_in, d_out in layers]
    backward = []
    for d_in, d_out in reversed(layers):
        backward += [(BATCH * (d_out + d_in), d_out * d_in), (BATCH * d_out + d_out * d_in, BATCH * d_in)]
    expected = forward + backward[:-1]  # nothing needs δx of the samples
    assert sorted(moved) == sorted((FLOAT * read, FLOAT * written) for read, written in expected)
    last = made.nodes[-1]
    count = sum(d_out * (d_in + 1) for d_in, d_out in layers)
    assert last.name == "adam"
    assert 0 <= last.bytes_written - 3 * FLOAT * count < 6 * 3 * 64  # each array starts at a multiple of 64 bytes
    assert made.bytes_read == sum(node.bytes_read for node in made.nodes)
    assert made.bytes_written == sum(node.bytes_written for node in made.nodes)


@pytest.mark.parametrize("backend", ["numpy", "standard"])
def test_explaining_a_step_does_not_run_it(backend: str) -> None:
    """Neither the parameters nor the optimizer, its state or the recorded steps change, nor what a training gives."""
    if backend == "standard":
        pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    X, y = np.random.default_rng(0).random((40, 6)), np.arange(40) % 3
    found = []
    for asks in (False, True):
        layers = [nnkit.Dense(6, 8, "tanh"), nnkit.Dropout(0.5), nnkit.Dense(8, 3)]
        net = nnkit.Network(layers, seed=1, backend=backend)
        for step in range(6):
            if asks:
                before = (net.optimizer, net.state, list(net.recorded))
                made = net.explain_step(8, [None, "adam", nnkit.SGD(0.3)][step % 3])
                assert (net.optimizer, net.state, list(net.recorded)) == before
                assert made.nodes[0].read is not None
            net.train_step(X[:20], y[:20], nnkit.SGD(0.1, momentum=0.9) if step == 0 else None)
        found.append(net.backend.to_numpy(net.parameters.flat).tobytes())
    assert found[0] == found[1]


class _Slow(nnkit.optimizers.OptimizerState):
    def update(self, parameters: Parameters, gradients: Parameters) -> None:
        raise AssertionError


class _OwnUpdate(nnkit.SGD):
    def start(self, parameters: Parameters) -> nnkit.optimizers.OptimizerState:
        return _Slow(self, parameters)


def test_unknown_arrays_are_shown_as_unknown() -> None:
    made = nnkit.Network([3, 2], seed=0).explain_step(4, _OwnUpdate(0.1))
    last = made.nodes[-1]
    name = f"{type(_OwnUpdate(0.1).start(nnkit.Network([3, 2], seed=0).parameters)).__name__}.update"
    assert (last.name, last.read, last.written, last.bytes_read, last.bytes_written) == (name, None, None, 0, 0)
    number, *cells = repr(made).splitlines()[-2].split()
    assert (int(number), cells) == (len(made.nodes), [name] + ["?"] * 4)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "8", None])
def test_wrong_numbers_of_samples(batch_size: Any) -> None:
    with pytest.raises(ValueError, match=r"^explain_step: batch_size is .*; expected a whole number of at least 1$"):
        nnkit.Network([3, 2], seed=0).explain_step(batch_size)


def test_wrong_optimizers() -> None:
    with pytest.raises(ValueError, match="adamm"):
        nnkit.Network([3, 2], seed=0).explain_step(8, "adamm")
    with pytest.raises(TypeError, match="optimizer is 3"):
        nnkit.Network([3, 2], seed=0).explain_step(8, 3)  # type: ignore[arg-type]


# Without a GPU: which nodes a CUDA graph would hold.


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch, host: HostDevice) -> Any:
    monkeypatch.setitem(selection._made, "cupy", host)
    yield lambda: nnkit.Network(list(WIDTHS), "relu", seed=1, backend=host)
    nnkit.set_matmul_precision("highest")


def in_fit(net: nnkit.Network, optimizer: nnkit.optimizers.Optimizer) -> int:
    """How many nodes a minibatch of `fit` has: besides the step it gathers samples, and keeps the logits."""
    n, host = 2 * BATCH, net.backend
    X, Y = host.zeros((n, WIDTHS[0]), "float32"), host.zeros((n, WIDTHS[-1]), "float32")
    source, meter = ArraySource(net, X, Known(Y)), Meter(net, n, BATCH)
    meter.start(source.start(np.arange(n)))
    return len(Replays(net, source, meter, net.optimizer_state(optimizer), BATCH)._record(BATCH, False).nodes)


@pytest.mark.parametrize(
    ("optimizer", "precision", "nodes", "inside_fit", "megabytes"),
    [
        (nnkit.Adam(), "highest", 17, 18, 10.14),
        (nnkit.Adam(), "medium", 21, 18, 10.89),
        (nnkit.Adam(clip_norm=1.0), "highest", 21, 22, 12.96),
        (nnkit.SGD(), "highest", 16, 17, 4.49),
        (nnkit.SGD(), "medium", 20, 20, 5.25),
    ],
)
def test_nodes_on_a_gpu(
    on_gpu: Any, optimizer: Any, precision: str, nodes: int, inside_fit: int, megabytes: float
) -> None:
    """784-256-128-10 with softmax. More would be slower, fewer should be written here."""
    nnkit.set_matmul_precision(precision)
    made = on_gpu().explain_step(BATCH, optimizer)
    assert len(made.nodes) == nodes
    assert round((made.bytes_read + made.bytes_written) / 1e6, 2) == megabytes
    net = on_gpu()
    assert len(step_for(net, BATCH, net.optimizer_state(optimizer), drops=True).nodes) == nodes
    assert in_fit(net, optimizer) == inside_fit


def test_the_table_of_a_gpu_names_fused_kernels(on_gpu: Any) -> None:
    nnkit.set_matmul_precision("medium")
    lines = repr(on_gpu().explain_step(BATCH, "adam")).splitlines()
    assert "on cupy" in lines[0]
    assert lines[0].endswith("a step on 64 samples with Adam(learning_rate=0.001)")
    assert " ".join(lines[5].split()) == "4 biased_relu_rounded (64, 256), (256,) (64, 256) 66,560 32,768"
    assert len({len(line) for line in lines[1:]}) == 1
