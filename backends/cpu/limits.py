"""`maximum` and `minimum` with a constant on NumPy, which uses vector instructions only for two arrays.

On one CPU thread, the maximum of 65 536 float32 entries and the number 0 took 24 µs, and with an array of zeros 5.5.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from nnkit.backends.cpu.blocks import can_be_cut
from nnkit.backends.recording import Call

FEW = 64  # entries; up to here, a number is as fast
BYTES = 1 << 18  # for the array of the constant, which stays in the cache


def limit_calls(
    ufunc: np.ufunc, arguments: Sequence[np.ndarray], constant: Sequence[bool], result: np.ndarray
) -> list[Call]:
    """Calls of np.maximum or np.minimum; `constant` says which argument is a constant of the formula, 0-d."""
    numbers = [a for a, is_constant in zip(arguments, constant, strict=True) if is_constant]
    arrays = [a for a, is_constant in zip(arguments, constant, strict=True) if not is_constant]
    plain = len(arrays) == 1 and result.size >= FEW and arrays[0].shape == result.shape
    plain = plain and arrays[0].flags.c_contiguous and result.flags.c_contiguous
    if not plain or not can_be_cut(arrays, [result]):
        return [partial(ufunc, *arguments, out=result)]  # NumPy deprecates the third positional argument of these two
    number = numbers[0].item()
    many = _repeated(number, numbers[0].dtype.str, math.copysign(1.0, number))
    x, out = arrays[0].reshape(-1), result.reshape(-1)
    calls: list[Call] = []
    for start in range(0, out.size, many.size):
        part = slice(start, min(start + many.size, out.size))
        pair = [many[: part.stop - start] if is_constant else x[part] for is_constant in constant]
        calls.append(partial(ufunc, *pair, out=out[part]))
    return calls


@lru_cache(maxsize=16)
def _repeated(number: float, dtype: str, sign: float) -> np.ndarray:
    """A read-only array filled with a number; its sign distinguishes 0 from −0 in the cache."""
    array = np.full(BYTES // np.dtype(dtype).itemsize, number, dtype)
    array.flags.writeable = False
    return array
