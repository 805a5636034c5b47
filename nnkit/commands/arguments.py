"""Shared arguments and their checks, and a parser with one-line errors."""

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import in_range, printable, unknown_name
from nnkit.kernels.costs import Cost
from nnkit.label_metrics import NAMES as LABEL_METRICS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]
else:
    Commands = object

TARGET = (
    "labels or targets: a column of a .csv or .parquet file, by name or number; an array of a .npz file; for a .npy "
    "file, a column number or another .npy file"
)
_OF_CLASSES = ("accuracy", "top_5", *LABEL_METRICS)
OF_NUMBERS = ("r2", "rmse", "mae")


def one_line(text: str) -> str:
    """Text without line breaks and control characters."""
    return printable(" ".join(text.split()))


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviated options and with one-line errors."""

    def __init__(self, **options: object) -> None:
        super().__init__(**{"allow_abbrev": False, **options})  # type: ignore[arg-type]
        self.source = ""  # of the arguments, if not the command line

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nnkit: error: {self.source}{one_line(message)} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:  # those of other arguments are types
            raise argparse.ArgumentError(action, str(unknown_name("command", value, action.choices)))

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with an error for unknown arguments that suggests a similar option, if any."""
        options = re.findall(r"--([a-z0-9-]+)", self.format_help()) if unknown[0].startswith("-") else []
        near = difflib.get_close_matches(unknown[0].strip("-"), options, n=1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def in_options(text: str, parser: argparse.ArgumentParser) -> str:
    """Replace argument names in an error of nnkit's functions by the command's options.

    >>> parser = Parser()
    >>> _ = parser.add_argument("--clip-norm"), parser.add_argument("--cost")
    >>> in_options('clip gradients (clip_norm=1.0), give clip_norm or cost="huber", with cupy>=14', parser)
    'clip gradients (--clip-norm 1.0), give --clip-norm or --cost huber, with cupy>=14'
    """
    for option in parser._option_string_actions:
        if not option.startswith("--"):
            continue  # -h, which is no argument's name
        name = option[2:].replace("-", "_")
        text = re.sub(rf"(?<![\w'\".-]){name}=(['\"]?)([\w.]+)\1", rf"{option} \2", text)
        text = re.sub(rf"\bits {name} (?=is|has)", rf"its {option} ", text)  # of a checkpoint
        if "_" in name:  # other names are also words
            text = re.sub(rf"(?<![\w'\".-]){name}(?![\w'\"])", option, text)
    return text


def counted(count: int, what: str) -> str:
    """A count and a noun, in the plural if needed.

    >>> counted(1, "epoch"), counted(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def show(text: str) -> None:
    """Print lines immediately, with control characters escaped."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def add_command(
    commands: Commands,
    name: str,
    purpose: str,
    run: Callable[[argparse.Namespace], int],
    description: str = "",
    epilog: str | None = None,
    usage: str | None = None,
) -> Parser:
    """Add a command; its help shows `purpose`, a short phrase, followed by `description`."""
    parser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.{description}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.usage = usage
    add_flag(parser, "--debug", "show the traceback of an error")
    parser.set_defaults(run=run, parser=parser)
    return parser


# --- adding arguments -------------------------------------------------------------------------------------------------


def add_option(
    group: argparse._ActionsContainer, name: str, unit: str, kind: Callable[[str], Any], text: str, **more: Any
) -> None:
    """Add an option or argument with a value, shown as `unit` in the help and converted by `kind`."""
    group.add_argument(name, metavar=unit, type=kind, help=text, **more)


def add_flag(group: argparse._ActionsContainer, name: str, text: str) -> None:
    """Add an option without a value."""
    group.add_argument(name, action="store_true", help=text)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    add_option(parser, "model", "MODEL", Path, "a network written by nnkit train or Network.save")


def add_backend(group: argparse._ActionsContainer) -> None:
    """Add the option --backend."""
    add_option(group, "--backend", "NAME", str, "numpy, cupy, cupy:1, auto, ... (default: NNKIT_BACKEND, or numpy)")


def add_id(group: argparse._ActionsContainer) -> None:
    """Add the option --id."""
    add_option(group, "--id", "NAME", str, "a column of a .csv or .parquet file that identifies samples; not a feature")


def add_mnist(group: argparse._ActionsContainer) -> None:
    """Add the options for the location of MNIST."""
    add_option(group, "--data-dir", "FOLDER", Path, "folder of the MNIST files (default: NNKIT_DATA)")
    add_flag(group, "--download", "download the MNIST files if they are missing")


def add_metrics(group: argparse._ActionsContainer) -> None:
    """Add the option --metrics."""
    text = "additional metrics: top_5 or another top_N, f1, precision, recall, roc_auc for classes"
    add_option(group, "--metrics", "NAME", _metric, text, nargs="+", default=[])


def measured(metrics: Sequence[str], classifies: bool, of_numbers: Sequence[str] = OF_NUMBERS) -> list[str]:
    """The metrics of results: for numbers R² and the errors in the units of the target, then those given."""
    return [*metrics] if classifies else [*of_numbers, *(name for name in metrics if name not in of_numbers)]


def check_metrics(metrics: Sequence[str], y: NDArray[Any], name: str, cost: Cost, outputs: int, labels: bool) -> None:
    """Raise ValueError for a metric that does not apply to y (n,) or (n, d_out), called `name` in messages.

    cost: the cost of the network. outputs: its number of outputs. labels: whether y contains labels.
    """
    for at, metric in enumerate(metrics):
        if metric in metrics[:at]:
            raise ValueError(f"--metrics: {metric} is given twice")
        if metric in OF_NUMBERS:
            if labels:
                raise ValueError(f"--metrics {metric} is for numbers, and {name} holds classes")
        elif not cost.classifies and not np.isin(y, (0, 1)).all():
            raise ValueError(f"--metrics {metric} is for classes, and {name} holds numbers, with the cost {cost.name}")
        elif metric.startswith("top_") and not 0 < int(metric[4:]) < outputs:
            raise ValueError(f"--metrics {metric}: expected top_1 or more, below the number of outputs, {outputs}")


# --- types of arguments -----------------------------------------------------------------------------------------------


def _metric(name: str) -> str:
    if name not in (*_OF_CLASSES, *OF_NUMBERS) and not re.fullmatch(r"top_[0-9]{1,9}", name):
        raise argparse.ArgumentTypeError(str(unknown_name("metric", name, (*_OF_CLASSES, *OF_NUMBERS))))
    return name


def known(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """Argument type for one of these names, its attribute `names`; the error for another suggests the nearest."""
    allowed = list(names)

    def check(name: str) -> str:
        if name not in allowed:
            raise argparse.ArgumentTypeError(str(unknown_name(kind, name, allowed)))
        return name

    vars(check)["names"] = allowed
    return check


def at_least(least: int) -> Callable[[str], int]:
    """Argument type for integers of at least `least`."""

    def check(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least {least}")
        return number

    return check


def number(end: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Argument type for finite numbers in [0, end), or in (0, end) with `above`."""

    def check(text: str) -> float:
        try:
            return in_range("", "", float(text), end, above=above)
        except ValueError:
            expected = f"{'above' if above else 'of at least'} 0" + (f" and below {end:g}" if end < math.inf else "")
            raise argparse.ArgumentTypeError(f"got {text!r}; expected a finite number {expected}") from None

    return check
