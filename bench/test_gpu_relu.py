"""The table of `python -m bench.gpu.relu`, over the CPU."""

import re

from bench.gpu.device import Device
from bench.gpu.relu import table


def test_a_row_for_each_precision() -> None:
    rows = table(Device("cpu"), 16, 8, 1).splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [
        [f"| {name}", "in kernels"] for name in ("highest", "high", "medium")
    ]
    assert all(re.fullmatch(r"\|.*\| \d+\.\d+ \(\d+\.\d+\) \|", row) for row in rows)
