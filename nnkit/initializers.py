"""Initial weights and biases, drawn on the host by NumPy's generator: a seed gives the same values on every backend.

An initializer is a function of (generator, d_out, d_in) that returns W (d_out, d_in) and b (d_out,) in float64. What it
returns is checked: real numbers of these shapes, finite in the dtype of the network.
"""

from __future__ import annotations  # numpy.random is imported on first use, not with nnkit

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends import get_backend
from nnkit.checks import check_finite, in_range, named
from nnkit.inputs import is_real
from nnkit.tables import as_array

__all__ = [
    "Initializer", "get_initializer", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "initializer_names",
    "lecun_normal", "lecun_uniform", "nielsen_large", "nielsen_new", "normal", "orthogonal", "uniform", "zeros",
]  # fmt: skip

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
if TYPE_CHECKING:
    Initializer = Callable[[np.random.Generator, int, int], Weights]
else:
    Initializer = Callable[[Any, int, int], Weights]


def glorot_uniform(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from U[−a, a] with a = √(6/(d_in + d_out)), b = 0 (Glorot and Bengio, AISTATS 2010, eq. 16).

    >>> W, b = nnkit.initializers.glorot_uniform(np.random.default_rng(0), 10, 30)
    >>> W.shape, bool(abs(W).max() <= (6 / 40) ** 0.5), b.sum()
    ((10, 30), True, np.float64(0.0))
    """
    a = math.sqrt(6 / (d_in + d_out))
    return rng.uniform(-a, a, (d_out, d_in)), np.zeros(d_out)


def glorot_normal(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from N(0, 2/(d_in + d_out)), b = 0 (Glorot and Bengio, AISTATS 2010, eq. 12)."""
    return rng.normal(0, math.sqrt(2 / (d_in + d_out)), (d_out, d_in)), np.zeros(d_out)


def he_uniform(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from U[−a, a] with a = √(6/d_in), b = 0 (He et al., ICCV 2015, eq. 10), for ReLU and its variants."""
    a = math.sqrt(6 / d_in)
    return rng.uniform(-a, a, (d_out, d_in)), np.zeros(d_out)


def he_normal(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from N(0, 2/d_in), b = 0 (He et al., ICCV 2015, eq. 10), for ReLU and its variants."""
    return rng.normal(0, math.sqrt(2 / d_in), (d_out, d_in)), np.zeros(d_out)


def lecun_uniform(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from U[−a, a] with a = √(3/d_in), b = 0 (LeCun et al., Efficient BackProp, 1998, eq. 16)."""
    a = math.sqrt(3 / d_in)
    return rng.uniform(-a, a, (d_out, d_in)), np.zeros(d_out)


def lecun_normal(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from N(0, 1/d_in), b = 0 (LeCun et al., Efficient BackProp, 1998, eq. 16), for SELU."""
    return rng.normal(0, math.sqrt(1 / d_in), (d_out, d_in)), np.zeros(d_out)


def nielsen_large(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W and b from N(0, 1): the initialization of Nielsen's chapter 1, called large in chapter 3."""
    return normal(1.0)(rng, d_out, d_in)


def nielsen_new(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W from N(0, 1/d_in), b from N(0, 1): the improved initialization of Nielsen's chapter 3."""
    return rng.normal(0, math.sqrt(1 / d_in), (d_out, d_in)), rng.normal(0, 1, d_out)


def zeros(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
    """W = 0 and b = 0, for linear and logistic regression; hidden units would all stay equal."""
    return np.zeros((d_out, d_in)), np.zeros(d_out)


def uniform(a: float) -> Initializer:
    """W and b from U[−a, a]; the lecture uses `uniform(0.1)`. Raises ValueError unless a is positive and finite."""
    in_range("uniform", "a", a, above=True)
    return lambda rng, d_out, d_in: (rng.uniform(-a, a, (d_out, d_in)), rng.uniform(-a, a, d_out))


def normal(s: float) -> Initializer:
    """W and b from N(0, s²). Raises ValueError unless s is positive and finite."""
    in_range("normal", "s", s, above=True)
    return lambda rng, d_out, d_in: (rng.normal(0, s, (d_out, d_in)), rng.normal(0, s, d_out))


def orthogonal(gain: float = 1.0) -> Initializer:
    """W with orthonormal rows, or columns if d_out > d_in, times the gain; b = 0 (Saxe et al., ICLR 2014).

    W comes from the QR decomposition of a normal matrix; making R's diagonal positive makes W uniformly distributed.
    Raises ValueError unless the gain is positive and finite. The name "orthogonal" stands for gain 1.

    >>> W, b = nnkit.initializers.orthogonal(2.0)(np.random.default_rng(0), 2, 3)
    >>> (W @ W.T).round(12) + 0.0
    array([[4., 0.],
           [0., 4.]])
    """
    in_range("orthogonal", "gain", gain, above=True)

    def draw(rng: np.random.Generator, d_out: int, d_in: int) -> Weights:
        q, r = np.linalg.qr(rng.normal(size=(max(d_out, d_in), min(d_out, d_in))))
        q *= gain * np.copysign(1.0, np.diagonal(r))
        return q if d_out > d_in else q.T, np.zeros(d_out)

    return draw


_named: dict[str, Initializer] = {
    f.__name__: f
    for f in (
        glorot_uniform, glorot_normal, he_uniform, he_normal,
        lecun_uniform, lecun_normal, nielsen_large, nielsen_new, zeros,
    )
} | {"orthogonal": orthogonal()}  # fmt: skip
_for_activation = {
    "relu": he_normal, "leaky_relu": he_normal, "elu": he_normal, "gelu": he_normal, "gelu_tanh": he_normal,
    "silu": he_normal, "mish": he_normal, "softplus": he_normal, "selu": lecun_normal,
}  # fmt: skip


def initializer_names() -> list[str]:
    """The names accepted by `init=`.

    >>> nnkit.initializers.initializer_names()[-2:]
    ['zeros', 'orthogonal']
    """
    return list(_named)


def get_initializer(init: str | Initializer | None, activation: str = "identity") -> Initializer:
    """The initializer with this name; functions are returned unchanged, None selects He, LeCun or Glorot by activation.

    Raises ValueError for an unknown name, with the closest known one.
    """
    if init is None:
        return _for_activation.get(activation, glorot_uniform)
    if callable(init):
        return init
    return named("initializer", init, _named, ["uniform(a)", "normal(s)", "orthogonal(gain)"])


def checked_values(owner: str, values: Any, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The initial values of a parameter, in the dtype of the network.

    Raises TypeError unless they are real numbers, ValueError for another shape, NaN and infinities.
    """
    array: np.ndarray = get_backend("numpy").asarray(as_array(values, owner))
    if not is_real(array):
        raise TypeError(f"{owner} has dtype {array.dtype}; expected real numbers")
    if array.shape != shape:
        hint = "; W is (d_out, d_in); is it transposed?" if len(shape) == 2 and array.shape == shape[::-1] else ""
        raise ValueError(f"{owner} has shape {array.shape}; expected {shape}{hint}")
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    check_finite(array, owner, f"finite numbers in {dtype}")
    return array


def in_words(found: Any) -> str:
    """What an initializer has returned, for an error."""
    if isinstance(found, tuple | list):
        return f"{len(found)} values"
    return f"an array of shape {np.shape(found)}" if hasattr(found, "shape") else f"a {type(found).__name__}"


def __dir__() -> list[str]:
    return sorted(__all__)
