"""Model files of format 2: what a network knows beside its parameters, files of format 1, and hostile bytes."""

import importlib
import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnkit
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.conftest import Arrays

safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

X = np.random.default_rng(0).normal(3, 2, (30, 4))
LABELS = np.arange(30) % 3


def test_the_first_format_is_read() -> None:
    """Written by nnkit 0.1.0, together with the outputs that it gave."""
    net = nnkit.load(ROOT / "tests" / "files" / "network-1.safetensors")
    assert (
        repr(net) == "Network(3 → 4 gelu → 2 softmax, softmax_cross_entropy, 26 parameters in float32 on numpy, seed 7)"
    )
    assert net.epochs_trained == 3
    outputs = [0.32670679688453674, 0.416500061750412, 0.4901530146598816, 0.5170865654945374, 0.4980885088443756]
    found = np.array(net.forward(np.linspace(-1, 1, 18).reshape(6, 3)))[:5, 0]
    np.testing.assert_allclose(found, outputs, rtol=2e-6)


@pytest.mark.parametrize("kind", ["normalization", "whitening"])
@pytest.mark.parametrize("classes", [["cat", "dog", "owl"], [10, 20, 30], [0.5, 1.5, 2.5], [True, "yes", 3]])
def test_preprocessing_and_classes_are_restored(arrays: "Arrays", kind: str, classes: Any, tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"normalization": nnkit.data.Normalization, "whitening": nnkit.data.Whitening}
    fitted = kinds[kind].fit(X)
    net = nnkit.Network([4, 5, 3], seed=1, preprocessing=fitted, classes=classes)
    net.fit(arrays(X), [classes[label] for label in LABELS], epochs=2, progress=False)
    net.save(tmp_path / "net.safetensors")
    read = nnkit.load(tmp_path / "net.safetensors")
    assert read.classes is not None
    assert read.classes.tolist() == classes
    assert list(map(type, read.classes.tolist())) == list(map(type, classes))
    assert read.predict(arrays(X)).tolist() == net.predict(X).tolist()
    assert arrays.numpy(read.forward(X)).tobytes() == arrays.numpy(net.forward(X)).tobytes()
    elsewhere = nnkit.load(tmp_path / "net.safetensors", backend="numpy")
    np.testing.assert_allclose(np.array(elsewhere.forward(X)), arrays.numpy(net.forward(X)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "cost", [nnkit.get_cost("huber", delta=2.5), nnkit.get_cost("cross_entropy", label_smoothing=0.125), "poisson"]
)
def test_costs_with_constants_are_restored(cost: Any, tmp_path: Path) -> None:
    net = nnkit.Network([4, 3], cost=cost, seed=1)
    net.save(tmp_path / "net.safetensors")
    assert nnkit.load(tmp_path / "net.safetensors").cost == net.cost == nnkit.get_cost(cost)


def test_only_names_that_json_supports_are_written(tmp_path: Path) -> None:
    net = nnkit.Network([4, 2], seed=1, classes=[(0, 1), (1, 0)])
    with pytest.raises(
        TypeError, match=r"classes holds \(0, 1\); only text, numbers, dates and durations can be written to a file"
    ):
        net.save(tmp_path / "net.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_must_fit() -> None:
    fitted = nnkit.data.Normalization.fit(X)
    with pytest.raises(ValueError, match="preprocessing has 4 outputs, but the first layer has 5 inputs"):
        nnkit.Network([5, 3], preprocessing=fitted)
    with pytest.raises(TypeError, match="expected a fitted nnkit"):
        nnkit.Network([4, 3], preprocessing="normalization")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"X has shape \(2, 3\); expected \(samples, 4\)"):
        nnkit.Network([4, 3], preprocessing=fitted).forward(np.ones((2, 3)))


def test_every_method_takes_raw_samples() -> None:
    fitted = nnkit.data.Normalization.fit(X)
    net = nnkit.Network([4, 5, 3], seed=1, dtype="float64", preprocessing=fitted)
    plain = nnkit.Network([4, 5, 3], seed=1, dtype="float64")
    ready = (X - X.mean(axis=0)) / X.std(axis=0)
    for each, data in ((net, X), (plain, ready)):
        each.train_step(data, LABELS)
        each.fit(data, LABELS, epochs=2, validation_data=(data, LABELS), progress=False)
    np.testing.assert_allclose(net.parameters.flat, plain.parameters.flat, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(net.forward(X), plain.forward(ready), rtol=1e-11)
    assert net.evaluate(X, LABELS)["cost"] == pytest.approx(plain.evaluate(ready, LABELS)["cost"], rel=1e-11)
    assert nnkit.check_gradients(net, X, LABELS).max_error < 1e-12


def a_file(path: Path) -> bytes:
    """A checkpoint with everything that a file may hold."""
    layers = [nnkit.Dense(4, 5, "relu"), nnkit.Dropout(0.5), nnkit.Dense(5, 3)]
    net = nnkit.Network(layers, seed=1, preprocessing=nnkit.data.Normalization.fit(X), classes=["a", "b", "c"])
    y = np.array(["a", "b", "c"])[LABELS]
    net.fit(X, y, epochs=1, optimizer=nnkit.Adam(), checkpoint=path, progress=False)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    return path, a_file(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_hostile_bytes_are_a_value_error(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    """Any byte changed, cut or put in: the network is read as it was, or a ValueError names the file."""
    path, content = whole
    at = data.draw(st.integers(0, len(content)))
    piece = data.draw(st.binary(max_size=6))
    path.write_bytes(content[:at] + piece + content[at + data.draw(st.integers(0, 6)) :])
    _read_or_refuse(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_hostile_descriptions_are_a_value_error(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    """Any part of the JSON replaced by any other JSON."""
    path, content = whole
    length = struct.unpack("<Q", content[:8])[0]
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    key = data.draw(st.sampled_from(["network", "training"]))
    about = json.loads(metadata[key])
    place: Any = about
    part = data.draw(st.sampled_from(sorted(about)))
    while isinstance(place[part], list | dict) and place[part] and data.draw(st.booleans()):
        place = place[part]
        part = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    place[part] = data.draw(JSON)
    tensors = safetensors_numpy.load(content)
    path.write_bytes(safetensors_numpy.save(tensors, metadata | {key: json.dumps(about)}))
    _read_or_refuse(path)


def _read_or_refuse(path: Path) -> None:
    found: list[str] = []
    try:
        net = nnkit.load(path)
    except ValueError as error:
        found.append(str(error))
    else:
        assert np.array(net.forward(np.ones((1, net.width)))).shape == (1, net.dense[-1].units)
    assert all(str(path) in text for text in found)


@pytest.mark.parametrize("name", [b'\\"preprocessing\\"', b'"preprocessing.mean"', b'"targets.mean"'])
def test_no_preprocessing_is_lost_to_a_damaged_name(name: bytes, tmp_path: Path) -> None:
    """The network would load, and predict something else."""
    X, y = np.random.default_rng(0).normal(5, 2, (20, 3)), np.arange(20.0)
    fitted = nnkit.data.Normalization.fit(X), nnkit.data.Normalization.fit(y[:, None])
    net = nnkit.Network([3, 4, 1], cost="quadratic", preprocessing=fitted[0], target_scaling=fitted[1], seed=0)
    net.save(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert content.count(name) == 1
    (tmp_path / "damaged.safetensors").write_bytes(content.replace(name, name.replace(b"e", b"d")))
    with pytest.raises(ValueError, match=r"damaged.safetensors: the description of the network is damaged"):
        nnkit.load(tmp_path / "damaged.safetensors")


def test_feature_names_are_restored(tmp_path: Path) -> None:
    names = ["length", "width", "ü", "x"]
    net = nnkit.Network([4, 2], seed=0, features=names)
    net.save(tmp_path / "net.safetensors")
    assert nnkit.load(tmp_path / "net.safetensors").features == names
    for wrong in (["a"], "abcd", [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="expected the names of 4 features"):
            nnkit.Network([4, 2], features=wrong)  # type: ignore[arg-type]


def test_open_files_and_bytes() -> None:
    net = nnkit.Network([4, 5, 3], seed=1, classes=["a", "b", "c"])
    file = io.BytesIO()
    net.save(file)
    content = file.getvalue()
    file.seek(0)
    for source in (content, file):
        read = nnkit.load(source)
        assert repr(read) == repr(net)
        np.testing.assert_array_equal(read.parameters.flat, net.parameters.flat)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the bytes: not a complete safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "the bytes: format is None; this nnkit reads"),
        (b"\xff" * 20, "the bytes: not a complete safetensors file"),
        (b"\x1f" + bytes(7) + b'{"a": {"data_offsets": [0,Infinity]}}', "the bytes: not a complete safetensors file"),
        (b"\x21" + bytes(7) + b'{"a": {"data_offsets": [0, 1e15]}}', "the bytes: not a complete safetensors file"),
    ],
)
def test_bytes_that_are_not_a_network(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nnkit.load(content)
    with pytest.raises(ValueError, match=message.replace("the bytes", "the file")):
        nnkit.load(io.BytesIO(content))
    with pytest.raises(TypeError, match="holds str; expected bytes, of a file opened in binary mode"):
        nnkit.load(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["file", "buffer"])
def test_a_longer_open_file_is_not_written_into(tmp_path: Path, kind: str) -> None:
    """What is left of its content would make it unreadable. Behind other content there is room for a network."""
    path, large, small = tmp_path / "net.safetensors", nnkit.Network([9, 9], seed=0), nnkit.Network([2, 2], seed=0)
    large.save(path)
    before = path.read_bytes()
    with open(path, "r+b") if kind == "file" else io.BytesIO(before) as file:
        with pytest.raises(
            ValueError, match=r"the open file has \d+ bytes after its position, more than the \d+ of the"
        ):
            small.save(file)
        file.seek(0)
        assert repr(nnkit.load(file)) == repr(large)
        file.seek(0)
        large.save(file)
        file.seek(0)
        file.truncate()
        small.save(file)
        file.seek(0)
        assert repr(nnkit.load(file)) == repr(small)


@pytest.mark.parametrize("buffering", [-1, 0])
def test_networks_follow_one_another_in_an_open_file(tmp_path: Path, buffering: int) -> None:
    path, nets = tmp_path / "nets", [nnkit.Network([3, units, 2], seed=units) for units in (4, 5, 6)]
    nets[0].save(path)
    with open(path, "ab", buffering=buffering) as file:
        for net in nets[1:]:
            net.save(file)
        file.write(b"end")
    with open(path, "rb", buffering=buffering) as file:
        for net in nets:
            assert nnkit.load(file).parameters.vector.tolist() == net.parameters.vector.tolist()
        assert file.read() == b"end"
    for source in (path, path.read_bytes()):
        with pytest.raises(ValueError, match="if something follows the network, load it from the open file"):
            nnkit.load(source)


class Slow(io.RawIOBase):
    """A file that takes and gives at most 100 bytes at once, up to a size."""

    def __init__(self, size: int) -> None:
        self.size, self.content, self.at = size, b"", 0

    def write(self, content: Any) -> int:
        taken = bytes(content[: min(100, self.size - len(self.content))])
        self.content += taken
        return len(taken)

    def read(self, size: int = -1) -> bytes:
        self.at += min(size, 100)
        return self.content[self.at - min(size, 100) : self.at]


def test_files_that_take_and_give_a_part_at_once() -> None:
    net, file = nnkit.Network([9, 9], seed=0), Slow(10**6)
    net.save(file)  # type: ignore[arg-type]
    assert nnkit.load(file).parameters.vector.tolist() == net.parameters.vector.tolist()  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"the file took only 500 of \d+ bytes"):
        net.save(Slow(500))  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["gzip", "bz2", "lzma", "zipfile"])
def test_compressed_files(tmp_path: Path, module: str) -> None:
    net, place = nnkit.Network([3, 2], seed=0), tmp_path / "net"
    package = importlib.import_module(module)
    if module == "zipfile":
        with package.ZipFile(place, "w") as archive, archive.open("net", "w") as file:
            net.save(file)
        content = package.ZipFile(place).read("net")
    else:
        with package.open(place, "wb") as file:
            net.save(file)
        with package.open(place) as file:
            content = file.read()
    for form in (content, bytearray(content), memoryview(content)):
        assert nnkit.load(form).predict(X[:, :3]).tolist() == net.predict(X[:, :3]).tolist()
