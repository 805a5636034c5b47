"""The bandwidth of memory and of each fused kernel: the bytes to read and write once, divided by the time."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from bench.gpu.absent import line_of
from bench.gpu.budget import Budget
from bench.gpu.device import Device
from nnkit.backends.base import Array
from nnkit.kernels.activations import activation_names, get_activation
from nnkit.kernels.cost import output_pair
from nnkit.kernels.costs import cost_names, get_cost
from nnkit.optimizers import SGD, Optimizer, RMSprop, get_optimizer, optimizer_names
from nnkit.parameters import Parameters

COLUMNS = 16  # outputs per sample for the costs' deltas
Case = tuple[str, str, int, Callable[[], object]]  # kind, name, bytes, work


def measure_copy(device: Device, size: int, calls: int) -> dict[str, float]:
    """The time of a copy of `size` bytes within the device's memory; each byte is read and written."""
    source = _random(device, size // 4)
    out = device.backend.empty(source.shape, "float32")

    def copy() -> None:
        if device.kind == "cuda":
            out.data.copy_from_device_async(source.data, source.nbytes)
        else:
            np.copyto(out, source)

    return {"bytes": 2 * source.nbytes} | device.times(copy, calls, 5)


def measure_kernels(
    device: Device, entries: int, calls: int, budget: Budget, done: Collection[tuple[str, str]] = ()
) -> Iterator[dict[str, Any]]:
    """Time each activation, gradient, output delta and update on `entries` float32 numbers, too many for any cache.

    Without those whose kind and name are in `done`.
    """
    for title, section in (("activations", _activations), ("output deltas", _deltas), ("updates", _updates)):
        if not budget.allows(f"kernels: {title}", 5.0):
            continue
        last = "the start"
        try:
            for kind, name, size, work in section(device, entries):
                if budget.left() < 1.0:
                    budget.skipped.append(f"kernels: {title} from {name} on")
                    break
                if (kind, name) not in done:
                    yield {"kind": kind, "name": name, "bytes": size} | _measured(device, work, calls)
                last = name
        except Exception as error:  # a case that cannot be set up ends its section, not the others
            yield {"kind": title, "name": f"after {last}", "failed": line_of(error)}
        device.backend.release()


def _measured(device: Device, work: Callable[[], object], calls: int) -> dict[str, Any]:
    """The times of a kernel, or its error."""
    try:
        return dict(device.times(work, calls, 5))
    except Exception as error:
        return {"failed": line_of(error)}


def _random(device: Device, entries: int, shape: tuple[int, ...] = ()) -> Array:
    """Normally distributed numbers; a million, repeated, as the host generates them slowly."""
    few = np.random.default_rng(0).standard_normal(min(entries, 1 << 20), np.float32)
    out = device.backend.empty((entries,), "float32")
    out[...] = device.xp.resize(device.backend.asarray(few), (entries,))
    return out.reshape(shape) if shape else out


def _activations(device: Device, entries: int) -> Iterator[Case]:
    z, delta = _random(device, entries), _random(device, entries)
    out, saved = (device.backend.empty(z.shape, "float32") for _ in range(2))
    for name in activation_names():
        f = get_activation(name)
        yield "activation", name, 2 * z.nbytes, lambda f=f: f.forward(z, out=out)  # type: ignore[misc]
        if f.gradient_from == "output":
            f.forward(z, out=saved)
        else:
            device.backend.copy(z, saved)
        yield "gradient", name, 3 * z.nbytes, lambda f=f: f.gradient(saved, delta, out=out)  # type: ignore[misc]


def _deltas(device: Device, entries: int) -> Iterator[Case]:
    shape = (entries // COLUMNS, COLUMNS)
    backend, z = device.backend, _random(device, entries, shape)
    y = backend.empty(shape, "float32")
    y[...] = 0
    y[:, 3] = 1
    scale = backend.asarray(1 / shape[0], "float32")
    for name in cost_names():
        with backend.recording() as tape:
            output_pair(get_cost(name)).delta(backend, z, y, scale)
        yield "output delta", name, 3 * z.nbytes, tape.replay
        tape.nodes.clear()  # releases their arrays
        tape.calls.clear()


def _updates(device: Device, entries: int) -> Iterator[Case]:
    backend, width = device.backend, max(16, int(entries**0.5))
    optimizers: list[tuple[str, Optimizer]] = [(name, get_optimizer(name)) for name in optimizer_names()]
    optimizers += [("sgd, momentum", SGD(momentum=0.9)), ("sgd, nesterov", SGD(momentum=0.9, nesterov=True))]
    optimizers += [("sgd, l2", SGD(l2=1e-4)), ("rmsprop, momentum", RMSprop(momentum=0.9))]
    for name, optimizer in optimizers:
        optimizer.learning_rate = 1e-6
        parameters, gradient = (
            Parameters(backend, [{"W": (width, width), "b": (width,)}], "float32") for _ in range(2)
        )
        for vector in (parameters, gradient):
            vector.flat[...] = _random(device, vector.flat.size)
        state = optimizer.start(parameters)
        with backend.recording() as tape:
            state.update(parameters, gradient)
        vectors = sum(array.ndim > 0 for array in state.arrays.values())
        yield "update", name, (3 + 2 * vectors) * parameters.flat.nbytes, tape.replay
        tape.nodes.clear()
        tape.calls.clear()
