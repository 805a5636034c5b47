"""Schedules: against torch.optim.lr_scheduler, and as functions of the position and the history alone."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnkit
from nnkit import schedules
from nnkit.schedules import (
    Schedule,
    as_schedule,
    constant,
    cosine,
    exponential,
    halving,
    one_cycle,
    reduce_on_plateau,
    schedule_names,
    step,
    warmup,
)

EPOCHS = 40
MADE: dict[str, Schedule] = {
    "constant": constant(),
    "step": step(7, 0.3),
    "halving": halving(),
    "halving-3": halving(3),
    "exponential": exponential(0.93),
    "cosine": cosine(),
    "cosine-final": cosine(0.2),
    "warmup": warmup(5),
    "warmup-cosine": warmup(2.5, cosine(0.1), start=0.25),
    "one_cycle": one_cycle(),
    "one_cycle-numbers": one_cycle(0.4, 10.0, 100.0),
    "one_cycle-down": one_cycle(0.0),
    "reduce_on_plateau": reduce_on_plateau(patience=2, min_factor=0.01),
    "warmup-plateau": warmup(3, reduce_on_plateau("accuracy", 0.5, 1)),
}
HISTORY = {
    "validation_cost": [1.0, 0.5, 0.7, 0.6, 0.5, 0.4, 0.5, 0.45, 0.4, 0.4, 0.41, 0.4, 0.5],
    "accuracy": [0.1, 0.9, 0.2, 0.3, 0.4, 0.3, 0.2, 0.5, 0.4, 0.4, 0.1, 0.9, 0.9],
}


def torch_rates(make: Any, count: int, numbers: list[float] | None = None) -> list[float]:
    """PyTorch's learning rate before each of `count` steps of a scheduler, from 1."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(torch.optim.lr_scheduler)(optimizer)
    rates = []
    for i in range(count):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step(*([] if numbers is None else [numbers[i]]))
    return rates


def factors(schedule: Schedule, positions: Any, epochs: float = EPOCHS) -> list[float]:
    return [schedule.factor(float(position), epochs, {}) for position in positions]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (step(7, 0.3), lambda s: lambda o: s.StepLR(o, 7, 0.3)),
        (halving(2), lambda s: lambda o: s.StepLR(o, 2, 0.5)),
        (exponential(0.93), lambda s: lambda o: s.ExponentialLR(o, 0.93)),
        (exponential(1.05), lambda s: lambda o: s.ExponentialLR(o, 1.05)),
        (cosine(), lambda s: lambda o: s.CosineAnnealingLR(o, EPOCHS)),
        (cosine(0.2), lambda s: lambda o: s.CosineAnnealingLR(o, EPOCHS, eta_min=0.2)),
        (warmup(5, start=0.25), lambda s: lambda o: s.LinearLR(o, 0.25, total_iters=5)),
        (warmup(30, start=1 / 3), lambda s: lambda o: s.LinearLR(o, total_iters=30)),
        (warmup(8), lambda s: lambda o: s.LinearLR(o, 1e-15, total_iters=8)),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_torch_agrees_at_each_epoch(ours: Schedule, theirs: Any) -> None:
    np.testing.assert_allclose(factors(ours, range(EPOCHS)), torch_rates(theirs, EPOCHS), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("rise", "div", "final"), [(0.3, 25.0, 1e4), (0.5, 10.0, 100.0), (0.1, 4.0, 2.0)])
def test_one_cycle_agrees_with_torch(rise: float, div: float, final: float) -> None:
    """PyTorch counts steps: its peak is at step r·T − 1 and its end at T − 1, where ours are at r·T and T."""
    total = 200
    theirs = torch_rates(
        lambda s: (
            lambda o: s.OneCycleLR(
                o, 1.0, total_steps=total, pct_start=rise, div_factor=div, final_div_factor=final, cycle_momentum=False
            )
        ),
        total - 1,
    )
    peak = rise * total - 1
    places = [i * rise * total / peak if i <= peak else i + 1 for i in range(total - 1)]
    np.testing.assert_allclose(factors(one_cycle(rise, div, final), places, total), theirs, rtol=1e-11)
    assert factors(one_cycle(rise, div, final), [0, rise * total, total], total) == pytest.approx(
        [1 / div, 1, 1 / div / final], rel=1e-12
    )


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, math.nan, math.inf, -math.inf]), max_size=40),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([0.0, 0.03]),
    st.booleans(),
)
def test_reduce_on_plateau_agrees_with_torch(
    numbers: list[float], patience: int, factor: float, min_delta: float, min_factor: float, accuracy: bool
) -> None:
    name, mode = ("accuracy", "max") if accuracy else ("cost", "min")
    ours = reduce_on_plateau(name, factor, patience, min_factor, min_delta)
    theirs = torch_rates(
        lambda s: (
            lambda o: s.ReduceLROnPlateau(
                o, mode, factor, patience, min_delta, threshold_mode="abs", min_lr=min_factor, eps=0
            )
        ),
        len(numbers) + 1,
        [*numbers, 0.0],
    )
    found = [ours.factor(i, 100, {name: numbers[:i], "seconds": [1.0] * i} if i else {}) for i in range(len(theirs))]
    assert found == pytest.approx(theirs, rel=1e-12)


