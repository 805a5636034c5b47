"""Recording belongs to its block, in its thread and task: what others do meanwhile is done at once."""

import asyncio
import dis
import functools
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import get_backend
from nnkit.backends.formula import Formula
from nnkit.backends.recording import active_tape

wave = Formula(lambda xp, a, b: xp.sin(a) * b + a, "wave", ["a", "b"])


def test_nested_recordings_and_errors() -> None:
    backend, a, outer_out, inner_out = get_backend("numpy"), np.ones(2), np.zeros(2), np.zeros(2)
    with backend.recording() as outer:
        with backend.recording() as inner:
            backend.copy(a, inner_out)
        backend.copy(a, outer_out)
    inner.replay()
    assert (inner_out.sum(), outer_out.sum()) == (2, 0)
    outer.replay()
    assert outer_out.sum() == 2
    with pytest.raises(KeyError), backend.recording():
        raise KeyError
    backend.copy(2 * a, outer_out)  # done at once: the block has ended
    assert outer_out.sum() == 4


def test_another_thread_is_not_recorded() -> None:
    backend, a = get_backend("numpy"), np.ones(2)
    computed: list[np.ndarray] = []
    with backend.recording() as tape:
        thread = threading.Thread(target=lambda: computed.append(wave(a, 2.0)))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(computed[0], np.sin(1.0) * 2 + 1)
        assert not tape.nodes


def test_another_task_is_not_recorded() -> None:
    backend, a = get_backend("numpy"), np.ones(2)
    log: list[str] = []

    async def record(started: asyncio.Event, finished: asyncio.Event) -> int:
        with backend.recording() as tape:
            log.append("recording")
            started.set()
            await finished.wait()
            log.append("recorded")
            return len(tape.nodes)

    async def compute(started: asyncio.Event, finished: asyncio.Event) -> np.ndarray:
        await started.wait()
        result: np.ndarray = wave(a, 2.0)
        log.append("computed")
        finished.set()
        return result

    async def main() -> tuple[int, np.ndarray]:
        events = asyncio.Event(), asyncio.Event()
        computing = asyncio.create_task(compute(*events))
        return await record(*events), await computing

    calls, result = asyncio.run(main())
    assert log == ["recording", "computed", "recorded"]
    assert calls == 0
    np.testing.assert_array_equal(result, np.sin(1.0) * 2 + 1)


def record(nested: bool) -> None:
    backend, a, b = get_backend("numpy"), np.ones(2), np.zeros(2)
    with backend.recording() as tape:
        backend.copy(a, b)
        if nested:
            with backend.recording():
                backend.copy(a, np.zeros(2))
    tape.replay()
    assert b.sum() == 2


def at_place(number: int, interrupt: Callable[[], object], run: Callable[[], object]) -> bool:
    """Run with an interruption where Python handles signals: as a function begins, and after a call.

    Returns False if there are not that many places.
    """
    passed, latest = itertools.count(), dict[FrameType, str]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        after_a_call = event == "opcode" and latest.get(frame, "").startswith("CALL")
        if event == "opcode":
            latest[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if frame.f_code.co_name == "gc_callback":  # of hypothesis, whose exceptions would be lost
            return None
        if (event == "call" or after_a_call) and next(passed) == number:
            sys.settrace(None)
            interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return next(passed) > number


@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_at_any_place_ends_the_recording(nested: bool) -> None:
    """As of Ctrl-C, also while its traceback is kept, as in a notebook: otherwise later calls would have no effect."""
    caught = list[BaseException]()

    def raise_it() -> None:
        raise KeyboardInterrupt

    record(nested)  # what it imports and compiles
    for number in itertools.count():
        try:
            if not at_place(number, raise_it, lambda: record(nested)):
                break
        except KeyboardInterrupt as error:
            caught.append(error)
        assert active_tape() is None, number
        assert wave(np.ones(2), 2.0)[0] == np.sin(1.0) * 2 + 1
    assert len(caught) == number > 50


class Handler:
    """Computes, and trains a network, whose step is recorded."""

    def __init__(self) -> None:
        self.results = list[tuple[float, float]]()

    def __call__(self, *_: object) -> None:
        net = nnkit.Network([2, 3, 2], seed=0)
        net.train_step([[0.0, 1.0]], [1], nnkit.SGD(0.5))
        self.results.append((wave(np.ones(2), 2.0)[0], float(net.predict_proba([[1.0, 0.0]])[0, 0])))

    def method(self, *_: object) -> None:
        self()


@pytest.fixture
def handler() -> Iterator[Handler]:
    before = signal.getsignal(signal.SIGTERM)
    yield Handler()
    signal.signal(signal.SIGTERM, before)


def test_the_handler_of_a_signal_computes_at_any_place_of_a_recording(handler: Handler) -> None:
    handler()
    signal.signal(signal.SIGTERM, handler)
    record(nested=True)
    for number in itertools.count(step=7):
        if not at_place(number, lambda: signal.raise_signal(signal.SIGTERM), lambda: record(nested=True)):
            break
        assert handler.results == [handler.results[0]] * (number // 7 + 2), number
        assert active_tape() is None, number
    assert number > 50


def test_handlers_of_all_kinds_compute_while_their_thread_records(handler: Handler) -> None:
    backend, result = get_backend("numpy"), np.zeros(2)
    handler()
    kinds: list[Callable[..., object]] = [
        handler,
        handler.method,
        lambda *_: handler(),
        functools.partial(lambda _, *args: handler(*args), 0),
    ]
    for kind in kinds:
        signal.signal(signal.SIGTERM, kind)
        with backend.recording() as tape:
            signal.raise_signal(signal.SIGTERM)
            backend.copy(np.ones(2), result)
        assert not result.any()
        tape.replay()
        assert result.sum() == 2
        result[:] = 0
    assert handler.results == [handler.results[0]] * 5
