"""Threads for single nodes of a recording: their parts are computed at once, by this thread and by helpers.

Waking a thread of a pool takes some 50 µs, as long as a whole step of a small network. So a training's helpers look for
parts all the time, and take one in a tenth of a microsecond (measured). They go if there is none for some milliseconds.
Parts and results are the same if a helper is late or does not come: this thread computes what nobody takes.
"""

import contextlib
import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import get_ident
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
        elif part == -1 or part == 0:  # sent away
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
# A helper may share its CPU with other programs, which keep it for milliseconds. So the time that helpers save is
# counted against the time that this thread waits for them. If they cost more than they save, they are sent away, and
# the next nodes are computed alone, twice as many each time. The line before the helpers' has the number of nodes that
# are still to come, the word on subnormal numbers, how many nodes it was, and the cycles saved; some are given.
_FEW, _MANY, _GIVEN, _AGAIN, _MOST = 64, 1 << 16, 30_000_000, 2_000_000, 100_000_000
_SHARE = f"""\
def f(arguments):
    count, words, offer, parts = arguments[0], arguments[1], arguments[2], arguments[3]
    theirs, own = int64s(arguments[4]), int64s(words)
    alone = words == 0
    if not alone and own[0] > 0:
        own[0] -= 1
        alone = True
    if alone:
        theirs[0] = 0
        for i in range(count):
            call(int64s(parts)[2 * i], int64s(parts)[2 * i + 1])
    else:
        start, taken = cycles(), 0
        for i in range(1, count):
            theirs[i] = exchange(words + {8 * _LINE} * i, 1, parts + 16 * i)
            taken += theirs[i]
        theirs[0] = taken
        call(int64s(parts)[0], int64s(parts)[1])
        for i in range(1, count):
            if theirs[i] == 0:
                call(int64s(parts)[2 * i], int64s(parts)[2 * i + 1])
        done = cycles()
        for i in range(1, count):
            reads = 0
            while theirs[i] != 0 and read(words + {8 * _LINE} * i) == parts + 16 * i:
                reads += 1
                if reads % {_READS} == 0:
                    pause()
                if offer != 0 and reads % {_READS * _SPINS} == 0:
                    call(offer)
        saved = own[3] + select(taken > 0, done - start, 0) - (cycles() - done)
        if saved < 0:
            last = select(own[2] < {_FEW // 2}, {_FEW}, 2 * own[2])
            own[0], own[2], saved = last, select(last > {_MANY}, {_MANY}, last), {_AGAIN}
            for i in range(1, count):
                exchange(words + {8 * _LINE} * i, 1, 0)
        elif saved > {_MOST}:
            own[2], saved = 0, {_MOST}
        own[3] = saved
"""
_WORTH = 300.0  # µs of a run for which helpers are called
_teams: "weakref.WeakSet[Team]" = weakref.WeakSet()


class Team:
    """This thread and its helpers, in a training."""

    def __init__(self, size: int) -> None:
        self.size, self.thread = size, get_ident()
        self.words = np.zeros(size * _LINE, np.int64)
        self.words[3] = _GIVEN
        self._helpers: dict[int, Future[None]] = {}
        _teams.add(self)

    def call_helpers(self) -> None:
        """Let those come who are not here."""
        if self.words[0] > 0:  # not yet
            return
        try:
            for number in range(1, self.size):
                helper = self._helpers.get(number)
                if self.words[number * _LINE] == 0 and (helper is None or helper.done()):
                    self._helpers[number] = pool().submit(_elsewhere, _helper(self.words[number * _LINE :]), _cpu())
        except RuntimeError as error:  # no thread can be started, as at the end of the interpreter
            if by_handler(error):
                raise

    def end(self) -> None:
        """Let the helpers go."""
        self.words[::_LINE] = -1

    def forked(self) -> None:
        """In a child process, which has none of them, helpers are still to come."""
        self.words[:] = 0
        self.words[3] = _GIVEN
        self._helpers.clear()


def _forked() -> None:
    for team in _teams:
        team.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

current: ContextVar[Team | None] = ContextVar("nnkit_team", default=None)  # whose threads share what is recorded


@contextmanager
def team_of(size: int) -> Iterator[None]:
    """Let recordings in this context share nodes among up to `size` threads."""
    if size < 2:
        yield
        return
    team = Team(size)
    token = current.set(team)
    try:
        yield
    finally:
        team.end()
        current.reset(token)


def in_team() -> bool:
    """Whether recordings in this context share nodes."""
    return current.get() is not None


def part_count(work: float) -> int:
    """The number of parts of a node that takes this many µs on one thread.

    A part costs up to half a microsecond, as words of helpers move between caches one after another: of n parts,
    work/n + n/2 is least at √(2 work).
    """
    team = current.get()
    return 1 if team is None else max(1, min(team.size, int((2 * work) ** 0.5)))


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
    team = current.get() if shared else None
    words = 0
    if team is not None and team.thread == get_ident():  # not in a thread that has this one's context
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


def _elsewhere(helper: NativeCall, cpu: int) -> None:
    """Make the call of a helper on another CPU than this one, on which Linux may start it although others are idle."""
    allowed = os.sched_getaffinity(0) if cpu >= 0 else set()
    if len(allowed) < 2:
        helper()
        return
    with contextlib.suppress(OSError):  # not permitted
        os.sched_setaffinity(0, allowed - {cpu})  # of this thread
    helper()
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, allowed)


def _cpu() -> int:
    """The CPU that this thread runs on; −1 if the system does not say."""
    found = getattr(_c_library(), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
    return -1 if found is None else int(found())


@cache
def _c_library() -> Any:
    return ctypes.CDLL(None)


@cache
def _offer() -> int:
    """The address of the C library's function that lets other threads use the CPU; 0 without it."""
    try:
        return ctypes.cast(_c_library().sched_yield, ctypes.c_void_p).value or 0
    except (OSError, TypeError, AttributeError):
        return 0
