"""Ctrl-C, as a person presses it: the step that runs is finished, and the network is usable."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.training.stopping import interruptible

SCRIPT = """
import os, signal, threading, time
import numpy as np, nnkit
X, y = nnkit.data.digits()
net = nnkit.Network([64, 30, 10], seed=0)
def press(net, history):
    if history.epochs == 3:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
history = net.fit(X, y, epochs=100000, optimizer=nnkit.SGD(0.5), callbacks=[press], progress=False)
print(history.interrupted, history.epochs >= 3, net.evaluate(X, y)["accuracy"] > 0.5)
again = net.fit(X, y, epochs=1, progress=False)
print(again.interrupted, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_ends_a_training(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("signals are those of POSIX")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["True True True", "False True"]


def test_a_second_ctrl_c_acts_at_once_outside_of_steps() -> None:
    with interruptible() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        assert interrupt.presses == 1
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        signal.raise_signal(signal.SIGINT)  # as in a step, which is finished
        with pytest.raises(KeyboardInterrupt), interrupt.at_once:
            raise AssertionError("it has been pressed twice")
    with interruptible() as interrupt:
        with interrupt.at_once:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_custom_signal_handler_is_kept() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with interruptible() as interrupt:
            signal.raise_signal(signal.SIGINT)
            interrupt.check()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


def test_other_threads_can_train() -> None:
    found = []

    def work() -> None:
        net = nnkit.Network([2, 1], seed=0)
        found.append(net.fit(np.ones((3, 2)), [0, 1, 1], epochs=2, progress=False).epochs)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [2]
