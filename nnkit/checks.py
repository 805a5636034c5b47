"""Validation of numbers, names and arrays given by users. Errors say what was given and what was expected."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")

# --- classes ----------------------------------------------------------------------------------------------------------


def is_of_nnkit(thing: Any) -> bool:
    """Whether a function, the first of several, or a class, also that of an object, is nnkit's.

    >>> is_of_nnkit(nnkit.SGD), is_of_nnkit(nnkit.SGD()), is_of_nnkit(np.dot)
    (True, True, False)
    """
    first = thing[0] if isinstance(thing, tuple) else thing
    return str(getattr(first, "__module__", "")).startswith("nnkit.")


# --- numbers ----------------------------------------------------------------------------------------------------------


def in_range(owner: str, name: str, value: object, end: float = math.inf, *, above: bool = False) -> float:
    """Return the number as a float if it is finite and in [0, end), or in (0, end) with `above`.

    `owner` may be "". Raises TypeError if the value is not a number, ValueError if it is out of range.

    >>> in_range("SGD", "momentum", 0.5, 1.0)
    0.5
    >>> in_range("SGD", "momentum", 1.5, 1.0)
    Traceback (most recent call last):
    ValueError: SGD: momentum is 1.5; expected a finite number of at least 0 and below 1
    """
    if type(value) is float and (0 < value < end if above else 0 <= value < end):
        return value
    expected = f"expected a finite number {'above' if above else 'of at least'} 0"
    expected += f" and below {end:g}" if end < math.inf else ""
    found = f"{_whose(owner, name)} is {value!r}; {expected}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(found)
    try:
        number = float(value)
    except OverflowError:  # an integer above all floats
        number = math.inf
    if not (0 < number < end if above else 0 <= number < end):
        raise ValueError(found)
    return number


def flag(owner: str, name: str, value: object) -> bool:
    """Return a boolean; raises TypeError for anything else: the text "False" would count as true.

    >>> flag("", "shuffle", "no")
    Traceback (most recent call last):
    TypeError: shuffle is 'no'; expected True or False
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{_whose(owner, name)} is {value!r}; expected True or False")
    return bool(value)


def one_of(owner: str, name: str, value: object, options: Sequence[str]) -> str:
    """Return the text if it is one of the options; raises ValueError for another text, TypeError for anything else.

    >>> one_of("EarlyStopping", "mode", "mean", ["min", "max"])
    Traceback (most recent call last):
    ValueError: EarlyStopping: mode is 'mean'; expected 'min' or 'max'
    """
    if not isinstance(value, str) or value not in options:
        kind = ValueError if isinstance(value, str) else TypeError
        expected = ", ".join(map(repr, options[:-1])) + f" or {options[-1]!r}"
        raise kind(f"{_whose(owner, name)} is {value!r}; expected {expected}")
    return value


def whole(owner: str, name: str, value: object, least: int) -> int:
    """Return the number as an int if it is an integer of at least `least`, else raise ValueError. `owner` may be "".

    >>> whole("step", "every", 10, least=1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{_whose(owner, name)} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def _whose(owner: str, name: str) -> str:
    return f"{owner}: {name}" if owner else name


# --- arrays on the host -----------------------------------------------------------------------------------------------


def first_of(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """The index of the first True in an array that contains one.

    >>> first_of(np.array([[False, False], [True, True]]))
    (1, 0)
    """
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def check_finite(array: NDArray[Any], name: str, expected: str = "finite numbers", first: int = 0) -> None:
    """Raise ValueError that names the first NaN or infinity, if any; `first` is the index of the array's first row.

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
    """The name of a network's dtype; raises ValueError unless it is float32 or float64."""
    for name in ("float32", "float64"):
        if isinstance(dtype, str | type | np.dtype) and dtype in (name, np.dtype(name)):
            return name
    raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")


class FixedList(list[Value]):
    """A list that raises TypeError if it is changed: of a network's layers or names, with which its arrays agree.

    >>> names = FixedList(["b", "a"])
    >>> sorted(names), names == ["b", "a"]
    (['a', 'b'], True)
    >>> names.sort()
    Traceback (most recent call last):
    TypeError: this list belongs to a network or a preprocessing and cannot be changed; change a copy, list(...)
    """

    def _refuse(self, *_: Any, **__: Any) -> Any:
        what = "this list belongs to a network or a preprocessing and cannot be changed"
        raise TypeError(f"{what}; change a copy, list(...)")

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FixedList, (list(self),)


def checked_features(features: Sequence[str], width: int, of: str = "features") -> FixedList[str]:
    """The names of `width` columns as a list; raises ValueError for another number, or if one is not text."""
    expected = f"{of} is {features!r}; expected the names of {width} {of.removesuffix('_names').rstrip('s')}s"
    if not isinstance(features, Iterable) or isinstance(features, Mapping | Set) or getattr(features, "ndim", 1) != 1:
        raise TypeError(expected)
    names = [features] if isinstance(features, str) else list(features)
    if len(names) != width or not all(isinstance(name, str) for name in names):
        raise ValueError(expected)
    return FixedList(names)


