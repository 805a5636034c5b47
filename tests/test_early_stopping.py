"""The rule of early stopping, as a function of the history alone."""

import math
from typing import Any

import pytest

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


def test_a_name_must_be_text() -> None:
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
