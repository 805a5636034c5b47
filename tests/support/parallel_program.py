"""A program for mpiexec: trains cases on all ranks, and compares the ranks and one process.

mpiexec -n 2 python -m mpi4py -m tests.support.parallel_program
"""

import hashlib

from mpi4py import MPI

from tests.support.parallel_cases import CASES, LIMITS, difference, state_of, train

WORLD = MPI.COMM_WORLD


def main() -> None:
    """Check all cases in both types, and that shards have one digest, which is printed."""
    for case in CASES:
        for dtype, limit in LIMITS.items():
            net, history = train(case, dtype, comm=WORLD)
            states = WORLD.allgather(state_of(net, history))
            assert all(difference(each, states[0]) == 0 for each in states), case
            if WORLD.rank == 0:
                found = difference(states[0], state_of(*train(case, dtype, seed=net.seed)))
                assert found <= limit, (case, dtype, found)
    state = state_of(*train("dropout", "float32", comm=WORLD, shards=8))
    if WORLD.rank == 0:
        print("digest", hashlib.sha256(b"".join(values.tobytes() for values in state.values())).hexdigest())


if __name__ == "__main__":
    main()
