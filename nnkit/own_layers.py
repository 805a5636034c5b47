"""Checks of custom layers and updates: whether their computation is recorded and their gradients are written.

A step is recorded once and replayed. Computation that bypasses the backend, such as `x * s` with NumPy's operator,
would run only during recording: replays would silently reuse its numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnkit.backends import Backend
from nnkit.backends.base import Array
from nnkit.layers import Dense, Dropout, Layer
from nnkit.optimizer_state import OptimizerState
from nnkit.parameters import Parameters

_SAMPLES = 3
_HINT = "compute only with formulas (nnkit.formula) and methods of the backend, so that a step can be recorded"


def check_own_layer(backend: Backend, layer: Layer, values: Sequence[np.ndarray], dtype: str, number: int) -> None:
    """ValueError if a replay of a layer differs from a call, for these values of its parameters.

    Also if its results have wrong shapes, or it overwrites x or does not write a gradient.
    """
    if isinstance(layer, Dense | Dropout):
        return
    owner, trial = f"{type(layer).__name__} of layer {number}", _Trial(backend, layer, values, dtype)
    trial.fill(1.0, unwritten=0.0)
    with backend.recording() as tape:
        found = trial.run()
    _check_shapes(owner, layer, found)
    trial.fill(-0.75, unwritten=7.0)
    tape.replay()
    replayed = trial.numbers(found)
    trial.fill(-0.75, unwritten=-3.0)
    called = trial.numbers(trial.run())
    if not np.array_equal(backend.to_numpy(trial.x), -0.75 * trial.given[0]):
        raise ValueError(f"{owner} overwrites x, which the layer before it needs; write into new arrays")
    for name in trial.gradient:
        if (replayed[name] == 7.0).any() and np.array_equal(replayed[name] == 7.0, called[name] == -3.0):
            raise ValueError(
                f"{owner}: backward does not write all of gradient[{name!r}]; write into that array, such as with out="
            )
    for name, array in called.items():
        size = np.abs(array[np.isfinite(array)]).max(initial=1e-30)
        if not np.allclose(replayed[name], array, rtol=1e-3, atol=1e-5 * size, equal_nan=True):
            raise ValueError(f"{owner}: {name} of a recorded step differs from that of a call; {_HINT}")


class _Trial:
    """Arrays for a forward and a backward pass of one layer."""

    def __init__(self, backend: Backend, layer: Layer, values: Sequence[np.ndarray], dtype: str) -> None:
        self.backend, self._layer, self._dtype = backend, layer, dtype
        rng, widths = np.random.default_rng(0), (layer.inputs, layer.units)
        # Eighths, and ¾ of them, are exact in each dtype.
        self.given = [(rng.integers(1, 9, (_SAMPLES, d)) * rng.choice([-1, 1], (_SAMPLES, d)) / 8) for d in widths]
        self._values = [np.asarray(value, np.float64) for value in values]
        self.x, self._delta = (backend.zeros(array.shape, dtype) for array in self.given)
        self._parameters = {name: backend.zeros(shape, dtype) for name, shape in layer.shapes.items()}
        self.gradient = {name: backend.zeros(shape, dtype) for name, shape in layer.shapes.items()}

    def fill(self, factor: float, unwritten: float) -> None:
        """Scale samples and Δ by `factor`, set parameters near their initial values and gradients to a number."""
        moved = [value + 0.0625 * (1 - factor) for value in self._values]
        gradients = [np.full(array.shape, unwritten) for array in self.gradient.values()]
        targets = [self.x, self._delta, *self._parameters.values(), *self.gradient.values()]
        for values, target in zip([*(factor * a for a in self.given), *moved, *gradients], targets, strict=True):
            self.backend.copy(self.backend.asarray(values, self._dtype), target)

    def run(self) -> dict[str, Array]:
        """The outputs as computed by a prediction and by a step, and δx."""
        # Copies of the dicts, in case the layer replaces an array in them.
        own = dict(self._parameters)
        outputs = self._layer.outputs(self.backend, self.x, own)
        h, saved = self._layer.forward(self.backend, self.x, own)
        kept = self.backend.copy(h, self.backend.empty(h.shape, h.dtype))  # it may be overwritten
        dx = self._layer.backward(self.backend, self._delta, saved, own, dict(self.gradient), True)
        return {"outputs": outputs, "forward": kept, "δx": dx}

    def numbers(self, found: dict[str, Array]) -> dict[str, Any]:
        """The current results and gradients, on the host."""
        return {name: np.array(self.backend.to_numpy(a)) for name, a in (found | self.gradient).items()}


def _check_shapes(owner: str, layer: Layer, found: dict[str, Any]) -> None:
    for name, width in (("outputs", layer.units), ("forward", layer.units), ("δx", layer.inputs)):
        shape = getattr(found[name], "shape", None)
        if shape is None or tuple(shape) != (_SAMPLES, width):
            given = repr(found[name]) if shape is None else f"shape {tuple(shape)}"
            raise ValueError(f"{owner}: {name} of {_SAMPLES} samples: {given}; expected ({_SAMPLES}, {width})")


def tried(state: OptimizerState, parameters: Parameters) -> OptimizerState:
    """The state; ValueError if a replay of a custom update that is declared recordable differs from a call."""
    backend, found = state.backend, []
    for replays in (True, False) if state.recordable and not state.updates_by_formula else ():
        p, g = (Parameters(backend, parameters.shapes, state.dtype) for _ in range(2))
        step: Callable[..., object] = state.optimizer.start(p).update
        if replays:
            with backend.recording() as tape:
                step(p, g)
        for factor in (1.0, -0.25):
            backend.copy(backend.asarray(factor * np.linspace(1, -3, g.flat.shape[0]), state.dtype), g.flat)
            tape.replay() if replays else step(p, g)
        found.append(np.array(backend.to_numpy(p.flat)))
    if found and not np.allclose(found[0], found[1], rtol=1e-3, atol=1e-5, equal_nan=True):
        raise ValueError(f"{type(state).__name__}.update: a replay differs from a call; {_HINT}, or omit recordable")
    return state
