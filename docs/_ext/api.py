"""The API's pages: one for each public name, with every argument on a line of its own.

The pages are written before Sphinx reads its sources. Docstrings are plain English with names in backticks; here,
before napoleon reads them, these become references where there is a page and literals elsewhere, arguments that are
described together are put on a line each, and a formula's page has the mathematics of its code.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docs._ext.arguments import shared
from docs._ext.tex import formula_tex
from nnkit.backends.formula import Formula

MODULES = (
    "nnkit", "nnkit.backends", "nnkit.data", "nnkit.plots", "nnkit.schedules", "nnkit.optimizers", "nnkit.metrics",
    "nnkit.initializers", "nnkit.verify", "nnkit.doctor", "nnkit.sklearn", "nnkit.callbacks", "nnkit.parallel",
)  # fmt: skip

# The groups of the index, and the modules whose public names each has; what is in none is in the first.
GROUPS = {
    "networks": ("Networks and training", ()),
    "layers": ("Layers", ("nnkit.layers", "nnkit.kernels.dense")),
    "activations": (
        "Activations",
        tuple(f"nnkit.kernels.{name}" for name in ("rectifiers", "sigmoidal", "smooth", "softmax", "activations")),
    ),
    "costs": ("Costs", tuple(f"nnkit.kernels.{name}" for name in ("regression", "classification", "costs"))),
    "optimizers": ("Optimizers", ("nnkit.optimizers", "nnkit.optimizer_state")),
    "callbacks": ("Callbacks", ("nnkit.callbacks",)),
    "schedules": ("Schedules", ("nnkit.schedules",)),
    "metrics": ("Metrics", ("nnkit.metrics", "nnkit.label_metrics")),
    "initializers": ("Initializers", ("nnkit.initializers",)),
    "data": ("Data", ("nnkit.data",)),
    "sklearn": ("scikit-learn estimators", ("nnkit.sklearn",)),
    "plots": ("Plots and loggers", ("nnkit.plots", "nnkit.callbacks")),
    "parallel": ("Several processes", ("nnkit.parallel",)),
    "verify": ("Checks", ("nnkit.verify", "nnkit.doctor")),
    "backends": ("Backends and formulas", ("nnkit.backends",)),
}


# Classes that public functions take or return, though no package exports them.
EXTRA = (
    "nnkit.backends.formula.Formula", "nnkit.kernels.activations.Activation", "nnkit.kernels.cost.Cost",
    "nnkit.parameters.Parameters", "nnkit.step.StepExplanation", "nnkit.step.NodeExplanation",
    "nnkit.verify.gradient_check.GradientCheck", "nnkit.metrics.Metric", "nnkit.summary.Summary",
    "nnkit.ensembles.fit.EnsembleHistory",
)  # fmt: skip


class Name(NamedTuple):
    """A public name: as it is written first, its object, and its other names."""

    full: str
    object: Any
    others: tuple[str, ...]

    @property
    def group(self) -> str:
        """The group of the index that has it."""
        home = getattr(self.object, "__module__", "") or ""
        function = getattr(self.object, "function", None)
        home = getattr(function, "__module__", home) if isinstance(self.object, Formula) else home
        found = [key for key, (_, homes) in GROUPS.items() for h in homes if home == h or home.startswith(h + ".")]
        return found[0] if found else "networks"


def public() -> list[Name]:
    """All public names but modules and __version__, each object once, at its shortest name."""
    found: dict[int, tuple[Any, list[str]]] = {}
    for module in MODULES:
        home = importlib.import_module(module)
        for name in home.__all__:
            made = getattr(home, name)
            if not inspect.ismodule(made) and name != "__version__":
                found.setdefault(id(made), (made, []))[1].append(f"{module}.{name}")
    for full in EXTRA:
        path, _, name = full.rpartition(".")
        made = getattr(importlib.import_module(path), name)
        found.setdefault(id(made), (made, []))[1].append(full)
    return sorted(
        (Name(names[0], made, tuple(names[1:])) for made, names in found.values()), key=lambda n: n.full.lower()
    )


def callables(name: Name) -> Iterator[tuple[str, Any, Any]]:
    """What of a name takes arguments: itself, and the methods that its page shows, with their class."""
    if not inspect.isclass(name.object):
        if callable(name.object):
            yield name.full, name.object, None
        return
    yield name.full, name.object, name.object
    for key in dir(name.object):
        found = inspect.getattr_static(name.object, key)
        found = getattr(found, "fn", getattr(found, "__func__", found))  # scikit-learn's `available_if` has it as `fn`
        if shown(key, found) and callable(found) and not isinstance(found, Formula | type):
            yield f"{name.full}.{key}", found, name.object


# Of the model that a network is: its other methods are for its parts.
_SHOWN = {"backend", "classifies", "cost", "d_in", "d_out", "dtype", "forward", "layers", "logits", "preprocessing"}


def shown(key: str, member: Any) -> bool:
    """Whether a class's page shows a member: one of nnkit's own, with a docstring, for users."""
    made = member.fget if isinstance(member, property) else member
    home = getattr(made, "__module__", "") or ""
    if home == "nnkit.model" and key not in _SHOWN and getattr(made, "__name__", key) not in _SHOWN:
        return False
    return not key.startswith("_") and home.startswith("nnkit") and bool(inspect.getdoc(made))


_SECTION = r"^{}:\n((?:[ ]+.*\n|\n(?=[ ]))*[ ]+.*\n?)"  # a title, and the indented lines that follow


# --- arguments ------------------------------------------------------------------------------------------------------


def described(full: str, made: Any, owner: Any = None) -> dict[str, str]:
    """The description of each argument, in the order of the signature; "" for those without one."""
    own = _sections(made, owner)
    found = {}
    for name, parameter in parameters(made, owner is not None and not inspect.isclass(made)).items():
        bare = parameter.name
        text = next((given[bare] for given in own if given.get(bare)), "")
        text = text or next((given[bare] for given in _named_in(made) if given.get(bare)), "")
        found[name] = text or shared(full, bare) or _sentence(inspect.getdoc(made) or "", bare)
    return found


def _named_in(made: Any) -> list[dict[str, str]]:
    """The arguments of the function that a docstring refers to, as in "The arguments are those of `Network.fit`"."""
    found = re.search(r"(?:[Aa]rguments are|others:) those of `([\w.]+)`", inspect.getdoc(made) or "")
    if found is None:
        return []
    owner, _, name = found[1].rpartition(".")
    for module in ("nnkit", "nnkit.sklearn"):
        kind = getattr(importlib.import_module(module), owner or name, None)
        if kind is not None:
            return _sections(getattr(kind, name) if owner else kind, kind if owner else None)
    return []


def _sentence(doc: str, name: str) -> str:
    """The first sentence of a docstring's prose that has the argument in backticks; "" if there is none."""
    prose = " ".join(re.split(r"\n *>>>|\nArgs:", doc)[0].split())
    return next((s for s in re.split(r"(?<=[.;]) ", prose) if f"`{name}`" in s), "").removesuffix(";")


