"""nnkit completion: a script with which a shell completes nnkit's commands, options and names."""

import argparse
from functools import partial
from pathlib import Path

from nnkit.commands.arguments import Commands, Parser, add_command, known

_SHELLS = ("bash", "zsh", "tcsh")
_EPILOG = """examples:
  nnkit completion bash > ~/.local/share/bash-completion/completions/nnkit
  nnkit completion zsh > "${fpath[1]}/_nnkit" """


def add(commands: Commands, root: Parser) -> None:
    """Add the command and its argument."""
    purpose = "print a script for a shell's completion"
    parser = add_command(commands, "completion", purpose, partial(run, root), epilog=_EPILOG)
    shell = known("shell", _SHELLS)
    parser.add_argument("shell", metavar="SHELL", type=shell, help=", ".join(_SHELLS))


def run(root: Parser, options: argparse.Namespace) -> int:
    """Print the script, made by shtab."""
    try:
        import shtab
    except ImportError as error:
        raise ImportError("nnkit completion needs shtab: python -m pip install shtab", name="shtab") from error
    _tell(root, shtab.FILE)
    print(shtab.complete(root, shell=options.shell))
    return 0


def _tell(parser: argparse.ArgumentParser, file: object) -> None:
    """Tell shtab which arguments are names, and which are files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in {id(one): one for one in action.choices.values()}.values():
                _tell(each, file)
        elif hasattr(action.type, "names"):
            action.choices = vars(action.type)["names"]
        elif action.type is Path or action.metavar in ("FILE", "DATA"):
            action.complete = file  # type: ignore[attr-defined]