def test_reduce_on_plateau_depends_only_on_the_history() -> None:
    resumed, asked = reduce_on_plateau(patience=1), reduce_on_plateau(patience=1)
    in_order = [asked.factor(i, 20, {k: v[:i] for k, v in HISTORY.items()}) for i in range(14)]
    assert len(set(in_order)) > 2
    for i in reversed(range(14)):
        assert resumed.factor(i + 0.5, 20, {k: v[:i] for k, v in HISTORY.items()}) == in_order[i]
    with pytest.raises(ValueError, match="monitors 'validation_cost'; this training has cost, seconds"):
        asked.factor(1, 20, {"cost": [1.0], "seconds": [1.0]})
    assert asked.monitor == warmup(2, asked).monitor == "validation_cost"
    assert constant().monitor is None


@pytest.mark.parametrize("name", MADE)
def test_constant_within_an_epoch_or_smooth(name: str) -> None:
    schedule = MADE[name]

    def factor(position: float) -> float:
        done = math.floor(position)
        return schedule.factor(position, 13, {k: v[:done] for k, v in HISTORY.items()} if done else {})

    inside = [[factor(epoch + share) for share in (0, 0.25, 0.5, 0.999)] for epoch in range(13)]
    if name.split("-")[0] in ("constant", "step", "halving", "reduce_on_plateau"):
        assert all(len(set(values)) == 1 for values in inside)
    elif name not in ("warmup", "warmup-plateau"):  # they end constant
        assert all(len(set(values)) == 4 for values in inside)
        fine = np.array([factor(position) for position in np.linspace(0, 13, 2001)])
        assert np.abs(np.diff(fine)).max() < 0.01  # no jump


@pytest.mark.parametrize("name", MADE)
def test_repr_is_the_call(name: str) -> None:
    schedule = MADE[name]
    again = eval(repr(schedule), vars(schedules))
    for position in np.linspace(0, 13, 27):
        assert again.factor(position, 13, HISTORY) == schedule.factor(position, 13, HISTORY)


def test_a_warmup_passes_on_the_remaining_epochs() -> None:
    seen: list[Any] = []

    class Spy(Schedule):
        def factor(self, epoch: float, epochs: float, history: Any) -> float:
            seen.append((epoch, epochs, history))
            return 0.5

    schedule = warmup(3, Spy())
    assert factors(schedule, [0, 1.5, 2.999], 10) == pytest.approx([0, 0.5, 2.999 / 3])
    assert schedule.factor(4.5, 10, {"cost": [4.0, 3.0, 2.0, 1.0]}) == 0.5
    assert seen == [(1.5, 7, {"cost": [1.0]})]
    assert warmup(10, cosine()).factor(10, 10, {}) == 0.0  # the end of a training that is all warmup


def test_functions_and_names() -> None:
    assert factors(as_schedule(None), [0, 39.9]) == [1.0, 1.0]
    schedule = cosine()
    assert as_schedule(schedule) is schedule
    assert factors(as_schedule(lambda epoch: 0.5 ** int(epoch)), [0, 1.5, 2]) == [1, 0.5, 0.25]
    assert schedule_names() == ["constant", "halving", "cosine", "coslog", "one_cycle", "reduce_on_plateau"]
    for name in schedule_names():
        assert repr(as_schedule(name)).startswith(f"{name}(")
    with pytest.raises(ValueError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        as_schedule("cosin")
    with pytest.raises(ValueError, match=r"unknown schedule 'step'; known: constant, .* step\(every\), exponential"):
        as_schedule("step")
    nothing: Any = 3
    with pytest.raises(TypeError, match="schedule is 3; expected a schedule, such as"):
        as_schedule(nothing)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "fast", None, [1.0, 2.0], cosine])
def test_an_invalid_factor_is_refused_with_its_epoch(bad: Any) -> None:
    def ramp(epoch: float) -> Any:
        return bad if epoch >= 2.5 else 0

    schedule = as_schedule(ramp)
    assert factors(schedule, [0, 2.4]) == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"^ramp: the factor is .* at epoch 2\.5; expected a finite"):
        schedule.factor(2.5, EPOCHS, {})


