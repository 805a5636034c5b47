"""One training on several processes: each has the whole network and takes some samples of every minibatch.

    mpiexec -n 4 python -m mpi4py train.py        # in it: net.fit(X, y, comm=MPI.COMM_WORLD)

All ranks draw the same order from the seed, compute the gradient of their samples, add their gradients once per step,
and make the same update: the result is that of one process, to rounding, for any number of ranks (`Network.fit`).
"""

from typing import Any

from nnkit.backends.base import Backend
from nnkit.checks import flag, whole
from nnkit.parallel.communicator import ALONE, Communicator, RankError
from nnkit.parallel.division import Team
from nnkit.parallel.threads import run

__all__ = ["Communicator", "RankError", "fastest", "run", "team_of"]


def team_of(comm: Any, shards: int | None = None, sharded: bool = False) -> Team:
    """The team for the arguments of `fit`: comm is None, an mpi4py communicator or one of nnkit's.

    Raises TypeError for anything else.
    """
    if comm is None:
        communicator: Communicator = ALONE
    elif isinstance(comm, Communicator):
        communicator = comm
    elif hasattr(comm, "Allreduce") and hasattr(comm, "Dup"):
        from nnkit.parallel.mpi import MpiCommunicator

        communicator = MpiCommunicator(comm)
    else:
        raise TypeError(f"comm is {comm!r}; expected an mpi4py communicator, such as MPI.COMM_WORLD")
    with communicator.agreed():
        own_streams = flag("", "sharded", sharded) and communicator.size > 1
        return Team(communicator, None if shards is None else whole("", "shards", shards, 1), own_streams)


def fastest(communicator: Communicator, backend: Backend) -> Communicator:
    """The communicator for arrays of this backend: on GPUs NCCL's, where it can be used."""
    if communicator.size == 1 or backend.name.partition(":")[0] != "cupy":
        return communicator
    from nnkit.parallel.nccl import with_nccl

    return with_nccl(communicator, backend)
