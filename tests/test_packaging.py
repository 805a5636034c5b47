"""How the packages lie: what is shipped, what imports what, and what is public."""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

import nnkit
import nnkit.backends
from tests.support import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules(folder: str, package: str) -> dict[str, Path]:
    """The modules below a folder by their full names; links to other folders are not followed."""
    found = {}
    for directory, folders, files in os.walk(ROOT / folder):
        inside = [package, *Path(directory).relative_to(ROOT / folder).parts]
        folders[:] = [name for name in folders if name.isidentifier() and name != "__pycache__"]
        for file in files:
            if file.endswith(".py"):
                stem = [] if file == "__init__.py" else [file.removesuffix(".py")]
                found[".".join(inside + stem)] = Path(directory, file)
    return found


ALL = modules("nnkit", "nnkit") | modules("backends", "nnkit.backends")


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it, as full names; `from a import b` is `a.b` where that is one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; this project writes full names"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in ALL else str(node.module) for name in full)
    return found


def below(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_every_package_is_shipped() -> None:
    packages = {name for name, path in ALL.items() if path.name == "__init__.py"}
    assert len(PROJECT["tool"]["setuptools"]["packages"]) == len(packages)
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages
    folders = {package: path.parent for package, path in ALL.items() if path.name == "__init__.py"}
    stray = [path for path in ALL.values() if path.parent not in folders.values()]
    assert not stray  # a module in a folder without __init__.py would be left out


def test_every_package_is_where_the_build_expects_it() -> None:
    directories = PROJECT["tool"]["setuptools"]["package-dir"]
    assert directories == {"nnkit": "nnkit", "nnkit.backends": "backends"}
    for package, files in PROJECT["tool"]["setuptools"]["package-data"].items():
        for file in files:
            assert (ALL[package].parent / file).is_file(), f"{package}: {file} is missing"


def test_there_is_one_copy_of_the_packages() -> None:
    """The link nnkit/backends and the folder backends are the same files, and nothing is imported twice."""
    assert Path(nnkit.__file__).resolve() == ROOT / "nnkit" / "__init__.py"
    assert Path(nnkit.backends.__file__).resolve() == ROOT / "backends" / "__init__.py"
    files: dict[Path, str] = {}
    for name, module in sorted(sys.modules.items()):
        if below(name, "nnkit", "backends") and getattr(module, "__file__", None):
            path = Path(str(module.__file__)).resolve()
            assert files.setdefault(path, name) == name
    assert "backends" not in sys.modules


def test_backends_know_nothing_of_networks() -> None:
    wrong = {
        name: {found for found in imports(path) if below(found, "nnkit") and not below(found, "nnkit.backends")}
        for name, path in ALL.items()
        if below(name, "nnkit.backends")
    }
    assert len(wrong) > 10
    assert not any(wrong.values()), wrong


def test_kernels_know_only_backends_and_checks() -> None:
    known = ("nnkit.backends", "nnkit.kernels", "nnkit.checks")
    wrong = {
        name: {f for f in imports(path) if below(f, "nnkit") and not below(f, *known)}
        for name, path in ALL.items()
        if below(name, "nnkit.kernels")
    }
    assert len(wrong) > 5
    assert not any(below(found, "nnkit") for found in imports(ALL["nnkit.checks"]))
    assert not any(wrong.values()), wrong


def test_no_module_imports_another_ones_private_names() -> None:
    private = []
    for name, path in ALL.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and below(str(node.module), "nnkit"):
                private += [(name, alias.name) for alias in node.names if re.match(r"_[^_]", alias.name)]
    assert not private


@pytest.mark.parametrize("module", [nnkit, nnkit.backends])
def test_public_names_exist_once_and_are_documented(module: Any) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        public = getattr(module, name)
        if name == "__version__":
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?([a-z]+\d+)?", public)
            continue
        documentation = inspect.getdoc(public)
        assert documentation, name
        assert documentation != inspect.getdoc(type(public)), f"{name} has only the docstring of its type"


def test_every_module_has_a_docstring() -> None:
    missing = [name for name, path in ALL.items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert not missing


def test_import_loads_no_optional_package() -> None:
    optional = {"cupy", "torch", "matplotlib", "safetensors", "array_api_strict", "ml_dtypes", "hypothesis", "pytest"}
    optional |= {"numpy.random"}  # 15 ms of its own
    script = f"import sys, nnkit; print(sorted({optional!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_required_packages_are_declared() -> None:
    """Whatever is imported at the top of a module, outside of a function, is a dependency of the base install."""
    base = {re.split(r"[<>=\[]", line)[0].replace("-", "_") for line in PROJECT["project"]["dependencies"]}
    for name, path in ALL.items():
        declared = base | {"sklearn"} if name.startswith("nnkit.sklearn") else base  # an extra, of which this is all
        declared |= {"numba", "llvmlite"} if name.endswith("native.intrinsics") else set()  # imported by the compiler
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                found = [a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)]
                for root in {f.partition(".")[0] for f in found}:
                    assert root in {"nnkit", *declared} or root in sys.stdlib_module_names, f"{name} imports {root}"


def test_no_hint_installs_the_other_project_of_this_name() -> None:
    """On the public package index `nnkit` is somebody else's: hints name what is missing, or a checkout's extras."""
    files = [ROOT / "README.md", ROOT / "pyproject.toml", *ALL.values(), *(ROOT / "examples").iterdir()]
    wrong = [
        str(p) for p in files if p.is_file() and re.search(rb"nnkit\[|install ([^\n`&]* )?nnkit\b", p.read_bytes())
    ]
    assert len(files) > 150
    assert wrong == []


BARE = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
import numpy as np, nnkit
X, y = nnkit.data.digits()
net = nnkit.Network([64, 20, 10], seed=0)
net.fit(X, y, epochs=5, optimizer=nnkit.SGD(0.5))
print(net.evaluate(X, y)["accuracy"] == np.mean(net.predict(X) == y) > 0.9)
print(nnkit.dense_forward([[1.0, 2.0]], [[3.0, 4.0]], [5.0]).tolist())
print(nnkit.check_gradients(net, X[:5], y[:5]).max_error < 1e-12)
try:
    nnkit.get_backend("standard:array_api_strict")
except nnkit.BackendUnavailableError as error:
    print(error)
print(nnkit.doctor.report())
"""


def test_numpy_alone_suffices(tmp_path: Path) -> None:
    """In a checkout where nothing is installed but NumPy."""
    names = {re.split(r"[<>=\[]", line)[0] for key in ("dependencies",) for line in PROJECT["project"][key]}
    extras = {
        re.split(r"[<>=\[]", line)[0]
        for lines in PROJECT["project"]["optional-dependencies"].values()
        for line in lines
    }
    missing = [name.replace("-", "_") for name in (names | extras) - {"numpy"}] + ["cupy", "sklearn", "pandas"]
    assert {"threadpoolctl", "tqdm", "array_api_compat", "scipy"} <= set(missing)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BARE.format(missing=missing)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:3] == ["True", "[[16.0]]", "True"]
    assert lines[3] == "standard: array-api-compat is not installed: python -m pip install array-api-compat"
    assert "  unknown: threadpoolctl is not installed: python -m pip install threadpoolctl" in lines
    assert (
        sum(line.startswith(("backend numpy works", "backend cupy does not work: CuPy is not")) for line in lines) == 2
    )


def test_the_doctor_works_with_broken_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that crashes as it is asked is what the report is read for."""

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("wrong ELF class")

    monkeypatch.setattr(nnkit.backends.numpy_backend.NumpyBackend, "describe", broken)
    monkeypatch.setattr(nnkit.doctor, "version", broken)
    monkeypatch.setitem(sys.modules, "threadpoolctl", types.SimpleNamespace(threadpool_info=broken))
    report = nnkit.doctor.report()
    assert "backend numpy does not work: OSError: wrong ELF class" in report
    assert "  unknown: OSError: wrong ELF class" in report
    assert "damaged (OSError: wrong ELF class)" in report


PUBLIC = (
    nnkit, nnkit.backends, nnkit.data, nnkit.plots, nnkit.schedules, nnkit.optimizers, nnkit.metrics,
    nnkit.initializers, nnkit.verify, nnkit.doctor, nnkit.callbacks,
)  # fmt: skip


def test_dir_shows_the_public_names() -> None:
    """In a new process, where nothing that is imported when used was used."""
    names = [module.__name__ for module in PUBLIC]
    code = f"""if True:
        import importlib
        modules = [importlib.import_module(name) for name in {names}]
        for m in modules: print(*dir(m))
        for m in modules: [getattr(m, name) for name in dir(m)]
        for m in modules: print(*dir(m))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = [line.split() for line in done.stdout.splitlines()]
    wanted = [sorted(module.__all__) for module in PUBLIC]
    assert shown == wanted + wanted
    assert not {"Any", "np", "annotations", "importlib"} & {name for names in wanted for name in names}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count as well: arrows point down only."""
    below_each = {name: {used for used in imports(path) if used in ALL} - {name} for name, path in ALL.items()}
    while leaves := [name for name, used in below_each.items() if not used]:
        for name in leaves:
            del below_each[name]
        below_each = {name: used.difference(leaves) for name, used in below_each.items()}
    assert not below_each, sorted(below_each)
