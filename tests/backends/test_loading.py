"""Ctrl-C, and what raises in any line, while libraries and machine code are loaded, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytest.importorskip("threadpoolctl")

START = """
import os, signal, sys
import numpy as np, nnkit
from nnkit.backends.cpu.native import compiler
from nnkit.backends.cpu.native.calls import NativeCall
def at_line(number, where, names, work, act):
    '''Whether `work` is interrupted, if `act` is called before a line of these functions.'''
    seen = 0
    def trace(frame, event, arg):
        nonlocal seen
        code = frame.f_code
        if event == "call" and not (where in code.co_filename and (not names or code.co_name in names)):
            return None
        seen += event == "line"
        if event == "line" and seen == number:
            act()
        return trace
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        sys.settrace(None)
    return "lost" if seen >= number else "ended"
def every_line(where, names, work, act):
    number = 1
    while (how := at_line(number, where, names, work, act)) == "interrupted":
        check()
        number += 1
    print(how, number > 5)
def fail():
    raise KeyboardInterrupt
def press():
    signal.raise_signal(signal.SIGINT)
TEXT = "def f(arguments):\\n    int64s(arguments[0])[0] = %d\\n"
def check():
    x = np.zeros(1, np.int64)
    for text in (TEXT % 1, TEXT % 2):
        NativeCall(compiler.address_of(text), np.array([x.ctypes.data]))()
        compiler._addresses.pop(text)
    assert x[0] == 2 and compiler.enabled()
def link():
    compiler.address_of(TEXT % 1)
def compile_again():
    for file in (compiler.cache_folder() / "native").glob("*"):
        file.unlink()
    link()
"""
LINKING = """
check()
every_line("/compiler.py", ("_linked", "_load", "_machine", "_read"), link, fail)
every_line("/compiler.py", ("_linked", "_load", "_machine", "_read", "address_of"), link, press)
"""
COMPILING = """
print(at_line(500, "/numba/", (), compile_again, press), "numba" in sys.modules)
check()
every_line("/compiler.py", ("_write",), compile_again, fail)
print({file.suffix for file in (compiler.cache_folder() / "native").iterdir()})
"""
SEARCHING = """
from nnkit.backends.cpu import products
def check():
    assert products.loaded_blas() is not None
def search():
    products._found = (None, None)
    products.loaded_blas()
check()
every_line("/products.py", ("loaded_blas", "_libraries_loaded", "note"), search, press)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize(
    ("program", "printed"),
    [
        (LINKING, "ended True\nended True\n"),
        (COMPILING, "interrupted True\nended True\n{'.o'}\n"),
        (SEARCHING, "ended True\n"),
    ],
    ids=["linking", "compiling", "searching"],
)
def test_an_interrupt_is_not_lost_and_leaves_nothing_broken(program: str, printed: str, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", START + program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.returncode) == (printed, 0), done.stderr
