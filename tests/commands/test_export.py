"""nnkit export."""

from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.cli import main

pytest.importorskip("onnx")
pytest.importorskip("safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = nnkit.Network([4, 3], seed=0, classes=["a", "b", "c"])
    network.save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_the_model_agrees_with_the_network(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert main(["export", str(model), str(tmp_path / "net.onnx")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["input   X", "outputs label, probabilities"]
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    x = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(session.run(["label"], {"X": x})[0], nnkit.load(model).predict(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.safetensors", "net.pb"], "net.pb: expected a file .onnx"),
        (["absent.safetensors", "net.onnx"], "absent.safetensors"),
        (["net.safetensors", "folder/net.onnx"], "folder"),
        (["net.safetensors", "net.onnx", "--opset", "12"], "--opset"),
        (["net.safetensors", "net.onnx", "--opset", "999"], "opset is 999"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    try:
        code = main(["export", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in model.parent.iterdir()) == ["net.safetensors"]
