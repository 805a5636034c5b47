"""Who takes which samples: each minibatch is cut into contiguous shares, as even as possible."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnkit.parallel.communicator import ALONE, Communicator


class Part(NamedTuple):
    """`samples` places of a minibatch of `whole`, from place `first` on."""

    samples: int
    first: int
    whole: int


def part(whole: int, number: int, count: int) -> Part:
    """Share `number` of `count`: places [whole · number // count, whole · (number + 1) // count).

    >>> [part(10, number, 3) for number in range(3)]
    [Part(samples=3, first=0, whole=10), Part(samples=3, first=3, whole=10), Part(samples=4, first=6, whole=10)]
    """
    first = whole * number // count
    return Part(whole * (number + 1) // count - first, first, whole)


class Team(NamedTuple):
    """The ranks of a training, and how they divide each minibatch.

    Attributes:
        shards: the number of fixed shares, added in a fixed order; None for one share per rank.
        own_streams: whether each rank has minibatches of its own, which together are the minibatch of a step.
    """

    communicator: Communicator
    shards: int | None = None
    own_streams: bool = False

    @property
    def alone(self) -> bool:
        """Whether nothing is divided."""
        return self.communicator.size == 1 and self.shards is None

    @property
    def divisor(self) -> int:
        """The number of shares of a minibatch."""
        return self.communicator.size if self.shards is None else self.shards

    def shares_of(self, rank: int) -> range:
        """The numbers of a rank's shares."""
        return range(self.divisor * rank // self.communicator.size, self.divisor * (rank + 1) // self.communicator.size)

    @property
    def mine(self) -> range:
        """The numbers of this rank's shares."""
        return self.shares_of(self.communicator.rank)

    def own_rows(self, samples: int) -> range:
        """The rows that this rank checks, of data that all ranks have."""
        own = part(samples, self.communicator.rank, self.communicator.size)
        return range(own.first, own.first + own.samples)


ONE = Team(ALONE)


class Division:
    """The minibatches of an epoch of `samples`, `batch_size` at a time, and one share of each.

    Attributes:
        samples: the number of samples of this share in an epoch.
    """

    def __init__(self, samples: int, batch_size: int, number: int, count: int) -> None:
        self._full, self._batch = samples // batch_size, batch_size
        self._part, self._rest = part(batch_size, number, count), part(samples % batch_size, number, count)
        self.samples = self._full * self._part.samples + self._rest.samples

    def parts(self) -> Iterator[Part]:
        """The share of each minibatch."""
        yield from [self._part] * self._full
        if self._rest.whole:
            yield self._rest

    def own(self, order: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The samples of this share, of an order of all samples; None is their own."""
        starts = np.arange(self._full)[:, None] * self._batch + self._part.first
        places = (starts + np.arange(self._part.samples)).reshape(-1)
        last = self._full * self._batch + self._rest.first + np.arange(self._rest.samples)
        mine: NDArray[np.int64] = np.concatenate([places, last])
        return mine if order is None else order[mine]
