"""Trainings on ranks that are threads: the result of one process on every number of ranks."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.parallel import run
from tests.support.parallel_cases import CASES, LIMITS, Y, difference, minibatches, state_of, train
from tests.support.parallel_cases import X as SAMPLES

PROMISED = list(CASES)[:16]


def check(case: str, dtype: str, ranks: int) -> None:
    """All ranks have the same bits, and the numbers of one process."""
    trained = run(ranks, lambda comm: train(case, dtype, comm=comm))
    states = [state_of(*each) for each in trained]
    for each in states[1:]:
        for name, values in each.items():
            np.testing.assert_array_equal(values, states[0][name], err_msg=name)
    alone = state_of(*train(case, dtype, seed=trained[0][0].seed))
    assert difference(states[0], alone) <= LIMITS[dtype]


@pytest.mark.parametrize("case", CASES)
def test_ranks_train_what_one_process_trains(case: str) -> None:
    number = [*CASES].index(case)
    check(case, "float64", (2, 3, 4, 7)[number % 4])
    check(case, "float32", (3, 2, 7, 4)[number % 4])


@pytest.mark.campaign
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("case", CASES)
def test_every_number_of_ranks(case: str, dtype: str) -> None:
    for ranks in (1, 2, 3, 4, 7):
        check(case, dtype, ranks)


SHARDED = [
    "last of 1",
    "batch of 1",
    "dropout",
    "accumulation, weights",
    "schedule",
    "memory-mapped",
    "stream",
    "bytes",
]


@pytest.mark.parametrize("case", SHARDED)
def test_shards_have_the_same_bits_on_every_number_of_ranks(case: str) -> None:
    def digest(state: dict[str, Any]) -> str:
        return hashlib.sha256(b"".join(values.tobytes() for values in state.values())).hexdigest()

    found = {digest(state_of(*train(case, "float32", shards=8)))}
    for ranks in (1, 2, 3, 5, 8):
        found |= {
            digest(state_of(*each)) for each in run(ranks, lambda comm: train(case, "float32", comm=comm, shards=8))
        }
    assert len(found) == 1
    alone = state_of(*train(case, "float64"))
    assert difference(state_of(*train(case, "float64", shards=8)), alone) <= LIMITS["float64"]


def test_each_rank_has_a_stream_of_its_own() -> None:
    """Streams of other lengths and sizes; their union is the minibatch."""
    rng = np.random.default_rng(0)
    sizes = [[5, 9, 4], [7], [1, 6, 6, 2]]  # of the minibatches of each rank
    rows = [[rng.integers(0, len(Y), size) for size in own] for own in sizes]

    def own(rank: int) -> Iterator[tuple[Any, Any]]:
        yield from ((SAMPLES[each], Y[each]) for each in rows[rank])

    def union() -> Iterator[tuple[Any, Any]]:
        for step in range(4):
            each = np.concatenate([own[step] for own in rows if step < len(own)])
            yield SAMPLES[each], Y[each]

    given: dict[str, Any] = {"y": None, "batch_size": None, "metrics": ["top_2"]}
    alone = state_of(*train("dropout", "float64", X=union, **given))
    trained = run(3, lambda c: train("dropout", "float64", X=lambda: own(c.rank), comm=c, sharded=True, **given))
    states = [state_of(*each) for each in trained]
    assert all(difference(each, states[0]) == 0 for each in states)
    assert difference(states[0], alone) <= 1e-13


@pytest.mark.parametrize(("first", "then"), [(2, 2), (2, 3), (3, 1), (1, 2)])
def test_a_killed_training_resumes_on_another_number_of_ranks(tmp_path: Path, first: int, then: int) -> None:
    """Bit for bit on the same number; one file, by rank 0 alone."""
    path = tmp_path / "run.safetensors"

    class KilledError(Exception):
        pass

    def kill(net: Any, history: nnkit.History) -> None:
        if history.epochs == 3:
            raise KilledError

    def begin(comm: Any) -> None:
        with pytest.raises(KilledError):
            train("dropout", "float64", comm=comm, epochs=5, checkpoint=path, callbacks=[kill])

    run(first, begin)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]
    resumed = run(then, lambda c: train("dropout", "float64", comm=c, epochs=5, checkpoint=path, resume=True))
    whole = run(first, lambda c: train("dropout", "float64", comm=c, epochs=5))
    states, wanted = [state_of(*each) for each in resumed], state_of(*whole[0])
    assert all(difference(each, states[0]) == 0 for each in states)
    assert difference(states[0], wanted) <= (0 if first == then else 1e-13)


def test_callbacks_act_on_all_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    """An answer of one rank stops all; a change of the network by all is part of the training; rank 0 alone prints."""

    def change(net: Any, history: nnkit.History) -> None:
        net.optimizer.learning_rate *= 0.5
        net.train_step(SAMPLES[:4], Y[:4])

    alone = state_of(*train("adam", "float64", callbacks=[change, lambda net, history: history.epochs == 2]))

    def stopping(comm: Any) -> Any:
        def stop(net: Any, history: nnkit.History) -> bool:
            return bool(comm.rank == 1 and history.epochs == 2)

        return state_of(*train("adam", "float64", comm=comm, callbacks=[change, stop], progress="lines"))

    states = run(2, stopping)
    assert difference(*states) == 0
    assert difference(states[0], alone) <= 1e-13
    assert capsys.readouterr().out.count("epoch ") == 2


def test_further_trainings_continue() -> None:
    """A second fit starts from rank 0's state, also the optimizer's."""

    def twice(comm: Any) -> Any:
        net, _ = train("adam", "float64", **({} if comm is None else {"comm": comm}))
        return state_of(net, net.fit(SAMPLES, Y, epochs=2, comm=comm, progress=False))

    states = run(3, twice)
    assert all(difference(each, states[0]) == 0 for each in states)
    assert difference(states[0], twice(None)) <= 1e-13


def test_minibatches_of_the_cases() -> None:
    assert [len(y) for _, y in minibatches()] == [20] * 5 + [17]
    assert len(PROMISED) == 16


class Rows:
    """Samples on disk that note which rows are read."""

    def __init__(self, rows: Any) -> None:
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype
        self.read = np.zeros(len(rows), int)

    def __getitem__(self, key: Any) -> Any:
        self.read[key] += 1
        return self._rows[key]


def test_each_rank_reads_and_checks_its_own_rows() -> None:
    """Of a large file on disk; besides, 256 rows are compared with those of rank 0."""
    wide = np.random.default_rng(0).random((35_000, 64), dtype=np.float32)
    labels = np.arange(len(wide)) % 3

    def read(comm: Any) -> Any:
        rows, net = Rows(wide), nnkit.Network([64, 3], seed=0)
        net.fit(rows, labels, epochs=1, batch_size=500, comm=comm, progress=False)
        return rows.read

    counts = run(4, read)
    for count in counts:
        assert len(wide) / 2 <= count.sum() <= len(wide) / 2 + 300  # a quarter checked, a quarter trained with
    assert sum(counts).min() >= 2  # all rows were


@settings(max_examples=12)
@given(
    st.integers(1, 60), st.integers(1, 40), st.integers(2, 5), st.one_of(st.none(), st.integers(5, 9)),
    st.integers(1, 3), st.booleans(), st.sampled_from(["sgd", "adam", "rmsprop"]),
)  # fmt: skip
def test_any_division(
    samples: int, batch: int, ranks: int, shards: int | None, accumulated: int, shuffle: bool, optimizer: str
) -> None:
    """Fewer samples than ranks, minibatches of one, several minibatches for an update."""
    options: dict[str, Any] = {"X": SAMPLES[:samples], "y": Y[:samples], "batch_size": batch, "shuffle": shuffle}
    options |= {"gradient_accumulation_steps": accumulated, "optimizer": optimizer, "epochs": 2}
    alone = state_of(*train("dropout", "float64", **options))
    states = [
        state_of(*each)
        for each in run(ranks, lambda comm: train("dropout", "float64", comm=comm, shards=shards, **options))
    ]
    assert all(difference(each, states[0]) == 0 for each in states)
    assert difference(states[0], alone) <= 1e-12
