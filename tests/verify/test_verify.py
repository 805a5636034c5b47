"""nnkit verify: every equation is there, right code passes, wrong code fails."""

import json
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import verify
from nnkit.backends.formula import Formula
from nnkit.cli import main
from nnkit.kernels.activations import Activation, _activations
from tests.conftest import Arrays

LECTURE = {
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "12",
    "13",
    "14",
    "15",
    "16",
    "17",
    "18",
    "19",
    "20",
    "21",
    "22",
}


def test_every_equation_holds_on_every_backend(arrays: Arrays) -> None:
    rows = verify.verify()
    assert {number for row in rows for number in row.equation.split(", ")} == LECTURE
    assert {row.function: row.error for row in rows if not row.error <= 1e-13} == {}


def test_every_activation_and_cost_has_its_row() -> None:
    functions = {row.function for row in verify.verify("numpy")}
    assert {f"{name}_grad" for name in nnkit.activation_names()} <= functions
    assert {"quadratic", "cross_entropy", "softmax_cross_entropy"} <= functions
    assert {"quadratic_delta", "cross_entropy_delta", "softmax_cross_entropy_delta"} <= functions


@pytest.fixture
def wrong_tanh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tanh whose gradient is wrong by 10⁻¹²."""
    wrong = Formula(lambda xp, h, delta: delta * (1 - h**2) * (1 + 1e-12), "tanh_grad", ["h", "delta"])
    monkeypatch.setitem(_activations, "tanh", Activation("tanh", nnkit.tanh, wrong))


@pytest.mark.usefixtures("wrong_tanh")
def test_a_wrong_gradient_fails_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    rows = verify.verify("numpy")
    assert [row.function for row in rows if not row.passed] == ["tanh_grad"]
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert f"1 of {len(rows)} failed" in out


@pytest.mark.usefixtures("wrong_tanh")
def test_json_names_failed_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", "--backend", "numpy"]) == 1
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert content["passed"] is False
    assert content["backend"] == "numpy"
    assert [e["function"] for e in content["equations"] if not e["passed"]] == ["tanh_grad"]


def test_an_error_of_nan_fails() -> None:
    row = verify.Row("8", "δh̄", "broken_grad", float("nan"))
    assert not row.passed
    assert json.loads(verify.as_json([row], "numpy"))["equations"][0]["error"] is None


def test_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--markdown"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + len(verify.verify("numpy"))
    assert {line.count(" | ") for line in lines} - {0} == {3}


def test_check_gradients_finds_an_error_in_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nnkit.Network([4, 3, 2], seed=0, dtype="float64")
    x, y = np.random.default_rng(0).normal(size=(5, 4)), [0, 1, 0, 1, 1]
    assert nnkit.check_gradients(net, x, y).max_error < 1e-13
    honest = nnkit.Network.gradients

    def off_by_a_little(self: nnkit.Network, x: Any, y: Any) -> Any:
        cost, found = honest(self, x, y)
        found[0][0][1, 2] += 1e-9
        return cost, found

    monkeypatch.setattr(nnkit.Network, "gradients", off_by_a_little)
    checked = nnkit.check_gradients(net, x, y)
    assert [name for name, error in checked.errors.items() if error > 1e-13] == ["layers.0.W"]
