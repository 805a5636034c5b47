"""Names that users type: an unknown one gets an error with those that are near, or that other libraries' names mean."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

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
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {listed}"
    error = UnknownNameError(f"unknown {kind} {name!r}; {hint}")
    error.kind, error.name = kind, name
    return error


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
