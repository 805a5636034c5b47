"""nnkit.load takes no damaged, foreign or inconsistent file for a network."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


def saved(path: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A file of a network with some of its tensors or its metadata replaced."""
    nnkit.Network([4, 6, 3], "gelu", seed=11).save(path)
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]
    all_tensors = {k: v for k, v in (safetensors_numpy.load(content) | (tensors or {})).items() if v is not None}
    kept = {k: v for k, v in (metadata | changes).items() if v is not None}
    path.write_bytes(safetensors_numpy.save(all_tensors, kept))
    return path


def test_every_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors")
    content = path.read_bytes()
    for length in [*range(64), *range(64, len(content), 37), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"net\.safetensors: not a complete safetensors file"):
            nnkit.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for content in (
        b"",
        b"\x00" * 100,
        b"PK\x03\x04 a zip file",
        pickle.dumps({"W": np.ones(3)}),
        b'{"json": true}' * 9,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"net\.safetensors: not a complete safetensors file"):
            nnkit.load(path)
    path.write_bytes(safetensors_numpy.save({"weight": np.ones(3)}))
    with pytest.raises(ValueError, match="format is None; this nnkit reads 'nnkit-network-1'"):
        nnkit.load(path)
    # A type that NumPy has not: the format must be looked at first.
    header = json.dumps({"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(ValueError, match="format is None"):
        nnkit.load(path)


LAYERS = [{"inputs": 4, "units": 6, "activation": "gelu"}, {"inputs": 6, "units": 3, "activation": "sigmoid"}]
ABOUT = {"layers": LAYERS, "cost": "cross_entropy", "seed": 11, "epochs_trained": 0}
SHAPES = {"layers.0.W": (6, 4), "layers.0.b": (6,), "layers.1.W": (3, 6), "layers.1.b": (3,)}
INTEGERS = {name: np.ones(shape, "i4") for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ({}, {"format": "nnkit-network-3"}, "format is 'nnkit-network-3'; this nnkit reads 'nnkit-network-1'"),
        ({}, {"network": None}, "damaged"),
        ({}, {"network": "{"}, "damaged"),
        ({}, {"network": "[1, 2]"}, "damaged"),
        (
            {},
            {"network": json.dumps(ABOUT | {"cost": "none"})},
            "contains the unknown cost 'none'; register a",
        ),
        ({}, {"network": json.dumps(ABOUT | {"cost": ["huber"]})}, "damaged"),
        ({}, {"network": json.dumps(ABOUT | {"cost": {"name": 5}})}, "damaged.*unknown cost 5"),
        ({}, {"network": "[" * 100_000 + "]" * 100_000}, "damaged.*Recursion"),
        ({}, {"network": json.dumps(ABOUT | {"layers": []})}, "there are 4 tensors for 0 layers"),
        (
            {},
            {"network": json.dumps(ABOUT | {"layers": LAYERS[:1]})},
            "there are 4 tensors for 1 layers",
        ),
        ({}, {"network": json.dumps(ABOUT | {"epochs_trained": -1})}, "damaged.*epochs_trained"),
        ({}, {"network": json.dumps(ABOUT | {"seed": "abc"})}, "damaged.*seed"),
        ({}, {"network": json.dumps(ABOUT | {"epochs_trained": 1.5})}, "damaged.*epochs_trained"),
        ({"layers.1.b": None}, {}, "damaged.*there are 3 tensors for 2 layers"),
        ({"layers.1.b": None, "layers.1.c": np.ones(3, "f4")}, {}, r"damaged.*layers\.1\.b"),
        ({"layers.1.b": np.ones(4, "f4")}, {}, r"damaged.*layers\.1\.b has shape \(4,\); expected \(3,\)"),
        ({"layers.0.W": np.ones((4, 6), "f4")}, {}, r"damaged.*layers\.0\.W has shape \(4, 6\); expected \(6, 4\)"),
        ({"layers.1.b": np.ones(3, "f8")}, {}, r"damaged.*layers\.1\.b has dtype float64; expected .* float32"),
        (INTEGERS, {}, "dtype is 'int32'"),
    ],
)
def test_damaged_networks_are_refused(tensors: Any, changes: Any, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", tensors, **changes)
    with pytest.raises(ValueError, match=message):
        nnkit.load(path)


def test_a_file_with_an_unknown_function_says_what_to_register(tmp_path: Path) -> None:
    nnkit.register_activation("cubed", lambda xp, z: z**3, lambda xp, z, d: 3 * z**2 * d, "preactivation")
    nnkit.register_cost(
        "fourth", lambda xp, h, y, scale: (h - y) ** 4 * scale, lambda xp, h, y, s: 4 * (h - y) ** 3 * s
    )
    nnkit.Network([2, 3, 1], "cubed", "quadratic", seed=0).save(tmp_path / "activation.safetensors")
    nnkit.Network([2, 3, 1], "tanh", "fourth", seed=0).save(tmp_path / "cost.safetensors")
    for kind, forget in (("activation", nnkit.unregister_activation), ("cost", nnkit.unregister_cost)):
        name = {"activation": "cubed", "cost": "fourth"}[kind]
        path = tmp_path / f"{kind}.safetensors"
        assert repr(nnkit.load(path)).count(name) == 1
        forget(name)
        with pytest.raises(ValueError, match=f"{kind}.safetensors contains the unknown {kind} '{name}'") as caught:
            nnkit.load(path)
        assert str(caught.value).endswith(f"register a custom one with nnkit.register_{kind} before loading")
        assert "damaged" not in str(caught.value)


def test_a_checkpoint_of_a_custom_optimizer_says_how_to_resume(tmp_path: Path) -> None:
    class Half(nnkit.SGD):
        pass

    path, X, y = tmp_path / "run.safetensors", np.eye(4), [0, 1, 2, 0]
    layers = [nnkit.Dense(4, 3, "tanh"), nnkit.Dropout(0.5), nnkit.Dense(3, 3)]
    trained = nnkit.Network(layers, seed=0)
    trained.fit(X, y, epochs=1, optimizer=Half(0.5), checkpoint=path, progress=False)
    with pytest.warns(UserWarning, match=r"run.safetensors is loaded without its optimizer 'half', .*resume=True\)"):
        loaded = nnkit.load(path)
    assert np.array_equal(loaded.predict_proba(X), trained.predict_proba(X))
    assert (loaded.epochs_trained, loaded.state) == (1, None)
    assert loaded.dropout is not None
    assert float(loaded.dropout.arrays["step_low"]) == 1
    net = nnkit.Network(layers, seed=0)
    with pytest.raises(
        ValueError, match=r"contains the unknown optimizer 'half'; resume with a custom one by fit\(\.\.\., "
    ):
        net.fit(X, y, epochs=2, checkpoint=path, resume=True, progress=False)
    assert net.fit(X, y, epochs=2, optimizer=Half(0.5), checkpoint=path, resume=True, progress=False).epochs == 2
