"""Descriptions of arguments that many functions share, or that a docstring has in its prose only.

Each line of arguments.txt is a pattern for full names, after "nnkit.", a pattern for arguments, and the description;
the first that fits counts. A docstring's own description comes before all of these.
"""

import re
from functools import cache
from pathlib import Path


@cache
def lines() -> list[tuple[str, str, str]]:
    """The pattern of names, the pattern of arguments and the description of each line."""
    found = []
    for line in filter(None, Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()):
        head, _, text = line.partition(": ")
        names, _, arguments = head.rpartition(" ")
        found.append((names, arguments, text))
    return found


def shared(full: str, argument: str) -> str:
    """The description of an argument of the function with this full name; "" if there is none."""
    name = full.removeprefix("nnkit.")
    fits = (text for names, args, text in lines() if re.fullmatch(args, argument) and re.fullmatch(names, name))
    return next(fits, "")
