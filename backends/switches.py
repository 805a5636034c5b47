"""Environment variables that turn something on or off."""

import os


def switch(variable: str, default: bool) -> bool:
    """Whether an environment variable is 1, or if it is unset or empty the default; ValueError if it is not 0 either.

    >>> switch("NNKIT_CUDA_GRAPHS", True)
    True
    """
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{variable} is {value!r}; expected 0 or 1")
    return value == "1" if value else default
