"""What fails on one rank is an error on all, which name it: before anything changes, or after it was undone."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.numpy_backend import make_numpy_backend
from nnkit.parallel import Communicator, run, team_of
from nnkit.training import stopping, together
from tests.support.parallel_cases import X, Y, difference, minibatches, state_of, train

Outcome = tuple[str, dict[str, Any]]


def network(seed: int | None = 3) -> nnkit.Network:
    return nnkit.Network([12, 8, 6, 3], seed=seed, dtype="float64")


def fail(comm: Communicator, net: nnkit.Network, **options: Any) -> Outcome:
    """The error of a training as text, and the network's state after it."""
    given = {"X": X, "y": Y, "epochs": 3, "batch_size": 16, "progress": False, "comm": comm} | options
    if given["batch_size"] is None:
        del given["batch_size"]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        net.fit(**given)
    error = caught.value
    return f"{type(error).__name__}: {error}", state_of(net, vars(error).get("history") or nnkit.History())


def check_all(outcomes: list[Outcome], *texts: str, unchanged: bool = True) -> None:
    """Rank 1 raises its error, the others one that names rank 1 and its error; all networks are the same."""
    for rank, (text, state) in enumerate(outcomes):
        for part in texts:
            assert part in text
        assert text.startswith("RankError: rank 1: ") == (rank != 1)
        assert difference(state, outcomes[0][1]) == 0
        if unchanged:
            assert difference(state, state_of(network(), nnkit.History())) == 0


def bad(comm: Communicator, name: str) -> dict[str, Any]:
    """Options of which only rank 1's are wrong."""
    if comm.rank != 1:
        return {}
    broken = X.copy()
    broken[3, 0] = np.nan
    options: dict[str, dict[str, Any]] = {
        "X": {"X": broken}, "y": {"y": np.where(np.arange(117) == 4, 7, Y)}, "epochs": {"epochs": 0},
        "metrics": {"metrics": ["top_9"]}, "sample_weight": {"sample_weight": np.full(117, -1.0)},
        "validation_data": {"validation_data": (broken, Y)}, "shards": {"shards": 1.5},
    }  # fmt: skip
    return options[name]


@pytest.mark.parametrize(("name", "said"), [
    ("X", "X holds nan at [3, 0]"), ("y", "y holds label 7 at [4]"), ("epochs", "epochs is 0"),
    ("metrics", "top_9"), ("sample_weight", "sample_weight holds -1.0 at [0]"),
    ("validation_data", "validation X holds nan at [3, 0]"), ("shards", "shards is 1.5"),
])  # fmt: skip
def test_invalid_arguments_of_one_rank(name: str, said: str) -> None:
    check_all(run(3, lambda comm: fail(comm, network(), **bad(comm, name))), said)


