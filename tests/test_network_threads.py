"""One network and many threads: who asks gets right answers, and one thread at a time may change it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import selection
from nnkit.placement import Turn

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(40, 6)), np.arange(40) % 3
BUSY = "another thread is training or moving this network"


def network(drops: bool = False, **options: Any) -> nnkit.Network:
    layers = [nnkit.Dense(6, 16, "tanh"), *([nnkit.Dropout(0.3)] if drops else []), nnkit.Dense(16, 3)]
    return nnkit.Network(layers, cost="softmax_cross_entropy", seed=0, **options)


@pytest.fixture(autouse=True)
def eager_threads() -> Any:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], object], seconds: float = 60.0) -> None:
    """Do these at the same time, each in a thread; raises the first error of one."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


class Meanwhile:
    """In the `with` block another thread changes a network: it waits inside of a callback of fit."""

    def __init__(self, net: nnkit.Network, **options: Any) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        chosen: dict[str, Any] = {"epochs": 1, "progress": False, "callbacks": [self.wait]} | options
        self.thread = threading.Thread(target=lambda: net.fit(X, LABELS, **chosen), daemon=True)

    def wait(self, *_: object) -> None:
        self.inside.set()
        assert self.leave.wait(30)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.inside.wait(30)

    def __exit__(self, *_: object) -> None:
        self.leave.set()
        self.thread.join(30)


class Held:
    """In the `with` block another thread holds a lock."""

    def __init__(self, lock: Any) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, args=(lock,), daemon=True)

    def hold(self, lock: Any) -> None:
        with lock:
            self.inside.set()
            assert self.leave.wait(30)

    def __enter__(self) -> None:
        self.thread.start()
        assert self.inside.wait(30)

    def __exit__(self, *_: object) -> None:
        self.leave.set()
        self.thread.join(30)


def flat(gradients: list[tuple[Any, Any]]) -> np.ndarray:
    return np.concatenate([np.asarray(a).ravel() for pair in gradients for a in pair])


def check_gradients_in_threads(threads: int, times: int) -> None:
    """The same bits as alone; with shared buffers about one in five was wrong."""
    net = nnkit.Network([784, 64, 10], "relu", cost="softmax_cross_entropy", seed=0)
    data = [(RNG.normal(size=(64, 784)), RNG.integers(0, 10, 64)) for _ in range(threads)]
    expected = [net.gradients(*each) for each in data]
    wrong: list[int] = []

    def work(number: int) -> None:
        cost, gradients = expected[number]
        for _ in range(times):
            found = net.gradients(*data[number])
            if found[0] != cost or not np.array_equal(flat(found[1]), flat(gradients)):
                wrong.append(number)

    together(*(partial(work, number) for number in range(threads)))
    assert wrong == []


def test_gradients_from_several_threads_are_correct() -> None:
    check_gradients_in_threads(4, 40)


@pytest.mark.campaign
def test_gradients_from_many_threads_are_correct() -> None:
    check_gradients_in_threads(16, 1000)


def test_gradients_during_fit_are_correct_and_do_not_disturb_it() -> None:
    """Also where minibatches' gradients are added up, in buffers that were the same."""
    alone, beside = network(), network()
    options: dict[str, Any] = {"epochs": 30, "batch_size": 4, "gradient_accumulation_steps": 2, "progress": False}
    alone.fit(X, LABELS, **options)
    running = True

    def train() -> None:
        nonlocal running
        beside.fit(X, LABELS, **options)
        running = False

    def ask() -> None:
        while running:
            cost, gradients = beside.gradients(X, LABELS)
            assert np.isfinite(flat(gradients)).all()
            assert 0 < float(cost) < 3

    together(train, ask, ask)
    assert beside.parameters.flat.tobytes() == alone.parameters.flat.tobytes()


