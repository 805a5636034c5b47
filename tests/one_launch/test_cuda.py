"""The text of one launch an epoch compiles for real GPUs, by NVRTC alone: no GPU and no header is needed."""

import re
from dataclasses import replace
from typing import Any

import pytest

import nnkit
from nnkit.kernels.activations import activation_names
from nnkit.kernels.costs import cost_names
from nnkit.one_launch.text import NAME, kernel_text
from tests.support.epoch_cases import Case
from tests.support.nvrtc import ARCHITECTURES, compile_cuda

SGD = nnkit.SGD
# From Hopper on there are clusters; the others run one block: Ampere, and Turing, which has no asynchronous copies.
TARGETS = ((90, 8), (80, 1), (100, 2), (75, 1), (120, 1), (90, 4), (120, 8))

BASE = Case((20, 12, 10), 6, 20, 1, lambda: SGD(0.1))
ACTIVATIONS = activation_names()  # before any test can add one
DEEP = [
    replace(BASE, sizes=(20, *[12] * hidden, 10), activation=name)
    for hidden, name in zip((1, 2, 3) * len(ACTIVATIONS), ACTIVATIONS, strict=False)
]
COSTS = [replace(BASE, cost=name, activation="relu") for name in cost_names()]
COSTS += [replace(BASE, cost="quadratic", output=output) for output in ("softmax", "sigmoid", "gelu", "tanh")]
COSTS += [replace(BASE, cost="cross_entropy", output="softmax"), replace(BASE, sizes=(20, 10))]
OPTIMIZERS = [
    replace(BASE, optimizer=optimizer)
    for optimizer in (
        lambda: SGD(0.1, l2=1e-4),
        lambda: SGD(0.1, l1=1e-4, weight_decay=1e-4, clip_value=0.1),
        lambda: SGD(0.1, momentum=0.9),
        lambda: SGD(0.1, momentum=0.9, nesterov=True, l1=1e-4, l2=1e-4, weight_decay=1e-4, clip_value=0.1),
        lambda: nnkit.Adam(l2=1e-4),
        lambda: nnkit.AdamW(),
        lambda: nnkit.optimizers.RMSprop(momentum=0.5),
        lambda: nnkit.optimizers.Adagrad(),
        lambda: nnkit.optimizers.Lion(),
    )
]
ALL = [*DEEP, *COSTS, *OPTIMIZERS]


def text_of(case: Case, lanes: int) -> str:
    model = case.network()
    recipe, made = case.plan(model, model.optimizer_state(case.optimizer()))
    return kernel_text(recipe, made, model.parameters.starts, lanes)


@pytest.mark.parametrize("number", range(len(ALL)))
def test_every_epoch_kernel_compiles(number: int) -> None:
    arch, blocks = TARGETS[number % len(TARGETS)]
    cubin = compile_cuda(text_of(replace(ALL[number], blocks=blocks), (1, 4)[number // len(TARGETS) % 2]), arch)
    assert cubin.startswith(b"\x7fELF")
    assert NAME.encode() + b"\0" in cubin


@pytest.mark.parametrize(("sizes", "batch_size"), [((784, 30, 10), 10), ((784, 100, 10), 32)])
def test_the_text_of_a_cluster(sizes: tuple[int, ...], batch_size: int) -> None:
    case = Case(sizes, batch_size, 100, 8, lambda: SGD(0.5, momentum=0.9))
    ptx = compile_cuda(text_of(case, 4), 90, ptx=True).decode()
    for part in (".reqnctapercluster 8", "mapa.shared::cluster", "ld.shared::cluster.v4", "cp.async.ca.shared.global"):
        assert part in ptx
    assert len(re.findall(r"barrier\.cluster\.arrive\.release", ptx)) == 3  # before the first step, and twice in each
    assert re.search(r"ld\.shared\.v4|ld\.v4", ptx)
    assert not re.search(r"\batom\.|\bred\.", ptx)  # the same bits each time
    assert not re.search(r"\.local\b", ptx.split("{", 1)[1])  # nothing spilled, no array that registers cannot hold


def test_the_text_of_one_block_has_no_cluster() -> None:
    for arch in ARCHITECTURES:
        ptx = compile_cuda(text_of(BASE, 4), arch, ptx=True).decode()
        assert "cluster" not in ptx
        assert ("cp.async" in ptx) == (arch >= 80)


def test_a_custom_activation() -> None:
    swish: Any = lambda xp, z: z / (1 + xp.exp(-1.5 * z))  # noqa: E731

    def gradient(xp: Any, z: Any, delta: Any) -> Any:
        s = 1 / (1 + xp.exp(-1.5 * z))
        return delta * (s + 1.5 * z * s * (1 - s))

    nnkit.register_activation("swish of 1.5: Δ", swish, gradient, gradient_from="preactivation")
    try:
        text = text_of(replace(BASE, activation="swish of 1.5: Δ", blocks=2), 1)
    finally:
        nnkit.unregister_activation("swish of 1.5: Δ")
    assert text.isascii()
    assert NAME.encode() in compile_cuda(text, 90)
