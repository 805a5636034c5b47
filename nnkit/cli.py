"""The command line: nnkit train | predict | evaluate | verify | doctor | formulas.

Exit codes: 0 done, 1 a check failed or a training diverged, 2 wrong usage or something missing, 130 ended by Ctrl-C. An
error is one line; `--debug` shows where.
"""

import io
import os
import sys
import warnings
from collections.abc import Sequence

from nnkit.commands import doctor, evaluate, formulas, predict, train, verify
from nnkit.commands.arguments import Parser, one_line
from nnkit.training.divergence import DivergenceError
from nnkit.version import __version__

_ERRORS = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError, OverflowError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code comes back. Wrong usage and --help raise SystemExit, as argparse has it."""
    try:
        return _run(arguments)
    finally:
        _release_output()


def _run(arguments: Sequence[str] | None) -> int:
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.refuse(unknown)
    if options.run is not predict.run and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the → of a network is not in every encoding; predictions are data
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = options.run(options)
            print(end="", flush=True)  # what cannot be written is an error now, not when Python ends
    except KeyboardInterrupt:
        print("nnkit: interrupted", file=sys.stderr)
        return 130  # what shells report for Ctrl-C
    except BrokenPipeError:  # the reader of our output has gone, as in `nnkit formulas | head`
        return 141  # what shells report for it
    except (DivergenceError, *_ERRORS) as error:
        if options.debug:
            raise
        text = ": ".join([*getattr(error, "__notes__", []), str(error) or type(error).__name__])
        print(f"nnkit: error: {one_line(text)}", file=sys.stderr)
        return 1 if isinstance(error, DivergenceError) else 2
    return code


def _release_output() -> None:
    """Drop output that nobody can get any more, or Python would complain of it when it ends."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"nnkit: warning: {one_line(str(message))}", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="nnkit",
        description="Dense neural networks with gradients written by hand, on NumPy or CuPy.",
        epilog="NNKIT_BACKEND=cupy runs any of them on the GPU.",
    )
    parser.add_argument("--version", action="version", version=f"nnkit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (train, predict, evaluate, verify, doctor, formulas):
        command.add(commands)
    return parser
