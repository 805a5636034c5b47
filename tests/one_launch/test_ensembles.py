"""An ensemble in one launch: each member has the bits that it has alone; on a GPU, and played by the host."""

import ctypes
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.ensembles.clusters import Clusters
from nnkit.ensembles.passes import Part
from nnkit.one_launch.layout import layout, recipe_of
from nnkit.optimizers import OptimizerState
from tests.conftest import gpu_backend
from tests.support.epoch_cases import ByRows, kept
from tests.support.host_cluster import compiled, host_text, run

OPTIMIZERS = pytest.mark.parametrize("optimizer", [nnkit.SGD(0.5), nnkit.Adam(0.01, l2=1e-3)], ids=["sgd", "adam"])
ORDERS = pytest.mark.parametrize("order", ["shared", "own", "none"])
SEEDS = [4, 2, 9]
RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(205, 8)).astype(np.float32), RNG.integers(3, size=205)


@cache
def library(text: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(compiled(text, Path(folder))))


class HostKernel:
    """`EpochKernel`, whose text the host plays: one cluster of two blocks after the other."""

    def __init__(self, model: nnkit.Network, state: OptimizerState, batch_size: int) -> None:
        recipe = recipe_of(model, state)
        assert recipe is not None
        self.vectors, self._layout = recipe.vectors, layout(recipe, batch_size, 2)
        self._numbers = kept(model, state, recipe)[1 + len(recipe.vectors) :][: len(recipe.numbers)]
        self._compiled = library(host_text(recipe, self._layout, model.parameters.starts, 1))

    def works(self, X: Any) -> bool:
        return True

    def run(self, X: Any, y: Any, order: Any, rates: Any, logits: Any, members: list[Any]) -> None:
        vectors = 1 + len(self.vectors)
        state = [*members[:vectors], *self._numbers, *members[vectors:]]
        run(self._compiled, self._layout, 3, y.shape[1], [X, y, order, rates, *state, logits], len(y))


def ensemble_of(seeds: list[int], order: str, optimizer: Any, backend: Any, **options: Any) -> tuple[Any, Any]:
    made = nnkit.Ensemble([8, 7, 3], seeds=seeds, order="own" if order == "none" else order, backend=backend)
    given: dict[str, Any] = {"epochs": 3, "batch_size": 10, "progress": False, "schedule": "cosine"} | options
    return made, made.fit(X, LABELS, optimizer=optimizer, shuffle=order != "none", **given)


@ORDERS
@OPTIMIZERS
def test_the_host_plays_the_clusters_of_all_members(
    order: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, expected = ensemble_of(SEEDS, order, optimizer, "numpy")
    monkeypatch.setattr("nnkit.ensembles.clusters.epoch_kernel_for", HostKernel)
    monkeypatch.setattr("nnkit.training.meter._KEPT", 3 * 3 * 50)  # several launches an epoch
    together, history = ensemble_of(SEEDS, order, optimizer, ByRows())
    for k, member in enumerate(together.members):
        np.testing.assert_allclose(member.parameters.vector, steps.members[k].parameters.vector, rtol=0, atol=2e-5)
        np.testing.assert_allclose(history.members[k]["cost"], expected.members[k]["cost"], rtol=1e-4)
        assert history.members[k]["accuracy"] == pytest.approx(expected.members[k]["accuracy"], abs=0.02)
        if order != "shared":
            alone, _ = ensemble_of([SEEDS[k]], order, optimizer, ByRows())
            assert alone.members[0].parameters.flat.tobytes() == member.parameters.flat.tobytes()


@pytest.mark.gpu
@ORDERS
@OPTIMIZERS
def test_members_have_the_bits_that_each_has_alone(order: str, optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, ways, made = gpu_backend(), [], Part.__init__

    def noted(self: Part, *arguments: Any) -> None:
        made(self, *arguments)
        ways.append(self.way)

    monkeypatch.setattr(Part, "__init__", noted)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 10, "progress": False, "schedule": "cosine"}
    ensemble, history = ensemble_of(SEEDS, order, optimizer, gpu.name)
    assert [type(way) for way in ways] == [Clusters]
    for k, seed in enumerate(SEEDS):
        net = nnkit.Network([8, 7, 3], seed=seed, backend=gpu.name)
        net.seed = 4 if order == "shared" else seed
        alone = net.fit(X, LABELS, optimizer=optimizer, shuffle=order != "none", **options)
        found, expected = (gpu.to_numpy(each.parameters.flat) for each in (ensemble.members[k], net))
        assert found.tobytes() == expected.tobytes()
        np.testing.assert_allclose(history.members[k]["cost"], alone["cost"], rtol=1e-5)
        assert history.members[k]["accuracy"] == pytest.approx(alone["accuracy"])


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{"sample_weight": np.ones(205)}, {"optimizer": [nnkit.SGD(0.1), nnkit.SGD(0.2)]}])
def test_what_the_kernel_does_not_support_is_trained_step_by_step(options: dict[str, Any]) -> None:
    gpu = gpu_backend()
    nets = []
    for backend in (gpu.name, "numpy"):
        ensemble = nnkit.Ensemble([8, 7, 3], seeds=[4, 2], order="own", backend=backend)
        ensemble.fit(X, LABELS, epochs=2, batch_size=10, progress=False, **options)
        nets.append([member.backend.to_numpy(member.parameters.vector) for member in ensemble.members])
    np.testing.assert_allclose(nets[0], nets[1], rtol=0, atol=1e-5)
