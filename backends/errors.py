"""The errors that backends raise."""


class BackendError(Exception):
    """Base of every error that is about a backend rather than about a number."""


class BackendUnavailableError(BackendError, RuntimeError):
    """The backend that was asked for cannot work here; the message says what is missing and how to get it."""


class BackendMismatchError(BackendError, TypeError):
    """Arrays of two backends met in one call; the message names both sides."""


class BackendFallbackWarning(UserWarning):
    """`auto` found no usable GPU and chose NumPy."""


class FormulaError(BackendError, TypeError):
    """A formula does something that cannot be compiled to elementwise code."""


class UnknownBackendError(BackendUnavailableError, ValueError):
    """No backend has this name; the message lists those that exist."""
