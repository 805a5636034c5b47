"""What users give, checked: numbers, names and arrays of numbers. Errors say what came and what was expected."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")

# --- numbers ----------------------------------------------------------------------------------------------------------


def in_range(owner: str, name: str, value: object, end: float = math.inf, *, above: bool = False) -> float:
    """The number as a float, if it is finite and in [0, end), or in (0, end) with `above`.

    Raises TypeError if it is not a number, and ValueError for other numbers. Without an owner "" is given.

    >>> in_range("SGD", "momentum", 0.5, 1.0)
    0.5
    >>> in_range("SGD", "momentum", 1.5, 1.0)
    Traceback (most recent call last):
    ValueError: SGD: momentum is 1.5; expected a finite number of at least 0 and below 1
    """
    expected = f"expected a finite number {'above' if above else 'of at least'} 0"
    expected += f" and below {end:g}" if end < math.inf else ""
    found = f"{_whose(owner, name)} is {value!r}; {expected}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(found)
    try:
        number = float(value)
    except OverflowError:  # a whole number above all floats
        number = math.inf
    if not (0 < number < end if above else 0 <= number < end):
        raise ValueError(found)
    return number


def flag(owner: str, name: str, value: object) -> bool:
    """True or False as it is; TypeError for anything else, as a text "False" would count as true.

    >>> flag("", "shuffle", "no")
    Traceback (most recent call last):
    TypeError: shuffle is 'no'; expected True or False
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{_whose(owner, name)} is {value!r}; expected True or False")
    return bool(value)


def whole(owner: str, name: str, value: object, least: int) -> int:
    """The number as an int, if it is whole and at least `least`; ValueError otherwise. Without an owner "" is given.

    >>> whole("step", "every", 10, least=1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{_whose(owner, name)} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def _whose(owner: str, name: str) -> str:
    return f"{owner}: {name}" if owner else name


# --- arrays of the host -----------------------------------------------------------------------------------------------


def first_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Where the first True of an array is, which holds one.

    >>> first_of(np.array([[False, False], [True, True]]))
    (1, 0)
    """
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def check_finite(array: NDArray[Any], name: str, expected: str = "finite numbers", first: int = 0) -> None:
    """ValueError, naming the first one, if an array holds NaN or infinities; `first` is what its first row counts as.

    >>> check_finite(np.array([[1.0, np.nan]]), "X", first=30)
    Traceback (most recent call last):
    ValueError: X holds nan at [30, 1]; expected finite numbers
    """
    finite = np.isfinite(array)
    if not finite.all():
        at = first_of(~finite)
        place = [first + i if axis == 0 else i for axis, i in enumerate(at)]
        raise ValueError(f"{name} holds {array[at]} at {place}; expected {expected}")


def checked_dtype(dtype: str) -> str:
    """The name of a type that networks compute in; ValueError for another."""
    for name in ("float32", "float64"):
        if dtype is not None and dtype in (name, np.dtype(name)):  # NumPy takes None for float64
            return name
    raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")


def checked_features(features: Sequence[str], width: int) -> list[str]:
    """The names of `width` features as a list; ValueError for another number of them, and if one is not text."""
    if not isinstance(features, Iterable) or isinstance(features, Mapping | Set) or getattr(features, "ndim", 1) != 1:
        raise TypeError(f"features is {features!r}; expected the names of {width} features")
    names = [features] if isinstance(features, str) else list(features)
    if len(names) != width or not all(isinstance(name, str) for name in names):
        raise ValueError(f"features is {features!r}; expected the names of {width} features")
    return names


# --- names: an unknown one gets an error with those that are near, or that other libraries' names mean ----------------

