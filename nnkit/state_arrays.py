"""What a training changes beside the parameters, by name: where it lies on the device, and as files have it."""

from collections.abc import Mapping

import numpy as np

from nnkit.backends.base import Array
from nnkit.optimizer_state import OptimizerState
from nnkit.placement import Placement


def state_arrays(place: Placement, state: OptimizerState | None) -> dict[str, Array]:
    """That state of an optimizer, and dropout's counter."""
    arrays = {} if state is None else {f"optimizer.{name}": array for name, array in state.arrays.items()}
    if place.dropout is not None:
        arrays |= {f"dropout.{name}": array for name, array in place.dropout.arrays.items()}
    return arrays


def saved_arrays(place: Placement, state: OptimizerState | None) -> dict[str, np.ndarray]:
    """These arrays on the host, vectors of parameters in the arrangement of files."""
    to_numpy, vector = place.backend.to_numpy, place.parameters.flat.shape
    return {
        name: place.parameters.saved(array) if array.shape == vector else np.array(to_numpy(array))
        for name, array in state_arrays(place, state).items()
    }


def restored_arrays(
    place: Placement, state: OptimizerState | None, saved: Mapping[str, np.ndarray]
) -> list[tuple[Array, Array]]:
    """Each of these arrays after what was saved of it, on the device; KeyError or ValueError for what does not fit."""
    pairs = []
    for name, array in state_arrays(place, state).items():
        found = saved[name]
        if tuple(found.shape) != tuple(array.shape):
            raise ValueError(f"{name} has shape {found.shape}; expected {tuple(array.shape)}")
        vector = array.shape == place.parameters.flat.shape
        values = place.parameters.restored(found) if vector else place.backend.asarray(found, place.dtype)
        pairs.append((values, array))
    return pairs


def restore_arrays(place: Placement, state: OptimizerState | None, saved: Mapping[str, np.ndarray]) -> None:
    """Make these arrays as they were saved."""
    for values, array in restored_arrays(place, state, saved):
        place.backend.copy(values, array)
