"""What of a network fits into shared memory, and which trainings can be one launch an epoch."""

from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.cuda.cluster import BlockLimits
from nnkit.one_launch import EpochKernel, epoch_kernel_for
from nnkit.one_launch.layout import Layout, layout, layout_for, padded, recipe_of
from nnkit.optimizers import OptimizerState

HOPPER, AMPERE, ADA, VOLTA = (BlockLimits(kib * 1024, c) for kib, c in ((227, 8), (163, 1), (99, 1), (96, 1)))


def planned(sizes: list[int], batch_size: int, limits: BlockLimits, optimizer: Any = None, **how: Any) -> Layout | None:
    net = nnkit.Network(sizes, seed=0, **{"cost": "cross_entropy"} | how)
    recipe = recipe_of(net, net.optimizer_state(optimizer or nnkit.SGD(0.5)))
    assert recipe is not None
    return layout_for(recipe, batch_size, limits)


@pytest.mark.parametrize("blocks", [1, 2, 4, 8])
@pytest.mark.parametrize("batch_size", [1, 10, 33])
@pytest.mark.parametrize(
    "how",
    [{"activation": "gelu", "output_activation": "softmax", "cost": "quadratic"}, {"cost": "softmax_cross_entropy"}],
)
def test_arrays_are_laid_out_in_order(blocks: int, batch_size: int, how: dict[str, Any]) -> None:
    net = nnkit.Network([785, 30, 17, 10], seed=0, **how)
    recipe = recipe_of(net, net.optimizer_state(nnkit.Adam()))
    assert recipe is not None
    made = layout(recipe, batch_size, blocks)
    end = 0
    for array in made.arrays.values():
        assert array.offset % 16 == 0
        assert array.offset >= end
        end = array.offset + 4 * array.rows * array.row
    assert end <= made.bytes < end + 16
    assert made.columns % 4 == 0
    assert blocks * made.columns >= 785
    assert made.arrays["W0"].row == padded(made.columns)
    assert made.rows >= batch_size
    assert all(made.rows % tile == 0 for tiles in made.tiles for tile in tiles)


def test_rows_have_no_bank_conflicts() -> None:
    for length in range(1, 300):
        row = padded(length)
        assert length <= row < length + 8
        # Eight lanes, which read 16 bytes of eight rows at once, use all 32 banks.
        assert {(lane * row + k) % 32 for lane in range(8) for k in range(4)} == set(range(32))


def test_which_networks_fit() -> None:
    lecture = planned([784, 30, 10], 10, HOPPER)
    assert lecture is not None
    assert lecture.blocks == 8
    assert lecture.pays
    for limits in (AMPERE, HOPPER):
        alone = planned([784, 30, 10], 10, BlockLimits(limits.shared_bytes, 1))
        assert alone is not None
        assert alone.blocks == 1
        assert alone.bytes <= limits.shared_bytes
    for limits in (ADA, VOLTA):
        assert planned([784, 30, 10], 10, limits) is None
        assert planned([64, 30, 10], 10, limits) is not None
    assert planned([784, 100, 10], 32, HOPPER, nnkit.SGD(0.5, momentum=0.9)) is not None
    assert planned([784, 512, 512, 10], 1024, HOPPER) is None
    long = planned([784, 100, 10], 64, HOPPER)
    assert long is not None
    assert not long.pays


def test_every_block_of_a_cluster_has_columns() -> None:
    made = planned([5, 3, 2], 10, HOPPER)
    assert made is not None
    assert made.blocks <= 2
    only = planned([2, 3, 1], 10, HOPPER)
    assert only is not None
    assert only.blocks == 1


def test_unsupported_networks_have_no_kernel() -> None:
    dropout = nnkit.Network([nnkit.Dense(4, 8, "relu"), nnkit.Dropout(0.2), nnkit.Dense(8, 3)], seed=0)
    assert recipe_of(dropout, dropout.optimizer_state()) is None
    double = nnkit.Network([4, 8, 3], dtype="float64", seed=0)
    assert recipe_of(double, double.optimizer_state()) is None
    net = nnkit.Network([4, 8, 3], seed=0)
    assert recipe_of(net, net.optimizer_state()) is not None
    assert recipe_of(net, net.optimizer_state(nnkit.SGD(0.5, clip_norm=1.0))) is None

    class Own(OptimizerState):
        pass

    assert recipe_of(net, Own(nnkit.SGD(0.5), net.parameters)) is None


