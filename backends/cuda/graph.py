"""Recordings as CUDA graphs: all calls of a step in one launch.

The first replay makes the calls one by one, which compiles nnkit's kernels and loads those of cuBLAS. The second
captures them: CUDA records the work without running it. From then on, a replay is one launch.
"""

import gc
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Any

import numpy as np

from nnkit.backends.cuda.cublas import Handles
from nnkit.backends.cuda.memory import memory_is_full
from nnkit.backends.cuda.streams import Placed, on_two_streams
from nnkit.backends.errors import BackendFallbackWarning
from nnkit.backends.recording import Break, Call, HostCall, Node, Nodes, by_handler
from nnkit.backends.selection import switch

# cudaStreamPerThread, the default stream with CUPY_CUDA_PER_THREAD_DEFAULT_STREAM=1: another stream in each thread.
_PER_THREAD = 2


class Home:
    """The stream that is current at its creation, and owns the arrays of that time.

    `cuda` is `cupy.cuda`; all methods are for the current device.
    """

    def __init__(self, cuda: Any, device: int = -1) -> None:
        self._cuda, self.stream = cuda, cuda.get_current_stream(device)
        self._here = threading.local()
        self._here.known = True

    def foreign(self) -> bool:
        """Whether it is the default stream of another thread, which the calling thread cannot name."""
        return self.stream.ptr == _PER_THREAD and not hasattr(self._here, "known")

    def is_current(self) -> bool:
        """Whether it is the current stream."""
        return bool(self._cuda.get_current_stream() == self.stream and not self.foreign())

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Order the current stream's work in the `with` block after earlier and before later work on this stream.

        Its arrays are then never in use on two streams at once, nor is their memory reused too early. The host does not
        wait, unless this stream is foreign.
        """
        stream = self._cuda.get_current_stream()
        if self.is_current():
            yield
        elif self.foreign():
            with capturing:
                self._cuda.runtime.deviceSynchronize()
            try:
                yield
            finally:
                stream.synchronize()
        else:
            stream.wait_event(self.stream.record(self._cuda.Event(disable_timing=True)))
            try:
                yield
            finally:
                self.stream.wait_event(stream.record(self._cuda.Event(disable_timing=True)))


def home_of(array: Any) -> Home | None:
    """The current stream of the device of a CuPy array; None for a NumPy array."""
    if isinstance(array, np.ndarray):
        return None
    import cupy

    return Home(cupy.cuda, array.device.id)


_VARIABLE = "NNKIT_CUDA_GRAPHS"

# Graphs of one stream can share a workspace, so waiting and launching must not be interrupted by another launch.
_launching = threading.Lock()

# During a capture, no thread may synchronize the device: CUDA would reject both. Threads of other libraries still can;
# a failed capture is therefore repeated.
capturing = threading.RLock()
_ATTEMPTS = 3


def graphs_wanted() -> bool:
    """Whether to use CUDA graphs: not with NNKIT_CUDA_GRAPHS=0. ValueError for values other than 0 and 1."""
    return switch(_VARIABLE, default=True)


class Shared:
    """A call that other processes make, too, and that they capture together or not at all.

    `agree` returns whether all of them have captured their graph.
    """

    def __init__(self, function: Call, agree: Callable[[bool], bool]) -> None:
        self._function, self.agree = function, agree

    def __call__(self) -> None:
        self._function()


class GraphLowering:
    """The lowering of a recording to one call, or one for each part between breaks.

    Create it with the device and stream current that own the arrays.

    `cuda` is `cupy.cuda`.
    """

    def __init__(self, cuda: Any, handles: Handles) -> None:
        self._cuda, self._handles, self._home = cuda, handles, Home(cuda)
        self._captures = graphs_wanted()

    def __call__(self, nodes: Nodes) -> list[Call]:
        on_host = [node.call for node in nodes if isinstance(node.call, HostCall)]
        captures = self._captures and all(isinstance(call, Break) for call in on_host)
        if not captures:
            return [Graph(nodes, self._cuda, self._handles, self._home, False)] if nodes else []
        parts = groupby(nodes, lambda node: isinstance(node.call, Break))
        return [Graph(list(part), self._cuda, self._handles, self._home, not breaks) for breaks, part in parts]


class Graph:
    """Several calls as one: made one by one at first, then, with `captures`, as a CUDA graph.

    It can be called on any stream: streams other than `home` wait for its work, and it for theirs, so that buffers are
    never in use on two streams at once, nor reused too early. Inside the graph, calls that do not depend on each other
    are on two streams (`nnkit.backends.cuda.streams`).
    """

    def __init__(self, nodes: Sequence[Node], cuda: Any, handles: Handles, home: Home, captures: bool) -> None:
        self.nodes, self._cuda, self._handles, self._home = nodes, cuda, handles, home
        self._captures, self._called = captures, False
        self.graph: Any = None
        self._workspaces: list[Any] = []

    def __call__(self) -> None:
        if self.graph is None and self._captures and self._called and not self._home.foreign():
            self.graph = self._capture()
            self._captures = self.graph is not None
        if self.graph is None:
            with self._home.in_order():
                for node in self.nodes:
                    node.call()
            self._called = True
            return
        with _launching:
            if self._home.is_current():
                self.graph.launch()
            else:
                with self._home.in_order():
                    self.graph.launch()

    def _capture(self) -> Any:
        """Capture the calls as a graph; None, with a warning, if CUDA refuses one, CuPy's error if out of memory.

        Nothing runs during a capture, so that making the calls one by one afterwards gives the same results. Where
        other processes have to capture, too, all do it once, or all raise an error.
        """
        shared = next((node.call for node in self.nodes if isinstance(node.call, Shared)), None)
        if shared is not None:
            return self._captured_together(shared)
        attempt = 1
        while True:
            try:
                return self._captured(on_two_streams(self.nodes) if attempt < _ATTEMPTS else self._in_order())
            except Exception as error:
                if memory_is_full(self._cuda, error) or by_handler(error):
                    raise
                if attempt == _ATTEMPTS:
                    text = f"a recording did not become a CUDA graph, and is executed call by call: {error}"
                    warnings.warn(text, BackendFallbackWarning, stacklevel=4)
                    return None
            attempt += 1

    def _captured_together(self, shared: Shared) -> Any:
        graph = error = None
        try:
            graph = self._captured(self._in_order())
        except Exception as found:
            error = found
        if not shared.agree(error is None):
            hint = f"set {_VARIABLE}=0 on all ranks"
            raise RuntimeError(f"a recording did not become a CUDA graph on every rank; {hint}") from error
        return graph

    def _in_order(self) -> list[Placed]:
        """The calls on one stream, as the last attempt captures them."""
        return [Placed(node.call, 0, ()) for node in self.nodes]

    def _captured(self, placed: Sequence[Placed]) -> Any:
        handle, count = self._handles.get(), 1 + max(call.stream for call in placed)
        streams = [self._cuda.Stream(non_blocking=True) for _ in range(count)]
        with self._home.stream:  # which owns the memory; products on two streams need two workspaces
            self._workspaces = [handle.workspace(self._home.stream, number) for number in range(1, count + 1)]
        lent = {stream.ptr: workspace for stream, workspace in zip(streams, self._workspaces, strict=True)}
        with capturing, handle.lent(lent), _without_collection(), streams[0]:
            # In this mode, other threads can allocate memory, but not this one.
            streams[0].begin_capture(self._cuda.runtime.streamCaptureModeThreadLocal)
            try:
                self._call(placed, streams)
            except BaseException:
                with suppress(Exception):
                    streams[0].end_capture()
                raise
            return streams[0].end_capture()

    def _call(self, placed: Sequence[Placed], streams: Sequence[Any]) -> None:
        """Make the calls on their streams: the others begin and end with the first one, as a capture requires."""
        awaited = {number for call in placed for number in call.waits}
        events: dict[int, Any] = {}
        for stream in streams[1:]:
            stream.wait_event(self._event(streams[0]))
        for number, (call, own, waits) in enumerate(placed):
            for other in waits:
                streams[own].wait_event(events[other])
            with streams[own]:
                call()
            if number in awaited:
                events[number] = self._event(streams[own])
        for stream in streams[1:]:
            streams[0].wait_event(self._event(stream))

    def _event(self, stream: Any) -> Any:
        return stream.record(self._cuda.Event(disable_timing=True))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Disable garbage collection, which could free CUDA objects during a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
