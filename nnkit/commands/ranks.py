"""nnkit train --mpi: one training on all processes that mpiexec or srun has started; rank 0 speaks and writes."""

import argparse
import warnings
from collections.abc import Callable

from nnkit.backends import Backend, get_backend
from nnkit.parallel.communicator import ALONE, Communicator
from nnkit.parallel.mpi import MpiCommunicator, launched, world
from nnkit.training.divergence import DivergenceError


def on_all_ranks(options: argparse.Namespace, run: Callable[[argparse.Namespace, Communicator], int]) -> int:
    """Run a command on this process, or with --mpi on all together; returns the exit code.

    Raises ValueError if several processes were started without --mpi: each would train, and write the same files. An
    error that all ranks know is raised on rank 0 alone.
    """
    if not options.mpi:
        if (count := launched()) > 1:
            each = "each would train, and write the same files"
            raise ValueError(f"{count} processes were started together, and {each}; --mpi trains on all of them")
        return run(options, ALONE)
    communicator = MpiCommunicator(world())
    if communicator.rank > 0:
        warnings.simplefilter("ignore")  # rank 0 has shown them
    with communicator.ending_together(DivergenceError):
        try:
            code = run(options, communicator)
        except (Exception, KeyboardInterrupt) as error:
            if communicator.rank == 0 or not (communicator.knows(error) or isinstance(error, DivergenceError)):
                raise
            code = 130 if isinstance(error, KeyboardInterrupt) else 1 if isinstance(error, DivergenceError) else 2
    communicator.close()
    return code


def backend_of(name: str | None, communicator: Communicator) -> Backend:
    """The backend with this name; for CuPy on several ranks, on a device of each rank of a machine in turn."""
    local = communicator.local_rank()
    with communicator.agreed():
        backend = get_backend(name)
        if communicator.size > 1 and backend.name == "cupy":
            import cupy

            backend = get_backend(f"cupy:{local % cupy.cuda.runtime.getDeviceCount()}")
        return backend
