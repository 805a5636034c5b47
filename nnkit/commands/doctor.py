"""nnkit doctor: installed packages, and which backends work or why they do not."""

import argparse

from nnkit.commands.arguments import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command, which has no arguments."""
    add_command(commands, "doctor", "show what is installed, which backends work, and why others do not", run)


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    from nnkit import doctor

    print(doctor.report())
    return 0
