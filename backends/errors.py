"""The exceptions and warnings of backends."""

FORKED = (
    "CUDA was in use before this process was forked, and does not work in it; start processes by 'spawn', as in "
    "multiprocessing.get_context('spawn')"
)


class BackendError(Exception):
    """Base class of the errors about backends."""


class BackendUnavailableError(BackendError, RuntimeError):
    """The requested backend is not available; the message says what is missing and how to get it."""


class BackendMismatchError(BackendError, TypeError):
    """One call got arrays of two backends; the message names both."""


class BackendFallbackWarning(UserWarning):
    """A slower way is used: NumPy, as `auto` found no usable GPU, or calls that did not become a CUDA graph."""


class OutOfMemoryError(BackendError, MemoryError):
    """A device is out of memory; the message says how much was available, and what to reduce.

    Attributes:
        device: the backend's name.
        asked: the requested bytes, or None if unknown.
        free: the bytes that were available.
        total: the bytes of the device.
        lower: advice, as text.
    """

    def __init__(self, device: str, asked: int | None, free: int, total: int, lower: str = "") -> None:
        super().__init__(device, asked, free, total, lower)  # so that it can be pickled
        self.device, self.asked, self.free, self.total, self.lower = device, asked, free, total, lower

    def __str__(self) -> str:
        wanted = "more was requested" if self.asked is None else f"{_size(self.asked)} were requested"
        text = f"{self.device} is out of memory: {wanted}, {_size(self.free)} of {_size(self.total)} were free"
        return f"{text}; {self.lower}" if self.lower else text


class FormulaError(BackendError, TypeError):
    """A formula cannot be compiled to elementwise code."""


class UnknownBackendError(BackendUnavailableError, ValueError):
    """There is no backend with this name; the message lists the existing ones."""


def _size(number: int) -> str:
    """A number of bytes with a suitable unit."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):.1f} {unit}"
    return f"{number} bytes"
