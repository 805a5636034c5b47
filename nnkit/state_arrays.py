"""What a training changes beside the parameters, by name: where it lies on the device, and as files have it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnkit.backends.base import Array
from nnkit.optimizer_state import OptimizerState

if TYPE_CHECKING:
    from nnkit.model import Model


def state_arrays(model: "Model", state: OptimizerState | None) -> dict[str, Array]:
    """That state of an optimizer, and dropout's counter."""
    arrays = {} if state is None else {f"optimizer.{name}": array for name, array in state.arrays.items()}
    if model.dropout is not None:
        arrays |= {f"dropout.{name}": array for name, array in model.dropout.arrays.items()}
    return arrays


def saved_arrays(model: "Model", state: OptimizerState | None) -> dict[str, np.ndarray]:
    """These arrays on the host, vectors of parameters in the arrangement of files."""
    to_numpy, vector = model.backend.to_numpy, model.parameters.flat.shape
    return {
        name: model.parameters.saved(array) if array.shape == vector else np.array(to_numpy(array))
        for name, array in state_arrays(model, state).items()
    }


def restored_arrays(
    model: "Model", state: OptimizerState | None, saved: Mapping[str, np.ndarray]
) -> list[tuple[Array, Array]]:
    """Each of these arrays after what was saved of it, on the device; KeyError or ValueError for what does not fit."""
    pairs = []
    for name, array in state_arrays(model, state).items():
        found = saved[name]
        if tuple(found.shape) != tuple(array.shape):
            raise ValueError(f"{name} has shape {found.shape}; expected {tuple(array.shape)}")
        vector = array.shape == model.parameters.flat.shape
        values = model.parameters.restored(found) if vector else model.backend.asarray(found, model.dtype)
        pairs.append((values, array))
    return pairs


def restore_arrays(model: "Model", state: OptimizerState | None, saved: Mapping[str, np.ndarray]) -> None:
    """Make these arrays as they were saved."""
    for values, array in restored_arrays(model, state, saved):
        model.backend.copy(values, array)
