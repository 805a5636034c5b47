"""The order and the time of `python -m bench.gpu`, on a clock and with contenders of these tests' own."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import __main__ as command
from bench.gpu import epochs, kernels, steps
from bench.gpu.budget import Budget
from bench.gpu.contenders import EPOCHS, NAMES, ONLY_EPOCHS
from bench.problem import Problem, parse_sizes
from bench.process import LeftOut

OWN = ("floor", "nnkit", "nnkit-graph", "nnkit-train-step")
# Seconds, each more than expected on a GPU: to start a process with CUDA, and for a request.
START = 5.0
REQUESTS = {"make": 2.0, "chunk": 0.2, "time": 0.15, "host": 0.1, "keep": 1.5, "epoch": 2.0}
SLOW = {"jax": 8.0, "torch-compiled": 15.0, "torch-compiled-graph": 15.0}  # to make one: these compile
COMPARED = 4.0  # what is expected of a contender, in float64


class Simulated:
    """A run whose every measurement takes its time on a clock that stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, there: tuple[str, ...]) -> None:
        self.now, self.there, self.folder = 0.0, there, folder
        self.written: list[tuple[float, dict[str, Any]]] = []
        self.ends = float("inf")
        write, started = command._write, set[str]()

        def ask(contestant: steps.Contestant, what: str, *_: Any) -> Any:
            self.take(0.0 if contestant.name in started else START)
            started.add(contestant.name)
            if what == "make" and contestant.name not in self.there:
                raise LeftOut("not installed")
            self.take(SLOW.get(contestant.name, REQUESTS["make"]) if what == "make" else REQUESTS.get(what, 0.0))
            return {"chunk": 10, "time": [1e-5] * 2, "host": [1e-6], "epoch": (0.5, 2.0), "memory": 1}.get(what)

        def written(result: dict[str, Any], path: Path) -> None:
            write(result, path)
            self.written.append((self.now, json.loads(path.with_suffix(".json").read_text())))

        monkeypatch.setattr(Budget, "clock", staticmethod(lambda: self.now))
        monkeypatch.setattr(steps.Contestant, "ask", ask)
        monkeypatch.setattr(command, "_write", written)
        for module, name, seconds, value in (
            (steps, "reference", COMPARED, []), (steps, "compare", 0.0, 0.0),
            (epochs, "after_epochs", COMPARED, None), (epochs, "errors", 0.0, [0.0]),
            (kernels, "_measured", 0.8, {"minimum": 1e-3, "median": 1e-3}),
            (Problem, "parameters", 0.0, []), (command, "has_mnist", 0.0, False),
            (command, "measure_copy", 2.0, {"bytes": 4e9, "minimum": 1e-3, "median": 1e-3}),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, lambda *_, s=seconds, v=value: self.take(s, v))
        monkeypatch.setitem(command._FULL, "entries", 1 << 10)

    def take(self, seconds: float, value: Any = None) -> Any:
        """Let time pass."""
        self.now += seconds
        if self.now > self.ends:
            raise KeyboardInterrupt
        return value

    def run(self) -> int:
        return command.main(["--device", "cpu", "--output", str(self.folder)])


def whole(result: dict[str, Any]) -> bool:
    """Whether a result has the copy, all kernels, a step and an epoch of nnkit."""
    steps_of = [rows for by in result["steps"].values() for rows in by.values()]
    epochs_of = [found["contenders"] for found in result["epochs"].values()]
    kinds = {row["kind"] for row in result["kernels"]}
    return bool(
        "copy" in result["ceilings"]
        and kinds == {"activation", "gradient", "output delta", "update"}
        and any(row["name"] == "rmsprop, momentum" for row in result["kernels"])  # the last
        and any("minimum" in rows.get("nnkit", {}) and "minimum" in rows.get("floor", {}) for rows in steps_of)
        and any("minimum" in rows.get("nnkit", {}) for rows in epochs_of)
    )


@pytest.mark.parametrize("there", [OWN, NAMES], ids=["CuPy alone", "all peers"])
def test_a_first_result_comes_in_two_minutes_and_the_last_in_eight(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: tuple[str, ...]
) -> None:
    simulated = Simulated(monkeypatch, tmp_path, there)
    assert simulated.run() == 0
    assert next(time for time, result in simulated.written if whole(result)) < 120
    last, result = simulated.written[-1]
    assert last < 480
    assert result["seconds"] == last
    if there == OWN:  # nothing is left out for want of time
        assert len(result["epochs"]) == 2
        assert result["skipped"] == []
        assert {size: list(by) for size, by in result["steps"].items()} == {
            str(size): list(steps.PRECISIONS) for text in command.SIZES for size in parse_sizes(text)
        }
    for rows in [rows for by in result["steps"].values() for rows in by.values()]:
        assert list(rows) == [name for name in NAMES if name not in ONLY_EPOCHS][: len(rows)]
    for found in result["epochs"].values():
        assert set(found["contenders"]) <= set(EPOCHS)
        assert "minimum" in found["contenders"]["nnkit"]


@pytest.mark.parametrize("ends", [20, 50, 100, 200, 300])
def test_results_are_written_as_they_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends: int) -> None:
    """A process that is killed loses what it is measuring at that moment, at most a size with all contenders."""
    simulated = Simulated(monkeypatch, tmp_path, OWN)
    simulated.ends = ends
    assert simulated.run() == 1
    before, result = simulated.written[-2]  # the last is written by Ctrl-C, which a killed process does not get
    assert ends - before < 70
    last = simulated.written[-1][1]
    assert last["stopped"] == "by Ctrl-C"
    for section in ("ceilings", "kernels", "steps", "epochs"):
        assert result[section] == last[section]


def test_an_error_ends_a_part_and_not_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulated = Simulated(monkeypatch, tmp_path, OWN)

    def fail(*_: Any) -> None:
        raise RuntimeError("out of something\nand more")

    monkeypatch.setattr(command, "measure_copy", fail)
    monkeypatch.setattr(epochs, "after_epochs", fail)
    assert simulated.run() == 1
    result = simulated.written[-1][1]
    why = "RuntimeError: out of something"
    assert result["failed"] == dict.fromkeys(["copy", "first epochs", "epochs"], why)
    assert result["steps"]
    assert f"- copy failed: {why}" in (tmp_path / "cpu.md").read_text()
