"""nnkit doctor: what is installed, which backends work, which do not and why."""

import argparse

from nnkit.commands.arguments import Commands, add_command


def add(commands: Commands) -> None:
    """The command; it has no arguments."""
    add_command(commands, "doctor", "tell what is installed, which backends work, and why others do not", run)


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    from nnkit import doctor

    print(doctor.report())
    return 0
