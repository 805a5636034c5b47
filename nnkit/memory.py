"""Out-of-memory errors of a device: a hint what to reduce, the model restored, and the memory released."""

import functools
import gc
from collections.abc import Callable
from typing import Any, TypeVar

from nnkit.backends import Backend, OutOfMemoryError

F = TypeVar("F", bound=Callable[..., Any])

LOWER_BATCH = (
    "lower batch_size, or leave X on the host: numpy.memmap, nnkit.data.open_npy or an iterable of minibatches"
)
LOWER_SAMPLES = "give fewer samples at once, or leave them on the host: numpy.memmap or nnkit.data.open_npy"
LOWER_STEP = "give fewer samples at once, and add up their gradients: fit has gradient_accumulation_steps"
LOWER_SIZES = "make the layers smaller, or free arrays that are on the device"


def raise_if_full(backend: Backend, error: BaseException, lower: str) -> None:
    """Replace an out-of-memory error of the device by OutOfMemoryError; ignore other errors.

    The memory is released at once: the tracebacks are cleared, whose local variables would keep arrays alive while the
    new error is handled. `lower` is the hint for the user.
    """
    found = backend.out_of_memory(error)
    if found is None or found.lower:
        return
    link: BaseException | None = error
    while link is not None:
        link.__traceback__, link = None, link.__context__
    gc.collect()
    backend.release()
    explained = OutOfMemoryError(found.device, found.asked, found.free, found.total, lower)
    if hasattr(error, "history"):  # of `fit`
        vars(explained)["history"] = error.history
    raise explained from error


def explains_memory(lower: str, changes: bool = False) -> Callable[[F], F]:
    """Decorate a function of a model to raise OutOfMemoryError when memory is full, like `raise_if_full`.

    If it `changes` the model, it takes the model's turn. When memory is full, steps that it recorded are discarded, and
    the optimizer, its state and the class names are restored unless it has completed an epoch.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def explained(model: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return function(model, *arguments, **options)
            except Exception as error:
                raise_if_full(model.backend, error, lower)
                raise

        @functools.wraps(function)
        def changing(model: Any, *arguments: Any, **options: Any) -> Any:
            with model.turn:
                place = model.placement
                before = (model.optimizer, place.state, model.classes, model.epochs_trained)
                steps = tuple(place.recorded)
                try:
                    return function(model, *arguments, **options)
                except Exception as error:
                    if model.backend.out_of_memory(error) is not None:
                        _forget(place.recorded, steps)
                        if model.epochs_trained == before[-1] and model.placement is place:  # not resumed
                            model.optimizer, place.state, model.classes, _ = before
                    raise_if_full(model.backend, error, lower)
                    raise

        return changing if changes else explained  # type: ignore[return-value]

    return decorate


def _forget(recorded: dict[Any, Any], kept: tuple[Any, ...]) -> None:
    """Discard recordings except these keys; a key refers to a state that the error's frames must not keep alive."""
    for key in [key for key in recorded if key not in kept]:
        del recorded[key]
