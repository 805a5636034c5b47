"""Recording belongs to its block, in its thread and task: what others do meanwhile is done at once."""

import asyncio
import dis
import itertools
import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import pytest

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
    backend, a = get_backend("numpy"), np.ones(2)
    with backend.recording() as tape:
        backend.copy(a, np.zeros(2))
        if nested:
            with backend.recording():
                backend.copy(a, np.zeros(2))
    tape.replay()


@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_at_any_place_ends_the_recording(nested: bool) -> None:
    """As of Ctrl-C, also while its traceback is kept, as in a notebook: otherwise later calls would have no effect."""
    caught = list[BaseException]()

    def interrupted(number: int) -> bool:
        """Raise an exception where Python handles signals: as a function begins, and after a call; False if too few."""
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
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            record(nested)
        except KeyboardInterrupt as error:
            caught.append(error)
        finally:
            sys.settrace(before)
        return len(caught) == number + 1

    record(nested)  # what it imports and compiles
    for number in itertools.count():
        if not interrupted(number):
            break
        assert active_tape() is None, number
        assert wave(np.ones(2), 2.0)[0] == np.sin(1.0) * 2 + 1
    assert len(caught) > 50
