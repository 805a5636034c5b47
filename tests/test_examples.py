"""The examples run, on NumPy and on another namespace, and do what they say."""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.data import mnist
from tests.commands.test_cli import before
from tests.support import ROOT

if TYPE_CHECKING:
    from tests.conftest import Arrays

EXAMPLES = ROOT / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


def _needs_mnist() -> None:
    try:
        mnist()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_xor_is_learned_on_every_backend(arrays: "Arrays") -> None:
    costs, outputs = _load("xor").train(steps=600)
    assert costs[-1] < 0.01 * costs[0]
    assert np.round(outputs[:, 0]).tolist() == [0, 1, 1, 0]


def test_a_cosine_is_denoised_on_every_backend(arrays: "Arrays") -> None:
    example = _load("denoise_cosine")
    costs, noisy, restored = example.train(steps=500)
    assert costs[-1] < 0.01 * costs[0]
    assert np.mean((restored - example.CLEAN) ** 2) < 0.01 * np.mean((noisy - example.CLEAN) ** 2)


def test_the_denoisers_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "cosine.png"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "denoise_cosine.py", path],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"NNKIT_BACKEND": "numpy"},
    )  # fmt: skip
    assert done.stdout.startswith("cost 50.79 -> 0.000")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_custom_loops_agree(arrays: "Arrays", capsys: pytest.CaptureFixture[str]) -> None:
    by_steps, by_gradients = _load("own_loop").main(epochs=3)
    assert by_steps == pytest.approx(by_gradients, abs=0.01)  # of 450 images: rounding may turn some
    assert by_steps > 0.8
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_pytorch_and_nnkit_share_memory(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    assert _load("with_pytorch").main() < 1e-14
    assert "shared between PyTorch" in capsys.readouterr().out


def test_unsupported_uses_of_the_layer_in_pytorch_are_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, W = (torch.ones(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    h = _load("with_pytorch").Dense.apply(x, W, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(h.square().sum(), x, create_graph=True)
    with torch.no_grad():
        W.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


def test_without_pytorch_the_example_has_the_install_command(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "with_pytorch.py"],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"PYTHONPATH": before(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "this example needs PyTorch: python -m pip install torch\n"


def test_an_interrupted_training_ends_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends `fit` only; a part of the epochs must not be printed as the result."""
    stopped = nnkit.History()
    stopped.stopped = "interrupted"
    images, labels = np.arange(784 * 2, dtype=np.uint8).reshape(2, 784), np.zeros(2, np.int64)
    data = nnkit.data.MNIST(images, labels, images, labels)
    monkeypatch.setattr(nnkit.Network, "fit", lambda *_, **__: stopped)
    nielsen = _load("nielsen")
    runs = [(nielsen.run, (nielsen.ROWS[0], data, 0, 30)), (_load("relu_halving").train, (data,))]
    for run, arguments in runs:
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 130


def _as_script(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables of an example that is one script."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_a_surrogate_is_inverted_by_its_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("matplotlib", "scipy"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = _as_script("surrogate", monkeypatch)
    assert found["position_error"] < 0.03
    assert found["jacobian_error"] < 0.3
    assert np.abs(found["missed"]).max() < 1e-12
    assert found["reached"] < 0.03
    angles, e = found["new"][:9], 1e-20  # the exact derivatives it compares with, by a complex step
    slopes = [found["hand"](angles + e * 1j * np.eye(2)[j]).imag / e for j in (0, 1)]
    np.testing.assert_allclose(found["slopes"](angles), np.stack(slopes, axis=2), rtol=1e-13)


def test_a_table_of_mixed_columns_is_learned_and_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("matplotlib", "pandas", "safetensors"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = _as_script("mixed_table", monkeypatch)
    assert "R² 0.9" in capsys.readouterr().out
    assert found["error"] < 60
    assert np.array_equal(found["loaded"].predict(found["X_test"]), found["net"].predict(found["X_test"]))
    assert len(found["axes"].lines) == 4
    assert all(line.get_ydata()[0] > 2 * line.get_ydata()[10] > 0 for line in found["axes"].lines)  # the years cost


def test_an_exported_network_is_served_by_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    found = _as_script("serve_onnx", monkeypatch)
    assert found["labels"].tolist() == found["net"].predict(found["X_test"]).tolist()
    assert found["accuracy"] > 0.95
    assert found["difference"] < 1e-5
    assert "outputs ['label', 'probabilities']" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0", "12", "-1"])
def test_nielsens_rows_are_counted_from_one(
    wrong: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["nielsen.py", "--rows", wrong])
    with pytest.raises(SystemExit):
        _load("nielsen").main()
    assert "--rows" in capsys.readouterr().err


@pytest.mark.mnist
def test_nielsens_rows_are_trained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The two rows of 1000 images, for a few epochs: what is printed, and that L2 does its work."""
    _needs_mnist()
    monkeypatch.setattr(sys, "argv", ["nielsen.py", "--rows", "3", "4", "--epochs", "25", "--seeds", "5"])
    example = _load("nielsen")
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("|") for line in lines] == [8] * 4
    cells = [[cell.strip() for cell in line.split("|")] for line in lines[2:]]
    assert [row[1] for row in cells] == ["784-30-10, 1000 images"] * 2
    assert [row[5] for row in cells] == ["82.27; 100", "87.1"]
    assert float(cells[0][6].split(";")[0]) > 75
    assert float(cells[1][6]) > 75
    assert len(example.ROWS) == 11


@pytest.mark.mnist
def test_halved_steps_learn_mnist() -> None:
    """96 % in two of the five epochs; all five reach 97 %."""
    _needs_mnist()
    assert _load("relu_halving").train(mnist(), seed=0, epochs=2) > 0.96


@pytest.mark.parametrize("name", ["mnist_seeds", "nielsen", "relu_halving"])
def test_without_mnist_an_example_says_how_to_download_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "NNKIT_DATA"} | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        capture_output=True, text=True, timeout=120, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "this example needs MNIST; download it with: "
        'python -m pip install pooch && python -c "import nnkit; nnkit.data.mnist(download=True)"\n'
    )


@pytest.mark.parametrize("name", ["denoise_cosine", "mnist_seeds"])
@pytest.mark.parametrize("wrong", ["nowhere/picture.png", "picture.jpg"])
def test_an_unwritable_picture_is_refused_before_training(name: str, wrong: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    option = ["--picture"] if name == "mnist_seeds" else []
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *option, wrong],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "path" in done.stderr
