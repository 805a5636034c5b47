"""The examples run, on NumPy and on another namespace, and do what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from tests.conftest import Arrays

EXAMPLES = Path(__file__).parents[1] / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_xor_is_learned_on_every_backend(arrays: Arrays) -> None:
    costs, outputs = _load("xor").train(steps=600)
    assert costs[-1] < 0.01 * costs[0]
    assert np.round(outputs[:, 0]).tolist() == [0, 1, 1, 0]
