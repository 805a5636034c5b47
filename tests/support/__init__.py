"""Tools for the tests that are run by hand."""
