"""Names that the examples in docstrings may use without importing them, as in NumPy's documentation."""

import numpy as np
import pytest

import nnkit


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(np=np, nnkit=nnkit)
