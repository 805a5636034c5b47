"""The flat vector of parameters: its views, and an arrangement that no file and no other backend sees."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import get_backend
from nnkit.parameters import Parameters

RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(40, 70)), RNG.integers(0, 3, 40)
# On NumPy the first W of some networks lies column by column, of others row by row.
WIDTHS = {"by columns": [70, 50, 3], "by rows": [70, 20, 3]}


def network(widths: list[int], backend: str = "numpy", seed: int | None = 1) -> nnkit.Network:
    return nnkit.Network(widths, cost="softmax_cross_entropy", seed=seed, backend=backend)


def fit(net: nnkit.Network, **options: Any) -> nnkit.History:
    options = {"epochs": 2, "batch_size": 16, "progress": False} | options
    return net.fit(X, LABELS, **options)


def arrays_of(net: nnkit.Network) -> list[np.ndarray]:
    """All that training changed, each matrix row by row."""
    assert net.state is not None
    vectors = [net.parameters, *net.state.vectors.values()]
    return [np.array(net.backend.to_numpy(a), order="C") for v in vectors for a in (*v.W, *v.b)]


def assert_same(a: nnkit.Network, b: nnkit.Network) -> None:
    for p, q in zip(arrays_of(a), arrays_of(b), strict=True):
        np.testing.assert_array_equal(p, q)


def test_the_first_weights_have_the_layout_that_numpy_prefers() -> None:
    by_columns = network(WIDTHS["by columns"]).parameters
    assert by_columns.W[0].shape == (50, 70)
    assert by_columns.W[0].flags.f_contiguous
    assert by_columns.W[1].flags.c_contiguous
    assert network(WIDTHS["by rows"]).parameters.W[0].flags.c_contiguous
    assert all(np.shares_memory(W, by_columns.flat) for W in by_columns.W)


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_a_saved_vector_is_in_row_order_and_is_restored(widths: list[int]) -> None:
    parameters = network(widths).parameters
    saved = parameters.saved(parameters.flat)
    size = widths[0] * widths[1]
    np.testing.assert_array_equal(saved[:size].reshape(widths[1], widths[0]), parameters.W[0])
    np.testing.assert_array_equal(parameters.restored(saved), parameters.flat)
    shapes = parameters.shapes
    other = Parameters(get_backend("standard:array_api_strict"), shapes, "float32")
    np.testing.assert_array_equal(np.from_dlpack(other.restored(saved)), saved)
    with pytest.raises(ValueError, match="shape"):
        parameters.restored(saved[:-1])


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_a_state_survives_moves_and_copies(widths: list[int]) -> None:
    net = network(widths)
    fit(net, optimizer=nnkit.Adam(0.01))
    for other in (copy.deepcopy(net), copy.deepcopy(net).to("standard:array_api_strict").to("numpy")):
        assert_same(other, net)
        fit(other, epochs=1)
    moved = copy.deepcopy(net).to("standard:array_api_strict")
    assert_same(moved, net)
    for each in (moved, net):
        fit(each, epochs=1)
    for p, q in zip(arrays_of(moved), arrays_of(net), strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["numpy", "standard:array_api_strict"])
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_a_checkpoint_is_resumed_on_any_backend(widths: list[int], backend: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.safetensors", "optimizer": nnkit.SGD(0.1, momentum=0.9)}
    options |= {"early_stopping": nnkit.EarlyStopping("cost", patience=3)}
    net = network(widths)
    fit(net, **options)
    resumed = network(widths, backend, seed=None)  # drawn: other parameters
    history = fit(resumed, resume=True, **options)
    assert history.epochs == 2
    assert_same(resumed, net)  # the best parameters are put back, too


def test_refused_arrays_change_nothing() -> None:
    """Also where only the last one does not fit."""
    net = network(WIDTHS["by rows"])
    before = net.parameters.vector
    layers = [[np.ones_like(W), np.ones_like(b)] for W, b in zip(net.parameters.W, net.parameters.b, strict=True)]
    layers[-1][1] = np.ones(4)
    with pytest.raises(ValueError, match=r"b of layer 1 has shape \(4,\); expected \(3,\)"):
        net.parameters.assign(layers)
    np.testing.assert_array_equal(net.parameters.vector, before)
