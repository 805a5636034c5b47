"""The mutation runner, on a small package of its own: what tests see is killed, what they do not see survives."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.mutate import belonging, choice, choice_of_all, fitting, mutations, passes

SOURCE = '''\
"""A module of 2 functions."""


def larger(a: float, b: float, strict: bool = True) -> bool:
    """Whether a > b."""
    return a > b if strict else not a < b


def total(x, β=0):
    return x.sum(axis=0) + β  # β is of two bytes
'''
HALF = "def half(x):\n    return x / 2\n"
WEAK = "from nnkit.tiny import half\ndef test_half(): assert half(0) == 0\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one module and one test."""
    for name, text in {"nnkit/__init__.py": "", "nnkit/tiny.py": HALF, "tests/test_other.py": WEAK}.items():
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "repository", check=True)
    return tmp_path / "repository"


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The runner, in a process of its own; nothing may stay in its temporary folder."""
    temporary = checkout.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(temporary)}
    before = {path: path.read_bytes() for path in checkout.rglob("*.py")}
    # Not in the repository, whose tests would be found in the place of these.
    code = "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from tests.support import mutate; "
    code += "os.chdir(sys.argv.pop(1)); sys.exit(mutate.main())"
    command = [sys.executable, "-c", code, str(ROOT), str(checkout), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert list(temporary.iterdir()) == []
    assert {path: path.read_bytes() for path in checkout.rglob("*.py")} == before
    return done


def test_each_change_is_made_once() -> None:
    source = SOURCE.encode()
    made = [mutation.applied(source).decode() for mutation in mutations(source)]
    assert len(set(made)) == len(made) == 10
    for old, new in {
        "True": "False", "return a > b if strict else not a < b": "pass",
        "a > b if": "(a >= b) if", "not a < b": "(a < b)", "a < b": "(a <= b)", "β=0):": "β=(-1)):",
        "return x.sum(axis=0) + β": "pass", "x.sum(axis=0)": "x.sum(axis=1)",
        "x.sum(axis=0) + β": "(x.sum(axis=0) - β)",
    }.items():  # fmt: skip
        assert SOURCE.replace(f" {old}", f" {new}") in made


def test_a_file_without_changes_is_unchanged() -> None:
    assert mutations(b"limit = 1e30") == []
    assert [mutation.after for mutation in mutations(b"limit = 1e-3")] == ["(-0.999)", "(1.001)"]


def test_equal_seeds_choose_equal_changes() -> None:
    everything = mutations(SOURCE.encode())
    assert choice(everything, 3, 1) == choice(everything, 3, 1) != choice(everything, 3, 2)
    assert sorted(choice(everything, 20, 1), key=everything.index) == everything


def test_changes_are_chosen_among_all_files() -> None:
    everything = {"large": mutations(SOURCE.encode() * 20), "small": mutations(HALF.encode()), "none": []}
    chosen = choice_of_all(everything, 102, 1)
    assert len(chosen["large"]) + len(chosen["small"]) == 102
    assert set(chosen["large"]) < set(everything["large"])
    assert chosen == choice_of_all(everything, 102, 1) != choice_of_all(everything, 102, 2)
    assert {file: len(found) for file, found in choice_of_all(everything, 300, 1).items()} == {
        file: len(found) for file, found in everything.items()
    }


def test_tests_within_the_time_limit_are_run(checkout: Path) -> None:
    slow, known, other = "tests/test_slow.py", "tests/test_known.py", "tests/test_other.py"
    measured = {slow: 40.0, known: 4.0}
    assert fitting(checkout, [slow, known, other], 30.0, measured) == [known, other]
    assert 0 < measured[other] < 26
    assert fitting(checkout, [known, other, slow], 5.0, {slow: 2.0, known: 2.0, other: 4.0}) == [known, slow]


def test_a_surviving_change_is_reported(checkout: Path) -> None:
    done = run(checkout, "nnkit/tiny.py")
    assert done.returncode == 1, done.stdout + done.stderr
    survivors = [line.partition(" survives: ")[2] for line in done.stdout.splitlines() if "survives" in line]
    assert sorted(survivors) == ["2  →  (1)", "2  →  (3)", "x / 2  →  (x * 2)"]
    assert done.stdout.splitlines()[-1] == "nnkit/: 1 of 4 killed"


def test_an_endless_test_is_stopped(checkout: Path) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    (checkout / "tests" / "test_endless.py").write_text(
        f"import pathlib, subprocess, sys\ndef test_endless():\n    made = {child}\n"
        "    pathlib.Path('child').write_text(str(made.pid))\n    made.wait()\n"
    )
    for seconds in (2.0, 10.0, 60.0):  # until the test has begun, which takes longer on a busy machine
        assert passes(checkout, ["tests/test_endless.py"], seconds) == (False, f"timed out after {seconds} s")
        if (checkout / "child").exists():
            break
    status = Path("/proc", (checkout / "child").read_text(), "stat")

    def ended() -> bool:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"  # not yet fetched

    until = time.monotonic() + 10  # the system ends a killed process when that has its turn
    while not ended() and time.monotonic() < until:
        time.sleep(0.01)
    assert ended()


def test_tests_that_fail_without_a_change_do_not_count(checkout: Path) -> None:
    (checkout / "tests" / "test_other.py").write_text(
        "from nnkit.tiny import half\ndef test_half(): assert half(2) == 2\n"
    )
    done = run(checkout, "nnkit/tiny.py")
    assert done.returncode == 1
    assert "tests/test_other.py fails without any change" in done.stderr


def test_tests_are_found_by_what_they_import(checkout: Path) -> None:
    (checkout / "nnkit" / "user.py").write_text("from nnkit.hidden import f\ndef g(): return f()\n")
    (checkout / "nnkit" / "hidden.py").write_text("def f(): return 1\n")
    (checkout / "tests" / "test_user.py").write_text("import nnkit.user\n")
    (checkout / "tests" / "test_tiny_things.py").write_text("import nnkit.tiny\n")
    assert belonging(checkout, "nnkit/tiny.py") == ["tests/test_tiny_things.py", "tests/test_other.py"]
    assert belonging(checkout, "nnkit/hidden.py") == ["tests/test_user.py"]  # through what imports it
