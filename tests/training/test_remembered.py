"""Schedules and metrics that are objects go on with what they remember, or a warning says that they do not."""

import copy
import logging
import math
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

pytest.importorskip("safetensors", reason="safetensors is not installed")

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(60, 3)), RNG.integers(0, 2, 60)


def fit(path: Path, epochs: int, schedule: Any, **options: Any) -> bytes:
    net = nnkit.Network([3, 4, 2], seed=0)
    given = {"schedule": schedule, "checkpoint": path, "resume": True, "progress": False} | options
    history = net.fit(X, LABELS, epochs=epochs, **given)
    return net.parameters.vector.tobytes() + repr((history["cost"], history["learning_rate"])).encode()


def resumes(folder: Path, trained: Callable[[Path, int], Any]) -> bool:
    """Whether a training in three parts gives what the uninterrupted one does."""
    whole = trained(folder / "whole", 4)
    return [trained(folder / "run", epochs) for epochs in (1, 2, 4)][-1] == whole  # type: ignore[no-any-return]


def goes_on(folder: Path, kind: Callable[[], Any]) -> bool:
    """Whether a schedule of this kind, an object of its own in each part, goes on."""
    return resumes(folder, lambda path, epochs: fit(path, epochs, kind()))


class Bold(nnkit.schedules.Schedule):
    """It remembers its factor."""

    uses_epochs = False

    def __init__(self, now: Any = 1.0) -> None:
        self.now, self.seen, self.last = now, list[float](), (0.0, "start")

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        self.now = self.now * 0.9
        self.seen.append(epoch)
        self.last = (epoch, "later")
        return float(self.now)


class Halving(Bold):
    """A callable object, as a schedule of the epoch alone and as a metric."""

    def __call__(self, epoch: Any, h: Any = None) -> float:
        return self.factor(0.0, 1.0, {})


@pytest.mark.parametrize(
    "kind",
    [
        Bold,
        Halving,
        lambda: Halving().__call__,
        lambda: partial(Halving(), h=None),
        lambda: nnkit.schedules.warmup(1, Bold()),
        lambda: Bold(np.float64(0.5)),
    ],
)
def test_schedules_and_metrics_go_on_with_what_they_remember(kind: Callable[[], Any], tmp_path: Path) -> None:
    def trained(path: Path, epochs: int) -> tuple[list[float], list[float], np.ndarray]:
        net, metric = nnkit.Network([3, 4, 2], seed=0), Halving()
        options: dict[str, Any] = {"schedule": kind(), "metrics": [metric], "validation_split": 0.25}
        history = net.fit(X, LABELS, epochs=epochs, checkpoint=path, resume=True, progress=False, **options)
        assert isinstance(metric.last, tuple)
        return history["learning_rate"], history["validation_Halving"], net.parameters.vector

    whole = trained(tmp_path / "whole", 4)
    trained(tmp_path / "run", 2)
    for found, wanted in zip(trained(tmp_path / "run", 4), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)


class Counting:
    """It counts by other means than an assignment of a method."""

    def __init__(self, by: str) -> None:
        self.n, self.by, self.first = 0, by, True
        self.all = np.zeros(3)
        self.one = self.all[:1]

    @property
    def next(self) -> int:
        self.n += 1
        return self.n

    def __call__(self, epoch: float) -> float:
        if self.by == "setattr":
            setattr(self, "n", self.n + 1)  # noqa: B010
        elif self.by == "object":
            object.__setattr__(self, "n", self.n + 1)
        elif self.by == "vars":
            vars(self)["n"] += 1
        elif self.by == "property":
            assert self.next
        elif self.by == "function":
            counts_one(self)
        elif self.by == "view":
            self.all += 1
            return float(1 / (1 + self.one[0]))
        elif hasattr(self, "first"):
            del self.first
            return 0.5
        return 1 / (1 + self.n)


def counts_one(counting: Any) -> None:
    counting.n += 1


