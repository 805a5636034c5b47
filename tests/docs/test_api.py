"""The API's pages: every public name has one, and every argument a line on it."""

import inspect
import re

import pytest

pytest.importorskip("sklearn", minversion="1.9", reason="needs scikit-learn 1.9 or newer")

from docs._ext import api, arguments
from tests.test_packaging import PUBLIC

NAMES = api.public()


def test_every_public_name_has_a_page() -> None:
    assert {module.__name__ for module in PUBLIC} | {"nnkit.parallel", "nnkit.sklearn"} == set(api.MODULES)
    written = {name for page in NAMES for name in (page.full, *page.others)}
    modules = {module.__name__ for module in PUBLIC}
    wanted = {f"{module.__name__}.{name}" for module in PUBLIC for name in module.__all__} - modules
    assert wanted - written == {"nnkit.__version__", "nnkit.kernels"}
    assert len(NAMES) > 150
    listed = [name for key in api.GROUPS for name in NAMES if name.group == key]
    assert sorted(name.full for name in listed) == sorted(name.full for name in NAMES)


def test_every_argument_has_a_line() -> None:
    missing, count, texts = {}, 0, api.Docstrings(NAMES)
    for name in NAMES:
        for full, made, owner in api.callables(name):
            found = api.described(full, made, owner)
            count += len(found)
            lines = texts.with_arguments("Purpose.", found).splitlines()[3:]
            assert [re.match(r" {4}(\*{0,2}\w+): \S", line)[1] for line in lines if line] == [  # type: ignore[index]
                argument for argument, text in found.items() if text
            ]
            if undescribed := [argument for argument, text in found.items() if not text]:
                missing[full] = undescribed
    assert count > 700
    assert not missing, "add them to the docstring's Args, one a line"


def test_no_description_of_an_argument_is_unused() -> None:
    given = [
        (full.removeprefix("nnkit."), name.lstrip("*"))
        for page in NAMES
        for full, made, owner in api.callables(page)
        for name in api.parameters(made, owner is not None and not inspect.isclass(made))
    ]
    unused = [
        (names, wanted)
        for names, wanted, _ in arguments.lines()
        if not any(re.fullmatch(names, full) and re.fullmatch(wanted, name) for full, name in given)
    ]
    assert not unused


def test_names_become_references_and_the_rest_literals() -> None:
    texts = api.Docstrings(NAMES)
    assert texts.rewritten("See `SGD`, `nnkit.data.split()` and `x`: |z| of fit_.") == (
        "See :py:obj:`SGD <nnkit.SGD>`, :py:obj:`nnkit.data.split() <nnkit.data.split>` and ``x``: \\|z\\| of fit\\_."
    )
    assert texts.rewritten(">>> `SGD` | 2\n`a`\n\n`a`") == ">>> `SGD` | 2\n`a`\n\n``a``"


def test_docstrings_describe_one_argument_a_line() -> None:
    """In `Args:` of the docstrings themselves, which editors show; arguments of one description may share a line."""
    packed = []
    for page in NAMES:
        for full, made, _ in api.callables(page):
            names = "|".join(re.escape(name.lstrip("*")) for name in api.parameters(made)) or "-"
            section = re.search(r"^Args:\n((?: {4}.*\n?)+)", inspect.getdoc(made) or "", re.MULTILINE)
            text = re.sub(r"\n {5,}", " ", section[1]) if section else ""
            packed += [(full, found) for found in re.findall(rf"(?<=[.;)] )(?:{names}): ", text)]
    assert not packed
