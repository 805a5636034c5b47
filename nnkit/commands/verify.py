"""nnkit verify: the measured error of every equation of the lecture."""

import argparse

from nnkit.commands.arguments import Commands, add_backend, add_command, at_least


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    parser = add_command(commands, "verify", "measure the error of every equation of the lecture on a backend", run)
    add_backend(parser)
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the random numbers (default: 0)")
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--markdown", action="store_true", help="print a Markdown table")
    style.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the measured error of every equation; return 1 if one exceeds the bound."""
    from nnkit import verify
    from nnkit.backends import get_backend

    backend = get_backend(options.backend)
    rows = verify.verify(backend, options.seed)
    failed = [row for row in rows if not row.passed]
    if options.json:
        print(verify.as_json(rows, backend.name))
    elif options.markdown:
        print(verify.as_markdown(rows))
    else:
        print(verify.as_text(rows))
        outcome = f"{len(failed)} of {len(rows)} failed" if failed else f"all {len(rows)} within"
        print(f"\n{outcome} the bound of {verify.BOUND:g}, in float64 on {backend.name}, seed {options.seed}")
    return 1 if failed else 0