class Around(nnkit.schedules.Schedule):
    """A schedule around an object that remembers."""

    uses_epochs = False

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        return float(self.inner(epoch))


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("by", ["setattr", "object", "vars", "property", "function", "view", "del"])
def test_schedules_go_on_however_they_change_their_attributes(by: str, around: bool, tmp_path: Path) -> None:
    assert goes_on(tmp_path, lambda: Around(Counting(by)) if around else Counting(by))


class Remembering:
    """A schedule of an epoch, whose attribute is set anew each time."""

    def __init__(self, given: Any) -> None:
        self.given, self.all = given, [0]

    def __call__(self, epoch: float) -> float:
        self.given = copy.copy(self.given)
        return 1.0


VALUES: list[Any] = [
    math.inf, -0.0, None, True, 10**400, "ä\n", (1, (2.0, "a")), {1: {"a": [0.5]}, (2, 3): ()}, {1, 2}, [[], {}],
    np.float32(0.1), np.int64(3), np.arange(6, dtype="int16").reshape(2, 3), np.zeros((0, 3)), np.array([math.inf]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_a_schedule_remembers_is_read_as_it_was(value: Any, tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, schedule=Remembering(value))
    again = Remembering("another")
    fit(tmp_path / "run", 4, schedule=again)
    assert type(again.given) is type(value)
    assert repr(again.given) == repr(value)
    assert getattr(again.given, "dtype", None) == getattr(value, "dtype", None)


class Changing:
    """A schedule that changes what is in its attribute."""

    def __init__(self, given: Any, change: Callable[[Any], Any]) -> None:
        self.given, self.change = given, change

    def __call__(self, epoch: float) -> float:
        changed = self.change(self.given)
        if changed is not None:
            self.given = changed
        return 1.0


class Entries(dict[int, int]):
    """A dict with an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "iterator": (lambda: iter(range(99)), lambda given: (next(given), None)[1]),
    "Counter": (Counter, lambda given: given.update("a")),
    "within": (lambda: {1: Counter()}, lambda given: given[1].update("a")),
    "deque": (deque, lambda given: given.append(1)),
    "generator": (lambda: np.random.default_rng(0), lambda given: (given.random(), None)[1]),
    "masked": (lambda: np.ma.ones(2), lambda given: given * 2),
    "complex": (lambda: 1j, lambda given: given + 1j),
    "enumeration": (lambda: signal.SIGINT, lambda given: signal.SIGTERM),
    "bytes": (lambda: b"a", lambda given: given + b"a"),
    "function": (lambda: math.sin, lambda given: math.cos),
    "method": (lambda: deque().append, lambda given: given(1)),
    "objects": (lambda: [Counting("vars")], lambda given: (given[0](0.0), None)[1]),
    "large": (lambda: np.zeros(2_000_000, "int8"), lambda given: np.add(given, 1, out=given) is None or None),
    "network": (lambda: nnkit.Network([2, 2], seed=1), lambda given: (given.train_step([[1, 2]], [0]), None)[1]),
    "history": (nnkit.History, lambda given: given.add(cost=1.0)),
    "dict": (lambda: Entries(), lambda given: given.update({len(given): 1})),
    "huge": (lambda: 10**5000, lambda given: given + 1),
}


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_and_cannot_be_in_the_file_is_told(name: str, around: bool, tmp_path: Path) -> None:
    make, change = CHANGES[name]

    def schedule() -> Any:
        return Around(Changing(make(), change)) if around else Changing(make(), change)

    fit(tmp_path / "run", 2, schedule())
    at = r"inner\.given" if around else "given"
    with pytest.warns(UserWarning, match=f"what its schedule remembers in '{at}' is not in the file; numbers"):
        fit(tmp_path / "run", 4, schedule())


@pytest.mark.parametrize(
    "make",
    [*(make for make, _ in CHANGES.values()), threading.Lock, lambda: logging, lambda: logging.getLogger("a"),
     lambda: int, lambda: (1, "a", (b"b", 2j))],
    ids=[*CHANGES, "lock", "module", "logger", "class", "tuple"],
)  # fmt: skip
def test_what_does_not_change_is_not_told(make: Callable[[], Any], tmp_path: Path) -> None:
    assert goes_on(tmp_path, lambda: Changing(make(), lambda given: None))


def of_other_libraries() -> list[Any]:
    """Objects of other libraries, which they copy and compare in ways of their own."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Linear(2, 2)
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    return [torch.ones(3), module, frame, linear_model.LogisticRegression().fit(X, LABELS), re.compile("a")]


def test_objects_of_other_libraries_are_compared(tmp_path: Path) -> None:
    def changed(given: list[Any]) -> None:
        given[1].weight.data.mul_(2.0)

    assert goes_on(tmp_path, lambda: Changing(of_other_libraries(), lambda given: None))
    fit(tmp_path / "changed", 2, Changing(of_other_libraries(), changed))
    with pytest.warns(UserWarning, match="what its schedule remembers in 'given' is not in the file"):
        fit(tmp_path / "changed", 4, Changing(of_other_libraries(), changed))


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log:
        fit(tmp_path / "run", 2, Changing(log, lambda given: None))
        with pytest.warns(UserWarning, match="what its schedule remembers in 'given' is not in the file"):
            fit(tmp_path / "run", 4, Changing(log, lambda given: None))


@dataclass(slots=True)
class Slotted:
    rates: list[float] = field(default_factory=list)
    seen: dict[float, int] = field(default_factory=dict)
    all: set[float] = field(default_factory=set)

    def __call__(self, epoch: float) -> float:
        self.rates.append(epoch)
        self.seen[epoch] = 1
        self.all.add(epoch)
        return 1 / (1 + len(self.rates) + len(self.seen) + len(self.all))


class Private:
    __slots__ = ("__seen",)

    def __init__(self) -> None:
        self.__seen = list[float]()

    def __call__(self, epoch: float) -> float:
        self.__seen.append(epoch)
        return 1 / (1 + len(self.__seen))


class ReadOnly:
    """A property with the name of the number in which its values are."""

    def __init__(self) -> None:
        vars(self)["rate"] = 1.0

    @property
    def rate(self) -> float:
        return float(vars(self)["rate"])

    def __call__(self, epoch: float) -> float:
        vars(self)["rate"] *= 0.9
        return self.rate


class Itself(dict[int, int]):
    """A schedule that is a dict."""

    def __call__(self, epoch: float) -> float:
        self[len(self)] = 1
        return 1.0


def test_entries_of_a_schedule_are_told(tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, Itself())
    with pytest.warns(UserWarning, match="what its schedule remembers in 'items' is not in the file"):
        fit(tmp_path / "run", 4, Itself())


class Rated(nnkit.schedules.Schedule):
    """A schedule that changes an optimizer's number, and knows the network that is trained."""

    uses_epochs = False

    def __init__(self) -> None:
        self.inner, self.net = nnkit.Adam(1.0), None

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        self.inner.learning_rate *= 0.9
        return self.inner.learning_rate


def test_the_network_that_is_trained_is_not_told(tmp_path: Path) -> None:
    def trained(path: Path, epochs: int) -> bytes:
        net, schedule = nnkit.Network([3, 4, 2], seed=0), Rated()
        schedule.net = net  # type: ignore[assignment]
        options: dict[str, Any] = {"checkpoint": path, "resume": True, "progress": False, "optimizer": "adam"}
        net.fit(X, LABELS, epochs=epochs, schedule=schedule, **options)
        return net.parameters.vector.tobytes()

    assert resumes(tmp_path, trained)


class First:
    """It deletes its only attribute."""

    def __init__(self) -> None:
        self.first = True

    def __call__(self, epoch: float) -> float:
        if hasattr(self, "first"):
            del self.first
            return 1.0
        return 0.5


@pytest.mark.parametrize("kind", [Slotted, Private, ReadOnly, First])
def test_slots_and_properties_go_on(kind: Callable[[], Any], tmp_path: Path) -> None:
    assert goes_on(tmp_path, kind)


class Shared:
    """A schedule, or a metric, that reads a list which another one may fill."""

    def __init__(self, seen: list[float]) -> None:
        self.seen = seen

    def __call__(self, epoch: Any, h: Any = None) -> float:
        if h is not None:
            self.seen.append(1.0)
        return 1 / (1 + len(self.seen))


def test_a_list_of_a_metric_and_a_schedule_stays_one(tmp_path: Path) -> None:
    def trained(path: Path, epochs: int) -> tuple[bytes, int]:
        seen = list[float]()
        return fit(path, epochs, Shared(seen), metrics=[Shared(seen)]), len(seen)

    assert resumes(tmp_path, trained)


class Sharing:
    """Its attributes become one list or memory while it trains."""

    def __init__(self, arrays: bool) -> None:
        self.arrays, self.given, self.same = arrays, None, None

    def __call__(self, epoch: float) -> float:
        given: Any = np.arange(3.0) if self.arrays else [epoch]
        self.given, self.same = given, given[:1] if self.arrays else given
        return 1.0


@pytest.mark.parametrize("arrays", [False, True])
def test_what_is_not_one_object_any_more_is_told(arrays: bool, tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, Sharing(arrays))
    with pytest.warns(UserWarning, match="what its schedule remembers in 'same' is not in the file"):
        fit(tmp_path / "run", 4, Sharing(arrays))


def of_a_class(by: str) -> Any:
    class InClass:
        seen, count, constants = list[float](), 0, {"a": [1.0, 0.5]}

        def __call__(self, epoch: float) -> float:
            if by == "list":
                self.seen.append(epoch)
            elif by == "number":
                type(self).count += 1
            return 1.0

    return InClass()


@pytest.mark.parametrize(("by", "name"), [("list", "seen"), ("number", "count")])
def test_what_is_in_a_class_is_told(by: str, name: str, tmp_path: Path) -> None:
    fit(tmp_path / "told", 2, of_a_class(by))
    with pytest.warns(UserWarning, match=f"what its schedule remembers in 'InClass.{name}' is not in the file"):
        fit(tmp_path / "told", 4, of_a_class(by))
    assert goes_on(tmp_path, lambda: of_a_class("nothing"))


def test_a_list_of_a_partial_function_is_told(tmp_path: Path) -> None:
    def schedule() -> Any:
        return partial(lambda seen, epoch: 1 / (1 + len(seen.append(epoch) or seen)), [])

    fit(tmp_path / "run", 2, schedule())
    with pytest.warns(UserWarning, match="what its schedule remembers in 'args' is not in the file"):
        fit(tmp_path / "run", 4, schedule())


class Once(nnkit.schedules.Schedule):
    """It makes an attribute after two epochs."""

    uses_epochs = False

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        if len(history.get("cost", [])) < 2 or hasattr(self, "dropped"):
            return 1.0
        self.dropped = True
        return 0.1


def test_an_object_that_has_gone_on_goes_back_to_the_checkpoint(tmp_path: Path) -> None:
    def stop(net: Any, history: Any) -> None:
        if history.epochs == 3:
            raise OSError("disk full")

    whole, same = fit(tmp_path / "whole", 5, Once()), Once()
    with pytest.raises(OSError, match="disk full"):
        fit(tmp_path / "run", 5, same, callbacks=[stop], checkpoint_every=2)
    assert fit(tmp_path / "run", 5, same, checkpoint_every=2) == whole


class New(Bold):
    def __init__(self, *given: list[str]) -> None:
        super().__init__()
        if given:
            self.names = given[0]


def test_an_attribute_of_new_code_stays(tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, New())
    schedule = New(["later"])
    with pytest.warns(UserWarning, match="what its schedule remembers in 'names' is not in the file"):
        fit(tmp_path / "run", 4, schedule)
    assert schedule.names == ["later"]
