"""The attributes of a network: invalid values raise when they are set, not when they are used."""

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.checks import FixedList, checked_features, flag, whole
from nnkit.classes import checked_classes
from nnkit.optimizers import Optimizer, chosen_optimizer
from nnkit.preprocessing import Preprocessing, checked_preprocessing


class Checked:
    """An object whose attributes are checked when they are set: the base of a network."""

    def __setattr__(self, name: str, value: Any) -> None:
        check = _CHECKS.get(name)
        object.__setattr__(self, name, value if check is None else check(self, value))


def _fixed(name: str) -> Callable[[Any, Any], Any]:
    """A check that an attribute on which parameters and recordings depend is set only once."""

    def check(model: Any, value: Any) -> Any:
        if name in vars(model):
            raise AttributeError(f"{name} of a network cannot be changed; create a new nnkit.Network(...)")
        return value

    return check


def _seed(model: Any, value: Any) -> int:
    found = whole("", "seed", value, 0)
    model.seed_is_drawn = False  # the constructor sets it afterwards
    place = vars(model).get("placement")
    if place is not None and place.dropout is not None:
        place.dropout.take_seed(found)
    return found


def _preprocessing(model: Any, value: Any) -> Preprocessing | None:
    found = checked_preprocessing(value, model.d_in)
    _check_between_epochs(model, "preprocessing")
    if "features" in vars(model):  # not in the constructor
        width = model.d_in if found is None else found.inputs
        vars(model)["features"] = _agreed(model.features, found, width)
    return found


def _vector_targets(model: Any, value: Any) -> bool:
    if flag("", "vector_targets", value) and model.d_out > 1:
        raise ValueError(f"vector_targets is True, but the network has {model.d_out} outputs; expected a single one")
    return bool(value)


def _optimizer(model: Any, value: Any) -> Optimizer:
    found = chosen_optimizer(value, vars(model).get("optimizer", value))
    _check_between_epochs(model, "optimizer")
    return found


def _check_between_epochs(model: Any, name: str) -> None:
    if "turn" in vars(model):  # not in the constructor
        model.turn.check_between_epochs(name)


def _agreed(features: Sequence[str] | None, preprocessing: Preprocessing | None, width: int) -> list[str] | None:
    """The feature names as a list, by default those of a preprocessing; ValueError if both are given and differ."""
    fitted = getattr(preprocessing, "features", None)  # a custom preprocessing may have none
    names = fitted if features is None else checked_features(features, width)
    if fitted is not None and list(fitted) != names:
        raise ValueError(f"features is {names}; the preprocessing was fitted on {fitted}")
    return None if names is None else FixedList(names)


_CHECKS: dict[str, Callable[[Any, Any], Any]] = {
    **{
        name: _fixed(name)
        for name in ("layers", "cost", "d_in", "d_out", "output", "target_scaling", "dtype", "classifies", "turn")
    },
    "seed": _seed,
    "epochs_trained": lambda _, value: whole("", "epochs_trained", value, 0),
    "vector_targets": _vector_targets,
    "target_names": lambda model, value: (
        None if value is None else checked_features(value, model.d_out, "target_names")
    ),
    "optimizer": _optimizer,
    "preprocessing": _preprocessing,
    "classes": lambda model, value: None if value is None else checked_classes(value, model.d_out),
    "features": lambda model, value: _agreed(value, model.preprocessing, model.width),
}
