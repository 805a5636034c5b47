"""The pages of errors: for each class that nnkit raises, its cause, its remedy, and every message with its place.

The messages are read from the sources when the pages are made: what stands in a `raise` statement, with … for what a
message fills in. A page's text comes from the class itself, for Python's own classes from below.
"""

import ast
import builtins
import importlib
import inspect
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from docs._ext.api import Docstrings, public, write

_ROOT = Path(__file__).resolve().parents[2]
# The cause and the remedy: what the docstring of the class does not say.
_TEXTS = {
    "ValueError": (
        "An argument has a type that is possible, but a value that is not: a shape, a range, an unknown name, NaN.",
        "The message names the argument, what came and what was expected, and for a misspelt name the closest one. "
        "Nothing has changed before it was raised.",
    ),
    "TypeError": (
        "An argument has a type that is not possible, or would have no effect with the others.",
        "The message names the argument and the types that are expected; leave out an argument that has no effect.",
    ),
    "RuntimeError": (
        "Something is used at a time at which it cannot be: a network that another thread trains, a fork, a failure of "
        "a library.",
        "Do what the message says; the network is as before.",
    ),
    "ImportError": (
        "A package that this function needs is not installed, or too old.",
        "Run the command at the end of the message, such as `python -m pip install scipy`.",
    ),
    "OSError": (
        "A file cannot be read or written.",
        "The message has the path and the reason; the old file is as it was.",
    ),
    "FileNotFoundError": (
        "A file or folder does not exist.",
        "Check the path; MNIST is downloaded by `download=True`.",
    ),
    "BlockingIOError": (
        "Another process writes the same checkpoint.",
        "Wait for it, or give each training a file of its own.",
    ),
    "AttributeError": (
        "An attribute does not exist or cannot be set.",
        "Use the method that the message names, such as `to` for the backend.",
    ),
    "KeyError": ("A name is not registered.", "The functions `..._names()` list those that are."),
    "BackendUnavailableError": (
        "The backend cannot work on this machine: CuPy is not installed, there is no GPU, a driver or a library is "
        "missing.",
        "`nnkit doctor` lists what is missing, with the commands that install it; `auto` uses NumPy instead.",
    ),
    "BackendMismatchError": (
        "The arrays of one call belong to two backends or devices.",
        "Move one: `nnkit.get_backend('cupy').asarray(x)`, `net.to(...)`, or `to_numpy`.",
    ),
    "BackendFallbackWarning": (
        "A fast way does not work here, and a slower one with the same results is used.",
        "Nothing has to be done. The message says what is missing.",
    ),
    "OutOfMemoryError": (
        "The memory of the device does not suffice.",
        "Reduce what the message names: the batch size, the number of samples, or the sizes of the layers.",
    ),
    "FormulaError": (
        "A formula does something that cannot be compiled: it branches on a value, calls another function, or has no "
        "operands.",
        "Use `xp.where` instead of a branch, and functions of `xp` only: see the recipe of a formula.",
    ),
    "UnknownBackendError": (
        "The name of a backend is unknown.",
        "`nnkit.backends.backend_names()` lists those that are.",
    ),
    "UnknownNameError": ("A name is unknown.", "The message has the closest one, and those that are known."),
    "DivergenceError": (
        "The cost or a parameter became NaN or infinite: mostly the learning rate is too large, or the features are "
        "not normalized.",
        "Use a smaller rate, `clip_norm=1.0`, or `preprocessing=nnkit.data.Normalization.fit(X)`. The network has the "
        "parameters from before that step.",
    ),
    "RankError": (
        "Another process of the same training has failed.",
        "Its own error is in its output, and its message in this one; repair that, and start all again.",
    ),
}
_MAKERS = {"unknown_name": "UnknownNameError"}  # functions that return an error to raise


class Message(NamedTuple):
    """A message of an error: its text, and the function that raises it."""

    text: str
    place: str


def messages() -> dict[str, list[Message]]:
    """The messages in the sources, by the name of the class."""
    found: dict[str, list[Message]] = defaultdict(list)
    for folder, package in (("nnkit", "nnkit"), ("backends", "nnkit.backends")):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            inside = path.relative_to(_ROOT / folder).with_suffix("").parts
            if folder == "nnkit" and inside[0] == "backends":
                continue
            module = ".".join([package, *(part for part in inside if part != "__init__")])
            _Raises(module, found).visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name: sorted(set(rows), key=lambda row: row.text.lower()) for name, rows in found.items()}


