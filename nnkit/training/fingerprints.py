"""Fingerprints of a training's data and functions, to check that a resumed training has the same.

Equal fingerprints do not prove equality: they cover only some rows of large data, and what Python exposes of functions.
"""

import dis
import functools
import hashlib
import importlib.util
import inspect
import math
from argparse import Namespace
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from nnkit.backends.base import Array, Backend
from nnkit.backends.dtypes import dtype_name
from nnkit.checks import is_of_nnkit
from nnkit.inputs import on_disk
from nnkit.kernels.activations import get_activation
from nnkit.layers import dense_layers
from nnkit.metrics import Metric
from nnkit.model import Model
from nnkit.optimizers import Optimizer
from nnkit.schedules import FunctionSchedule, Schedule

_WHOLE = 1 << 24  # bytes of an array that is read completely
_ROWS = 256  # evenly spaced, of a larger one
_DEPTH = 4  # of nested function calls
_MAGIC = importlib.util.MAGIC_NUMBER.hex()  # the version of the bytecode, specific to a Python version


def of_array(backend: Backend, array: Any) -> str:
    """The dtype, shape and a digest of the values of an array (n, ...) of any library; "None" for None.

    >>> of_array(nnkit.get_backend("numpy"), np.eye(2))
    'float64 (2, 2) with digest 5725180cf41368f2'
    """
    if array is None:
        return "None"
    found = hashlib.blake2b(digest_size=8)
    for piece in _pieces(array):
        numbers = backend.to_numpy(backend.asarray(piece, "float64"))
        found.update(np.ascontiguousarray(numbers, "<f8").tobytes())
    return f"{dtype_name(array.dtype)} {tuple(map(int, array.shape))} with digest {found.hexdigest()}"


