"""A training on several ranks is the same on all: its task, its start from rank 0's network, and its parameters."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nnkit import state
from nnkit.layers import layer_description
from nnkit.model import Model
from nnkit.optimizers import Optimizer
from nnkit.parallel.communicator import Communicator
from nnkit.parallel.division import Team
from nnkit.training.checkpoints import Plan


def check_same(team: Team, model: Model, plan: Plan, optimizer: Optimizer | None, **options: Any) -> None:
    """Raise ValueError on all ranks, before anything changes, if one trains something else than rank 0.

    A seed that the network has drawn itself does not count: all take that of rank 0.
    """
    communicator = team.communicator
    if communicator.size == 1:
        return
    task = {name: value for name, value in asdict(plan).items() if name != "functions"}  # which may read the rank
    task |= options | {"sharded": team.own_streams, "dtype": model.dtype, "cost": model.cost.describe()}
    task |= {"layers": list(map(layer_description, model.layers)), "backend": type(model.backend).__name__}
    task |= {"optimizer": (model.optimizer if optimizer is None else optimizer).describe()}
    classes = None if model.classes is None else model.classes.tolist()
    task |= {"seed": None if model.seed_is_drawn else model.seed, "classes": classes}
    fitted = {"preprocessing": model.preprocessing, "target_scaling": model.target_scaling}
    task |= {name: None if a is None else [*map(_digest, a.arrays.values())] for name, a in fitted.items()}
    task["the order of the first W in memory"] = model.parameters.order
    task["data"] = task.pop("data")  # last: other data follow from another dtype, and so on
    first, *others = communicator.everyone(task)
    with communicator.agreed():
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                drawn = name == "seed" and None in (value, other[name])
                if other[name] != value and not drawn:
                    raise ValueError(_different(rank, name, other[name], value))


def _digest(array: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


def _different(rank: int, name: str, there: Any, here: Any) -> str:
    if name == "data":
        names = ", ".join(key for key in here if here[key] != there.get(key))
        return (
            f"rank {rank} has a different {names} than rank 0; give all ranks the same arrays, of which each takes its "
            "own rows, or an iterable of its own with sharded=True"
        )
    if name.startswith("the order"):
        return f"{name} is {there} on rank {rank} and {here} on rank 0: their CPUs differ; set NNKIT_NATIVE=0 on all"
    return f"{name} is {there} on rank {rank} and {here} on rank 0; give all ranks the same arguments"


def start_alike(communicator: Communicator, model: Model) -> None:
    """Give all ranks the parameters, the training state and the seed of rank 0."""
    if communicator.size == 1:
        return
    seed, trained, arrays = communicator.broadcast(lambda: (model.seed, model.epochs_trained, state.arrays(model)))
    with communicator.agreed():
        if communicator.rank > 0:
            drawn, model.seed = model.seed_is_drawn, seed
            model.seed_is_drawn, model.epochs_trained = drawn, trained
            state.restore(model.placement, arrays)


def cores_for(team: Team) -> int | None:
    """How many cores the BLAS of this rank may use, None for all; 1 for shards, as the number can change the bits."""
    if team.shards is not None:
        return 1
    return None if team.communicator.size == 1 else team.communicator.cores()


def checksum(model: Model) -> int:
    """A number that tells different parameters on the host; 0 on a device, from which they are not copied."""
    flat = model.parameters.flat
    words = flat.view(f"u{flat.dtype.itemsize}") if isinstance(flat, np.ndarray) else np.zeros(1, np.uint8)
    return int(np.bitwise_xor.reduce(words))


def check_alike(checksums: Sequence[int], epochs: int) -> None:
    """Raise RuntimeError if the parameters of the ranks differ, by their checksums."""
    other = next((rank for rank, each in enumerate(checksums) if each != checksums[0]), None)
    if other is not None:
        raise RuntimeError(
            f"after epoch {epochs} the parameters of rank {other} are not those of rank 0: a callback or schedule does "
            "something else there, or its CPU computes other bits"
        )
