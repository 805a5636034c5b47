"""The section on epilogues, on CuPy's arrays over the host's memory: what it compares, and what fails."""

from collections.abc import Iterator
from typing import Any

import pytest

import nnkit
from bench.gpu.absent import failures
from bench.gpu.budget import Budget
from bench.gpu.epilogues import CASES, measure_epilogues
from nnkit.backends import registry
from nnkit.backends.cuda.cublas_lt import Epilogue, Matmul
from tests.host_device import HostDevice, HostGemm


class Host:
    """What the section asks of a device."""

    kind = "cuda"

    def __init__(self) -> None:
        self.backend: Any = HostDevice(pytest.importorskip("cupy", reason="CuPy is not installed"))

    def times(self, work: Any, calls: int, times: int) -> dict[str, float]:
        work()
        return {"minimum": 1e-3, "median": 2e-3}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = Host()
    monkeypatch.setitem(registry._made, "cupy", made.backend)
    monkeypatch.setattr(made.backend, "release", lambda: None)
    monkeypatch.setenv("NNKIT_EPILOGUES", "0")
    yield made
    assert nnkit.get_matmul_precision() == "highest"


def test_each_case_in_each_precision(host: Any) -> None:
    rows = measure_epilogues(host, [(4, 16)], ["float32", "tf32", "bf16"], 1, Budget(100))
    assert [(row["precision"], row["what"]) for row in rows] == [
        (precision, what) for precision in ("float32", "tf32", "bf16") for what in CASES
    ]
    taken = [["BIAS"], ["RELU_AUX_BIAS", "DRELU"], ["GELU_AUX_BIAS", "DGELU"], ["BGRADB"]]
    assert [row["epilogues"] for row in rows] == taken * 3
    assert all(row["error"] < 1e-2 and "failed" not in row for row in rows)
    assert max(row["error"] for row in rows) > 1e-4  # sums of δb rounded to bfloat16
    with host.backend.recording() as tape:
        assert not tape.fuses  # the variable is as it was


def test_another_result_is_a_failure(host: Any) -> None:
    class Wrong(HostGemm):
        def run(self, plan: Matmul) -> None:
            super().run(plan._replace(epilogue=Epilogue.BIAS) if plan.epilogue == Epilogue.RELU_AUX_BIAS else plan)

    host.backend.handles = Wrong()
    rows = measure_epilogues(host, [(4, 16)], ["float32"], 1, Budget(100))
    assert [row["what"] for row in rows if "failed" in row] == ["ReLU, forward and backward"]
    assert failures({"contenders": {}, "kernels": [], "epilogues": rows})[0].startswith(
        "epilogues, ReLU, forward and backward, 4 × 16, float32: computes something else: off by"
    )


def test_an_error_is_a_line_and_the_others_go_on(host: Any) -> None:
    class Broken(HostGemm):
        def plan(self, matmul: Matmul) -> Matmul | None:
            if matmul.epilogue == Epilogue.BGRADB:
                raise RuntimeError("cuBLASLt says no")
            return None if matmul.epilogue == Epilogue.BIAS else matmul

    host.backend.handles = Broken()
    bias, relu, gelu, sums = measure_epilogues(host, [(4, 16)], ["float32"], 1, Budget(100))
    assert bias["epilogues"] == []
    assert (relu["epilogues"], gelu["epilogues"]) == (["RELU_AUX_BIAS", "DRELU"], ["GELU_AUX_BIAS", "DGELU"])
    assert sums["failed"] == "RuntimeError: cuBLASLt says no"