def check_agreement(owner: str, what: str, found: NDArray[Any], exact: NDArray[Any], **points: NDArray[Any]) -> None:
    """Raise ValueError, with the worst point, if two arrays differ by over 10⁻¹⁰ of the largest entry or of 1.

    >>> z = np.array([1.0, 2.0])
    >>> check_agreement("square", "the gradient differs from f′ =", z + 2, 2 * z, z=z)
    Traceback (most recent call last):
    ValueError: square: at z = 1 the gradient differs from f′ = 2 by 1
    """
    with np.errstate(all="ignore"):  # such as inf − inf
        error = np.abs(found - exact)
    worst = np.unravel_index(int(np.argmax(error)), error.shape)  # argmax prefers NaN
    if not error[worst] <= 1e-10 * max(1.0, float(np.max(np.abs(exact)))):
        at = ", ".join(f"{name} = {values[worst]:.4g}" for name, values in points.items())
        raise ValueError(f"{owner}: at {at} {what} {exact[worst]:.6g} by {error[worst]:.2g}")


# --- names: errors for unknown ones suggest similar names and equivalents of other libraries' names -------------------

# Names in PyTorch, Keras and scikit-learn of what has another name here, in lowercase and without _ and -; for hints.
_ELSEWHERE = {
    "activation": {
        "silu": "swish", "identity": "linear none", "sigmoid": "logistic logsigmoid", "exponential": "exp",
        "tanh": "hardtanh", "gelu_tanh": "gelunew", "relu": "relu6", "softmax": "logsoftmax",
    },
    "cost": {
        "quadratic": "mse mseloss meansquarederror squarederror l2 l2loss rmse",
        "mean_absolute": "mae l1 l1loss meanabsoluteerror absoluteerror",
        "huber": "smoothl1 smoothl1loss huberloss",
        "poisson": "poissonnll poissonnllloss",
        "cross_entropy": "bce bceloss binarycrossentropy bcewithlogits bcewithlogitsloss crossentropy logloss",
        "softmax_cross_entropy": "crossentropyloss categoricalcrossentropy sparsecategoricalcrossentropy nll nllloss "
        "logloss crossentropy",
    },
    "initializer": {
        "he_normal": "he kaiming kaimingnormal", "he_uniform": "he kaiming kaiminguniform",
        "glorot_uniform": "glorot xavier xavieruniform", "glorot_normal": "glorot xavier xaviernormal",
        "lecun_normal": "lecun", "lecun_uniform": "lecun",
    },
    "metric": {
        "mae": "meanabsoluteerror l1", "rmse": "rootmeansquarederror mse meansquarederror",
        "accuracy": "acc", "r2": "r2score rsquared",
        "top_5": "topk topkaccuracy top5accuracy",
    },
    "optimizer": {"sgd": "gd momentum gradientdescent nesterov"},
    "schedule": {
        "cosine": "cosineannealing cosineannealinglr cosinedecay", "one_cycle": "onecyclelr",
        "reduce_on_plateau": "reducelronplateau plateau", "step(every)": "steplr",
        "exponential(factor)": "exponentiallr", "warmup(epochs)": "linearlr",
    },
}  # fmt: skip


def named(kind: str, name: object, known: Mapping[str, Value], more: Iterable[str] = ()) -> Value:
    """Look up a name; raises the error of `unknown_name` if it is unknown or not text.

    >>> named("cost", "huber", {"huber": 1})
    1
    """
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, name, [*known, *more])
    return known[name]


def check_new_name(kind: str, name: object, taken: Container[str]) -> None:
    """Raise TypeError if the name is not a string, ValueError if it is taken."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"name is {name!r}; expected a string, the name of the {kind}")
    if name in taken:
        raise ValueError(f"{kind} name {name!r} is taken")


class UnknownNameError(ValueError):
    """An unknown name of a `kind`."""

    kind: str
    name: object


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """The error for an unknown name of a kind, with similar names, or all known names if there are none.

    Similar names include those that differ only in case, _ and -, and equivalents of another library's name.

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
    r"""Escape control and invisible characters, as names may come from files.

    >>> printable("naïve \x1b[31mred\u202e")
    'naïve \\x1b[31mred\\u202e'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _near(kind: str, name: str, names: list[str]) -> list[str]:
    """Suggestions for a name: other spellings, equivalents of another library's name, or similar names."""
    import difflib  # takes a millisecond, only for errors

    alike = [known for known in names if _plain(known) == _plain(name)]
    elsewhere = _ELSEWHERE.get(kind, {}).items()
    meant = [known for known, theirs in elsewhere if _plain(name) in theirs.split() and known in names]
    return alike or meant or difflib.get_close_matches(name, names, n=2) or difflib.get_close_matches(
        name.lower(), names, n=2
    )  # fmt: skip


def _plain(name: str) -> str:
    """A name in lowercase letters and digits: "LeakyReLU" and "leaky_relu" become equal."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
