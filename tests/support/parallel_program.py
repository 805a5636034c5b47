"""A program for mpiexec: `mpiexec -n 2 python -m tests.support.parallel_program SCENARIO FOLDER`."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import nnkit
from nnkit.parallel import RankError
from nnkit.training import together
from tests.support.parallel_cases import CASES, LIMITS, X, Y, difference, state_of, train

WORLD = MPI.COMM_WORLD
RANK = WORLD.rank
LAST = WORLD.size - 1  # the rank that fails
FOLDER = Path(*sys.argv[2:3])  # empty where the module is only imported


def say(text: object) -> None:
    """Print on one line, whatever other ranks print meanwhile."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def digest(net: nnkit.Network, history: nnkit.History) -> str:
    """A digest of what must be the same on all ranks."""
    state = state_of(net, history)
    return hashlib.sha256(b"".join(values.tobytes() for values in state.values())).hexdigest()[:16]


def cases() -> None:
    """The ranks have the same bits, and the numbers of one process."""
    for case in CASES:
        for dtype, limit in LIMITS.items():
            net, history = train(case, dtype, comm=WORLD)
            states = WORLD.allgather(state_of(net, history))
            assert all(difference(each, states[0]) == 0 for each in states), case
            if RANK == 0:
                found = difference(states[0], state_of(*train(case, dtype, seed=net.seed)))
                assert found <= limit, (case, dtype, found)
    say(f"{len(CASES)} cases")


def shards() -> None:
    """The digests of all ranks, which are those of any number of ranks."""
    for case in ("last of 1", "dropout", "stream"):
        say(f"{case}: {digest(*train(case, 'float32', comm=WORLD, shards=8))}")


def failing(**options: Any) -> None:
    """Print the error of a training."""
    try:
        train("dropout", "float64", comm=WORLD, **options)
    except Exception as error:
        say(f"rank {RANK}: {type(error).__name__}: {error}")
        raise SystemExit(3) from None


def nan() -> None:
    """A NaN in the samples of one rank."""
    broken = X.copy()
    broken[5, 2] = np.nan
    failing(X=broken if RANK == LAST else X)


def batch_size() -> None:
    """Another batch size on one rank."""
    failing(batch_size=16 + RANK)


def exception() -> None:
    """A callback of one rank fails in the second epoch."""

    def callback(net: Any, history: nnkit.History) -> None:
        if RANK == LAST and history.epochs == 2:
            raise KeyError("of one rank")

    failing(callbacks=[callback])


def alone() -> None:
    """An error where no rank expects one: all ranks end."""
    original = together.Sum.update

    def update(self: Any, rate: float) -> None:
        if RANK == LAST:
            raise MemoryError("unexpected")
        original(self, rate)

    together.Sum.update = update  # type: ignore[method-assign]
    train("accumulation", "float64", comm=WORLD)


def before() -> None:
    """An error before the training, with python -m mpi4py."""
    if RANK == LAST:
        raise ValueError("before the training")
    train("sgd", "float64", comm=WORLD)


def overflow() -> None:
    """Large samples in one minibatch, which one rank has."""
    large = np.where(np.arange(len(X))[:, None] == 50, 1e200, X)
    net = nnkit.Network([12, 8, 3], "relu", "quadratic", seed=3, dtype="float64")
    try:
        net.fit(large, X[:, :3], batch_size=16, progress=False, comm=WORLD)
    except nnkit.DivergenceError as error:
        say(f"{error} {digest(net, error.history or nnkit.History())}")


def _slow(net: Any, history: nnkit.History) -> None:
    (FOLDER / f"epoch-{history.epochs}").touch()


def endless() -> None:
    """A long training, to be killed; each rank tells its process."""
    (FOLDER / f"rank-{RANK}").write_text(str(os.getpid()))
    train("dropout", "float64", comm=WORLD, epochs=10**6, callbacks=[_slow] if RANK == 0 else [])


def interrupted() -> None:
    """Ctrl-C on one rank in the middle of an epoch."""
    steps = 0

    def rate(epoch: float) -> float:
        nonlocal steps
        steps += 1
        if RANK == LAST and steps == 37:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return 1.0

    options: dict[str, Any] = {"schedule": rate, "gradient_accumulation_steps": 1, "epochs": 50, "X": _Rows(X)}
    net, history = train("sgd", "float64", comm=WORLD, **options)
    say(f"{history.stopped} after {history.epochs} epochs: {digest(net, history)}")


class _Rows:
    """Rows on disk, which the host reads for each step."""

    def __init__(self, rows: Any) -> None:
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __getitem__(self, key: Any) -> Any:
        return self._rows[key]


def resumed() -> None:
    """Train 3 epochs, or resume for 6; print the digest."""
    path = FOLDER / "run.safetensors"
    net, history = train(
        "dropout", "float64", comm=WORLD, epochs=6 if path.exists() else 3, checkpoint=path, resume=True
    )
    say(f"{history.epochs} epochs: {digest(net, history)}")
    if RANK == 0:
        state: dict[str, Any] = state_of(net, history)
        np.savez(FOLDER / f"state-{WORLD.size}-{history.epochs}.npz", **state)


def whole() -> None:
    """The same 6 epochs without a stop."""
    net, history = train("dropout", "float64", comm=WORLD, epochs=6)
    say(f"{history.epochs} epochs: {digest(net, history)}")


def nccl() -> None:
    """NCCL's sums over the emulation of CUDA; `refused` by CUDA, a capture on one rank is an error on all."""
    from tests.support import emulated_cuda, emulated_nccl

    emulated_cuda.install()
    emulated_nccl.install(FOLDER)
    for options in ({}, {"shards": 3}, {"gradient_accumulation_steps": 2}):
        if "refused" in sys.argv and RANK == LAST:
            emulated_cuda.refuse["cudaStreamEndCapture"] = [901]
        emulated_nccl.calls.clear()
        states = []
        for backend in ("cupy", "numpy"):
            net = nnkit.Network([12, 8, 3], "tanh", seed=0, dtype="float64", backend=backend)
            given: dict[str, Any] = options | ({"comm": WORLD} if backend == "cupy" else {})
            history = net.fit(X, Y, epochs=3, batch_size=16, optimizer=nnkit.Adam(0.01), progress=False, **given)
            states.append(state_of(net, history))
        assert difference(*states) < 1e-13
        say(f"{options}: {', '.join(emulated_nccl.calls)}")


def other_library() -> None:
    """The messages of the program do not meet those of the training."""
    request = WORLD.irecv(source=(RANK - 1) % WORLD.size, tag=0)
    train("sgd", "float64", comm=WORLD)
    WORLD.send(("mine", RANK), dest=(RANK + 1) % WORLD.size, tag=0)
    say(request.wait())


SCENARIOS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        cases, shards, nan, batch_size, exception, alone, before, overflow, endless, interrupted, resumed, whole,
        nccl, other_library,
    )
}  # fmt: skip

if __name__ == "__main__":
    assert issubclass(RankError, RuntimeError)
    assert len(Y) == len(X)
    SCENARIOS[sys.argv[1]]()
