"""Benchmarks: pytest-benchmark suites, and a training step compared with its floor and peers (`python -m bench`)."""
