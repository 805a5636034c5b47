"""A part of the samples set aside by `fit`: drawn by the seed, stratified, the same in a resumed training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnkit

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(40, 3)), np.repeat([0, 1], [30, 10])
QUIET: dict[str, Any] = {"epochs": 2, "batch_size": 8, "progress": False}


def parts(seed: int, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """The rows for training and for validation, in the order of a permutation by the seed."""
    order = np.random.default_rng(seed).permutation(40)
    chosen = np.isin(order, nnkit.data.split(np.arange(40)[:, None], LABELS, share, seed)[2])
    return order[~chosen], order[chosen]


def tensors(values: np.ndarray) -> Any:
    return pytest.importorskip("torch", reason="torch is not installed").tensor(values)


def strict(values: np.ndarray) -> Any:
    return pytest.importorskip("array_api_strict", reason="array-api-strict is not installed").asarray(values)


def frames(values: np.ndarray) -> Any:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return pandas.DataFrame(values, columns=["a", "b", "c"]) if values.ndim == 2 else pandas.Series(values)


def lists(values: np.ndarray) -> Any:
    return values.tolist()


@pytest.mark.parametrize("given", [np.asarray, lists, tensors, strict, frames])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_split_is_that_of_validation_data(given: Callable[[np.ndarray], Any], weighted: bool) -> None:
    weights = RNG.uniform(0.5, 2, 40) if weighted else None
    found, own = nnkit.Network([3, 4, 2], seed=5), None if weights is None else given(weights)
    history = found.fit(given(X), given(LABELS), validation_split=0.2, sample_weight=own, **QUIET)
    training, held = parts(5)
    assert sorted(LABELS[held]) == [0] * 6 + [1] * 2
    more: dict[str, Any] = {"sample_weight": None if weights is None else weights[training]}
    validation = (X[held], LABELS[held], *([] if weights is None else [weights[held]]))
    wanted = nnkit.Network([3, 4, 2], seed=5)
    expected = wanted.fit(X[training], LABELS[training], validation_data=validation, **more, **QUIET)
    assert found.parameters.flat.tobytes() == wanted.parameters.flat.tobytes()
    assert history["validation_cost"] == expected["validation_cost"]


def test_integer_targets_of_a_regression_are_not_stratified() -> None:
    """They are amounts: whether they are integers or floats decides nothing."""
    amounts, samples = np.arange(40) // 2 * 10, np.hstack([X, np.arange(40)[:, None]])
    found = []
    for targets in (amounts, amounts.astype(float)):
        net = nnkit.Network([4, 1], cost="quadratic", seed=3)
        found.append(net.fit(samples / 40, targets, validation_split=0.3, **QUIET)["validation_cost"])
    assert found[0] == found[1]


def test_targets_without_classes_are_not_stratified() -> None:
    net = nnkit.Network([3, 1], cost="quadratic", seed=1)
    seen: list[int] = []

    def count(y: np.ndarray, h: np.ndarray) -> float:
        seen.append(len(y))
        return 0.0

    net.fit(X, X[:, 0], validation_split=0.3, metrics=[count], **QUIET)
    assert seen == [28, 12] * 2
    assert net.vector_targets


def test_a_resumed_training_has_the_same_split(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "run.safetensors"
    options = QUIET | {"checkpoint": path, "resume": True}
    first = nnkit.Network([3, 4, 2])  # with a drawn seed
    first.fit(X, LABELS, validation_split=0.25, **options)
    second = nnkit.Network([3, 4, 2])
    found = second.fit(X, LABELS, validation_split=0.25, **options | {"epochs": 4})
    whole = nnkit.Network([3, 4, 2], seed=first.seed)
    assert (
        whole.fit(X, LABELS, validation_split=0.25, **QUIET | {"epochs": 4})["validation_cost"]
        == (found["validation_cost"])
    )
    assert whole.parameters.flat.tobytes() == second.parameters.flat.tobytes()
    with pytest.raises(ValueError, match=r"its validation_split is 0\.25, but this training's is 0\.5"):
        nnkit.Network([3, 4, 2]).fit(X, LABELS, validation_split=0.5, **options)


def test_what_is_refused(tmp_path: Path) -> None:
    net = nnkit.Network([3, 2], seed=0)
    before = net.parameters.flat.tobytes()
    with pytest.raises(TypeError, match=r"validation_split is 0\.2, which has no effect with validation_data"):
        net.fit(X, LABELS, validation_data=(X, LABELS), validation_split=0.2, **QUIET)
    with pytest.raises(TypeError, match=r"validation_split is 0\.2, which has no effect with an iterable"):
        net.fit(lambda: [(X, LABELS)], validation_split=0.2, epochs=1, progress=False)
    for bad in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"validation_split is {bad}; expected a finite number above 0 and below"):
            net.fit(X, LABELS, validation_split=bad, **QUIET)
    with pytest.raises(ValueError, match=r"validation_split is 0\.001, which leaves 40 of 40 samples for training and"):
        net.fit(X, LABELS, validation_split=0.001, **QUIET)
    with pytest.raises(ValueError, match=r"X has shape \(39, 3\); expected 40 samples, as in y"):
        net.fit(X[:39], LABELS, validation_split=0.2, **QUIET)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(TypeError, match="validation_split: X is on disk; give validation_data, or read it into memory"):
        net.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), LABELS, validation_split=0.2, **QUIET)
    with pytest.raises(TypeError, match="validation_split: X is on disk; give validation_data, or read it into memory"):
        net.fit(nnkit.data.open_npy(tmp_path / "x.npy"), LABELS, validation_split=0.2, **QUIET)
    with pytest.raises(TypeError, match="y is missing"):
        net.fit(X, validation_split=0.2, **QUIET)
    assert net.parameters.flat.tobytes() == before


@pytest.mark.parametrize("kind", ["list", "objects", "dates"])
def test_class_names_of_any_kind_are_stratified(kind: str) -> None:
    names = np.array(["a", "b", "c"])[np.repeat([0, 1, 2], [40, 14, 6])]
    dates = np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "M8[D]")[np.repeat([0, 1, 2], [40, 14, 6])]
    labels: Any = {"list": names.tolist(), "objects": names.astype(object), "dates": dates}[kind]
    samples, counts = np.random.default_rng(6).normal(size=(60, 3)), []

    def counted(y: Any, h: Any) -> float:
        counts.append(y.sum(axis=0).tolist())
        return 0.0

    net = nnkit.Network([3, 3], seed=6)
    net.fit(samples, labels, epochs=1, validation_split=0.3, metrics=[counted], progress=False)
    assert counts[-1] in ([12, 4, 2], [12, 5, 1])