def test_a_factor_that_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^exponential\(10.0\): the factor is inf at epoch 400"):
        exponential(10).factor(400, 500, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: step(0), "step: every is 0; expected a whole number of at least 1"),
        (lambda: step(2.5), "step: every is 2.5"),  # type: ignore[arg-type]
        (lambda: step(3, 0), "step: factor is 0; expected a finite number above 0"),
        (lambda: halving(-1), "halving: every is -1"),
        (lambda: exponential(math.nan), "exponential: factor is nan"),
        (lambda: cosine(-0.1), "cosine: final is -0.1; expected a finite number of at least 0"),
        (lambda: warmup(0), "warmup: epochs is 0; expected a finite number above 0"),
        (lambda: warmup(5, start=-1), "warmup: start is -1"),
        (lambda: warmup(5, "cosin"), "unknown schedule 'cosin'"),
        (lambda: one_cycle(1.0), "one_cycle: pct_start is 1.0; expected a finite number of at least 0 and below 1"),
        (lambda: one_cycle(div_factor=0), "one_cycle: div_factor is 0"),
        (lambda: one_cycle(final_div_factor=math.inf), "one_cycle: final_div_factor is inf"),
        (lambda: reduce_on_plateau(factor=1.0), "reduce_on_plateau: factor is 1.0"),
        (lambda: reduce_on_plateau(patience=-1), "reduce_on_plateau: patience is -1"),
        (lambda: reduce_on_plateau(min_factor=1.5), "reduce_on_plateau: min_factor is 1.5"),
        (lambda: reduce_on_plateau(min_delta=-1), "reduce_on_plateau: min_delta is -1"),
    ],
)
def test_numbers_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize("value", [math.nan, -0.5, math.inf, None, "x"])
def test_the_factor_of_a_custom_schedule_is_checked(value: Any) -> None:
    class Own(Schedule):
        def factor(self, epoch: float, epochs: float, history: Any) -> float:
            return value  # type: ignore[no-any-return]

        def __repr__(self) -> str:
            return "Own()"

    net = nnkit.Network([2, 2], seed=0)
    before = net.parameters.flat.copy()
    with pytest.raises(
        ValueError, match=r"Own\(\): the factor is .* at epoch 0; expected a finite number of at least 0"
    ):
        net.fit(np.eye(2), [0, 1], schedule=Own(), progress=False)
    assert np.array_equal(net.parameters.flat, before)


def test_a_fractional_warmup_hides_its_last_epoch() -> None:
    """After 2.5 epochs the plateau sees the epochs from the third on: the best of those before does not count."""
    schedule = warmup(2.5, reduce_on_plateau("cost", 0.1, patience=1))
    costs = [0.1, 0.1, 0.2, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert [schedule.factor(float(i), 9, {"cost": costs[:i]}) for i in range(3, 9)] == [1.0] * 6
    seen: list[Any] = []

    class Spy(Schedule):
        def factor(self, epoch: float, epochs: float, history: Any) -> float:
            seen.append(history)
            return 1.0

    warmup(2.5, Spy()).factor(4.0, 9, {"cost": [0.0, 1.0, 2.0, 3.0]})
    assert seen == [{"cost": [3.0]}]


@pytest.mark.parametrize("schedule", [cosine(), cosine(0.3), one_cycle()])
def test_after_its_end_a_schedule_is_constant(schedule: Schedule) -> None:
    assert factors(schedule, [EPOCHS + 0.5, 1.5 * EPOCHS, 2 * EPOCHS]) == factors(schedule, [EPOCHS] * 3)


def test_a_warmup_reads_the_given_history() -> None:
    """Of two trainings that share it, too."""
    schedule = warmup(1, reduce_on_plateau("cost", 0.5, patience=0))
    falling, rising = {"cost": [4.0, 3.0, 2.0]}, {"cost": [1.0, 2.0, 3.0]}
    assert [schedule.factor(3.0, 9, history) for history in (falling, rising, falling)] == [1.0, 0.5, 1.0]


def test_defaults_match_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    same = {"pct_start": "pct_start", "div_factor": "div_factor", "final_div_factor": "final_div_factor"}
    plateau = {"factor": "factor", "patience": "patience", "min_factor": "min_lr", "min_delta": "threshold"}
    for ours, theirs, names in ((one_cycle, "OneCycleLR", same), (reduce_on_plateau, "ReduceLROnPlateau", plateau)):
        given = inspect.signature(ours).parameters
        wanted = inspect.signature(getattr(torch.optim.lr_scheduler, theirs)).parameters
        assert {name: given[name].default for name in names} == {name: wanted[names[name]].default for name in names}