def _pieces(array: Any) -> Iterator[Array]:
    """All rows, some thousand numbers at a time; for a large array some rows, and for long rows their start."""
    rows, width = array.shape[0], max(math.prod(array.shape[1:]), 1)
    size = width * np.dtype(np.float64).itemsize
    if rows * size <= _WHOLE:
        at_once = max(1, (1 << 16) // width)
        for start in range(0, rows, at_once):
            yield _rows(array, start, min(start + at_once, rows))
        return
    count = max(2, min(rows, _ROWS, _WHOLE // size))
    for i in range(count):
        row = i * (rows - 1) // (count - 1)
        piece = _rows(array, row, row + 1)
        yield piece if size <= _WHOLE else piece[..., : _WHOLE // 8]


def _rows(array: Any, start: int, stop: int) -> Array:
    """Some rows: arrays on disk support only a slice, and the array API standard requires an index for all axes."""
    return array[start:stop] if on_disk(array) else array[start:stop, ...]


def of_function(function: Any) -> str:
    """A digest of a function's code, the plain values that it reads, and the functions that it calls.

    Lists, dicts, sets and arrays are left out: they may be logs, which other functions fill. Code is comparable only
    within one version of Python, which is the prefix.
    """
    text = repr(_content(function, _DEPTH))
    return f"{_MAGIC} {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def objects_of(schedule: Schedule | None, metrics: Iterable[Metric]) -> dict[str, Any]:
    """The user's schedule and metrics in a training, by their roles."""
    given = schedule.given if isinstance(schedule, FunctionSchedule) else schedule
    return {"schedule": given} | {f"metric {metric.name}": metric.function for metric in metrics}


def functions_of(
    model: Model, optimizer: Optimizer, schedule: Schedule | None, metrics: Iterable[Metric]
) -> dict[str, str]:
    """Digests of the user's functions in a training, by their roles."""
    given = objects_of(schedule, metrics)
    given |= {role: getattr(each, "fixed", ()) or each for role, each in given.items()}  # options of scikit-learn's
    activations = [get_activation(str(layer.activation)) for layer in dense_layers(model.to_logits)]
    activations += [] if model.output.activation is None else [model.output.activation]
    given |= {f"activation {each.name}": (each.forward.function, each.gradient.function) for each in activations}
    given[f"cost {model.cost.name}"] = (model.cost.terms.function, model.cost.delta.function)
    formula = optimizer.formula
    given[f"optimizer {type(optimizer).__name__}"] = None if formula is None else formula.function
    return {role: of_function(each) for role, each in given.items() if each is not None and not is_of_nnkit(each)}


def differ(there: str, here: str) -> bool:
    """Whether two digests are known to belong to different functions."""
    return there != here and there.split()[0] == here.split()[0]


def _content(value: Any, depth: int, written: frozenset[str] = frozenset()) -> Any:
    """The comparable parts of a value, as nested tuples of text; of an object, not the `written` attributes."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return repr(value)
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, tuple):
        return tuple(_content(each, depth, written) for each in value)
    if isinstance(value, frozenset):
        return tuple(sorted(repr(each) for each in value))
    if isinstance(value, CodeType):
        return value.co_code.hex(), value.co_names, tuple(_content(each, depth) for each in value.co_consts)
    if isinstance(value, FunctionType):
        return _function(value, depth - 1)
    if isinstance(value, MethodType):
        owner = value.__self__
        if isinstance(owner, type) and isinstance(value.__func__, FunctionType):  # a classmethod
            return _content(value.__func__, depth), sorted(_plain_ones(owner, _read(value.__func__)).items())
        return _content(value.__func__, depth), _content(owner, depth - 1)
    if isinstance(value, functools.partial):
        return tuple(_content(each, depth - 1) for each in (value.func, value.args, *sorted(value.keywords.items())))
    if isinstance(value, type | BuiltinFunctionType):
        return value.__qualname__
    found = _methods(type(value))
    methods = tuple(_content(method, depth) for method in found)
    state = written | written_by_methods(type(value))
    own = {name: each for name, each in _attributes(value, found).items() if name not in state}
    plain = [(name, repr(each)) for name, each in own.items() if _is_plain(each)]
    plain += [(name, repr(_content(each, depth - 1))) for name, each in own.items() if isinstance(each, FunctionType)]
    return type(value).__qualname__, getattr(value, "__name__", ""), methods, tuple(sorted(plain))


def _function(function: FunctionType, depth: int) -> Any:
    """A function's code and the outer variables that it reads; not those that it writes, such as a call counter."""
    codes = _codes(function)
    written, state = _named(codes, "STORE_GLOBAL", "STORE_DEREF"), _named(codes, "STORE_ATTR")
    around = {name: function.__globals__.get(name) for name in _named(codes, "LOAD_GLOBAL", "LOAD_NAME")}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        around[name] = _in_cell(cell)
    read = {
        name: value
        for name, value in around.items()
        if name not in written and (_is_plain(value) or getattr(value, "__module__", "") == function.__module__)
    }
    fields = _named(codes, "LOAD_ATTR") - state
    read |= {
        f"{name}.{each}": found
        for name, value in around.items()
        if isinstance(value, Namespace | ModuleType | FunctionType | type)
        for each, found in _plain_ones(value, fields).items()
    }
    seen = (function.__defaults__, *sorted((function.__kwdefaults__ or {}).items()), *sorted(read.items()))
    return _content(function.__code__, 1), tuple(_content(each, depth, state) for each in seen)


def _codes(function: FunctionType) -> list[CodeType]:
    """The code of a function, and of those inside it."""
    codes = [function.__code__]
    for code in codes:
        codes.extend(each for each in code.co_consts if isinstance(each, CodeType))
    return codes


def _named(codes: Iterable[CodeType], *operations: str) -> frozenset[str]:
    """The names that code reads or assigns with these operations."""
    return frozenset(at.argval for code in codes for at in dis.get_instructions(code) if at.opname in operations)


def _methods(kind: type) -> list[FunctionType]:
    """The methods by which a schedule or a metric is called, and those that these call."""
    names, found = ["__call__", "factor"], dict[str, FunctionType]()
    for name in names:
        method = getattr(kind, name, None)
        method = method.fget if isinstance(method, property) else method
        method = method.func if isinstance(method, functools.cached_property) else method
        if isinstance(method, FunctionType) and name not in found and not is_of_nnkit(inspect.unwrap(method)):
            found[name] = inspect.unwrap(method)
            names += sorted(_read(found[name]))
    return list(found.values())


def _read(function: FunctionType) -> frozenset[str]:
    """The names of attributes that a function reads."""
    return frozenset(_named(_codes(function), "LOAD_ATTR", "LOAD_METHOD"))  # the latter until Python 3.11


def _plain_ones(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of these attributes that are plain values."""
    return {name: found for name in names if _is_plain(found := getattr(value, name, None))}


def _attributes(value: Any, methods: Iterable[FunctionType]) -> dict[str, Any]:
    """The attributes of an object, with slots and those of its class that the methods read."""
    read = frozenset().union(*map(_read, methods))
    given = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    slots = {name for names in given for name in ([names] if isinstance(names, str) else names)}
    found = _plain_ones(type(value), read)
    found |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return found | getattr(value, "__dict__", {})


def written_by_methods(kind: type) -> frozenset[str]:
    """The attributes in which objects count or remember: those that a method assigns, other than the first ones."""
    return _named(_codes_of(kind, first=False), "STORE_ATTR")


def always_there(kind: type) -> frozenset[str]:
    """The attributes that the first methods of an object assign, and none of the others deletes."""
    return _named(_codes_of(kind, first=True), "STORE_ATTR") - _named(_codes_of(kind, first=False), "DELETE_ATTR")


def _codes_of(kind: type, first: bool) -> list[CodeType]:
    """The code of the first methods of a class, or of the others."""
    found = [each for base in kind.__mro__ for name, each in vars(base).items() if (name in _FIRST) is first]
    return [code for each in found if isinstance(each, FunctionType) for code in _codes(inspect.unwrap(each))]


_FIRST = ("__init__", "__post_init__", "__new__", "__setstate__")


def _in_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | complex | str | bytes | np.generic)
