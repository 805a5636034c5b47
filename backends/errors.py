"""The errors that backends raise."""


class BackendError(Exception):
    """Base of every error that is about a backend rather than about a number."""


class BackendUnavailableError(BackendError, RuntimeError):
    """The backend that was asked for cannot work here; the message says what is missing and how to get it."""


class BackendMismatchError(BackendError, TypeError):
    """Arrays of two backends met in one call; the message names both sides."""


class BackendFallbackWarning(UserWarning):
    """`auto` found no usable GPU and chose NumPy."""


class OutOfMemoryError(BackendError, MemoryError):
    """A device has no memory left for what was asked; the message says how much there was, and what to lower.

    Attributes:
        asked: bytes that were asked for, or None where the device did not say. free: bytes that it could have given.
        total: bytes that it has. device: the backend's name. lower: what to do, in words.
    """

    def __init__(self, device: str, asked: int | None, free: int, total: int, lower: str = "") -> None:
        super().__init__(device, asked, free, total, lower)  # so that it passes from one process to another
        self.device, self.asked, self.free, self.total, self.lower = device, asked, free, total, lower

    def __str__(self) -> str:
        wanted = "more was asked for" if self.asked is None else f"{_size(self.asked)} were asked for"
        text = f"{self.device} is out of memory: {wanted}, {_size(self.free)} of {_size(self.total)} were free"
        return f"{text}; {self.lower}" if self.lower else text


class FormulaError(BackendError, TypeError):
    """A formula does something that cannot be compiled to elementwise code."""


class UnknownBackendError(BackendUnavailableError, ValueError):
    """No backend has this name; the message lists those that exist."""


def _size(number: int) -> str:
    """A number of bytes in the unit that suits it."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):.1f} {unit}"
    return f"{number} bytes"