def parameters(made: Any, method: bool = False) -> dict[str, inspect.Parameter]:
    """The parameters of a signature, with their asterisks; a method's without its object."""
    try:
        given = list(inspect.signature(made).parameters.values())
    except (TypeError, ValueError):
        return {}
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    bound = method and given and not isinstance(inspect.unwrap(made), staticmethod)
    return {stars.get(p.kind, "") + p.name: p for p in (given[1:] if bound else given)}


def _sections(made: Any, owner: Any) -> list[dict[str, str]]:
    """The descriptions in a docstring and in those that it inherits, the own first."""
    if inspect.isclass(made):
        docs = [vars(kind).get("__doc__") for kind in made.__mro__ if kind.__module__.startswith("nnkit")]
    elif owner is not None:
        versions = [vars(kind).get(made.__name__) for kind in owner.__mro__]
        docs = [inspect.getdoc(made), *(getattr(version, "__doc__", None) for version in versions)]
    else:
        docs = [inspect.getdoc(made)]
    names = [p.name for p in parameters(made).values()]
    return [_described_in(inspect.cleandoc(doc), names) for doc in docs if doc]


def _described_in(doc: str, names: Iterable[str]) -> dict[str, str]:
    """The arguments in sections "Args:" and "Attributes:", or in paragraphs such as "...; z: logits of any shape"."""
    found: dict[str, str] = {}
    for title in ("Args", "Attributes"):
        section = re.search(_SECTION.format(title), doc, re.MULTILINE)
        found = (_split(" ".join(section[1].split()), names) if section else {}) | found
    if found:
        return found
    for paragraph in re.split(r"\n\n", doc.partition(">>>")[0]):
        plain = " ".join(paragraph.split())
        start = re.search(r"(?:^|; )(?=\w+(?:, \w+)*: )", plain)
        found = (_split(plain[start.end() :], names) if start else {}) | found
    return found


