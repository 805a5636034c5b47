"""What decides whether a training is the same: what its functions read, its own seed, averages and columns."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.state import arrays
from nnkit.training import fingerprints

pytest.importorskip("safetensors", reason="safetensors is not installed")

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(60, 3)), RNG.integers(0, 2, 60)
mean = 1.0


def fit(path: Path, epochs: int, net: nnkit.Network | None = None, **options: Any) -> nnkit.Network:
    net = nnkit.Network([3, 4, 2], seed=0) if net is None else net
    net.fit(**{"X": X, "y": LABELS} | options, epochs=epochs, checkpoint=path, resume=True, progress=False)
    return net


def test_a_function_does_not_read_the_variable_that_an_attribute_is_called_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bias(y: Any, h: Any) -> float:
        return float((h - y).mean())

    def reads(y: Any, h: Any) -> float:
        return mean * 2

    before = fingerprints.of_function(bias), fingerprints.of_function(reads)
    monkeypatch.setitem(globals(), "mean", 2.0)
    assert fingerprints.of_function(bias) == before[0]
    assert fingerprints.of_function(reads) != before[1]


@dataclass
class Shaped(nnkit.schedules.Schedule):
    shape: Callable[[float], float]
    uses_epochs = False

    def factor(self, epoch: float, epochs: float, history: Any) -> float:
        return self.shape(epoch)


def shaped(factor: float) -> Shaped:
    return Shaped(lambda epoch: factor / (1 + epoch))  # another object each time, with another address


def test_a_schedule_is_not_compared_by_addresses(tmp_path: Path) -> None:
    kept = shaped(1.0), shaped(1.0)
    assert repr(kept[0]) != repr(kept[1])
    fit(tmp_path / "run", 2, schedule=kept[0])
    assert fit(tmp_path / "run", 4, schedule=kept[1]).epochs_trained == 4
    with pytest.raises(ValueError, match="its schedule was a different function"):
        fit(tmp_path / "run", 6, schedule=shaped(0.5))


arguments = Namespace(decay=0.5, calls=0)


def by_argument(epoch: float) -> float:
    arguments.calls += 1
    return float(arguments.decay**epoch)


def test_the_arguments_of_a_script_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "run", 2, schedule=by_argument)
    assert fit(tmp_path / "run", 4, schedule=by_argument).epochs_trained == 4
    monkeypatch.setattr(arguments, "decay", 0.9)
    with pytest.raises(ValueError, match="its schedule was a different function"):
        fit(tmp_path / "run", 6, schedule=by_argument)


@dataclass(repr=False)
class Tuned(nnkit.SGD):
    betas: tuple[float, float] = (0.9, 0.99)


def test_an_optimizer_with_a_tuple_is_resumed(tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, optimizer=Tuned(0.1))
    assert fit(tmp_path / "run", 4, optimizer=Tuned(0.1)).epochs_trained == 4
    with pytest.raises(ValueError, match=r"its optimizer has betas \[0.9, 0.99\], but this training's has betas \[0.8"):
        fit(tmp_path / "run", 6, optimizer=Tuned(0.1, betas=(0.8, 0.99)))


def new_seed(net: nnkit.Network, history: nnkit.History) -> None:
    net.seed = 100 + history.epochs


def test_samples_are_set_aside_by_the_seed_of_the_beginning(tmp_path: Path) -> None:
    options: dict[str, Any] = {"callbacks": [new_seed], "validation_split": 0.25}
    fit(tmp_path / "run", 2, nnkit.Network([3, 4, 2]), **options)
    assert fit(tmp_path / "run", 4, nnkit.Network([3, 4, 2]), **options).epochs_trained == 4


def test_a_loaded_checkpoint_is_resumed_with_the_seed_of_a_callback(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 4, callbacks=[new_seed])
    fit(tmp_path / "run", 2, callbacks=[new_seed])
    again = fit(tmp_path / "run", 4, nnkit.load(tmp_path / "run"), callbacks=[new_seed])
    np.testing.assert_array_equal(again.parameters.vector, whole.parameters.vector)


@pytest.mark.parametrize("first", [True, False])
def test_averages_are_not_resumed_as_parameters(first: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": nnkit.SGD(0.5, ema=0.9), "early_stopping": nnkit.EarlyStopping("cost", 9)}
    fit(tmp_path / "run", 2, averaged=first, **options)
    with pytest.raises(ValueError, match=f"its averaged is {first}, but this training's is {not first}"):
        fit(tmp_path / "run", 4, averaged=not first, **options)
    assert fit(tmp_path / "run", 4, averaged=first, **options).epochs_trained == 4


def test_an_error_after_resuming_leaves_the_state_of_the_checkpoint(tmp_path: Path) -> None:
    """Also where the network had trained as many epochs, and has gone elsewhere since."""
    broken = False

    def stream() -> Iterator[Any]:
        yield X[:30], LABELS[:30]
        if broken:
            raise OSError("the drive is gone")
        yield X[30:], LABELS[30:]

    net = fit(tmp_path / "run", 3, X=stream, y=None, optimizer="adam")
    saved = {name: np.array(array) for name, array in arrays(net).items()}
    for _ in range(3):
        net.train_step(X, LABELS, nnkit.SGD(0.5, momentum=0.9))
    broken = True
    with pytest.raises(OSError, match="the drive"):
        fit(tmp_path / "run", 6, net, X=stream, y=None, optimizer="adam")
    assert isinstance(net.optimizer, nnkit.Adam)
    assert {name: array.tolist() for name, array in arrays(net).items()} == {
        name: array.tolist() for name, array in saved.items()
    }


def test_columns_in_another_order_are_not_resumed(tmp_path: Path) -> None:
    """Of an iterable, whose data are not compared, and of which the validation table says the order."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(X, columns=list("abc"))

    def stream() -> Iterator[Any]:
        yield table, LABELS

    fit(tmp_path / "run", 2, X=stream, y=None, validation_data=(table, LABELS))
    with pytest.raises(ValueError, match=r"features is \['a', 'b', 'c'\], but this training's is \['c', 'b', 'a'\]"):
        fit(tmp_path / "run", 4, X=stream, y=None, validation_data=(table[list("cba")], LABELS))
    assert fit(tmp_path / "run", 4, X=stream, y=None, validation_data=(table, LABELS)).epochs_trained == 4


