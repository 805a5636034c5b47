"""BLAS threads while a network trains: one for small steps, and as many as before afterwards, whatever happens."""

import ast
import ctypes
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import nnkit
from nnkit.backends.cpu.products import blas_function, loaded_blas
from nnkit.training import blas_threads

X, LABELS = np.random.default_rng(0).normal(size=(20, 30)), np.arange(20) % 3


def counts() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    blas_function("gemm", "float32")  # SciPy's, which must be loaded to be limited
    with threadpool_limits(2, "blas"):
        if counts() != {2}:
            pytest.skip("this BLAS cannot be given two threads")
        yield


def train(**options: object) -> list[set[int]]:
    seen = []
    net = nnkit.Network([30, 8, 3], cost="softmax_cross_entropy", seed=0)
    net.fit(X, LABELS, epochs=2, callbacks=[lambda *_: seen.append(counts())], progress=False)
    assert counts() == {2}
    return seen


def test_small_steps_use_one_thread() -> None:
    assert train() == [{1}, {1}]


def test_large_steps_keep_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas_threads, "SMALL", 10)
    assert train() == [{2}, {2}]


def test_other_backends_keep_their_threads() -> None:
    with nnkit.using_backend("standard:array_api_strict"):
        assert train() == [{2}, {2}]


def test_an_error_restores_the_threads() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("in a callback")

    net = nnkit.Network([30, 8, 3], cost="softmax_cross_entropy", seed=0)
    with pytest.raises(RuntimeError, match="in a callback"):
        net.fit(X, LABELS, callbacks=[broken], progress=False)
    assert counts() == {2}
    assert net.recorded == {}


def test_steps_for_one_thread_are_recorded_again_afterwards() -> None:
    """Such a step may use SciPy's BLAS beside NumPy's: with two threads each that was 94 times slower."""
    net = nnkit.Network([30, 8, 3], cost="softmax_cross_entropy", seed=0)
    net.fit(X, LABELS, epochs=1, batch_size=20, optimizer=nnkit.SGD(0.1), progress=False)
    net.train_step(X, LABELS)
    (step,) = net.recorded.values()
    assert "add_product" not in {node.name for node in step.nodes}


def test_two_trainings_share_the_limit() -> None:
    """The first to end leaves the other with one thread; the last one gives the threads back."""
    first, second = (nnkit.Network([30, 8, 3], seed=0) for _ in range(2))
    one, two = blas_threads.threads_for(first, 20), blas_threads.threads_for(second, 20)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert counts() == {1}
    two.__exit__(None, None, None)
    assert counts() == {2}


SCRIPT = """
import numpy as np
from threadpoolctl import threadpool_info
from nnkit.training.blas_threads import _Use, _one_thread
first, second = _Use(), _Use()
def threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
_one_thread.enter(first)
import scipy.linalg.blas
print(threads())
_one_thread.enter(second)
print(threads())
_one_thread.leave(first)
print(threads())
_one_thread.leave(second)
print(threads())
"""


def test_a_blas_loaded_later_is_limited() -> None:
    """Else the training that came second would not use it, and have other bits than alone."""
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment | {"OPENBLAS_NUM_THREADS": "2"}
    )
    loaded, second, one_left, after = map(ast.literal_eval, done.stdout.splitlines())
    if len(loaded) < 2 or max(after) == 1:
        pytest.skip("NumPy and SciPy have no BLAS of their own here, or one thread")
    assert second == one_left == [1] * len(after)
    assert min(after) > 1


PREDICTS = """
import sys
import numpy as np, nnkit
net = nnkit.Network([4, 5, 3], seed=0)
net.predict(np.ones((7, 4)))
net.evaluate(np.ones((7, 4)), np.arange(7) % 3)
print(sorted(name for name in sys.modules if name.startswith("scipy")))
"""


def test_predictions_do_not_load_scipy() -> None:
    """Its import takes longer than thousands of them, and its threads would spin beside NumPy's."""
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    for _ in range(2):  # the first may compile native code, for which numba imports SciPy
        done = subprocess.run([sys.executable, "-c", PREDICTS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


FIRST = """
import numpy as np, nnkit
rng = np.random.default_rng(0)
X, y = rng.normal(size=(26, 4)), rng.integers(0, 3, 26)
def train():
    net = nnkit.Network([4, 5, 3], seed=3)
    net.fit(X, y, epochs=5, batch_size=6, optimizer=nnkit.SGD(0.1), progress=False)
    return net.parameters.flat.tobytes()
print(train() == train())
"""


def test_the_first_and_second_training_of_a_process_have_equal_bits() -> None:
    """SciPy's BLAS, which gradient descent loads, has the limit from the first step on."""
    pytest.importorskip("scipy.linalg.blas", reason="scipy is not installed")
    several = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=120, check=True, env=os.environ | several
    )
    assert done.stdout == "True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_has_all_threads_unless_it_trains() -> None:
    def counts_in_child() -> set[int]:
        child = os.fork()
        if child == 0:
            found = counts()
            os._exit(found.pop() if len(found) == 1 else 99)
        return {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}

    inside: list[set[int]] = []

    def look(*_: object) -> None:
        inside.append(counts_in_child())
        other = threading.Thread(target=lambda: inside.append(counts_in_child()))
        other.start()
        other.join()

    net = nnkit.Network([30, 8, 3], cost="softmax_cross_entropy", seed=0)
    net.fit(X, LABELS, epochs=1, callbacks=[look], progress=False)
    assert inside == [{1}, {2}]  # the child of the thread that trains goes on with its training
    assert counts() == {2}


def test_libraries_are_searched_again_after_one_was_loaded() -> None:
    found = loaded_blas()
    assert loaded_blas() is found
    name = "_ctypes_test" if "_ctypes_test" not in sys.modules else "xxlimited"
    module = importlib.util.find_spec(name)
    if module is None or module.origin is None:
        pytest.skip("this Python has no library that nobody needs")
    ctypes.CDLL(module.origin)  # without a module
    assert loaded_blas() is not found
    assert loaded_blas() is loaded_blas()


_BITS = """
import threading
import numpy as np, nnkit
X = np.random.default_rng(0).normal(size=(200, 3))
y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
def trained(optimizer, switch=None):
    network = nnkit.Network([3, 8, 3], "relu", seed=0)
    def callback(network, history):
        if history.epochs == 2 and switch is not None:
            network.optimizer = switch
    network.fit(X, y, epochs=4, batch_size=16, optimizer=optimizer, progress=False, callbacks=[callback])
    return network.parameters.vector.tobytes()
switched = [trained("adam", nnkit.SGD(0.1)) for _ in range(2)]  # the first loads SciPy's BLAS in the middle
plain = [trained("sgd")]
thread = threading.Thread(target=lambda: plain.append(trained("sgd")))
thread.start(); thread.join()
plain.append(trained("sgd"))
print(len(set(switched)), len(set(plain)))
"""


def test_bits_do_not_depend_on_the_thread_or_on_what_is_loaded() -> None:
    """Plain descent uses SciPy's BLAS, if it has one thread; threadpoolctl 3.8 sets threads from one thread only."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["NNKIT_NATIVE"] = "0"
    done = subprocess.run([sys.executable, "-c", _BITS], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 1\n", "")
