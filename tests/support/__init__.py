"""Tools for the tests that are run by hand."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the checkout
