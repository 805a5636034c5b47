"""The page on adding an activation, followed word by word in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PAGE = (ROOT / "docs" / "contributing" / "activation.md").read_text(encoding="utf-8")


def changed(text: str, block: str) -> str:
    """A file with a block of the page: appended, if it begins with an empty line; else its first lines are in the file.

    Of a list of names, the first one is.
    """
    if block.startswith("\n"):
        return text + block
    if block.startswith('"'):
        first = block.split(maxsplit=1)[0]
        assert text.count(first) == 1
        return text.replace(first, block.rstrip("\n"))
    lines = block.splitlines(keepends=True)
    kept = max(n for n in range(1, len(lines)) if "".join(lines[:n]) in text)
    anchor = "".join(lines[:kept])
    assert text.count(anchor) == 1
    return text.replace(anchor, block)


@pytest.mark.skipif(os.name != "posix", reason="the copy has the link of a checkout")
def test_an_activation_is_added_by_following_the_page(tmp_path: Path) -> None:
    for folder in ("nnkit", "backends", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.nbc", "*.nbi")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / file, tmp_path)
    blocks = re.findall(r"```\{code-block\} python\n:caption: (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert len({file for file, _ in blocks}) == 6
    for file, block in blocks:
        path = tmp_path / file
        path.write_text(changed(path.read_text(encoding="utf-8"), block), encoding="utf-8")
    command = re.search(r"```sh\npython (-m pytest .*)\n```", PAGE)
    assert command is not None
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NNKIT_NATIVE": "0"}
    done = subprocess.run(
        [sys.executable, *command[1].split(), "-q", "-p", "no:cacheprovider", "-k", "squared_relu or definition_here"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 5, done.stdout
