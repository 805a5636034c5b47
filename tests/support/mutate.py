"""Mutation testing: `python -m tests.support.mutate [FILE ...]` changes the source and lists changes no test detects.

It mutates a copy of the checkout at random places, one at a time, and runs the tests related to the changed file, as
many as fit into a time limit. A mutation that passes them has survived: a test is missing or was left out, or the
mutation does not alter behaviour. By default, files that differ from the base revision are mutated. The exit status is
1 if less than 9 of 10 mutations are killed in any directory.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
OPERATORS: dict[type[ast.AST], Callable[[], ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.USub: ast.UAdd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A change of a file: `after` replaces the text from byte `start` to `end`."""

    line: int
    start: int
    end: int
    after: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]

    def shown(self, source: bytes) -> str:
        before = " ".join(source[self.start : self.end].decode().split())
        return f"{before}  →  {' '.join(self.after.split())}"


def mutations(source: bytes) -> list[Mutation]:
    """All mutations of this source, in order; docstrings, annotations and f-strings are not mutated."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, after in _changes(ast.parse(source), ""):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 0) - 1]
        found.append(Mutation(node.lineno, start, end + (node.end_col_offset or 0), after))
    return sorted(found, key=lambda m: (m.start, m.end, m.after))


def _changes(node: ast.AST, keyword: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The replaceable nodes below a node, each with its replacement; `keyword` is the name of its argument."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.stmt):
        if _may_be_dropped(node):
            yield node, "pass"
    elif isinstance(node, ast.expr):
        for other in _others(node, keyword):
            yield node, other
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, node.arg or "" if isinstance(node, ast.keyword) else "")


def _may_be_dropped(node: ast.stmt) -> bool:
    """Whether the rest may run without a statement; without an assignment to a name, everything fails."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Return | ast.Delete | ast.Continue | ast.Break)


def _others(node: ast.expr, keyword: str) -> Iterator[str]:
    """The replacements of an expression."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield f"({ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))})"  # type: ignore[arg-type]
        case ast.Compare(left, ops, values):
            for i in range(len(ops)):
                changed = [OPERATORS[type(op)]() if j == i else op for j, op in enumerate(ops)]
                yield f"({ast.unparse(ast.Compare(left, changed, values))})"  # type: ignore[arg-type]
        case ast.BoolOp(op, values):
            yield f"({ast.unparse(ast.BoolOp(OPERATORS[type(op)](), values))})"  # type: ignore[arg-type]
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(bool() as value):
            yield repr(not value)
        case ast.Constant(value) if keyword in ("axis", "axes"):
            yield "0" if value is None else repr(1 - int(str(value)))
        case ast.Constant(int() | float() as value):
            yield from (f"({other!r})" for other in (value + 1, value - 1) if other != value)  # 1e30 + 1 is 1e30


def choice(everything: list[T], count: int, seed: int) -> list[T]:
    return random.Random(seed).sample(everything, min(count, len(everything)))


def choice_of_all(everything: dict[str, list[Mutation]], total: int, seed: int) -> dict[str, list[Mutation]]:
    """`total` mutations of all files together, by file, chosen in proportion to the possible mutations of a file."""
    chosen = choice([(file, mutation) for file, found in everything.items() for mutation in found], total, seed)
    return {file: [mutation for other, mutation in chosen if other == file] for file in everything}


def belonging(root: Path, file: str) -> list[str]:
    """The tests of a module, closest first: with the same name, those that use its names, those of its importers."""
    tests = {path: _names(path) for path in sorted((root / "tests").glob("**/test_*.py"))}
    source = {path: _names(path) for top in ("nnkit", "backends") for path in (root / top).rglob("*.py")}
    wanted, seen = {root / file}, set[Path]()
    found: list[Path] = []
    while wanted:
        modules = {_module(root, path) for path in wanted}
        defined = modules | {name for path in wanted for name in _public(path)} if not seen else modules
        stems = tuple(f"test_{path.stem}" for path in wanted)
        used = {path: 1000 * path.name.startswith(stems) + len(names & defined) for path, names in tests.items()}
        found += sorted((path for path in used if used[path] and path not in found), key=lambda path: -used[path])
        seen |= wanted
        wanted = {path for path, names in source.items() if names & modules and path not in seen}
    examples = file.replace("backends/", "nnkit/backends/", 1) if file.startswith("backends/") else file
    return ([examples] if b">>> " in (root / file).read_bytes() else []) + [str(p.relative_to(root)) for p in found]


def _names(path: Path) -> set[str]:
    """The modules that a file imports, with dots, and the names that it uses."""
    names = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def _public(path: Path) -> set[str]:
    body = ast.parse(path.read_bytes()).body
    named = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {name for name in named if not name.startswith("_")}


def _module(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((("nnkit",) if parts[0] == "backends" else ()) + tuple(p for p in parts if p != "__init__"))


def copied(root: Path, folder: Path) -> Path:
    """Copy a checkout's tracked files, and untracked ones that git does not ignore; links stay links."""
    listed = _git(root, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (root / name).is_symlink() or (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name, follow_symlinks=False)
    return folder


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def passes(copy: Path, tests: Sequence[str], timeout: float | None) -> tuple[bool, str]:
    """Whether the tests pass in a copy within `timeout` seconds, and their output; kills all their processes."""
    temporary = copy.parent / "temporary"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    # Without bytecode, whose cache would miss a file that is changed twice within a second and keeps its length.
    environment |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(temporary)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # faster
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(copy), *tests]
    process = subprocess.Popen(
        command, cwd=copy, env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with process:
        try:
            output = process.communicate(timeout=timeout)[0]
            return process.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), output
        except subprocess.TimeoutExpired:
            return False, f"timed out after {timeout} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(temporary, ignore_errors=True)


