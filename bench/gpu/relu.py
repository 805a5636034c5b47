"""`python -m bench.gpu.relu`: a step of wide layers with ReLU, inside cuBLASLt's products and in kernels after them."""

import sys
from statistics import median

import numpy as np

from bench.gpu.device import Device
from nnkit import SGD, Network, set_matmul_precision
from nnkit.backends import BackendUnavailableError
from nnkit.backends.cuda import epilogues
from nnkit.step import step_for

ROUNDS = 9


def table(device: Device, width: int, batch: int, calls: int) -> str:
    """Minima and medians of rounds, in turn; a precision has one row if its GPU has no such products."""
    lines = [f"| {width} wide, batch {batch} | ReLU | ms, minimum (median) |", "|---|---|---|"]
    least = epilogues.LEAST
    for precision in ("highest", "high", "medium"):
        set_matmul_precision(precision)
        steps = {}
        for epilogues.LEAST in (least, sys.maxsize):
            net = Network([width] * 4, "relu", "cross_entropy", seed=0, backend=device.backend)
            step = step_for(net, batch, net.optimizer_state(SGD(1e-4)))
            step.x[...] = device.backend.asarray(np.random.default_rng(0).random((batch, width), np.float32))
            inside = any(node.name.startswith("matmul_") for node in step.nodes)
            steps["in products" if inside else "in kernels"] = (step, net)
            step.replay(3)  # which also captures a graph
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, (step, _) in steps.items():
                times[name].append(1e3 * device.times(step.replay, calls, 1)["minimum"])
        lines += [f"| {precision} | {name} | {min(t):.3f} ({median(t):.3f}) |" for name, t in times.items()]
    epilogues.LEAST = least
    set_matmul_precision("highest")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(table(Device("cuda"), 4096, 8192, 10))
    except BackendUnavailableError as error:
        sys.exit(str(error))
