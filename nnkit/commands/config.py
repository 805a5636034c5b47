"""Options of nnkit train from a TOML file."""

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnkit.checks import unknown_name
from nnkit.commands.arguments import Parser
from nnkit.files import existing_file


def configured(path: Path, parser: Parser, given: Sequence[str]) -> list[str]:
    """The options in a file as arguments, to be put before those given on the command line, which win.

    Keys are the names of options, with hyphens or underscores: `hidden = [256, 128]`. Raises FileNotFoundError, and
    ValueError that names the file for invalid TOML, an unknown key, or a value that no option has; invalid values of an
    option end the command like those on the command line.
    """
    try:
        content = tomllib.loads(existing_file(path).read_bytes().decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None
    options = {name[2:]: action for name, action in parser._option_string_actions.items() if name.startswith("--")}
    allowed = [name for name in options if name not in ("help", "config", "debug")]
    arguments: list[str] = []
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in allowed:
            raise ValueError(f"{path}: {unknown_name('option', name, allowed)}")
        overridden = f"--{name.removeprefix('no-')}"  # an output file on the command line, whatever the file says
        if not any(word.partition("=")[0] == overridden for word in given if name.startswith("no-")):
            arguments += _words(f"{path}: {key}", name, value, options[name])
    parser.source = f"{path}: "
    parser.parse_args(arguments)  # to name the file in errors
    parser.source = ""
    return arguments


def _words(where: str, name: str, value: Any, action: argparse.Action) -> list[str]:
    """The arguments for one key."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{where} is {value!r}; expected true or false")
        return [f"--{name}"] * value
    values = value if isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            expected = "a number, text, or a list of them" if action.nargs else "a number or text"
            raise ValueError(f"{where} is {value!r}; expected {expected}")
    if isinstance(value, list) and action.nargs is None:
        raise ValueError(f"{where} is {value!r}; expected a single value")
    return [f"--{name}", *map(str, values)] if action.nargs else [f"--{name}={values[0]}"]
