"""Benchmarks: pytest-benchmark suites, and the step next to its floor and to its peers (`python -m bench`)."""
