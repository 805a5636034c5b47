"""The size of a cluster that a GPU can give is asked of the driver, before a layout is chosen."""

import ctypes
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nnkit
from nnkit.backends import BackendFallbackWarning
from nnkit.backends.cuda import cluster
from nnkit.backends.cuda.cluster import BlockLimits, LaunchConfig, limits_of, potential_cluster
from nnkit.one_launch import epoch_kernel_for, kernel
from tests.support.host_cuda import build

SHARED = 227 * 1024
DRIVER = """
struct Config { unsigned grid[3], block[3], shared; void *stream, *attributes; unsigned count; };
static Config seen;
static void *asked;
extern "C" int cuOccupancyMaxPotentialClusterSize(int *size, void *function, const Config *config) {
    seen = *config; asked = function; *size = SIZE; return STATUS;
}
extern "C" unsigned seen_number(int i) {
    const unsigned all[] = {seen.grid[0], seen.grid[1], seen.grid[2], seen.block[0], seen.block[1], seen.block[2],
                            seen.shared, (unsigned)(size_t)seen.stream, seen.count, (unsigned)(size_t)asked};
    return all[i];
}
"""


def driver(folder: Path, size: int, status: int = 0) -> ctypes.CDLL:
    """A library with the driver's function, which keeps what it was asked."""
    return build(DRIVER.replace("SIZE", str(size)).replace("STATUS", str(status)), folder)


def test_the_driver_is_asked_as_its_header_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = driver(tmp_path, 4)
    monkeypatch.setattr(cluster, "_driver", lambda: library)
    assert potential_cluster(77, 256, SHARED) == 4
    assert [library.seen_number(i) for i in range(10)] == [8, 1, 1, 256, 1, 1, SHARED, 0, 0, 77]


def test_the_structure_is_that_of_cuda_bindings() -> None:
    bindings = pytest.importorskip(
        "cuda.bindings.driver", reason="cuda-bindings is not installed", exc_type=ImportError
    )
    theirs = bindings.CUlaunchConfig()
    ours = LaunchConfig(*range(1, 8))
    for number, field in enumerate(LaunchConfig._fields_[:7], 1):
        setattr(theirs, field[0], number)
    assert ctypes.string_at(theirs.getPtr(), 28) == bytes(ours)[:28]
    assert [getattr(LaunchConfig, name).offset for name in ("hStream", "attrs", "numAttrs")] == [32, 40, 48]


@pytest.mark.parametrize(("capability", "size", "status", "found"), [
    ("90", 16, 0, (8, "")),
    ("90", 4, 0, (4, "the largest cluster that the GPU runs has size 4")),
    ("120", 8, 801, (1, "cuOccupancyMaxPotentialClusterSize failed with status 801")),
    ("80", 8, 801, (1, "")),  # not asked
])  # fmt: skip
def test_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str, size: int, status: int, found: tuple[int, str]
) -> None:
    library, probe = driver(tmp_path, size, status), SimpleNamespace(kernel=SimpleNamespace(ptr=5))
    monkeypatch.setattr(cluster, "_driver", lambda: library)
    monkeypatch.setattr(cluster, "_kernel", lambda *_: probe)
    monkeypatch.setattr(cluster, "_limits", cluster._limits.__wrapped__)
    limits = limits_of(SimpleNamespace(device=Device(capability)))
    assert (limits.shared_bytes, limits.cluster) == (SHARED, found[0])
    assert limits.reason.endswith(found[1])
    assert bool(limits.reason) == bool(found[1])


class Device:
    id = 0

    def __init__(self, capability: str) -> None:
        self.compute_capability, self.attributes = capability, {"MaxSharedMemoryPerBlockOptin": SHARED}

    def __enter__(self) -> None:
        """Become current."""

    def __exit__(self, *error: object) -> None:
        """No longer be."""


def test_a_driver_without_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_kernel", lambda *_: SimpleNamespace(kernel=SimpleNamespace(ptr=5)))
    monkeypatch.setattr(cluster, "_driver", lambda: ctypes.CDLL(None))
    limits = cluster._limits.__wrapped__(0, SHARED)
    assert limits.cluster == 1
    assert "the driver does not say" in limits.reason


def test_a_network_that_needs_larger_clusters_goes_step_by_step(monkeypatch: pytest.MonkeyPatch, host: Any) -> None:
    net = nnkit.Network([784, 60, 10], cost="cross_entropy", seed=0, backend=host)
    state = net.optimizer_state(nnkit.SGD(0.1))
    given = BlockLimits(60 * 1024, 1, "the largest cluster that the GPU runs has size 1")
    monkeypatch.setattr(kernel, "limits_of", lambda _: given)
    with pytest.warns(BackendFallbackWarning, match="step by step: the largest cluster .* has size 1; [248] is needed"):
        assert epoch_kernel_for(net, state, 10) is None
    big = nnkit.Network([784, 900, 10], seed=0, backend=host)
    with warnings.catch_warnings():  # it would not fit into larger ones either
        warnings.simplefilter("error")
        assert epoch_kernel_for(big, big.optimizer_state(), 10) is None
        monkeypatch.setattr(kernel, "limits_of", lambda _: BlockLimits(60 * 1024, 1))  # of a GPU without clusters
        assert epoch_kernel_for(net, state, 10) is None
