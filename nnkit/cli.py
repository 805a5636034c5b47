"""The command line: nnkit train | predict | evaluate | export | verify | doctor | formulas | completion.

Exit codes: 0 success, 1 a check failed or training diverged, 2 wrong usage or missing input, 130 interrupted by Ctrl-C.
An error is one line; `--debug` shows the traceback.
"""

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

_ERRORS = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError, OverflowError)
_LONGEST = 1000  # characters of an error: names in files may have any length


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Wrong usage and --help raise SystemExit, like argparse."""
    with _standard_files(), _ctrl_c():
        try:
            return _run(arguments)
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                print("nnkit: interrupted", file=sys.stderr)
            return 130  # what shells report for Ctrl-C
        finally:
            _release_output()


def _run(arguments: Sequence[str] | None) -> int:
    # Imported here, to catch Ctrl-C during the import.
    from nnkit.commands import completion, evaluate, export, predict, reports, train
    from nnkit.commands.arguments import Parser, in_options, one_line
    from nnkit.training.divergence import DivergenceError
    from nnkit.version import __version__

    parser = Parser(
        prog="nnkit",
        description="Dense neural networks with gradients written by hand, on NumPy or CuPy.",
        epilog="NNKIT_BACKEND=cupy runs any command on the GPU.",
    )
    parser.add_argument("--version", action="version", version=f"nnkit {__version__}")
    parser.set_defaults(run=None, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (train, predict, evaluate, export, reports):
        command.add(commands)
    completion.add(commands, parser)
    try:
        options, unknown = parser.parse_known_args(arguments)
    except BrokenPipeError:  # the reader of --help has gone, which argparse ignores from Python 3.11.4 on
        return 0
    if unknown:
        options.parser.refuse(unknown)
    if options.run is None:
        parser.error("the following arguments are required: COMMAND")
    if options.run is not predict.run and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # some encodings lack → in networks; predictions are data

    def show_warning(message: Warning | str, *_: object, **__: object) -> None:
        print(f"nnkit: warning: {one_line(in_options(str(message), options.parser))}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            if getattr(options, "config", None) is not None:
                from nnkit.commands.config import configured

                given = list(sys.argv[1:] if arguments is None else arguments)
                at = given.index("train") + 1
                options = parser.parse_args(
                    [*given[:at], *configured(options.config, options.parser, given), *given[at:]]
                )
            code: int = options.run(options)
            print(end="", flush=True)  # to raise write errors now, not when Python exits
    except BrokenPipeError:  # the reader has closed the pipe, as in `nnkit formulas | head`
        return 141  # as shells report it
    except (DivergenceError, *_ERRORS) as error:
        if options.debug:
            raise
        text = ": ".join([*getattr(error, "__notes__", []), str(error) or type(error).__name__])
        text = one_line(in_options(text, options.parser))
        print(f"nnkit: error: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}", file=sys.stderr)
        return 1 if isinstance(error, DivergenceError) else 2
    return code


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, if nnkit/__init__ lets it end the process immediately during startup.

    At exit, ignore it: Python would remove its own handler, and the signal would kill the process.
    """
    ours = getattr(signal.getsignal(signal.SIGINT), "__module__", "") == "nnkit"
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _standard_files() -> Iterator[None]:
    """Replace missing standard input, output and error, as in a service, by the null device.

    Otherwise the next opened file would get the descriptor of standard error, and what libraries write there.
    """
    with ExitStack() as stack:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, stack.enter_context(open(os.devnull, mode, encoding="utf-8")))
                stack.callback(setattr, sys, name, None)
        yield


def _release_output() -> None:
    """Drop output that can no longer be written; otherwise Python would report an error at exit."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