def fitting(copy: Path, tests: Sequence[str], limit: float, measured: dict[str, float]) -> list[str]:
    """The first tests that take at most `limit` seconds together; adds the time of each test to `measured`."""
    chosen, left = [], limit
    for test in tests:
        if test not in measured:
            began = time.monotonic()
            good, output = passes(copy, [test], limit)
            measured[test] = time.monotonic() - began
            if not good and measured[test] < limit:
                raise SystemExit(f"{test} fails without any change\n{output}")
        if measured[test] < left:
            chosen.append(test)
            left -= measured[test]
        if left < 0.1 * limit:
            break
    return chosen


def tried(copy: Path, file: str, tests: Sequence[str], chosen: Sequence[Mutation], timeout: float) -> int:
    """The number of mutations of a file killed by its tests; prints the surviving ones."""
    source = (copy / file).read_bytes()
    killed = 0
    for mutation in chosen:
        (copy / file).write_bytes(mutation.applied(source))
        survived = passes(copy, tests, timeout)[0]
        killed += not survived
        if survived:
            print(f"{file}:{mutation.line}: survives: {mutation.shown(source)}", flush=True)
    (copy / file).write_bytes(source)
    return killed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="source files; default: those that differ from --base")
    parser.add_argument("--count", type=int, default=20, help="mutations per file (default: 20)")
    parser.add_argument("--total", type=int, help="mutations of all files together, instead of --count")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of tests per mutation (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice (default: 0)")
    parser.add_argument("--base", default="main", help="the revision to compare with (default: main)")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="tests to run; default: those related to a file")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the copy is removed
    root = Path(_git(Path.cwd(), "rev-parse", "--show-toplevel").strip())
    files = [Path(file).resolve().relative_to(root).as_posix() for file in options.files]
    if not files:
        changed = _git(root, "diff", "--name-only", "--diff-filter=d", options.base, "--", "nnkit", "backends").split()
        files = [file for file in changed if file.endswith(".py")]
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as folder:
        copy = copied(root, Path(folder).resolve() / "checkout")
        everything = {file: mutations((copy / file).read_bytes()) for file in files}
        if options.total is None:
            choices = {file: choice(found, options.count, options.seed) for file, found in everything.items()}
        else:
            choices = choice_of_all(everything, options.total, options.seed)
        measured: dict[str, float] = {}
        for file, chosen in choices.items():
            if not chosen:
                continue
            tests = fitting(copy, options.tests or belonging(copy, file), options.limit, measured)
            print(f"{file}: {len(chosen)} of {len(everything[file])} changes, by {' '.join(tests)}", flush=True)
            killed = tried(copy, file, tests, chosen, 3 * sum(measured[test] for test in tests))
            print(f"{file}: {killed} of {len(chosen)} killed", flush=True)
            total = totals[str(Path(file).parent)]
            total[:] = total[0] + killed, total[1] + len(chosen)
    for name, (killed, count) in totals.items():
        print(f"{name}/: {killed} of {count} killed")
    return int(any(killed < 0.9 * count for killed, count in totals.values()))


if __name__ == "__main__":
    sys.exit(main())
