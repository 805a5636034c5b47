"""The tables of `python -m bench.gpu`, from a small hand-written result."""

import json
from typing import Any

from bench.gpu.absent import failures
from bench.gpu.tables import markdown

RESULT: dict[str, Any] = {
    "machine": {
        "gpu": "NVIDIA X", "driver": "580.1", "cuda_runtime": "13.0", "cupy": "14.2.0", "torch": "2.11.0", "jax": None,
        "numpy": "2.5", "nnkit": "0.1.0", "commit": "abc", "python": "3.12", "os": "Linux", "cpu": "CPU",
        "date": "2026-01-01 00:00 UTC",
    },
    "settings": {
        "short": False, "budget": 450.0, "rounds": 3, "seconds": 0.3, "precisions": ["float32", "bf16"],
        "compared_steps": 5, "tolerances": {"float32": 1e-3, "bf16": 5e-2},
    },
    "contenders": {
        "floor": "products alone", "nnkit": "nnkit", "nnkit-graph": "nnkit, graphs", "torch": "PyTorch",
        "jax": "JAX jit",
    },
    "ceilings": {
        "copy": {"bytes": 4e9, "minimum": 1e-3, "median": 2e-3},
        "products": {"float32": {"minimum": 0.04, "width": 8192, "flops": 2e12}, "bf16": {"left_out": "no PyTorch"}},
    },
    "kernels": [
        {"kind": "update", "name": "adam", "bytes": 2e9, "minimum": 1e-3, "median": 1e-3},
        {"kind": "gradient", "name": "gelu", "bytes": 2e9, "failed": "Error: x"},
    ],
    "steps": {
        "784-30-10x10": {
            "float32": {
                "floor": {"minimum": 1e-5, "median": 1.1e-5, "host": 5e-6, "device_bytes": 5e8, "peak_bytes": 2e6},
                "nnkit": {"minimum": 2e-5, "median": 2.2e-5, "host": 4e-6, "device_bytes": 4e8, "peak_bytes": None},
                "torch": {"minimum": 3e-4, "median": 3.3e-4, "host": 2.5e-4, "device_bytes": 6e8},
                "jax": {"left_out": "not installed; python -m pip install jax"},
            }
        },
        "64-64x8": {"bf16": {"nnkit": {"minimum": 1e-3, "median": 1e-3}, "torch": {"failed": "a\nValueError: b\n"}}},
    },
    "epochs": {
        "784-30-10x10": {
            "samples": 60000, "steps": 6000, "data": "MNIST", "contenders": {
                "nnkit": {"minimum": 0.05, "median": 0.06, "call": 0.07, "way": "one launch"},
                "nnkit-graph": {"minimum": 0.15, "median": 0.16, "call": 0.17, "way": "graphs"},
                "torch": {"minimum": 2.0, "median": 2.1},
            },
        }
    },
    "skipped": ["steps: 64-64x8 tf32"],
    "seconds": 449.6,
}  # fmt: skip


def test_tables_match_the_result() -> None:
    text = markdown(json.loads(json.dumps(RESULT)))
    lines = text.splitlines()
    for line in (
        "# NVIDIA X",
        "| copy of 2 GB, read and written | 4000 GB/s |",
        "| product of two 8192², float32 | 50 TFLOP/s |",
        "| update | adam | 1 ms | 2000 GB/s | 50 % |",
        "| products alone | 10 µs (11 µs) |",
        "| nnkit | 20 µs (22 µs) = 2.00 |",
        "| PyTorch | 300 µs (330 µs) = 30.0 |",
        "| PyTorch | 15.0 (15.0) |",
        "| nnkit | 1 ms (1 ms) |",
        "| nnkit | 4 µs |",
        "| nnkit | 400 |",
        "| products alone | 500 (2) |",
        "| nnkit | 50 ms (60 ms) = 1.00; one launch, 8.33 µs per step |",
        "| nnkit, graphs | 150 ms (160 ms) = 3.00; graphs, 25.0 µs per step |",
        "| PyTorch | 2 s (2.1 s) = 40.0 |",
        "- JAX jit left out: not installed; python -m pip install jax (784-30-10x10 in float32)",
        "- products alone left out: no PyTorch (the product in bf16)",
        "- PyTorch failed: ValueError: b (64-64x8 in bf16)",
        "- gradient gelu failed: Error: x",
        "- left out, as the budget is 450 s: steps: 64-64x8 tf32",
    ):
        assert line in lines, line
    assert sum(line.startswith("| nnkit, graphs |") for line in lines) == 1
    assert failures(RESULT) == [
        "PyTorch failed: ValueError: b (64-64x8 in bf16)",
        "gradient gelu failed: Error: x",
    ]
    assert "driver 580.1, CUDA runtime 13.0, CuPy 14.2.0, PyTorch 2.11.0, NumPy 2.5; nnkit 0.1.0 at abc" in text
    assert "1e-03 in float32, 5e-02 in bf16" in text


def test_clocks_and_failed_parts_are_shown() -> None:
    clocks = {"copy": {"clocks.sm": "1980 MHz", "power.draw": "300 W"}, "steps": {}}
    text = markdown(RESULT | {"clocks": clocks, "failed": {"products": "RuntimeError: x"}})
    for line in (
        "| after | clocks.sm | power.draw |",
        "| copy | 1980 MHz | 300 W |",
        "- products failed: RuntimeError: x",
    ):
        assert line in text.splitlines()


def test_tables_of_a_measurement_that_ended_early() -> None:
    early = {k: v for k, v in RESULT.items() if k not in ("ceilings", "steps", "epochs")}
    text = markdown(early | {"kernels": [], "stopped": "by Ctrl-C"})
    assert "|" not in text.replace("Not in the tables", "")
    assert "- the measurement was stopped by Ctrl-C" in text
