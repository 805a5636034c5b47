"""The kernels that `python -m bench.gpu` times: their bytes, and failures."""

from typing import Any

import pytest

from bench.gpu import kernels
from bench.gpu.absent import failures
from bench.gpu.budget import Budget
from bench.gpu.device import Device
from nnkit.kernels.cost import Cost, output_pair
from nnkit.optimizers import optimizer_names


def test_a_failing_case_ends_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    def pair(cost: Cost) -> Any:
        if cost.name == "huber":
            raise MemoryError("of the device\nand more")
        return output_pair(cost)

    monkeypatch.setattr(kernels, "output_pair", pair)
    found = list(kernels.measure_kernels(Device("cpu"), 1 << 10, 1, Budget(60)))
    failed = [row for row in found if "failed" in row]
    assert failed == [
        {"kind": "output deltas", "name": "after mean_absolute", "failed": "MemoryError: of the device"}
    ]  # fmt: skip
    measured = {kind: [row["name"] for row in found if row["kind"] == kind] for kind in ("output delta", "update")}
    assert measured["output delta"] == ["quadratic", "mean_absolute"]
    assert set(optimizer_names()) <= set(measured["update"])
    assert failures({"kernels": found}) == ["output deltas after mean_absolute failed: MemoryError: of the device"]
    monkeypatch.setattr(kernels, "get_optimizer", pair)
    monkeypatch.setattr(kernels, "optimizer_names", lambda: ["huber"])
    (row,) = [r for r in kernels.measure_kernels(Device("cpu"), 1 << 10, 1, Budget(60)) if r["kind"] == "updates"]
    assert row["name"] == "after the start"


def test_bytes_are_those_of_the_arrays_that_a_kernel_needs() -> None:
    entries, needed = 1 << 14, {"activation": 2, "gradient": 3, "output delta": 3}
    updates = {
        "sgd": 3, "sgd, l2": 3, "sgd, momentum": 5, "sgd, nesterov": 5, "rmsprop": 5, "rmsprop, momentum": 7,
        "adagrad": 5, "adam": 7, "adamw": 7, "lion": 5,
    }  # fmt: skip
    for row in kernels.measure_kernels(Device("cpu"), entries, 1, Budget(60)):
        arrays = needed[row["kind"]] if row["kind"] in needed else updates[row["name"]]
        # Some of a network's parameters are biases.
        assert arrays <= row["bytes"] / (4 * entries) <= arrays * (1.01 if row["kind"] == "update" else 1)
