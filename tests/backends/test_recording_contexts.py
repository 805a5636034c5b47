"""Recording belongs to its block, in its thread and task: what others do meanwhile is done at once."""

import asyncio
import threading

import numpy as np
import pytest

from nnkit.backends import get_backend
from nnkit.backends.formula import Formula

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