# What PyTorch, Keras and scikit-learn call it, in small letters and without _ and -; as hints only.
_ELSEWHERE = {
    "activation": {
        "swish": ["silu"], "linear": ["identity"], "none": ["identity"], "logistic": ["sigmoid"],
        "exp": ["exponential"], "hardtanh": ["tanh"], "gelunew": ["gelu_tanh"], "logsigmoid": ["sigmoid"],
        "relu6": ["relu"], "logsoftmax": ["softmax"],
    },
    "cost": {
        "mse": ["quadratic"], "mseloss": ["quadratic"], "meansquarederror": ["quadratic"],
        "squarederror": ["quadratic"], "l2": ["quadratic"], "l2loss": ["quadratic"], "rmse": ["quadratic"],
        "mae": ["mean_absolute"], "l1": ["mean_absolute"], "l1loss": ["mean_absolute"],
        "meanabsoluteerror": ["mean_absolute"], "absoluteerror": ["mean_absolute"],
        "smoothl1": ["huber"], "smoothl1loss": ["huber"], "huberloss": ["huber"],
        "poissonnll": ["poisson"], "poissonnllloss": ["poisson"],
        "bce": ["cross_entropy"], "bceloss": ["cross_entropy"], "binarycrossentropy": ["cross_entropy"],
        "bcewithlogits": ["cross_entropy"], "bcewithlogitsloss": ["cross_entropy"],
        "crossentropyloss": ["softmax_cross_entropy"], "categoricalcrossentropy": ["softmax_cross_entropy"],
        "sparsecategoricalcrossentropy": ["softmax_cross_entropy"], "nll": ["softmax_cross_entropy"],
        "nllloss": ["softmax_cross_entropy"], "logloss": ["softmax_cross_entropy", "cross_entropy"],
        "crossentropy": ["cross_entropy", "softmax_cross_entropy"],
    },
    "initializer": {
        "he": ["he_normal", "he_uniform"], "kaiming": ["he_normal", "he_uniform"], "kaimingnormal": ["he_normal"],
        "kaiminguniform": ["he_uniform"], "glorot": ["glorot_uniform", "glorot_normal"],
        "xavier": ["glorot_uniform", "glorot_normal"], "xavieruniform": ["glorot_uniform"],
        "xaviernormal": ["glorot_normal"], "lecun": ["lecun_normal", "lecun_uniform"],
    },
    "metric": {
        "meanabsoluteerror": ["mae"], "l1": ["mae"], "acc": ["accuracy"], "r2score": ["r2"], "rsquared": ["r2"],
        "topk": ["top_5"], "topkaccuracy": ["top_5"], "top5accuracy": ["top_5"],
    },
    "optimizer": {"gd": ["sgd"], "momentum": ["sgd"], "gradientdescent": ["sgd"], "nesterov": ["sgd"]},
    "schedule": {
        "cosineannealing": ["cosine"], "cosineannealinglr": ["cosine"], "cosinedecay": ["cosine"],
        "onecyclelr": ["one_cycle"], "reducelronplateau": ["reduce_on_plateau"], "plateau": ["reduce_on_plateau"],
        "steplr": ["step(every)"], "exponentiallr": ["exponential(factor)"], "linearlr": ["warmup(epochs)"],
    },
}  # fmt: skip


def named(kind: str, name: object, known: Mapping[str, Value], more: Iterable[str] = ()) -> Value:
    """What a name stands for; the error of `unknown_name` if nothing, or if it is not text.

    >>> named("cost", "huber", {"huber": 1})
    1
    """
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, name, [*known, *more])
    return known[name]


class UnknownNameError(ValueError):
    """An unknown name, of a `kind`."""

    kind: str
    name: object


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown name of some kind: with the nearest names, or all if none is near.

    Near is also what differs by capitals, _ and - only, and what another library's name means.

    >>> unknown_name("cost", "cross_entropi", ["quadratic", "cross_entropy"])
    UnknownNameError("unknown cost 'cross_entropi'; did you mean 'cross_entropy'?")
    >>> unknown_name("cost", "MSE", ["quadratic", "cross_entropy"])
    UnknownNameError("unknown cost 'MSE'; did you mean 'quadratic'?")
    """
    names = list(known)
    near = _near(kind, str(getattr(name, "__name__", name)), names)
    listed = ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {listed or 'none'}"
    error = UnknownNameError(f"unknown {kind} {name!r}; {hint}")
    error.kind, error.name = kind, name
    return error


def printable(text: str) -> str:
    r"""Text with what a terminal would obey, or not show, as Python writes it: names come from files.

    >>> printable("naïve \x1b[31mred\u202e")
    'naïve \\x1b[31mred\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _near(kind: str, name: str, names: list[str]) -> list[str]:
    """The names that this one may stand for: spelled alike, meant in another library, or similar."""
    import difflib  # a millisecond that only an error should cost

    alike = [known for known in names if _plain(known) == _plain(name)]
    meant = [known for known in _ELSEWHERE.get(kind, {}).get(_plain(name), []) if known in names]
    return alike or meant or difflib.get_close_matches(name, names, n=2) or difflib.get_close_matches(
        name.lower(), names, n=2
    )  # fmt: skip


def _plain(name: str) -> str:
    """A name without what people spell differently: "LeakyReLU" and "leaky_relu" are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