def test_gradients_with_dropout_draw_one_after_the_other() -> None:
    net, twin = network(drops=True), network(drops=True)
    together(*[lambda: [net.gradients(X, LABELS, training=True) for _ in range(20)]] * 3)
    for _ in range(60):
        twin.gradients(X, LABELS, training=True)
    found, expected = (flat(each.gradients(X, LABELS, training=True)[1]) for each in (net, twin))
    assert np.array_equal(found, expected)
    with Meanwhile(net):
        net.gradients(X, LABELS)
        with pytest.raises(RuntimeError, match=BUSY):
            net.gradients(X, LABELS, training=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda net, path: net.train_step(X, LABELS),
        lambda net, path: net.fit(X, LABELS, epochs=1, progress=False),
        lambda net, path: net.partial_fit(X, LABELS),
        lambda net, path: net.to("standard:array_api_strict"),
        lambda net, path: net.fit(X, LABELS, epochs=2, progress=False, checkpoint=path, resume=True),
    ],
)
def test_two_threads_cannot_change_one_network(change: Callable[[nnkit.Network, Path], object], tmp_path: Path) -> None:
    net = network()
    net.fit(X, LABELS, epochs=1, progress=False, checkpoint=tmp_path / "run.safetensors")
    before = (net.optimizer, net.state, net.classes, net.epochs_trained, net.seed, net.placement)
    with Meanwhile(net):
        numbers = net.parameters.flat.copy()
        with pytest.raises(RuntimeError, match=BUSY):
            change(net, tmp_path / "run.safetensors")
        assert np.array_equal(net.parameters.flat, numbers)
        assert (net.optimizer, net.state, net.classes, net.epochs_trained - 1, net.seed, net.placement) == before
        assert change(network(), tmp_path / "run.safetensors") is not None  # another network may
    assert change(net, tmp_path / "run.safetensors") is not None


def test_a_thread_that_begins_in_the_middle_of_a_step_is_refused() -> None:
    """Many threads at once: each step is done whole by one of them, or not at all."""
    net, twin = network(), network()
    done: list[int] = []

    def work() -> None:
        for _ in range(50):
            with suppress(RuntimeError):
                net.train_step(X, LABELS)
                done.append(1)

    together(*[work] * 4)
    for _ in done:
        twin.train_step(X, LABELS)
    assert net.parameters.flat.tobytes() == twin.parameters.flat.tobytes()


def test_a_callback_may_change_its_network(tmp_path: Path) -> None:
    net = network(drops=True)
    seen: list[Any] = []

    def callback(net: nnkit.Network, history: nnkit.History) -> None:
        seen.append([net.predict(X), net.evaluate(X, LABELS), net.gradients(X, LABELS, training=True)])
        net.save(tmp_path / "net.safetensors")
        net.train_step(X, LABELS)

    assert net.fit(X, LABELS, epochs=2, progress=False, callbacks=[callback]).epochs == len(seen) == 2
    together(lambda: net.train_step(X, LABELS))


def test_networks_in_threads_share_optimizers_schedules_and_rules() -> None:
    """Each has its own state of them: all are as they are alone."""
    optimizer = nnkit.Adam(0.01, clip_norm=1.0)
    schedule = nnkit.schedules.reduce_on_plateau("cost", patience=1, min_delta=0.1)
    rule = nnkit.EarlyStopping("cost", patience=15)
    options: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "early_stopping": rule, "batch_size": 8}
    options |= {"epochs": 20, "metrics": ["mae"], "progress": False}
    alone, beside = ([nnkit.Network([6, 5, 3], "tanh", seed=seed) for seed in range(4)] for _ in range(2))
    expected = [net.fit(X, LABELS, **options) for net in alone]
    found: dict[int, nnkit.History] = {}
    together(*(partial(lambda i: found.update({i: beside[i].fit(X, LABELS, **options)}), i) for i in range(4)))
    for i, net in enumerate(beside):
        assert net.parameters.flat.tobytes() == alone[i].parameters.flat.tobytes()
        assert found[i]["cost"] == expected[i]["cost"]
        assert found[i]["learning_rate"] == expected[i]["learning_rate"]


def test_an_error_releases_the_lock() -> None:
    net = network()

    def fail(*_: object) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        net.fit(X, LABELS, progress=False, callbacks=[fail])
    with pytest.raises(ValueError, match="X has shape"):
        net.train_step(X[:, 1:], LABELS)
    together(lambda: net.train_step(X, LABELS))


