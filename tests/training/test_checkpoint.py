"""Checkpoints: bit for bit there and back, and whole or not at all."""

import json
import os
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.files import replacing
from nnkit.kernels.costs import cost_names
from nnkit.tensor_files import FORMATS

if TYPE_CHECKING:
    from tests.conftest import Arrays

safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

X = np.random.default_rng(0).normal(size=(12, 4))


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network([4, 6, 3], "gelu", seed=11, **{"cost": "cross_entropy"} | options)


def parameters(net: nnkit.Network) -> list[np.ndarray]:
    return [np.array(net.backend.to_numpy(a)) for a in [*net.parameters.W, *net.parameters.b]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cost", cost_names())
def test_a_saved_network_is_equal_bit_for_bit(arrays: "Arrays", cost: str, dtype: str, tmp_path: Path) -> None:
    net, path = network(cost=cost, dtype=dtype), tmp_path / "net.safetensors"
    net.fit(X, np.eye(3)[np.arange(12) % 3] + (cost == "gamma"), epochs=3, progress=False)  # its targets are above 0
    net.save(path)
    for target in (None, "numpy", "standard:array_api_strict"):
        read = nnkit.load(path, backend=target)
        assert read.backend is (arrays.backend if target is None else nnkit.get_backend(target))
        assert repr(read.to(arrays.backend)) == repr(net)
        assert (read.seed, read.epochs_trained, read.layers, read.cost) == (11, 3, net.layers, net.cost)
        for a, b in zip(parameters(read), parameters(net), strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
        assert arrays.numpy(read.forward(X)).tobytes() == arrays.numpy(net.forward(X)).tobytes()


def test_special_values_and_names_survive(tmp_path: Path) -> None:
    layers = [nnkit.Dense(2, 3, name) for name in ("relu",)] + [nnkit.Dense(3, 2, "hard_sigmoid")]
    net = nnkit.Network(layers, cost="quadratic", seed=2**40)
    net.parameters.W[0][...] = [[np.nan, np.inf], [-0.0, 1e-45], [3.4e38, -np.inf]]
    net.save(str(tmp_path / "odd name — ü.safetensors"))
    read = nnkit.load(str(tmp_path / "odd name — ü.safetensors"))
    assert parameters(read)[0].tobytes() == parameters(net)[0].tobytes()
    assert [d.activation for d in read.dense] == ["relu", "hard_sigmoid"]
    assert read.seed == 2**40


def test_numpy_integers_as_sizes_can_be_saved(tmp_path: Path) -> None:
    sizes: Any = np.array([4, 6, 3])
    net = nnkit.Network(sizes, seed=0)
    net.save(tmp_path / "net.safetensors")
    assert nnkit.load(tmp_path / "net.safetensors").layers == net.layers


def test_training_continues_where_it_stopped(tmp_path: Path) -> None:
    """Plain gradient descent has no state: a loaded network goes on with the same orders."""
    net, path, y = network(), tmp_path / "net.safetensors", np.arange(12) % 3
    net.fit(X, y, epochs=2, batch_size=5, optimizer=nnkit.SGD(0.3), progress=False)
    net.save(path)
    read = nnkit.load(path)
    for each in (net, read):
        each.fit(X, y, epochs=2, batch_size=5, optimizer=nnkit.SGD(0.3), progress=False)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(parameters(net), parameters(read), strict=True))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    """Other programs can read it: C-ordered tensors with these names, and the description as JSON."""
    net, path = network(), tmp_path / "net.safetensors"
    net.save(path)
    tensors = safetensors_numpy.load_file(path)
    assert sorted(tensors) == ["layers.0.W", "layers.0.b", "layers.1.W", "layers.1.b"]
    assert (tensors["layers.0.W"] == net.parameters.W[0]).all()
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
    assert header["nnkit"] == nnkit.__version__
    assert json.loads(header["network"])["cost"] == {"name": "cross_entropy"}


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = network(), tmp_path / "net.safetensors"
    net.save(path)
    old = path.read_bytes()
    net.parameters.W[0][...] = 0

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space left"):
                net.save(path)
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["net.safetensors"]
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:  # noqa: PT012  what comes before it is the point
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["net.safetensors"]
    net.save(path)
    assert path.read_bytes() != old
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_a_saved_file_can_be_read_by_others(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("permissions are those of POSIX")
    (tmp_path / "plain").touch()
    network().save(tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_to_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        nnkit.load(tmp_path / "none.safetensors")
    with pytest.raises(IsADirectoryError, match="is a directory; expected a file"):
        nnkit.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        network().save(tmp_path / "no folder" / "net.safetensors")
    network().save(tmp_path / "net.safetensors")
    with pytest.raises(nnkit.BackendUnavailableError, match="unknown backend 'nowhere'") as caught:
        nnkit.load(tmp_path / "net.safetensors", backend="nowhere")
    assert "damaged" not in str(caught.value)


def test_without_safetensors_the_error_has_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    network().save(path)
    assert FORMATS[-1] == "nnkit-network-2"
    for module in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="python -m pip install safetensors"):
        network().save(path)
    with pytest.raises(ImportError, match="python -m pip install safetensors"):
        nnkit.load(path)


def test_equal_networks_are_equal_files(tmp_path: Path) -> None:
    """Although safetensors puts its text in another order each time: three entries have one of six."""
    files = []
    for i in range(12):
        net = network()
        net.save(tmp_path / f"{i}.safetensors")
        files.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(set(files)) == 1
    assert (8 + int.from_bytes(files[0][:8], "little")) % 8 == 0
