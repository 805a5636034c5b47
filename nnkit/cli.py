"""The command line: nnkit train | verify | doctor | formulas.

Exit codes: 0 done, 1 a check failed, 2 wrong usage or something missing. An error is one line; `--debug` shows where.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from nnkit import doctor
from nnkit.commands import list_cuda, run_verify
from nnkit.train_command import add_train_arguments, run_train
from nnkit.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code comes back."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            code: int = options.run(options)
    except KeyboardInterrupt:
        print("nnkit: interrupted", file=sys.stderr)
        return 130  # what shells report for Ctrl-C
    except BrokenPipeError:  # the reader of our output has gone, as in `nnkit formulas | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what shells report for it
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if options.debug:
            raise
        print(f"nnkit: error: {error}", file=sys.stderr)
        return 2
    return code


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    print(f"nnkit: warning: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnkit",
        description="Dense neural networks with gradients written by hand, on NumPy or CuPy.",
        epilog="NNKIT_BACKEND=cupy runs any of them on the GPU.",
    )
    parser.add_argument("--version", action="version", version=f"nnkit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train = _command(commands, "train", "train a network on the handwritten digits that come with nnkit", run_train)
    add_train_arguments(train)
    _add_backend(train)
    check = _command(commands, "verify", "measure every equation of the lecture on a backend", run_verify)
    _add_backend(check)
    check.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    style = check.add_mutually_exclusive_group()
    style.add_argument("--markdown", action="store_true", help="print a Markdown table")
    style.add_argument("--json", action="store_true", help="print JSON")
    _command(commands, "doctor", "tell what is installed, which backends work, and why others do not", _run_doctor)
    cuda = _command(commands, "formulas", "list the formulas, or the CUDA kernel made of one; needs no GPU", list_cuda)
    cuda.add_argument("name", nargs="?", help="print the CUDA text of this formula; 'all' prints every one")
    types = ["float16", "bfloat16", "float32", "float64"]
    cuda.add_argument("--dtype", choices=types, default="float32", help="its type (default: float32)")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, purpose: str, run: object
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
    return parser


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", help="numpy, cupy, cupy:1, auto, ... (default: NNKIT_BACKEND, or numpy)")


def _run_doctor(options: argparse.Namespace) -> int:
    print(doctor.report())
    return 0