def answers(net: nnkit.Network) -> list[np.ndarray]:
    found = [net.predict_proba(X[:3]), net.predict_proba(X), net.logits(X[:1]), net.gradients(X, LABELS)[0]]
    return [np.asarray(each) for each in found] + [np.array(list(net.evaluate(X, LABELS).values()))]


def check_answers_meanwhile(net: nnkit.Network, change: Callable[[], object], times: int) -> int:
    """While one thread does something again and again that leaves the parameters as they are, all answers are right."""
    expected, running, asked = answers(net), True, 0

    def work() -> None:
        nonlocal running
        try:
            for _ in range(times):
                change()
        finally:
            running = False

    def ask() -> None:
        nonlocal asked
        while running:
            for found, right in zip(answers(net), expected, strict=True):
                np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
            asked += 1

    together(work, ask, ask)
    return asked


def move(net: nnkit.Network) -> None:
    net.to("standard:array_api_strict")
    net.to("numpy")


def test_predictions_while_the_network_moves() -> None:
    net = network(drops=True)
    net.train_step(X, LABELS, nnkit.Adam())
    assert check_answers_meanwhile(net, lambda: move(net), 60) > 0


@pytest.mark.campaign
def test_predictions_while_the_network_moves_often() -> None:
    net = network(drops=True)
    net.train_step(X, LABELS, nnkit.Adam())
    check_answers_meanwhile(net, lambda: move(net), 5000)


