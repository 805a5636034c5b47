"""Ranks by MPI, with mpi4py. Arrays of a GPU go through the host."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, TypeVar

from nnkit.parallel.communicator import Communicator

T = TypeVar("T")
_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # set by launchers, for their processes only


class MpiCommunicator(Communicator):
    """The ranks of an mpi4py communicator, duplicated: messages of nnkit and of the program never meet."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        super().__init__()
        if comm.Is_inter():
            raise ValueError("comm is an intercommunicator; expected the communicator of one group, like COMM_WORLD")
        self._mpi, self._comm = MPI, comm.Dup()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()

    def everyone(self, value: T) -> list[T]:
        found: list[T] = self._comm.allgather(value)
        return found

    def abort(self, error: BaseException) -> None:
        traceback.print_exception(error)
        print(f"nnkit: rank {self.rank} of {self.size} failed alone; all ranks end", file=sys.stderr, flush=True)
        self._comm.Abort(1)

    def _sum(self, message: Any) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, message)

    def _gather(self, rows: Any, counts: Sequence[int]) -> None:
        self._comm.Allgatherv(self._mpi.IN_PLACE, [rows, [count * rows.shape[1] for count in counts]])

    def close(self) -> None:
        self._comm.Free()


def world() -> Any:
    """mpi4py's communicator of all processes; ImportError with the command that installs it if it is missing."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        install = "python -m pip install mpi4py mpich"
        raise ImportError(f"MPI needs mpi4py and an MPI library: {install} ({error})") from None
    return MPI.COMM_WORLD


def launched() -> int:
    """The number of processes that an MPI launcher has started together with this one, 1 if none is known."""
    return max([1, *(int(os.environ[name]) for name in _COUNTS if os.environ.get(name, "").isdigit())])