def with_a_constant(gamma: float) -> Any:
    class Decay(nnkit.schedules.Schedule):
        uses_epochs, rate = False, gamma

        def factor(self, epoch: float, epochs: float, history: Any) -> float:
            return float(self.rate**epoch)

    return Decay()


def with_another_method(gamma: float) -> Any:
    class Decay:
        def __call__(self, epoch: float) -> float:
            return float(self.base**epoch)

        @property
        def base(self) -> float:
            return self.given()

        def given(self) -> float:
            return 0.9 if gamma > 0.5 else 0.1

    return Decay()


class Slots:
    __slots__ = "gamma"

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, epoch: float) -> float:
        return float(self.gamma**epoch)


def by_a_class(gamma: float) -> Any:
    class Settings:
        rate = gamma

    return lambda epoch: Settings.rate**epoch


def by_its_class(gamma: float) -> Any:
    class Settings:
        rate = gamma

        @classmethod
        def decay(cls, epoch: float) -> float:
            return float(cls.rate**epoch)

    return Settings.decay


def by_its_attribute(gamma: float) -> Any:
    def decay(epoch: float) -> float:
        return float(decay.rate**epoch)  # type: ignore[attr-defined]

    decay.rate = gamma  # type: ignore[attr-defined]
    return decay


def with_a_cached_property(gamma: float) -> Any:
    class Decay:
        rate = cached_property(lambda self: 0.9) if gamma > 0.5 else cached_property(lambda self: 0.1)

        def __call__(self, epoch: float) -> float:
            return float(self.rate**epoch)

    return Decay()


KINDS = [
    with_a_constant,
    with_another_method,
    Slots,
    by_a_class,
    by_its_class,
    by_its_attribute,
    with_a_cached_property,
]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_classes_slots_and_methods_are_compared(kind: Callable[[float], Any], tmp_path: Path) -> None:
    fit(tmp_path / "run", 2, schedule=kind(0.9))
    with pytest.raises(ValueError, match="its schedule was a different function"):
        fit(tmp_path / "run", 4, schedule=kind(0.1))
    assert fit(tmp_path / "run", 4, schedule=kind(0.9)).epochs_trained == 4