OTHERS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "batch_size": (lambda: {"batch_size": 32}, "batch_size is 32 on rank 1 and 16 on rank 0"),
    "epochs": (lambda: {"epochs": 4}, "epochs is 4 on rank 1 and 3 on rank 0"),
    "optimizer": (lambda: {"optimizer": "adam"}, "optimizer is {'name': 'adam'"),
    "X": (lambda: {"X": X + 1e-9}, "rank 1 has a different X than rank 0; give all ranks the same arrays"),
    "samples": (lambda: {"X": X[:60], "y": Y[:60]}, "samples is 60 on rank 1"),
    "schedule": (lambda: {"schedule": lambda epoch: 0.5}, "schedule is"),
    "shards": (lambda: {"shards": 4}, "shards is 4 on rank 1 and None on rank 0"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_arguments_on_one_rank_are_refused(name: str) -> None:
    make, said = OTHERS[name]
    for text, state in run(2, lambda comm: fail(comm, network(), **(make() if comm.rank else {}))):
        assert text.startswith("ValueError")
        assert said in text
        assert difference(state, state_of(network(), nnkit.History())) == 0


def _ordered(rank: int) -> nnkit.Network:
    """A network as on CPUs with different instructions, of which nnkit's native code makes use."""
    backend = make_numpy_backend("")
    backend.by_columns = lambda *sizes: rank == 0  # type: ignore[method-assign]
    return nnkit.Network([12, 3], seed=0, backend=backend)


def test_another_network_on_one_rank_is_refused() -> None:
    fitted = [nnkit.data.Normalization.fit(X), nnkit.data.Normalization.fit(X + 1)]
    makes: list[tuple[Callable[[int], nnkit.Network], str]] = [
        (lambda rank: network(seed=3 + rank), "seed is 4 on rank 1 and 3 on rank 0"),
        (lambda rank: nnkit.Network([12, 7 + rank, 3], seed=0), "layers is"),
        (lambda rank: nnkit.Network([12, 3], seed=0, preprocessing=fitted[rank]), "preprocessing is"),
        (lambda rank: nnkit.Network([12, 3], seed=0, dtype=f"float{32 + 32 * rank}"), "dtype is float64 on rank 1"),
        (_ordered, "the order of the first W in memory is by rows on rank 1 and by columns on rank 0"),
    ]
    for make, said in makes:
        for text, _ in run(2, partial(_failing, make)):
            assert said in text


def _failing(make: Callable[[int], nnkit.Network], comm: Communicator) -> Outcome:
    return fail(comm, make(comm.rank))


class OwnError(Exception):
    pass


def raising(comm: Communicator, when: Callable[[], bool] = lambda: True) -> Callable[..., Any]:
    """A function that raises on rank 1."""

    def function(*_: Any) -> Any:
        if comm.rank == 1 and when():
            raise OwnError("of a user")
        return 0.5

    return function


def stream(comm: Communicator) -> Iterator[tuple[Any, ...]]:
    for number, batch in enumerate(minibatches()):
        if number == 3:
            raising(comm)()
        yield batch


@pytest.mark.parametrize("options", [
    lambda comm: {"schedule": raising(comm)},
    lambda comm: {"metrics": [raising(comm)]},
    lambda comm: {"X": lambda: stream(comm), "y": None, "batch_size": None},
    lambda comm: {"X": lambda: stream(comm), "y": None, "batch_size": None, "sharded": True},
    lambda comm: {"validation_data": lambda: stream(comm)},
])  # fmt: skip
def test_a_function_that_fails_on_one_rank(options: Callable[[Communicator], dict[str, Any]]) -> None:
    """In the first epoch, which is undone."""
    check_all(run(3, lambda comm: fail(comm, network(), **options(comm))), "OwnError: of a user")


def test_a_callback_that_fails_on_one_rank() -> None:
    """It keeps the epochs before."""

    def options(comm: Communicator) -> dict[str, Any]:
        return {"callbacks": [lambda net, history: raising(comm, lambda: history.epochs == 2)()]}

    outcomes = run(2, lambda comm: fail(comm, network(), **options(comm)))
    check_all(outcomes, "OwnError: of a user", unchanged=False)
    assert outcomes[0][1]["epochs"].tolist() == [2, 3]


def test_ranks_that_drift_apart() -> None:
    """As one does something else: an error on all after this epoch."""

    def options(comm: Communicator) -> dict[str, Any]:
        def callback(net: Any, history: nnkit.History) -> None:
            if comm.rank == 1 and history.epochs == 2:
                net.parameters.b[0][...] += 1e-15

        return {"callbacks": [callback]}

    for text, _ in run(3, lambda comm: fail(comm, network(), **options(comm))):
        assert text.startswith(
            "RuntimeError: after epoch 2 the parameters of rank 1 are not those of rank 0: a callback"
        )


def test_a_checkpoint_that_rank_0_cannot_write(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")

    def train_on(comm: Communicator) -> str:
        def remove(net: Any, history: nnkit.History) -> None:
            if comm.rank == 0 and history.epochs == 2:
                (tmp_path / "runs").rename(tmp_path / "moved")

        return fail(comm, network(), checkpoint=tmp_path / "runs" / "run.safetensors", callbacks=[remove])[0]

    (tmp_path / "runs").mkdir()
    first, second = run(2, train_on)
    assert first.startswith("FileNotFoundError")
    assert second.startswith("RankError: rank 0: FileNotFoundError")


def test_one_stream_of_other_lengths() -> None:
    """Without sharded=True, all ranks must yield the same minibatches."""

    def other(comm: Communicator) -> dict[str, Any]:
        return {"X": lambda: minibatches(20 + comm.rank), "y": None, "batch_size": None}

    for text, _ in run(2, lambda comm: fail(comm, network(), **other(comm))):
        assert "minibatch 0 of X has different numbers of samples on the ranks: 20, 21" in text
        assert "sharded=True" in text


def test_options_without_effect() -> None:
    def check(comm: Communicator) -> None:
        assert "sharded is True, which has no effect for arrays" in fail(comm, network(), sharded=True)[0]
        assert "shards is 2; expected at least one for each of 3 ranks" in fail(comm, network(), shards=2)[0]
        options = {"X": minibatches, "y": None, "batch_size": None, "sharded": True, "shards": 4}
        assert "shards is 4, which has no effect" in fail(comm, network(), **options)[0]

    run(3, check)
    with pytest.raises(TypeError, match=r"comm is 'MPI'; expected an mpi4py communicator, such as MPI.COMM_WORLD"):
        team_of("MPI")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_an_overflow_on_one_rank_is_a_divergence_on_all(accumulated: int) -> None:
    """Of one step, with the parameters from before it, as on one process."""
    large = np.where(np.arange(117)[:, None] == 50, 1e200, X)

    def diverge(comm: Communicator | None) -> tuple[Any, ...]:
        net = nnkit.Network([12, 8, 3], "relu", "quadratic", seed=3, dtype="float64")
        with pytest.raises(nnkit.DivergenceError) as caught:
            net.fit(large, X[:, :3], batch_size=16, gradient_accumulation_steps=accumulated, progress=False, comm=comm)
        return str(caught.value), state_of(net, caught.value.history or nnkit.History())

    (text, state), *others = run(3, diverge)
    for other, theirs in others:
        assert other == text
        assert difference(theirs, state) == 0
    alone, wanted = diverge(None)
    assert text == alone
    assert difference(state, wanted) <= 1e-13


def test_a_rank_that_fails_in_an_exchange_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only one rank knows: the others do not wait for it."""
    original = together.Sum.update

    def update(self: Any, rate: float) -> None:
        if self._exchange._team.communicator.rank == 1:
            raise MemoryError("of this rank alone")
        original(self, rate)

    monkeypatch.setattr(together.Sum, "update", update)
    with pytest.raises(MemoryError, match="of this rank alone"):
        run(3, lambda comm: train("accumulation", "float64", comm=comm))


def test_ctrl_c_on_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stop after the same step, with the same bits: those of the training so far."""
    checks: dict[Any, Any] = {}
    original = stopping.Interrupt.check

    def check(self: Any) -> None:
        count = checks[self._communicator] = checks.get(self._communicator, 0) + 1
        self.presses = int(self._communicator.rank == 1 and count >= 11)
        original(self)

    monkeypatch.setattr(stopping.Interrupt, "check", check)
    trained = run(3, lambda comm: (*train("dropout", "float64", comm=comm), checks[comm]))
    states = [state_of(net, history) for net, history, _ in trained]
    assert all(difference(each, states[0]) == 0 for each in states)
    assert {history.stopped for _, history, _ in trained} == {"interrupted"}
    assert {count for *_, count in trained} == {12}  # it is known after the next sum


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of users are not on this system")
def test_no_rank_goes_on_after_an_exception_of_the_caller() -> None:
    exchanges = [0, 0]

    def late(*_: Any) -> None:
        raise TimeoutError("time limit")

    def task(comm: Communicator) -> None:
        for number in range(200):
            if comm.rank == 0 and number == 5:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            comm.everyone(number)
            exchanges[comm.rank] += 1
            time.sleep(0.005)

    before = signal.signal(signal.SIGUSR1, late)
    try:
        with pytest.raises(TimeoutError, match="time limit"):
            run(2, task)
    finally:
        signal.signal(signal.SIGUSR1, before)
    ended = list(exchanges)
    time.sleep(0.02)
    assert exchanges == ended
    assert max(exchanges) < 200


def test_the_network_can_be_trained_after_a_failure() -> None:
    def again(comm: Communicator) -> Any:
        net = network()
        fail(comm, net, callbacks=[raising(comm)])
        fail(comm, net, **bad(comm, "X"))
        net.fit(X, Y, epochs=2, comm=comm, progress=False)
        return state_of(net, nnkit.History())

    first, second = run(2, again)
    assert difference(first, second) == 0
