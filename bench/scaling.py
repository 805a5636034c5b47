"""`mpiexec -n 2 python -m bench.scaling`: the time of a data-parallel step, by a model and measured; by it, for GPUs.

The time of a step of B samples on p ranks, with n parameters and a gradient of m bytes, is

    t(p) = C(B/p) + U + A(p)

C(b) = max(6 n b/R, c) computes the gradient of b samples at R operations per second, in at least c; U = 28 n/M is
Adam's update, which reads or writes 7 arrays of float32 at M bytes per second; A(p) adds the gradients up. In a machine
of g ranks, by rings (Thakur, Rabenseifner and Gropp, IJHPCA 2005), A = α + 2 (g − 1)/g · m/β; N machines add
2 (N − 1)/N · (m/g)/β' + α' + α'' log₂ N. On the machine at hand, R, c + U, α and β follow from two steps of one rank
and two sums.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nnkit
from bench.problem import Size, parse_sizes
from bench.report import of_time
from nnkit.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = ("784-512-512-10x1024", "784-100-10x128", "784-30-10x10")
PLANNED = ("784-30-10x128", "784-512-512-10x8192", "1024-4096-4096-4096-1000x65536")
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
ASSUMED = """\
Assumed for each GPU: 45 TFLOP/s in float32 and 300 in TensorFloat-32, 2.8 TB/s of memory, 400 GB/s and 12 µs to the 7
others of its machine, 45 GB/s and 25 µs to other machines, 4 µs more for each doubling of their number, and at least
2 µs + 5 µs per layer for a gradient. The equation is in bench/scaling.py; the optimizer is Adam."""
EPOCHS, SAMPLES = 12, 16  # measured epochs, and minibatches in each


def parameters(size: Size) -> int:
    """The number of weights and biases.

    >>> parameters(parse_sizes("784-30-10x10")[0])
    23860
    """
    return sum((inputs + 1) * units for inputs, units in zip(size.widths, size.widths[1:], strict=False))


# --- the model ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """Ranks on one machine, with measured constants: operations and bytes per second, and seconds."""

    rate: float
    fixed: float
    latency: float
    bandwidth: float

    def step(self, size: Size, ranks: int) -> float:
        """The seconds of a step on so many ranks."""
        message, fixed = 4 * parameters(size), self.fixed
        share = math.ceil(size.batch / ranks)
        sums = self.latency * math.log2(ranks) + 2 * (ranks - 1) / ranks * message / self.bandwidth
        return 6 * parameters(size) * share / self.rate + fixed + sums


@dataclass(frozen=True)
class Cluster:
    """GPUs, 8 in a machine, with assumed constants in SI units.

    The defaults are an H100's float32 rate and memory as reached by large products, NVLink and one InfiniBand adapter
    per GPU.
    """

    rate: float = 45e12
    memory: float = 2.8e12
    nvlink: float = 400e9
    infiniband: float = 45e9
    nvlink_latency: float = 12e-6
    infiniband_latency: float = 25e-6
    per_doubling: float = 4e-6
    launch: float = 2e-6  # of a graph, and
    layer: float = 5e-6  # at least, for the kernels of a layer
    in_machine: int = 8

    def step(self, size: Size, ranks: int) -> float:
        """The seconds of a step on so many GPUs."""
        n, layers = parameters(size), len(size.widths) - 1
        gradient = max(6 * n * math.ceil(size.batch / ranks) / self.rate, self.launch + layers * self.layer)
        return gradient + 28 * n / self.memory + self.sums(4 * n, ranks)

    def sums(self, message: float, ranks: int) -> float:
        """The seconds to add so many bytes up."""
        if ranks == 1:
            return 0.0
        g = min(ranks, self.in_machine)
        machines = ranks // g
        seconds = 2 * (g - 1) / g * message / self.nvlink + self.nvlink_latency
        if machines > 1:
            seconds += 2 * (machines - 1) / machines * message / g / self.infiniband
            seconds += self.infiniband_latency + self.per_doubling * math.log2(machines)
        return seconds

    @property
    def half(self) -> float:
        """Samples per GPU at which exchanging takes as long as computing, on many machines of any network size."""
        per_byte = 2 / self.nvlink + 2 / (self.in_machine * self.infiniband)
        return 4 * per_byte * self.rate / 6


def useful(machine: Host | Cluster, size: Size, counts: Sequence[int]) -> tuple[int, int]:
    """The number of ranks with the shortest step, and the largest at which each does at least half the work of one."""
    one = machine.step(size, 1)
    steps = {ranks: machine.step(size, ranks) for ranks in (1, *counts)}
    best = min(steps, key=lambda ranks: steps[ranks])
    return best, max(ranks for ranks, seconds in steps.items() if one / seconds >= ranks / 2)


def planned(machines: dict[str, Cluster], sizes: Sequence[Size]) -> str:
    """The tables of the model, as Markdown, with what follows from them."""
    lines = []
    for name, machine in machines.items():
        lines += [f"\n{name}: step, and speed-up over one GPU (model, not measured)\n"]
        lines += ["| network, batch | 1 | " + " | ".join(map(str, GPUS)) + " |", "|---" * (2 + len(GPUS)) + "|"]
        for size in sizes:
            one = machine.step(size, 1)
            cells = [f"{of_time(s)}, {one / s:.1f}" for s in (machine.step(size, ranks) for ranks in GPUS)]
            lines += [f"| {_called(size)} | {of_time(one)} | " + " | ".join(cells) + " |"]
        lines += [""]
        for size in sizes:
            best, half = useful(machine, size, GPUS)
            pays = f"fastest on {best}, and at least half efficient up to {half}" if best > 1 else "never pays"
            lines += [f"- {_called(size)}: {pays}."]
        lines += [
            f"- Computing takes as long as exchanging at about {machine.half:.0f} samples per GPU, for any network."
        ]
    return "\n".join(lines)


def picture(machines: dict[str, Cluster], sizes: Sequence[Size]) -> "Figure":
    """The speed-up by the number of GPUs, a line for each network."""
    from nnkit.plots.figure import BLACK, BLUE, GREY, VERMILION, add_legend, new_figure, style_lines

    figure = new_figure(6 * len(machines), 6, "Data-parallel steps of Adam on GPUs: a model, not measured")
    for axes, (name, machine) in zip(
        np.ravel(figure.subplots(1, len(machines), sharey=True)), machines.items(), strict=True
    ):
        axes.plot((1, *GPUS), (1, *GPUS), color=GREY, linestyle=":", label="proportional")
        for size, color in zip(sizes, (VERMILION, BLUE, BLACK), strict=False):
            one = machine.step(size, 1)
            speed = [one / machine.step(size, ranks) for ranks in (1, *GPUS)]
            axes.plot((1, *GPUS), speed, color=color, marker="o", markersize=4, label=_called(size))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        style_lines(axes, f"speed-up over one GPU, {name}", "GPUs, 8 in a machine")
        axes.set_xticks((1, *GPUS), map(str, (1, *GPUS)))
        axes.yaxis.set_major_formatter("{x:g}")
    add_legend(figure, handles=figure.axes[0].get_lines())
    return figure


def _called(size: Size) -> str:
    return f"{'-'.join(map(str, size.widths))}, {size.batch}"


# --- the machine at hand --------------------------------------------------------------------------------------------


def seconds_of_a_step(size: Size, batch: int, comm: Any = None) -> float:
    """The shortest mean time of a step in an epoch."""
    rng = np.random.default_rng(0)
    X = rng.random((SAMPLES * batch, size.widths[0]), dtype=np.float32)
    y = rng.integers(0, size.widths[-1], len(X))
    net = nnkit.Network(size.widths, "relu", seed=0)
    history = net.fit(X, y, epochs=EPOCHS, batch_size=batch, optimizer=nnkit.Adam(), progress=False, comm=comm)
    return min(history["seconds"]) / SAMPLES


def seconds_of_a_sum(comm: Any, words: int) -> float:
    """The shortest time of adding up float32 numbers."""
    from mpi4py import MPI

    array, found = np.zeros(words, np.float32), []
    for _ in range(100):
        comm.Barrier()
        start = time.perf_counter()
        comm.Allreduce(MPI.IN_PLACE, array)
        found.append(time.perf_counter() - start)
    return float(comm.allreduce(min(found), MPI.MAX))


def measured(sizes: Sequence[Size]) -> str:
    """Predicted beside measured steps for all numbers of ranks up to that of mpiexec, as Markdown; on rank 0."""
    from nnkit.parallel.mpi import world

    everyone = world()
    lines = ["| network, batch | ranks | predicted | measured | speed-up |", "|---|---|---|---|---|"]
    for size in sizes:
        one = seconds_of_a_step(size, size.batch) if everyone.rank == 0 else 0.0
        single = seconds_of_a_step(size, 1) if everyone.rank == 0 else 0.0
        small, large = seconds_of_a_sum(everyone, 1), seconds_of_a_sum(everyone, parameters(size))
        rate = 6 * parameters(size) * (size.batch - 1) / max(one - single, 1e-9)
        p = everyone.size
        bandwidth = 2 * (p - 1) / p * 4 * parameters(size) / max(large - small, 1e-9)
        host = Host(rate, max(single, 0.0), small / math.log2(p), bandwidth)
        lines += [f"| {_called(size)} | 1 | | {of_time(one)} | 1 |"]
        for ranks in range(2, p + 1):
            part = everyone.Split(0 if everyone.rank < ranks else 1, everyone.rank)
            seconds = seconds_of_a_step(size, size.batch, part) if everyone.rank < ranks else 0.0
            part.Free()
            everyone.Barrier()
            predicted = host.step(size, ranks)
            lines += [f"| | {ranks} | {of_time(predicted)} | {of_time(seconds)} | {one / max(seconds, 1e-9):.2f} |"]
        sums = f"sums {of_time(small)} + {bandwidth / 1e9:.1f} GB/s"
        lines += [f"| | | {rate / 1e9:.0f} GFLOP/s, one sample {of_time(single)}, {sums} | | |"]
    return "\n".join(lines) if everyone.rank == 0 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure where mpiexec has started several processes; print the model's tables, and write its picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=MEASURED, help="to measure, such as 784-100-10x128")
    parser.add_argument("--planned", nargs="+", default=PLANNED, help="for the model")
    parser.add_argument("--markdown", type=Path, help="write the tables of the model to this file")
    parser.add_argument("--picture", type=Path, help="write the picture of the model to this file")
    options = parser.parse_args(arguments)
    sizes, plans = (
        [size for text in texts for size in parse_sizes(text)] for texts in (options.sizes, options.planned)
    )
    from nnkit.parallel.mpi import launched

    if launched() > 1:
        text = measured(sizes)
        if not text:
            return
        print(f"Adam, float32, minima\n\n{text}")
    else:
        print("for measurements: mpiexec -n 2 python -m bench.scaling")
    machines = {"float32": Cluster(), "TensorFloat-32": Cluster(rate=300e12)}
    tables = planned(machines, plans)
    print(tables)
    if options.markdown is not None:
        head = f"# Planning past one machine: a model, not measured\n\n{ASSUMED}\n"
        with replacing(options.markdown) as file:
            file.write(f"{head}{tables}\n".encode())
    if options.picture is not None:
        from nnkit.plots.figure import picture_path, write_picture

        write_picture(picture(machines, plans), picture_path(options.picture))


if __name__ == "__main__":
    main()
