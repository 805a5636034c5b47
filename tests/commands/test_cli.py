"""The command line as its user meets it: help, errors, and the commands without data."""

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.cli import main
from nnkit.kernels import updates
from nnkit.verify.equations import equations
from tests.support.cli_files import flowers, houses

COMMANDS = ["train", "predict", "evaluate", "verify", "doctor", "formulas"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def needs(*packages: str) -> None:
    """Skip a test of what `nnkit train` writes, where it could not."""
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")


def nnkit_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nnkit", *arguments],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_one_seed_gives_one_model(here: Path) -> None:
    needs("safetensors")
    for name in ("a", "b"):
        assert main(["train", "--epochs", "2", "--seed", "5", "--model", f"{name}.safetensors", "--no-picture"]) == 0
    a, b = nnkit.load(here / "a.safetensors"), nnkit.load(here / "b.safetensors")
    assert np.array_equal(a.parameters.flat, b.parameters.flat)


def test_train_on_another_backend(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("array_api_compat", "array_api_strict")
    assert main(["train", "--epochs", "1", "--backend", "standard", "--no-model", "--no-picture"]) == 0
    assert "backend standard:array_api_strict: test accuracy 0." in capsys.readouterr().out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --backend cupyy", "unknown backend 'cupyy'; known: numpy, cupy, standard, auto"),
        ("train --model nowhere/a.safetensors", "--model: the directory nowhere does not exist"),
        ("train --history nowhere/h.json", "--history: the directory nowhere does not exist"),
        ("train --checkpoint nowhere/c.safetensors", "--checkpoint: the directory nowhere does not exist"),
        ("train --model .", "--model: . is a directory; expected a file"),
        ("train --picture curve.jpg", "--picture is 'curve.jpg'; expected a name that ends in .png, .svg, .pdf"),
        ("train --history nnkit-model.safetensors", "is already another of this command's files"),
        ("train --data houses.csv --target price --model houses.csv", "houses.csv is already another of this"),
        ("train --data x.npy --target y.npy --history y.npy", "y.npy is already another of this command's files"),
        ("train --data x.npy --target y.npy --model ./y.npy", "y.npy is already another of this command's files"),
        ("train --data digit", "digit does not exist; expected a file, digits or mnist; did you mean digits?"),
        ("evaluate net.safetensors MNIST", "expected a file, digits or mnist; did you mean mnist?"),
        ("train --data flower.csv --target y", "flower.csv does not exist; expected a file, digits or mnist\n"),
        ("train --data houses.csv", "houses.csv: --target must name the labels or targets"),
        ("train --data houses.csv --target prize", "unknown column 'prize'; did you mean 'price'"),
        ("train --target price", "--target is for files; digits has its labels"),
        ("train --data mnist --data-dir .", "is not in '.'; give --data-dir FOLDER, or --download"),
        ("train --download", "--download is for --data mnist"),
        ("train --data flowers.csv --target species --cost quadratic", "is text, such as 'iris setosa'"),
        ("train --data single.csv --target kind", "target 'kind' holds a single class, a; expected at least two"),
        ("train --data texts.npz --target y", "target 'y' is text of shape (2, 2); expected (2,), one class for each"),
        ("train --data houses.csv --target price --class-weight balanced", "--class-weight needs labels"),
        ("train --data houses.csv --target price --cost softmax_cross_entropy", "softmax of a single output"),
        ("train --hidden --activation tanh", "--activation has no effect with --hidden without a size"),
        ("train --hidden --dropout 0.1", "--dropout has no effect with --hidden without a size"),
        ("train --model x.safetensors --no-model", "--model has no effect with --no-model"),
        ("train --picture x.png --no-picture", "--picture has no effect with --no-picture"),
        ("train --data mnist --test-fraction 0.1", "--test-fraction has no effect with --data mnist"),
        ("train --activation relu tanh", "--activation has 2 names and --hidden 1 size; expected one name, or one per"),
        ("train --optimizer adam --momentum 0.5", "--momentum has no effect with --optimizer adam, only with sgd, rms"),
        ("train --data houses.csv --target price --momentum 0.5", "--momentum has no effect with --optimizer adam"),
        ("train --scale-targets", "--scale-targets is for a regression, and softmax_cross_entropy classifies"),
        ("train --metrics r2", "--metrics r2 is for numbers, and y holds classes"),
        ("train --metrics mae", "--metrics mae is for numbers, and y holds classes"),
        ("train --metrics top_10", "--metrics top_10: expected top_1 or more, below the number of outputs, 10"),
        ("train --metrics top_0", "--metrics top_0: expected top_1 or more, below the number of outputs, 10"),
        ("train --metrics top_2 top_2", "--metrics: top_2 is given twice"),
        ("train --data houses.csv --target price --metrics accuracy", "--metrics accuracy is for classes, and ta"),
        ("train --data houses.csv --target price --metrics top_5", "holds numbers, with the cost quadratic"),
        ("train --data houses.csv --target price --cost cross_entropy", "give the network --cost quadratic"),
        ("train --data houses.csv --target price --label-smoothing 0.1", "--label-smoothing: quadratic has no label"),
        ("train --data empty.npz --target y", "empty.npz: unknown array 'y'; known: none"),
        ("train --data deep.npz --target y", "target 'y' has shape (8, 2, 2); expected (8,) or (8, outputs)"),
        ("train --data long.csv --target b", f"unknown column 'b'; known: {'a' * 900}"),
        ("train --data .", ". is a directory; expected a file"),
        ("train --data /dev/null", "/dev/null is a device or a pipe; expected a file"),
        ("train --data pipe.csv --target y", "pipe.csv is a device or a pipe; expected a file"),
        ("train --data loop.csv --target y", "loop.csv: Too many levels of symbolic links"),
        ("train --model loop.csv", "--model: loop.csv: Too many levels of symbolic links"),
        ("train --history loop.csv", "--history: loop.csv: Too many levels of symbolic links"),
        ("train --data one.csv --target y", "--test-fraction is 0.25, which leaves 2 of 2 samples for training and 0"),
        ("train --checkpoint net.safetensors --resume", "--resume: net.safetensors is a trained network, not a t"),
        ("train --resume", "--resume needs --checkpoint FILE"),
        ("train --checkpoint c.safetensors --seeds 2", "--checkpoint is for a single training, but --seeds is 2"),
        ("train --hidden 1000000 1000000 --no-model", "--hidden: 1000076000010 parameters: Unable to allocate"),
        (f"train --hidden {'9' * 30}", "parameters: no machine has enough memory"),
        ("verify --backend numpy:3", "NumPy has one device"),
        ("formulas sigmoidd", "unknown formula 'sigmoidd'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_code_2(
    here: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("safetensors", "matplotlib")
    flowers(here / "flowers.csv")
    houses(here / "houses.csv")
    Path("single.csv").write_text("x,kind\n" + "1,a\n2,a\n" * 5)
    Path("long.csv").write_text(f"{'a' * 5000},y\n1,2\n")
    np.savez("empty.npz")
    np.savez("deep.npz", X=np.ones((8, 1)), y=np.ones((8, 2, 2)))
    Path("one.csv").write_text("x,y\n1,a\n2,b\n")
    os.mkfifo("pipe.csv")
    Path("loop.csv").symlink_to("loop.csv")
    nnkit.Network([64, 10], seed=3).save("net.safetensors")
    np.savez("texts.npz", X=np.ones((2, 1)), y=[["a", "b"], ["b", "a"]])
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("nnkit: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert len(error) < 1100
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND (see nnkit --help)"),
        ("trian", "argument COMMAND: unknown command 'trian'; did you mean 'train'? (see nnkit --help)"),
        ("Predict net.safetensors", "unknown command 'Predict'; did you mean 'predict'?"),
        ("sing", "unknown command 'sing'; known: train, predict, evaluate, export, verify, doctor, formulas"),
        ("--verison", "unrecognized arguments: --verison; did you mean --version? (see nnkit --help)"),
        ("train --epochs two", "argument --epochs: got 'two'; expected a whole number of at least 1 (see nnkit train"),
        ("train --epochs 0", "argument --epochs: got '0'; expected a whole number of at least 1"),
        ("train --seed -1", "argument --seed: got '-1'; expected a whole number of at least 0"),
        ("train --hiden 3", "unrecognized arguments: --hiden 3; did you mean --hidden? (see nnkit train --help)"),
        ("train -- --epochs 1", "unrecognized arguments: -- --epochs 1 (see nnkit train --help)"),
        ("train flowers.csv", "unrecognized arguments: flowers.csv (see nnkit train --help)"),
        ("train --cost huberr", "argument --cost: unknown cost 'huberr'; did you mean 'huber'?"),
        ("train --activation rel", "unknown activation 'rel'; did you mean 'relu'"),
        ("train --init he_norml", "unknown initializer 'he_norml'; did you mean 'he_normal'"),
        ("train --optimizer adan", "unknown optimizer 'adan'; did you mean 'adam'"),
        ("train --schedule cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ("train --preprocessing whitning", "unknown preprocessing 'whitning'; did you mean 'whitening'?"),
        ("train --class-weight balance", "unknown class weight 'balance'; did you mean 'balanced'?"),
        ("train --dtype float16", "unknown dtype 'float16'; did you mean"),
        ("train --test-fraction 0", "argument --test-fraction: got '0'; expected a finite number above 0 and below 1"),
        ("train --test-fraction 1.5", "argument --test-fraction: got '1.5'; expected a finite number above 0 and belo"),
        ("train --dropout 1", "argument --dropout: got '1'; expected a finite number of at least 0 and below 1"),
        (
            "train --label-smoothing 1",
            "argument --label-smoothing: got '1'; expected a finite number of at least 0",
        ),
        ("train --learning-rate nan", "argument --learning-rate: got 'nan'; expected a finite number above 0"),
        ("train --learning-rate 1e999", "argument --learning-rate: got '1e999'; expected a finite number above 0"),
        ("train --momentum 1", "argument --momentum: got '1'; expected a finite number of at least 0 and below 1"),
        ("train --l2 -1", "argument --l2: got '-1'; expected a finite number of at least 0"),
        ("train --weight-decay x", "argument --weight-decay: got 'x'; expected a finite number of at least 0"),
        ("train --clip-norm 0", "argument --clip-norm: got '0'; expected a finite number above 0"),
        ("train --metrics toop_5", "argument --metrics: unknown metric 'toop_5'; did you mean 'top_5'?"),
        (
            "train --metrics foo",
            "argument --metrics: unknown metric 'foo'; known: accuracy, top_5, f1, precision, recall, roc_auc,",
        ),
        ("evaluate net.safetensors digits --metrics top_k", "unknown metric 'top_k'; did you mean 'top_5'?"),
        ("evaluate net.safetensors --data digit", "unknown data 'digit'; did you mean 'digits'?"),
        ("predict net.safetensors", "the following arguments are required: FILE"),
        ("verify --seed -1", "argument --seed: got '-1'; expected a whole number of at least 0"),
        ("verify --json --markdown", "argument --markdown: not allowed with argument --json"),
        ("formulas --dtype float23", "unknown dtype 'float23'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("nnkit: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help_describes_each_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_help_of_train_lists_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    names = [nnkit.activation_names(), nnkit.cost_names(), nnkit.optimizer_names()]
    names += [nnkit.schedules.schedule_names(), nnkit.initializers.initializer_names()]
    for known in names:
        assert set(known) <= words


def test_debug_shows_the_traceback(here: Path) -> None:
    needs("safetensors", "matplotlib")
    with pytest.raises(ValueError, match="unknown backend"):
        main(["train", "--backend", "nonsense", "--debug"])


@pytest.mark.parametrize(
    ("packages", "options", "message"),
    [
        ("matplotlib", "--checkpoint c", "--picture needs matplotlib: INSTALL matplotlib (or give --no-picture)"),
        ("safetensors", "", "--model needs safetensors: INSTALL safetensors (or give --no-model)"),
        (
            "safetensors matplotlib",
            "",
            "--model needs safetensors, --picture needs matplotlib: INSTALL safetensors matplotlib (or give --no-model "
            "--no-picture)",
        ),
        (
            "safetensors matplotlib",
            "--checkpoint c",
            "--model needs safetensors, --picture needs matplotlib, --checkpoint needs safetensors: INSTALL "
            "safetensors matplotlib",
        ),
        (
            "safetensors matplotlib pooch",
            "--data mnist --data-dir . --download",
            "--model needs safetensors, --picture needs matplotlib, --download needs pooch: INSTALL safetensors "
            "matplotlib pooch",
        ),
        ("pooch", "--data mnist --data-dir . --download", "--download needs pooch: INSTALL pooch"),
        ("safetensors", "--no-model --checkpoint c", "--checkpoint needs safetensors: INSTALL safetensors"),
    ],
)
def test_all_missing_packages_are_named_before_training(here: Path, packages: str, options: str, message: str) -> None:
    needs("safetensors", "matplotlib")
    path = _without(packages.split(), here / "path")
    done = nnkit_command("train", *options.split(), cwd=here, PYTHONPATH=before(path))
    assert done.returncode == 2
    assert done.stderr == f"nnkit: error: {message.replace('INSTALL', 'python -m pip install')}\n"
    assert list(here.iterdir()) == [path]


def test_evaluate_names_all_missing_packages(here: Path) -> None:
    path = _without(["safetensors", "matplotlib"], here / "path")
    command = ["evaluate", "net.safetensors", "--data", "digits", "--confusion", "a.png"]
    done = nnkit_command(*command, cwd=here, PYTHONPATH=before(path))
    expected = "MODEL needs safetensors, --confusion needs matplotlib: python -m pip install safetensors matplotlib"
    assert done.stderr == f"nnkit: error: {expected}\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
@pytest.mark.parametrize("folder", ["/proc", "closed"])
@pytest.mark.parametrize(
    "command",
    [
        "train --model FOLDER/x",
        "train --picture FOLDER/x.png",
        "train --history FOLDER/x",
        "train --checkpoint FOLDER/x",
        "predict net.safetensors digits.npy --output FOLDER/x.csv",
        "evaluate net.safetensors --data digits --confusion FOLDER/x.png",
    ],
)
def test_a_read_only_directory_is_refused_first(
    here: Path, folder: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("safetensors", "matplotlib")
    nnkit.Network([64, 10], seed=0).save("net.safetensors")
    np.save("digits.npy", nnkit.data.digits()[0][:3])
    Path("closed").symlink_to("/proc")  # its mode allows root to write, as that of a disk that is read only
    names = {path.name for path in here.iterdir()}
    assert main(command.replace("FOLDER", folder).split()) == 2
    out, error = capsys.readouterr()
    option = next(word for word in command.split() if word.startswith("--") and word != "--data")
    assert error == f"nnkit: error: {option}: the directory {folder} is not writable: No such file or directory\n"
    assert out == ""
    assert {path.name for path in here.iterdir()} == names


def before(path: Path) -> str:
    """What Python looks through, this folder first."""
    return os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])


def _without(packages: list[str], folder: Path) -> Path:
    """A folder for PYTHONPATH that makes Python start without these packages, as if they were not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n")
    return folder


def test_doctor_reports_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "backend numpy works" in out
    assert re.search(r"backend cupy (works: .*GPU|does not work: )", out)
    assert re.search(r"\d+ CPUs usable", out)
    assert re.search(r"native code (by numba \d|off: (numba is not installed|NNKIT_NATIVE=0))", out)


def test_doctor_names_an_unknown_backend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NNKIT_BACKEND", "nump")
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith(
        "NNKIT_BACKEND is 'nump': unknown backend 'nump'; known: numpy, cupy, standard, auto\n"
    )


def test_commands_to_install_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise nnkit.BackendUnavailableError('python -m pip install "cupy-cuda13x>=14" "cuda-toolkit[nvrtc]==13.*"')

    monkeypatch.setattr("nnkit.backends.selection.make_backend", missing)
    assert main(["train", "--backend", "cupy", "--quiet", "--no-model", "--no-picture"]) == 2
    assert 'pip install "cupy-cuda13x>=14" "cuda-toolkit[nvrtc]==13.*"' in capsys.readouterr().err


def test_verify_fails_where_an_equation_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [nnkit.verify.Row("1", "h = f(wx + b)", "dense_forward", error) for error in (0.0, 1e-3)]
    monkeypatch.setattr(nnkit.verify, "verify", lambda *_: rows)
    assert main(["verify"]) == 1
    assert "1 of 2 failed" in capsys.readouterr().out


def test_formulas_prints_cuda_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas"]) == 0
    assert "sigmoid_grad(s, delta)" in capsys.readouterr().out.splitlines()
    assert main(["formulas", "sigmoid_grad", "--dtype", "float64"]) == 0
    assert "__global__ void nnkit_sigmoid_grad(const double *" in capsys.readouterr().out
    assert main(["formulas", "all"]) == 0
    assert capsys.readouterr().out.count("__global__") > 30


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_formulas_prints_native_loops(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "all", "--native", "--dtype", dtype]) == 0
    text = capsys.readouterr().out
    assert len(ast.parse(text).body) == text.count("def f(arguments)") > 30
    assert "sqrt(" in text
    assert main(["formulas", "--native"]) == 2
    assert "--native has no effect without the name of a formula" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted({equation.function for equation in equations()}))
def test_formulas_knows_the_functions_of_verify(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The equation comes first, as comments; the CUDA text follows, and the whole is CUDA text."""
    assert main(["formulas", name]) == 0
    text, _ = capsys.readouterr()
    function = functools.reduce(getattr, name.split("."), nnkit if hasattr(nnkit, name.split(".")[0]) else updates)
    first, second = text.splitlines()[:2]
    assert re.match(rf"// {name.rpartition('.')[2]}\(\w+(, \w+)*\)$", first)
    assert second == f"// {(function.__doc__ or '').splitlines()[0]}"
    assert (name == "dense_backward") == ("__global__" not in text)
    assert main(["formulas"]) == 0
    assert f"\n{name}(" in capsys.readouterr().out


def test_formulas_shows_the_python_of_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "sigmoid_grad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "//     return delta * s * (1 - s)"
    assert lines[3].startswith("struct")
    assert main(["formulas", "huber_delta"]) == 0
    assert "//     return xp.minimum(xp.maximum(h - y, -delta), delta) * scale" in capsys.readouterr().out


def test_a_dtype_without_a_formula_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formulas", "--dtype", "float64"]) == 2
    assert capsys.readouterr().err == "nnkit: error: --dtype float64 has no effect without the name of a formula\n"