class _Raises(ast.NodeVisitor):
    """Collects the messages of a module, with the functions around them."""

    def __init__(self, module: str, found: dict[str, list[Message]]) -> None:
        self.module, self.found, self.around = module, found, list[str]()
        self.names: list[dict[str, str]] = [{}]

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.inside(node)

    def inside(self, node: Any) -> None:
        self.around.append(node.name)
        self.names.append({})
        self.generic_visit(node)
        self.names.pop()
        self.around.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        text = _text(node.value, self.names[-1])
        if text and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if self.around[-1:] != ["__str__"] or name not in self.names[-1]:  # there, the usual text comes first
                self.names[-1][name] = text

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called == "warn" and len(node.args) > 1:
            called = getattr(node.args[1], "id", "")
        kind = _MAKERS.get(called, called)
        if kind in _TEXTS and node.args:
            self._add(kind, node.args[0])

    def visit_Return(self, node: ast.Return) -> None:
        """An error that makes its message of its attributes does so in `__str__`."""
        self.generic_visit(node)
        if self.around[1:] == ["__str__"] and self.around[0] in _TEXTS:
            self._add(self.around[0], node.value.body if isinstance(node.value, ast.IfExp) else node.value)

    def _add(self, kind: str, node: Any) -> None:
        text = _text(node, self.names[-1])
        if text and len(text.replace("…", "").strip()) > 8:
            self.found[kind].append(Message(text, ".".join([self.module, *self.around])))


def _text(node: ast.AST, names: dict[str, str]) -> str:
    """What a string expression says, with … for values."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            pieces = [part.value if isinstance(part, ast.Constant) else _value(part, names) for part in node.values]
            return "".join(map(str, pieces))
        case ast.BinOp(op=ast.Add()):
            return _text(node.left, names) + _text(node.right, names)
        case ast.Name():
            return names.get(node.id, "")
        case _:
            return ""


def _value(node: ast.AST, names: dict[str, str]) -> str:
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    return _text(inner, names) or "…"


def _page(name: str, rows: list[Message], texts: Docstrings) -> str:
    cause, remedy = _TEXTS[name]
    kind = getattr(builtins, name, None) or _class(name)
    lines = [name, "=" * len(name), ""]
    full = texts.targets.get(name)
    if not hasattr(builtins, name):
        lines += [texts.rewritten(" ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())), ""]
        above = next((base.__name__ for base in kind.__mro__[1:] if hasattr(builtins, base.__name__)), "Exception")
        lines += [f"A subclass of ``{above}``" + (f"; in the API: :py:obj:`{name} <{full}>`." if full else "."), ""]
    lines += ["**Cause.** " + texts.rewritten(cause), "", "**Remedy.** " + texts.rewritten(remedy), ""]
    if rows:
        count = f"{len(rows)} messages" if len(rows) > 1 else "message"
        lines += [f"Its {count}, in which … is filled in:", "", ".. list-table::", "   :class: names", ""]
        for row in rows:
            text = " ".join(row.text.split()).replace("\\", "\\\\").replace("`", "'")
            text = "".join("\\" + c if c in "*|_" else c for c in text)
            lines += [f"   * - {text}", f"     - ``{row.place}``"]
    return "\n".join(lines) + "\n"


def _class(name: str) -> Any:
    homes = ("nnkit", "nnkit.backends", "nnkit.checks", "nnkit.parallel")
    return next(
        getattr(importlib.import_module(home), name) for home in homes if hasattr(importlib.import_module(home), name)
    )


def pages() -> dict[str, str]:
    """The text of each page by its name, and of the index."""
    found, texts = messages(), Docstrings(public())
    made = {name: _page(name, found.get(name, []), texts) for name in _TEXTS}
    count = sum(map(len, found.values()))
    lines = [
        "Errors",
        "======",
        "",
        "Bad input is an error at once, which names the argument, what came and what was expected, ",
    ]
    lines += ["before anything has changed. Search for a few words of a message: the pages have all of them, "]
    lines += [f"{count} in {len(made)} classes, read from the sources when they were made.", ""]
    lines += [".. list-table::", "   :class: names", ""]
    for name, (cause, _) in _TEXTS.items():
        lines += [f"   * - :doc:`{name}`", f"     - {texts.rewritten(cause)}"]
    lines += ["", ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in made)]
    return made | {"index": "\n".join(lines) + "\n"}


def _write(app: Any) -> None:
    for name, text in pages().items():
        write(Path(app.srcdir, "errors", f"{name}.rst"), text)


def setup(app: Any) -> dict[str, Any]:
    """Write the pages when the build begins."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
