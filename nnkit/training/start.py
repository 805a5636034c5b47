"""The start of a training on several ranks: the same task on each, and the network of rank 0."""

from dataclasses import asdict
from typing import Any

from nnkit import state
from nnkit.layers import layer_description
from nnkit.model import Model
from nnkit.optimizers import Optimizer
from nnkit.parallel.communicator import Communicator
from nnkit.parallel.division import Team
from nnkit.placement import DropoutState
from nnkit.training.checkpoints import Plan


def check_same(team: Team, model: Model, plan: Plan, optimizer: Optimizer | None, **options: Any) -> None:
    """Raise ValueError on all ranks, before anything changes, if one trains something else than rank 0.

    A seed that the network has drawn itself does not count: all take that of rank 0.
    """
    communicator = team.communicator
    if communicator.size == 1:
        return
    task = asdict(plan) | options | {"sharded": team.own_streams, "dtype": model.dtype, "cost": model.cost.describe()}
    task |= {"layers": list(map(layer_description, model.layers)), "backend": type(model.backend).__name__}
    task |= {"optimizer": (model.optimizer if optimizer is None else optimizer).describe()}
    task |= {"seed": None if model.seed_is_drawn else model.seed}
    first, *others = communicator.everyone(task)
    with communicator.agreed():
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                drawn = name == "seed" and None in (value, other[name])
                if other[name] != value and not drawn:
                    raise ValueError(_different(rank, name, other[name], value))


def _different(rank: int, name: str, there: Any, here: Any) -> str:
    if name == "data":
        names = ", ".join(key for key in here if here[key] != there.get(key))
        return (
            f"rank {rank} has a different {names} than rank 0; give all ranks the same arrays, of which each takes its "
            "own rows, or an iterable of its own with sharded=True"
        )
    return f"{name} is {there} on rank {rank} and {here} on rank 0; give all ranks the same arguments"


def start_alike(communicator: Communicator, model: Model) -> None:
    """Give all ranks the parameters, the training state and the seed of rank 0."""
    if communicator.size == 1:
        return
    seed, trained, arrays = communicator.broadcast(lambda: (model.seed, model.epochs_trained, state.arrays(model)))
    with communicator.agreed():
        if communicator.rank > 0:
            place = model.placement
            if seed != model.seed and place.dropout is not None:
                place.dropout = DropoutState(model.backend, model.dtype, seed)
                model.recorded.clear()
            drawn, model.seed = model.seed_is_drawn, seed
            model.seed_is_drawn, model.epochs_trained = drawn, trained
            state.restore(place, arrays)


def cores_for(team: Team) -> int | None:
    """How many cores the BLAS of this rank may use, None for all; 1 for shards, as the number can change the bits."""
    if team.shards is not None:
        return 1
    return None if team.communicator.size == 1 else team.communicator.cores()
