"""How a minibatch is divided, and how its gradients are added."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnkit.backends import get_backend
from nnkit.parallel import run
from nnkit.parallel.communicator import Communicator
from nnkit.parallel.division import Division, Team, part
from nnkit.parallel.exchange import Exchange
from nnkit.parameters import Parameters


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_the_shares_are_the_minibatches(samples: int, batch: int, count: int, shuffled: bool) -> None:
    """Each place is in one share, in order, and shares differ by at most one sample."""
    order = np.random.default_rng(samples).permutation(samples) if shuffled else None
    divisions = [Division(samples, batch, number, count) for number in range(count)]
    own = [list(division.own(order)) for division in divisions]
    whole = list(range(samples) if order is None else order)
    for start in range(0, samples, batch):
        minibatch = whole[start : start + batch]
        parts = [part(len(minibatch), number, count) for number in range(count)]
        assert max(each.samples for each in parts) - min(each.samples for each in parts) <= 1
        found = [each[: p.samples] for each, p in zip(own, parts, strict=True)]
        assert [place for each in found for place in each] == minibatch
        own = [each[p.samples :] for each, p in zip(own, parts, strict=True)]
    assert not any(own)
    assert [division.samples for division in divisions] == [
        sum(p.samples for p in division.parts()) for division in divisions
    ]


def tree(values: Sequence[Any]) -> Any:
    """The sum in a fixed binary tree."""
    half = len(values) // 2
    return values[0] if len(values) == 1 else tree(values[:half]) + tree(values[half:])


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 13])
def test_shards_are_added_in_one_tree(shards: int) -> None:
    """On any number of ranks, recorded or not; the sums in another order have other bits."""
    backend, rng = get_backend("numpy"), np.random.default_rng(shards)
    values = [rng.normal(size=(3, 7)).astype(np.float32) for _ in range(shards)]

    def add(comm: Communicator, records: bool, each: bool) -> Any:
        team = Team(comm, shards)
        exchange = Exchange(backend, Parameters(backend, [{"W": (3, 7)}], "float32", tail=16), team, each)
        gradients = [Parameters(backend, [{"W": (3, 7)}], "float32", tail=16) for _ in range(max(exchange.places) + 1)]
        out = backend.zeros(gradients[0].flat.shape, "float32")
        with backend.recording() as tape:
            exchange.record(gradients, out)
        for _ in range(2):
            for i, number in enumerate(team.mine):
                gradients[exchange.places[i]].layers[0]["W"][...] = values[number]
                if not each:
                    exchange.add(i, gradients)
            tape.replay() if records else exchange.record(gradients, out)
        return out[:21].reshape(3, 7)

    for ranks in {1, 2, 3, min(5, shards), shards} & {*range(1, shards + 1)}:
        for records, each in ((True, False), (False, True), (False, False)):
            for found in run(ranks, partial(add, records=records, each=each)):
                np.testing.assert_array_equal(found, tree(values))