def _split(text: str, names: Iterable[str]) -> dict[str, str]:
    """`x: samples. W: weights, b: biases` as a text for each name.

    >>> _split("W, b: the arrays. out: for h", ["W", "b", "out"])
    {'W': 'the arrays.', 'b': 'the arrays.', 'out': 'for h'}
    """
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    if not known:
        return {}
    start = re.compile(rf"(?:^|(?<=[.,;)] ))((?:\*{{0,2}}(?:{known})(?:,? and |, )?)+): ")
    found: dict[str, str] = {}
    matches = list(start.finditer(text))
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        described = text[match.end() : following.start() if following else None].strip().rstrip(",;")
        found |= dict.fromkeys(re.findall(r"\w+", match[1].replace(" and ", " ")), described)
    return found


def _attributes_on_lines(text: str) -> str:
    """The section "Attributes:" with a line for each, where several are described together."""
    section = re.search(_SECTION.format("Attributes"), text, re.MULTILINE)
    if section is None:
        return text
    packed = " ".join(section[1].split())
    names = re.findall(r"\w+", " ".join(re.findall(r"(?:^|(?<=[.;] ))((?:\w+, )*\w+): ", packed)))
    lines = [f"    {name}: {said}" for name, said in _split(packed, names).items()]
    return "\n".join([text[: section.start()] + "Attributes:", *lines, text[section.end() :]])


def _as_list(text: str) -> str:
    """Paragraphs of "name: what it is" outside of sections, as lists."""

    def paragraph(found: str) -> str:
        lines = found.split("\n")
        starts = [line for line in lines if not line.startswith(" ")]
        if len(lines) < 2 or not all(re.match(r"\w+(?:, \w+)*: \S", line) for line in starts):
            return found
        return "\n".join(f"  {line.strip()}" if line.startswith(" ") else f"- {line}" for line in lines)

    return "\n\n".join(map(paragraph, text.split("\n\n")))


# --- docstrings -----------------------------------------------------------------------------------------------------


class Docstrings:
    """Rewrites docstrings for Sphinx: arguments on lines, names in backticks as references."""

    def __init__(self, names: list[Name]) -> None:
        self.names = {name.full: name for name in names}
        self.targets: dict[str, str] = {}
        for name in names:
            for written in (name.full, *name.others):
                short = written.removeprefix("nnkit.")
                for key in (written, short, short.rpartition(".")[2]):
                    self.targets.setdefault(key, name.full)
            if inspect.isclass(name.object):
                for key in dir(name.object):
                    member = inspect.getattr_static(name.object, key)
                    if shown(key, getattr(member, "__func__", member)):
                        self.targets.setdefault(f"{name.full.rpartition('.')[2]}.{key}", f"{name.full}.{key}")

    def __call__(self, app: Any, kind: str, full: str, made: Any, options: Any, lines: list[str]) -> None:
        """Replace the lines of a docstring, as autodoc asks for."""
        text = "\n".join(lines)
        owner = None
        if kind in ("method", "property"):
            parent = full.rpartition(".")[0]
            owner = self.names[parent].object if parent in self.names else None
        if (callable(made) and kind != "exception") or inspect.isclass(made):
            text = self.with_arguments(text, described(full, made, owner))
        text = _as_list(_attributes_on_lines(text))
        if kind in ("property", "attribute", "data"):
            text = text.replace(": ", "∶ ")  # a ratio's sign: napoleon takes what is before a colon for a type
        if isinstance(made, Formula) and (tex := formula_tex(made)):
            head, gap, rest = text.partition("\n\n")
            text = f"{head}\n\n.. math::\n\n   {tex}\n{gap}{rest}"
        lines[:] = self.rewritten(text).splitlines()

    def with_arguments(self, text: str, arguments: dict[str, str]) -> str:
        """The docstring with one line for each argument, in the order of the signature."""
        block = "\n".join(["Args:", *(f"    {name}: {said}" for name, said in arguments.items() if said), ""])
        section = re.search(_SECTION.format("Args"), text, re.MULTILINE)
        if section:
            return text[: section.start()] + block + text[section.end() :]
        if not any(arguments.values()):
            return text
        head, gap, rest = text.partition("\n\n")
        return f"{head}\n\n{block}\n{rest}" if gap or rest else f"{head}\n\n{block}"

    def rewritten(self, text: str) -> str:
        """Prose with references and literals; examples and indented code as they are."""
        out, example = [], False
        for line in text.split("\n"):
            example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
            out.append(line if example or ".. math::" in line or line.startswith("   \\") else self._prose(line))
        return "\n".join(out)

    def _prose(self, line: str) -> str:
        pieces = re.split(r"(``[^`]+``|`[^`]+`)", line)
        return "".join(self._piece(piece) for piece in pieces)

    def _piece(self, piece: str) -> str:
        if piece.startswith("``"):
            return piece
        if piece.startswith("`") and piece.endswith("`") and len(piece) > 2:
            inner = piece.strip("`")
            target = self.targets.get(inner.removesuffix("()").removeprefix("nnkit."))
            return f":py:obj:`{inner} <{target}>`" if target else f"``{inner}``"
        head = re.match(r" *\*{0,2}\w+: ", piece)  # napoleon escapes the stars of arguments, but not a last underscore
        start = head.end() if head else 0
        begin = piece[:start].replace("_: ", "\\_: ")
        return begin + re.sub(r"([|*\\])|(?<=\w)_(?!\w)", lambda m: "\\" + m[0], piece[start:])


