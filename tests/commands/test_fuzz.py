"""Random arguments never lead to a traceback: a command does its work or says in one line what is wrong."""

import contextlib
import io
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.cli import main
from tests.support.cli_files import SPECIES, flowers, houses

FILES = ["flowers.csv", "houses.csv", "data.npz", "data.npy", "empty.csv", "net.safetensors", "real.safetensors"]
NAMES = [
    "digits",
    "mnist",
    "species",
    "price",
    "y",
    "-1",
    "0",
    "",
    "nothing",
    "no/where.csv",
    ".",
    "relu",
    "adam",
    "top_2",
]
NAMES += ["out.csv", "out.npy", "out.png", "out.json", "out.safetensors", "quadratic", "cosine", "mae", "numpy", "auto"]
NUMBERS = ["0", "1", "2", "3", "-1", "0.5", "1e9", "nan", "inf", "two", "1e-400", "9" * 30]
VALUES = st.sampled_from(FILES + NAMES + NUMBERS) | st.text(max_size=4)
OPTIONS = {
    "train": "--data --target --test-fraction --preprocessing --data-dir --hidden --activation --dropout --init "
    "--dtype --cost --label-smoothing --optimizer --learning-rate --momentum --l2 --weight-decay --clip-norm "
    "--schedule --batch-size --early-stopping --class-weight --metrics --seed --backend --model --picture --no-model "
    "--no-picture --history --checkpoint --resume --quiet --json --help --nonsense",
    "predict": "--target --probabilities --output --backend --help",
    "evaluate": "--target --data --test-fraction --data-dir --metrics --confusion --json --backend",
}


@st.composite
def fitting(draw: st.DrawFn) -> list[str]:
    """Arguments that go far: most of them are right."""
    file, target = draw(st.sampled_from([("flowers.csv", "species"), ("houses.csv", "price"), ("data.npz", "y")]))
    picked = {
        "--activation": st.sampled_from(nnkit.activation_names()),
        "--cost": st.sampled_from(nnkit.cost_names()),
        "--optimizer": st.sampled_from(nnkit.optimizer_names()),
        "--init": st.sampled_from(nnkit.initializers.initializer_names()),
        "--schedule": st.sampled_from(nnkit.schedules.schedule_names()),
        "--preprocessing": st.sampled_from(["none", "normalization", "whitening", "pixels"]),
        "--learning-rate": st.floats(1e-6, 1e6).map(str),
        "--dropout": st.floats(0, 1).map(str),
        "--label-smoothing": st.floats(0, 1).map(str),
        "--test-fraction": st.floats(0, 1).map(str),
        "--early-stopping": st.just("1"),
        "--class-weight": st.just("balanced"),
        "--metrics": st.sampled_from(["top_2", "mae", "r2"]),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(picked)), max_size=5, unique=True))
    rest = [argument for option in chosen for argument in (option, draw(picked[option]))]
    return ["train", "--data", file, "--target", target, *rest, "--epochs", "2", "--hidden", "3", "--no-picture"]


@st.composite
def anything(draw: st.DrawFn) -> list[str]:
    """A command with some of its options and values of all kinds."""
    command = draw(st.sampled_from(["train", "predict", "evaluate", "verify", "formulas", "doctor", "nonsense"]))
    if command not in OPTIONS:
        return [command, *draw(st.lists(VALUES, max_size=2))]
    options = st.sampled_from(OPTIONS[command].split())
    rest = draw(st.lists(st.tuples(options, VALUES) | st.tuples(options) | st.tuples(VALUES), max_size=4))
    first = {"predict": ["net.safetensors", "data.npy"], "evaluate": ["net.safetensors"]}.get(
        command, ["--epochs", "1"]
    )
    return [command, *first, *(argument for group in rest for argument in group)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and networks."""
    made = tmp_path_factory.mktemp("files")
    flowers(made / "flowers.csv", 24)
    houses(made / "houses.csv", 24)
    X = np.random.default_rng(0).normal(size=(20, 4))
    np.savez(made / "data.npz", X=X, y=np.arange(20) % 2)
    np.save(made / "data.npy", X)
    (made / "empty.csv").touch()
    nnkit.Network([4, 3], seed=0, classes=SPECIES).save(made / "net.safetensors")
    nnkit.Network([2, 1], cost="quadratic", seed=0).save(made / "real.safetensors")
    return made


@given(arguments=fitting() | anything())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(arguments=["train", "--data", "houses.csv", "--target", "price", "--cost", "poisson", "--epochs", "1"])
@example(arguments=["evaluate", "net.safetensors", ""])
@example(arguments=["train", "a\x85b"])
@example(arguments=["train", "--hidden", "9" * 30, "--no-picture"])
def test_arguments_never_lead_to_a_traceback(
    folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NNKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # MNIST is not there
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work), warnings.catch_warnings():
        warnings.simplefilter("default")
        for name in FILES:
            shutil.copy(folder / name, name)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code: object = main(arguments)
        except SystemExit as stopped:
            code = stopped.code
            assert code in (0, 2)
        assert code in (0, 1, 2)
        told = [line for line in err.getvalue().splitlines() if not line.startswith("nnkit: warning: ")]
        assert len(told) == (0 if code == 0 else 1), err.getvalue()
        assert all(line.startswith("nnkit: error: ") for line in told)
        assert "NoneType" not in err.getvalue()  # what Python says where nobody has looked
        if code != 0:
            assert not Path("nnkit-model.safetensors").exists()
