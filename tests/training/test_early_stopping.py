"""The rule of early stopping, as a function of the history alone."""

import math
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit import EarlyStopping


@pytest.mark.parametrize(
    ("rule", "values", "best", "stops"),
    [
        (EarlyStopping("cost", 2), [], None, False),
        (EarlyStopping("cost", 2), [1.0, 0.9, 0.95], 1, False),
        (EarlyStopping("cost", 2), [1.0, 0.9, 0.95, 0.9], 1, True),  # as good is no improvement
        (EarlyStopping("cost", 2), [1.0, 0.9, 0.95, 0.89], 3, False),
        (EarlyStopping("cost", 2, 0.1), [1.0, 0.95, 0.85, 0.8], 2, False),
        (EarlyStopping("cost", 2, 0.1), [1.0, 0.95, 0.91], 0, True),
        (EarlyStopping("validation_accuracy", 1), [0.5, 0.6, 0.6], 1, True),
        (EarlyStopping("top_5", 1), [0.5, 0.6], 1, False),
        (EarlyStopping("validation_r2", 1), [-3.0, -1.0], 1, False),
        (EarlyStopping("cost", 2), [math.nan, 1.0, math.nan, 2.0], 1, True),
        (EarlyStopping("cost", 2), [math.nan, math.nan], None, True),
        (EarlyStopping("f1", 1, mode="max"), [0.5, 0.6, 0.6], 1, True),
        (EarlyStopping("validation_accuracy", 1, mode="min"), [0.5, 0.6], 0, True),
    ],
)
def test_rule(rule: EarlyStopping, values: list[float], best: int | None, stops: bool) -> None:
    history = {rule.monitor: values}
    assert rule.best(history) == best
    assert rule.stops(history) is stops


def test_the_monitor_must_be_text() -> None:
    with pytest.raises(TypeError, match="monitor is None; expected a name"):
        EarlyStopping(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience is 0; expected a whole number of at least 1"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"patience": True}, "patience is True"),
        ({"min_delta": -1e-9}, "min_delta is -1e-09"),
        ({"min_delta": math.nan}, "min_delta is nan"),
        ({"mode": "maximum"}, "mode is 'maximum'; expected 'auto', 'min' or 'max'"),
    ],
)
def test_numbers_out_of_range(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


@pytest.mark.parametrize("name", ["f2", "validation_f2", "accuracy_of_mine", "loss", "top_five"])
def test_an_unknown_monitor_needs_a_mode(name: str) -> None:
    plateau = nnkit.schedules.reduce_on_plateau
    for make in (EarlyStopping, plateau):
        with pytest.raises(ValueError, match=f"the name '{name}' does not say which .*; give mode='max' if"):
            make(name)
    with pytest.raises(ValueError, match="reduce_on_plateau: mode is 'best'; expected 'auto', 'min' or 'max'"):
        plateau("cost", mode="best")
    assert EarlyStopping(name, mode="max").best({name: [0.1, 0.3, 0.2]}) == 1
    assert EarlyStopping(name, mode="min").best({name: [0.1, 0.3, 0.2]}) == 0


def test_a_custom_metric_to_maximize() -> None:
    numbers = iter(range(99))

    def f1(y: Any, h: Any) -> float:
        return next(numbers) / 10

    options: dict[str, Any] = {"metrics": [f1], "optimizer": nnkit.SGD(0.5), "progress": False}
    for mode, rates in (("max", [0.5] * 4), ("min", [0.5, 0.5, 0.05, 0.005])):
        schedule = nnkit.schedules.reduce_on_plateau("f1", patience=0, mode=mode)
        history = nnkit.Network([2, 2], seed=0).fit(np.eye(2), [0, 1], epochs=4, schedule=schedule, **options)
        assert history["learning_rate"] == pytest.approx(rates)
    rule = EarlyStopping("f1", patience=2, mode="max")
    assert nnkit.Network([2, 2], seed=0).fit(np.eye(2), [0, 1], epochs=9, early_stopping=rule, **options).epochs == 9
    rule = EarlyStopping("f1", patience=2, mode="min")
    assert nnkit.Network([2, 2], seed=0).fit(np.eye(2), [0, 1], epochs=9, early_stopping=rule, **options).epochs == 3
