"""Threads for single nodes of a recording: their parts are computed at once, by this thread and by helpers.

Waking a thread of a pool takes some 50 µs, as long as a whole step of a small network. So a training's helpers look for
parts all the time, and take one in a tenth of a microsecond (measured). They go if there is none for some milliseconds.
Parts and results are the same if a helper is late or does not come: this thread computes what nobody takes.
"""

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.backends.cpu.blocks import location, pool
from nnkit.backends.cpu.native.calls import NativeCall
from nnkit.backends.cpu.native.compiler import address_of
from nnkit.backends.recording import by_handler

if TYPE_CHECKING:
    from concurrent.futures import Future

# A helper has a word, alone in a line of the cache: 0 before it comes and after it has gone, 1 while it looks for a
# part, the address of a part (its function and arguments) until that is computed, and −1 once the training has ended.
# The next one tells whether subnormal numbers are 0.
_LINE = 8  # words
# Reads before a pause for the CPU: a virtual machine takes many pauses in a row as a sign that there is nothing to do.
_READS = 64
_SPINS, _PATIENCE = 1 << 6, 1 << 17  # pauses between offers of the CPU to other threads, and until a helper goes
_LOOK = f"""\
def f(arguments):
    word, offer, kept, pauses = arguments[0], arguments[1], arguments[2], 0
    here = exchange(word, 0, 1)
    while here:
        part, reads = read(word), 0
        while part == 1 and reads < {_READS}:
            part = read(word)
            reads += 1
        if part == 1:
            pause()
            pauses += 1
            if offer != 0 and pauses % {_SPINS} == 0:
                call(offer)
            if pauses > {_PATIENCE}:
                here = not exchange(word, 1, 0)  # else a part has just come
        elif part == -1:
            here = False
        else:
            flush = int64s(word)[1]
            if flush != 0:
                flush_subnormals(kept)
            call(int64s(part)[0], int64s(part)[1])
            if flush != 0:
                restore_mode(kept)
            here, pauses = exchange(word, part, 1), 0
"""
_SHARE = f"""\
def f(arguments):
    count, words, offer, parts = arguments[0], arguments[1], arguments[2], arguments[3]
    theirs = int64s(arguments[4])
    for i in range(1, count):
        theirs[i] = words != 0 and exchange(words + {8 * _LINE} * i, 1, parts + 16 * i)
    for i in range(count):
        if theirs[i] == 0:
            call(int64s(parts)[2 * i], int64s(parts)[2 * i + 1])
    for i in range(1, count):
        reads = 0
        while theirs[i] != 0 and read(words + {8 * _LINE} * i) == parts + 16 * i:
            reads += 1
            if reads % {_READS} == 0:
                pause()
            if offer != 0 and reads % {_READS * _SPINS} == 0:
                call(offer)
"""
_LEAST, _WORTH = 1.0, 300.0  # µs of a part, and of a run for which helpers are called
_teams: "weakref.WeakSet[Team]" = weakref.WeakSet()


class Team:
    """This thread and its helpers, in a training."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.words = np.zeros(size * _LINE, np.int64)
        self._helpers: dict[int, Future[None]] = {}
        _teams.add(self)

    def call_helpers(self) -> None:
        """Let those come who are not here."""
        try:
            for number in range(1, self.size):
                helper = self._helpers.get(number)
                if self.words[number * _LINE] == 0 and (helper is None or helper.done()):
                    self._helpers[number] = pool().submit(_helper(self.words[number * _LINE :]))
        except RuntimeError as error:  # no thread can be started, as at the end of the interpreter
            if by_handler(error):
                raise

    def end(self) -> None:
        """Let the helpers go."""
        self.words[::_LINE] = -1

    def forked(self) -> None:
        """In a child process, which has none of them, helpers are still to come."""
        self.words[::_LINE] = 0
        self._helpers.clear()


def _forked() -> None:
    for team in _teams:
        team.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

_team: ContextVar[Team | None] = ContextVar("nnkit_team", default=None)


@contextmanager
def team_of(size: int) -> Iterator[None]:
    """Let recordings in this context share nodes among up to `size` threads."""
    if size < 2:
        yield
        return
    team = Team(size)
    token = _team.set(team)
    try:
        yield
    finally:
        team.end()
        _team.reset(token)


def in_team() -> bool:
    """Whether recordings in this context share nodes."""
    return _team.get() is not None


def part_count(work: float) -> int:
    """The number of parts of a node that takes this many µs on one thread."""
    team = _team.get()
    return 1 if team is None else max(1, min(team.size, int(work / _LEAST)))


class Shared(NativeCall):
    """Native calls that helpers and this thread make at once, as one call; without helpers, in order.

    Attributes:
        work: about how many µs they take one after another.
    """

    parts: tuple[NativeCall, ...]
    work: float

    @classmethod
    def of(cls, parts: Sequence[NativeCall], work: float) -> "Shared":
        pairs = np.array([(part.address, part.place) for part in parts], np.int64)
        theirs = np.zeros(len(parts), np.int64)
        block = np.array([len(parts), 0, _offer(), location(pairs), location(theirs)], np.int64)
        self: Any = cls(address_of(_SHARE), block, [pairs, theirs, *parts])
        self.parts, self.work = tuple(parts), work
        return self  # type: ignore[no-any-return]

    def copy(self) -> "Shared":
        return Shared.of([part.copy() for part in self.parts], self.work)

    def __call__(self) -> None:
        made(super().__call__, [self])


def made(call: Callable[[], None], shared: Sequence[Shared], times: int = 1, flushes: bool = False) -> None:
    """Make a call that makes these `times` times, with the helpers of the training in this context.

    With `flushes`, the call takes subnormal numbers as 0.
    """
    team = _team.get() if shared else None
    words = 0
    if team is not None:
        words = location(team.words)
        team.words[1::_LINE] = flushes
        if times * sum(each.work for each in shared) > _WORTH:
            team.call_helpers()
    for each in shared:
        each.block[1] = words
    call()


def _helper(word: np.ndarray) -> NativeCall:
    kept = np.zeros(1, np.int64)  # the mode of the CPU
    return NativeCall(address_of(_LOOK), np.array([location(word), _offer(), location(kept)], np.int64), [word, kept])


@cache
def _offer() -> int:
    """The address of the C library's function that lets other threads use the CPU; 0 without it."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, TypeError, AttributeError):
        return 0