# --- pages ----------------------------------------------------------------------------------------------------------


def _page(name: Name) -> str:
    title = name.full
    kind = "function"
    if inspect.isclass(name.object):
        kind = "exception" if issubclass(name.object, BaseException) else "class"
    elif not callable(name.object):
        kind = "data"
    options = {"class": "   :inherited-members:\n", "exception": "   :show-inheritance:\n"}.get(kind, "")
    also = f"\nAlso {', '.join(f'``{other}``' for other in name.others)}.\n" if name.others else ""
    return f"{title}\n{'=' * len(title)}\n\n.. auto{kind}:: {name.full}\n{options}{also}"


def _summary(made: Any) -> str:
    """The first sentence of a docstring, without what follows its semicolon."""
    first = " ".join(re.split(r"\n\n", inspect.getdoc(made) or "")[0].split())
    return re.split(r"(?<!eq)[;.](?: |$)", first)[0]


def _index(title: str, names: list[Name], rewrite: Callable[[str], str]) -> str:
    lines = [title, "=" * len(title), "", ".. list-table::", "   :widths: 35 65", "   :class: names", ""]
    for name in names:
        short, summary = name.full.removeprefix("nnkit."), rewrite(_summary(name.object))
        lines += [f"   * - :py:obj:`{short} <{name.full}>`", f"     - {summary}"]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [f"   {name.full.removeprefix('nnkit.')} <{name.full}>" for name in names]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write a page if it has changed: Sphinx then reads only new ones again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _write_pages(app: Any) -> None:
    folder, names = Path(app.srcdir, "api"), public()
    texts = Docstrings(names)
    app.connect("autodoc-process-docstring", texts, priority=400)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    kept = {folder / f"{name.full}.rst" for name in names} | {folder / f"{key}.rst" for key in GROUPS}
    for stale in set(folder.glob("*.rst")) - kept:
        stale.unlink()
    for name in names:
        write(folder / f"{name.full}.rst", _page(name))
    for key, (title, _) in GROUPS.items():
        write(folder / f"{key}.rst", _index(title, [n for n in names if n.group == key], texts.rewritten))


def _signature(app: Any, kind: str, full: str, made: Any, options: Any, signature: str, returned: str) -> Any:
    """A formula's arguments are those of its operands, without the types of its Python function."""
    return (str(inspect.signature(made)), None) if kind == "function" and isinstance(made, Formula) else None


def _skip(app: Any, what: str, key: str, member: Any, skip: bool, options: Any) -> bool | None:
    return None if shown(key, getattr(member, "__func__", member)) else True


def _dashes(app: Any, document: Any) -> None:
    """The hyphens that Sphinx puts between an argument and its description are a dash."""
    for text in [t for t in document.findall(lambda node: node.tagname == "#text") if t == " -- "]:
        text.parent.replace(text, type(text)(" – "))


def setup(app: Any) -> dict[str, Any]:
    """Write the pages when the build begins."""
    app.connect("doctree-read", _dashes)
    app.connect("builder-inited", _write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