def test_numbers_of_the_optimizer_are_read_from_the_device() -> None:
    net = nnkit.Network([4, 8, 3], seed=0)
    recipe = recipe_of(net, net.optimizer_state(nnkit.SGD(0.1, momentum=0.9, l2=1e-3, weight_decay=1e-4)))
    assert recipe is not None
    assert set(recipe.numbers) == {"momentum", "l2", "weight_decay"}
    assert recipe.vectors == ("velocity",)


def test_a_vector_called_t() -> None:
    from dataclasses import dataclass

    from nnkit.backends.formula import Formula
    from nnkit.optimizers import Optimizer

    @dataclass(repr=False)
    class Own(Optimizer):
        learning_rate: float = 0.1
        formula = Formula(
            lambda xp, p, g, t, learning_rate: (p - learning_rate * t, t + g), "own", ["p", "g", "t", "learning_rate"]
        )

    net = nnkit.Network([4, 8, 3], seed=0)
    recipe = recipe_of(net, net.optimizer_state(Own()))
    assert recipe is not None
    assert recipe.vectors == ("t",)
    assert "clock" not in recipe.programs


def test_arrays_that_do_not_fit_are_refused() -> None:
    net = nnkit.Network([4, 8, 3], seed=0, backend="numpy")
    state = net.optimizer_state()
    recipe = recipe_of(net, state)
    assert recipe is not None
    kernel = EpochKernel(net, state, recipe, layout(recipe, 10, 1))
    right: dict[str, Any] = {
        "X": np.zeros((25, 4), np.float32), "y": np.zeros((25, 3), np.float32), "order": np.arange(25),
        "rates": np.zeros(3, np.float32), "logits": np.zeros((25, 3), np.float32),
    }  # fmt: skip
    wrong: dict[str, list[Any]] = {name: [array.astype(np.float16)] for name, array in right.items()}
    wrong["X"] += [np.zeros((25, 5), np.float32), np.zeros((4, 25), np.float32).T]
    wrong["y"] += [np.zeros((25, 4), np.float32), np.zeros((25, 6), np.float32)[:, ::2]]
    wrong["order"] += [np.arange(24)]
    wrong["rates"] += [np.zeros(2, np.float32), np.zeros((), np.float32)]
    wrong["logits"] += [np.zeros((24, 3), np.float32)]
    for name, arrays in wrong.items():
        for array in arrays:
            with pytest.raises(ValueError, match=rf"^{name} is .*; expected (float32|int64) of shape"):
                kernel.run(**right | {name: array})
    with pytest.raises(ValueError, match=r"^X is .*; expected float32 of shape \(25, 4\)"):
        kernel.run(**right | {"X": np.zeros((26, 4), np.float32), "order": None})
    with pytest.raises(ValueError, match=r"^an array of the members is .*; expected float32 of shape \(2, "):
        kernel.run(**right | {"members": [np.zeros((2, 7), np.float32)]})
    members = [np.zeros((2, *net.parameters.flat.shape), np.float32)]
    with pytest.raises(ValueError, match=r"^y is .*; expected float32 of shape \(2, 25, 3\)"):
        kernel.run(**right | {"members": members})


def test_there_is_no_kernel_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nnkit.Network([4, 8, 3], seed=0, backend="numpy")
    for value in ("0", "1"):
        monkeypatch.setenv("NNKIT_ONE_LAUNCH", value)
        assert epoch_kernel_for(net, net.optimizer_state(), 10) is None
    monkeypatch.setenv("NNKIT_ONE_LAUNCH", "off")
    with pytest.raises(ValueError, match=r"NNKIT_ONE_LAUNCH is 'off'; expected 0 or 1"):
        epoch_kernel_for(net, net.optimizer_state(), 10)
    assert np.isfinite(net.parameters.flat).all()
