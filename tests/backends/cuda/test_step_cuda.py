"""Every kernel of a recorded step, with what was merged into it, compiles for real GPUs by NVRTC alone."""

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.backends.cuda.elementwise import ElementwiseCall
from nnkit.step import step_for
from tests.support.host_device import Written
from tests.support.nvrtc import ARCHITECTURES, compile_cuda, turn


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "quadratic"])
def test_kernels_of_steps_compile(monkeypatch: pytest.MonkeyPatch, cost: str, arch: int) -> None:
    device = Written(pytest.importorskip("cupy", reason="CuPy is not installed"))
    monkeypatch.setitem(selection._made, "cupy", device)
    layers = [nnkit.Dense(12, 20, "gelu"), nnkit.Dropout(0.3), nnkit.Dense(20, 16, "tanh"), nnkit.Dense(16, 3)]
    net = nnkit.Network(layers, cost=cost, seed=4, backend=device)
    nnkit.set_matmul_precision("medium")
    try:
        step = step_for(net, 8, net.optimizer_state(nnkit.SGD(0.1)), drops=True)
    finally:
        nnkit.set_matmul_precision("highest")
    calls = [node.call for node in step._tape.nodes if isinstance(node.call, ElementwiseCall)]
    assert any(len({np.dtype(out.dtype) for out in call.outs}) == 2 for call in calls)  # in both types
    assert any("dropout" in call.name and "gelu" in call.name for call in calls)
    for i, (text, name) in enumerate(device.texts.items()):
        if turn(i, arch):
            assert name.encode() in compile_cuda(text, arch)
