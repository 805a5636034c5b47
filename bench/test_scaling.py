"""The cost model of data-parallel steps: its limits, and the step it predicts from measured constants."""

from pathlib import Path

import pytest

from bench.problem import parse_sizes
from bench.scaling import GPUS, PLANNED, Cluster, Host, main, parameters, useful

WIDE = parse_sizes("1024-4096-4096-4096-1000x65536")[0]


def test_half_of_the_time_is_exchange_at_the_balanced_share() -> None:
    """Without latencies and the update, on very many machines: b* = (2/3) · 4 R (1/β + 1/(8 β'))."""
    ideal = Cluster(nvlink_latency=0, infiniband_latency=0, per_doubling=0, launch=0, layer=0, memory=1e30)
    ranks = 8 * 10**6
    size = parse_sizes(f"1024-4096-1000x{round(ideal.half) * ranks}")[0]
    computing = 6 * parameters(size) * (size.batch // ranks) / ideal.rate
    assert ideal.step(size, ranks) == pytest.approx(2 * computing, rel=0.08)  # (g − 1)/g is 1 only for large machines


def test_ranks_stop_to_pay() -> None:
    """A small network is fastest on one GPU; a wide one at large batches on the most."""
    small = parse_sizes("784-30-10x128")[0]
    assert useful(Cluster(), small, GPUS) == (1, 1)
    best, half = useful(Cluster(), WIDE, GPUS)
    assert best == 1024
    assert 8 <= half < 1024
    assert useful(Cluster(rate=300e12), WIDE, GPUS)[1] < half  # faster GPUs wait for the same sums


def test_the_sum_between_machines_is_added() -> None:
    machine, message = Cluster(), 4e6
    assert machine.sums(message, 1) == 0
    inside = 2 * 7 / 8 * message / 400e9 + 12e-6
    assert machine.sums(message, 8) == pytest.approx(inside)
    between = 2 * 3 / 4 * (message / 8) / 45e9 + 25e-6 + 4e-6 * 2
    assert machine.sums(message, 32) == pytest.approx(inside + between)


def test_a_measured_machine() -> None:
    """29 ms on one rank, 1.2 of them for any number of samples; sums of 10 µs and 9.8 GB/s: 15.3 ms were measured."""
    size = parse_sizes("784-512-512-10x1024")[0]
    host = Host(6 * parameters(size) * 1024 / 27.8e-3, 1.2e-3, 10e-6, 9.8e9)
    assert host.step(size, 1) == pytest.approx(29.0e-3)
    assert host.step(size, 2) == pytest.approx(15.3e-3, rel=0.03)


def test_the_tables_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    files = {"--markdown": tmp_path / "model.md", "--picture": tmp_path / "model.png"}
    main([str(word) for pair in files.items() for word in pair])
    text = files["--markdown"].read_text()
    assert text.splitlines()[0] == "# Planning past one machine: a model, not measured"
    assert text.count("(model, not measured)") == 2
    assert "- 784-30-10, 128: never pays." in text
    assert "784-30-10" in capsys.readouterr().out
    assert files["--picture"].read_bytes().startswith(b"\x89PNG")
    assert len(PLANNED) == 3
