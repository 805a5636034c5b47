"""Arguments of a network, checked: an error names the argument, what came and what was expected."""

from collections.abc import Iterable, Sequence

import numpy as np


def checked_dtype(dtype: str) -> str:
    """The name of a type that networks compute in; ValueError for another."""
    for name in ("float32", "float64"):
        if dtype is not None and dtype in (name, np.dtype(name)):  # NumPy takes None for float64
            return name
    raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float64'")


def checked_features(features: Sequence[str], width: int) -> list[str]:
    """The names of `width` features as a list; ValueError for another number of them, and if one is not text."""
    if not isinstance(features, Iterable):
        raise TypeError(f"features is {features!r}; expected the names of {width} features")
    names = [features] if isinstance(features, str) else list(features)
    if len(names) != width or not all(isinstance(name, str) for name in names):
        raise ValueError(f"features is {features!r}; expected the names of {width} features")
    return names