def test_predictions_while_a_training_is_resumed(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "run.safetensors"
    net.fit(X, LABELS, epochs=2, progress=False, checkpoint=path)

    def resume() -> None:
        net.fit(X, LABELS, epochs=2, progress=False, checkpoint=path, resume=True)

    assert check_answers_meanwhile(net, resume, 40) > 0


def test_predictions_during_a_fit() -> None:
    """Each answer is of parameters on their way: here all of them predict class 1 ever more surely."""
    net = nnkit.Network([6, 3], cost="softmax_cross_entropy", init="zeros", seed=0)
    running = True

    def train() -> None:
        nonlocal running
        net.fit(np.ones((40, 6)), np.ones(40, int), epochs=200, batch_size=8, optimizer=nnkit.SGD(0.01), progress=False)
        running = False

    def ask() -> None:
        before = 0.0
        while running:
            now = float(net.predict_proba(np.ones((1, 6)))[0, 1])
            assert 1 / 3 - 1e-6 < now < 1
            assert now > before - 1e-6
            before = now

    together(train, ask, ask, ask)


def test_concurrent_predictions_each_have_a_recorded_pass() -> None:
    net = network()
    for _ in range(2):
        net.predict(X[:1])
    place = net.placement
    held = [place.take("pass", 1, net._pass, place, 1) for _ in range(3)]
    assert len({id(each.it) for each in held if each is not None}) == 3
    assert all(idle == [] for idle in place._idle.values())
    for each in held:
        assert each is not None
        place.leave(each)
    assert place.take("pass", 1, net._pass, place, 1) in held


def test_few_kinds_of_recordings_are_kept() -> None:
    net = network()
    for n in [*range(1, 30), *range(1, 30)]:
        for _ in range(3):
            net.predict(np.ones((n, 6)))
            net.evaluate(np.ones((n, 6)), [0] * n)
            net.gradients(np.ones((n, 6)), [0] * n)
    assert sum(len(idle) for idle in net.placement._idle.values()) <= 9


EVENTS = ("call", "c_return")  # where Ctrl-C can come: at the start of a function, and after a call of a compiled one


def interrupted_at(number: int, work: Callable[[], object]) -> bool:
    """Whether some work was ended by Ctrl-C at its event of this number."""
    count = 0

    def watch(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        if event in EVENTS and "nnkit" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
            if count == number:
                sys.setprofile(None)
                raise KeyboardInterrupt
            count += 1

    sys.setprofile(watch)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("name", ["predict", "gradients", "train_step"])
def test_ctrl_c_anywhere_leaves_nothing_locked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    ask: dict[str, Callable[[], object]] = {
        "predict": lambda: net.predict(X[:1]),
        "gradients": lambda: net.gradients(X, LABELS),
        "train_step": lambda: net.train_step(X, LABELS),
    }
    net.train_step(X, LABELS)
    for _ in range(3):
        ask[name]()
    number = 0
    while interrupted_at(number, ask[name]):
        together(lambda: net.train_step(X, LABELS))  # another thread has its turn
        ask[name]()  # what was taken is recorded anew
        number += 1
    assert number > 20
    monkeypatch.setattr("nnkit.layers.layer_forward", None)
    ask[name]()


def test_the_lock_is_reentrant() -> None:
    turn = Turn()
    with turn, turn:
        pass
    with turn:
        with turn:
            pass
        with pytest.raises(RuntimeError, match=BUSY):
            together(turn.__enter__)
    together(turn.__enter__)


def in_child(work: Callable[[], object]) -> None:
    """Do some work in a forked process; AssertionError unless it ends well, within ten seconds."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(10)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork is not on this system")
several = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@forks
@several
def test_a_child_process_has_its_own_lock() -> None:
    net = network(drops=True)
    with Meanwhile(net):
        in_child(lambda: net.fit(X, LABELS, epochs=1, progress=False))
        in_child(lambda: net.gradients(X, LABELS, training=True))
        with pytest.raises(RuntimeError, match=BUSY):
            net.train_step(X, LABELS)
    with Held(net.turn.queue):
        in_child(lambda: net.gradients(X, LABELS, training=True))
    assert net.train_step(X, LABELS) is not None


@forks
@several
def test_a_callback_forks() -> None:
    net = network()

    def fork(net: nnkit.Network, history: nnkit.History) -> None:
        in_child(lambda: (net.train_step(X, LABELS), net.fit(X, LABELS, epochs=1, progress=False)))

    assert net.fit(X, LABELS, epochs=2, callbacks=[fork], progress=False).epochs == 2


@forks
@several
def test_a_child_process_does_not_hold_the_lock_of_a_checkpoint(tmp_path: Path) -> None:
    """It ends with the process that took it, whoever was forked meanwhile; a child that leaves fit does not free it."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    script = f"""
import os, signal, sys, time
import numpy as np, nnkit
def fork(net, history):
    if os.fork() == 0:
        os.close(1)
        time.sleep(30)
        os._exit(0)
    print("forked", flush=True)
    time.sleep(30)
options = dict(checkpoint={str(path)!r}, callbacks=[fork], progress=False)
nnkit.Network([6, 3], seed=0).fit(np.ones((4, 6)), [0, 1, 2, 0], **options)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"forked\n"
            with pytest.raises(BlockingIOError, match="another process is training"):
                network().fit(X, LABELS, epochs=1, checkpoint=path, progress=False)
            process.kill()
            process.wait(10)
            assert network().fit(X, LABELS, epochs=1, checkpoint=path, progress=False).epochs == 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def refused() -> None:
        with pytest.raises(BlockingIOError):
            network().fit(X, LABELS, checkpoint=path, progress=False)

    def leave(*_: object) -> None:
        child = os.fork()
        if child == 0:
            raise SystemExit
        os.waitpid(child, 0)
        in_child(refused)

    parent = os.getpid()
    try:
        network().fit(X, LABELS, epochs=1, checkpoint=path, callbacks=[leave], progress=False)
    finally:
        if os.getpid() != parent:
            os._exit(0)


@forks
@several
def test_backends_are_made_in_a_child_while_a_thread_of_the_parent_makes_one() -> None:
    for package in ("array_api_compat", "array_api_strict"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    with Held(selection._lock):
        in_child(lambda: selection.make_backend("standard:array_api_strict:device1"))


def check_forks_while_training(seconds: float) -> None:
    """Some of ten children waited for ever for locks that threads had which they do not have."""
    running = True

    def train() -> None:
        while running:
            network().fit(X, LABELS, epochs=2)

    def fork() -> None:
        nonlocal running
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                in_child(lambda: network().fit(X, LABELS, epochs=1))  # with the default bar, whose lock is tqdm's
        finally:
            running = False

    together(train, train, fork, seconds=seconds + 60)


@forks
@several
def test_forks_while_threads_train() -> None:
    check_forks_while_training(1.5)


@forks
@several
@pytest.mark.campaign
def test_many_forks_while_threads_train() -> None:
    check_forks_while_training(300.0)
