"""A contender's process, `python -m bench.worker NAME CORES`, which pins itself before any thread starts."""

import os
import sys


def pin(cores: list[int]) -> None:
    """Run on these cores only, if the system supports it."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    pin([int(core) for core in sys.argv[2].split(",") if core])
    from bench.serving import serve

    serve(sys.argv[1])
