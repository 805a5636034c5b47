"""What fit takes as data: bytes, files, rows of other libraries, iterables; all give what plain arrays give."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.training import meter

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(5)
IMAGES, LABELS = RNG.integers(0, 256, (37, 6), np.uint8), RNG.integers(0, 3, 37)
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "progress": False}


def network(**options: Any) -> nnkit.Network:
    return nnkit.Network([6, 5, 3], cost="softmax_cross_entropy", seed=2, dtype="float64", **options)


def trained(X: Any, y: Any = None, preprocessing: Any = None, **options: Any) -> tuple[np.ndarray, nnkit.History]:
    net = network(preprocessing=preprocessing)
    history = net.fit(X, y, **(OPTIONS if y is not None else {"epochs": 3, "progress": False}) | options)
    return np.array(net.backend.to_numpy(net.parameters.flat)), history


def assert_same(found: tuple[np.ndarray, nnkit.History], wanted: tuple[np.ndarray, nnkit.History]) -> None:
    assert found[0].tobytes() == wanted[0].tobytes()
    assert found[1].keys() == wanted[1].keys()
    for name in found[1].keys() - {"seconds"}:  # costs are added up in other pieces
        assert found[1][name] == pytest.approx(wanted[1][name], rel=1e-13)


class OnlyRows:
    """What HDF5's data sets look like: rows by slice or by increasing numbers, each once."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.dtype = values, values.shape, values.dtype
        self.largest = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        if not isinstance(key, slice):
            assert (np.diff(key) > 0).all()
        rows = np.array(self._values[key])
        self.largest = max(self.largest, len(rows))
        return rows


@pytest.mark.parametrize("preprocessing", [None, "normalization", "whitening"])
def test_bytes_and_rows_train_like_arrays(arrays: "Arrays", preprocessing: str | None, tmp_path: Path) -> None:
    fitted: Any = None
    if preprocessing:
        kind: Any = {"normalization": nnkit.data.Normalization, "whitening": nnkit.data.Whitening}[preprocessing]
        fitted = kind.fit(IMAGES)
    path = tmp_path / "images.npy"
    np.save(path, IMAGES)
    wanted = trained(arrays(IMAGES), LABELS, fitted)
    rows = OnlyRows(IMAGES.astype(np.float32))
    for X in (arrays.backend.asarray(IMAGES), IMAGES, np.load(path, mmap_mode="r"), rows):
        found = trained(X, LABELS, fitted)
        if preprocessing:  # a matrix product of some rows may round differently from that of all
            np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12, atol=1e-13)
        else:
            assert_same(found, wanted)
    assert rows.largest == 37  # looked through once, before the training


def test_labels_and_weights_on_disk_are_read(arrays: "Arrays") -> None:
    """As a column of pandas or a data set of HDF5, which no backend owns."""

    class Column(OnlyRows):
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            return np.asarray(self._values, dtype)

    assert_same(trained(arrays(IMAGES), Column(LABELS)), trained(arrays(IMAGES), LABELS))
    targets = np.eye(3)[LABELS]
    weights = np.arange(1.0, 38.0)
    found = trained(arrays(IMAGES), Column(targets), sample_weight=Column(weights))
    assert_same(found, trained(arrays(IMAGES), targets, sample_weight=weights))


def test_bytes_are_stored_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnkit.training import sources

    made: list[Any] = []
    monkeypatch.setattr(sources.BytesSource, "start", _noting(sources.BytesSource.start, made))
    trained(IMAGES, LABELS)
    assert {source.X.dtype for source in made} == {np.dtype(np.uint8)}
    assert made[0].X is IMAGES or np.shares_memory(made[0].X, IMAGES)


def _noting(method: Callable[..., Any], made: list[Any]) -> Callable[..., Any]:
    def noted(self: Any, *arguments: Any) -> Any:
        made.append(self)
        return method(self, *arguments)

    return noted


def minibatches(size: int = 8) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, 37, size):
        yield IMAGES[start : start + size], LABELS[start : start + size]


class Loader:
    """Like PyTorch's DataLoader: a new iterator each time."""

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return minibatches()


@pytest.mark.parametrize("stream", [minibatches, Loader()])
def test_iterables_train_like_arrays(arrays: "Arrays", stream: Any) -> None:
    wanted = trained(IMAGES, LABELS, shuffle=False, validation_data=(IMAGES, LABELS))
    assert_same(trained(stream, validation_data=stream), wanted)


def test_training_on_a_torch_loader() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    data = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))
    assert_same(trained(torch.utils.data.DataLoader(data, batch_size=8)), trained(IMAGES, LABELS, shuffle=False))


def test_an_exhausted_iterator_is_an_error() -> None:
    net = network()
    assert net.fit(minibatches(), epochs=1, progress=False).epochs == 1
    with pytest.raises(ValueError, match="X yielded no minibatches; an iterator can be used once"):
        net.fit(minibatches(), epochs=2, progress=False)
    assert net.epochs_trained == 2  # what was done is kept


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (IMAGES, TypeError, r"minibatch 1 of X is a ndarray; expected \(X, y\) or \(X, y, sample_weight\)"),
        ((IMAGES[:, :2], LABELS), ValueError, r"X of minibatch 1 of X has shape \(37, 2\)"),
        ((IMAGES, LABELS + 1), ValueError, "y of minibatch 1 of X holds label 3"),
        ((IMAGES * np.nan, LABELS), ValueError, r"X of minibatch 1 of X holds nan at \[0, 0\]"),
        ((IMAGES, LABELS, -np.ones(37)), ValueError, r"sample_weight of minibatch 1 of X holds -1.0 at \[0\]"),
    ],
)
def test_a_bad_minibatch_is_named(item: Any, error: type[Exception], message: str) -> None:
    """The network is as it was before the epoch: the step with the good minibatch before it is undone."""
    net, wanted = network(), network()
    good = (IMAGES[:8], LABELS[:8])
    with pytest.raises(error, match=message):
        net.fit(iter([good, item]), epochs=1, progress=False)
    assert np.array_equal(net.parameters.flat, wanted.parameters.flat)
    assert net.epochs_trained == 0


def test_rows_that_are_not_finite_are_refused_before_any_change() -> None:
    values = RNG.normal(size=(5000, 6))
    values[4500, 3] = np.inf
    net = network()
    before = net.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"X holds inf at \[4500, 3\]; expected finite numbers"):
        net.fit(OnlyRows(values), np.zeros(5000, int), progress=False)
    assert np.array_equal(net.parameters.flat, before)


@pytest.mark.parametrize(
    ("X", "y", "options", "error", "message"),
    [
        (minibatches, LABELS, {}, TypeError, "X yields minibatches, which must contain y and"),
        (IMAGES, None, {}, TypeError, "y is missing; only an iterable of minibatches"),
        (IMAGES, LABELS, {"validation_data": IMAGES}, TypeError, r"validation_data is a .*; expected \(X, y\)"),
        (IMAGES, LABELS, {"validation_data": (minibatches, LABELS)}, TypeError, "validation X yields minibatches"),
        (5, LABELS, {}, TypeError, "X is 5; expected an array"),
    ],
)
def test_data_of_a_wrong_type_are_refused(X: Any, y: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        network().fit(X, y, progress=False, **options)


def test_a_sparse_matrix_is_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    with pytest.raises(TypeError, match=r"X is a sparse matrix; convert it with X.toarray\(\)"):
        network().fit(sparse.csr_array(IMAGES), LABELS, progress=False)


def test_partial_fit_continues_training(arrays: "Arrays") -> None:
    net, wanted = network(), network()
    optimizer = nnkit.Adam(0.01)
    for _ in range(3):
        net.partial_fit(arrays(IMAGES), LABELS, batch_size=8, optimizer=optimizer)
    wanted.fit(IMAGES, LABELS, **OPTIONS, optimizer=nnkit.Adam(0.01))
    found, expected = (net.backend.to_numpy(n.parameters.flat) for n in (net, wanted))
    assert np.array(found).tobytes() == np.array(expected).tobytes()


def test_rows_on_a_disk_are_predicted_in_pieces(arrays: "Arrays", monkeypatch: pytest.MonkeyPatch) -> None:
    from nnkit import model

    monkeypatch.setattr(model, "ROWS", 10)
    net, rows = network(), OnlyRows(IMAGES.astype(np.float64))
    np.testing.assert_array_equal(arrays.numpy(net.predict(rows)), arrays.numpy(net.predict(IMAGES)))
    np.testing.assert_allclose(arrays.numpy(net.forward(rows)), arrays.numpy(net.forward(IMAGES)), rtol=1e-12)
    assert rows.largest == 10
    with pytest.raises(ValueError, match=r"X has shape \(37, 5\); expected \(samples, 6\)"):
        net.predict(OnlyRows(IMAGES[:, :5]))


def test_a_generator_may_reuse_its_array(arrays: "Arrays") -> None:
    def stream() -> Iterator[tuple[Any, Any]]:
        y = np.empty((8, 3))
        for start in range(0, 32, 8):
            y[...] = np.eye(3)[LABELS[start : start + 8]]
            yield arrays(IMAGES[start : start + 8]), y

    wanted = trained(arrays(IMAGES[:32]), LABELS[:32], shuffle=False)
    assert_same(trained(stream), wanted)
    net = network()
    assert net.evaluate(stream)["cost"] == pytest.approx(net.evaluate(IMAGES[:32], LABELS[:32])["cost"], rel=1e-13)


def test_weights_in_only_some_minibatches_are_refused() -> None:
    with_weights, without = (IMAGES[:8], LABELS[:8], np.ones(8)), (IMAGES[8:16], LABELS[8:16])
    for items in ((with_weights, without), (without, with_weights)):
        with pytest.raises(ValueError, match="minibatch 1 of X: give all minibatches a sample_weight, or none"):
            network().evaluate(iter(items))


def test_schedules_of_an_iterable_know_its_steps_from_the_second_epoch() -> None:
    seen: list[float] = []

    def schedule(epoch: float) -> float:
        seen.append(epoch)
        return 1.0

    trained(minibatches, schedule=schedule)
    assert seen == pytest.approx([0.0] * 5 + [1 + step / 5 for step in range(5)] + [2 + step / 5 for step in range(5)])


@pytest.mark.parametrize(("X", "y"), [(IMAGES * np.nan, LABELS), (IMAGES, np.full((37, 3), 7.0))])
def test_evaluate_refuses_what_fit_refuses(X: Any, y: Any) -> None:
    with pytest.raises(ValueError, match=r"X holds nan at \[0, 0\]|y holds 7.0 at \[0, 0\]"):
        network().evaluate(X, y)


@pytest.mark.parametrize("kept", [1 << 20, 40])
@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_rows_on_the_host_train_like_rows_on_the_device(
    schedule: str | None, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ones are written by the host into each step, the others are read by the recorded step itself."""
    monkeypatch.setattr(meter, "_KEPT", kept)
    np.save(tmp_path / "images.npy", IMAGES)
    options: dict[str, Any] = {
        "schedule": schedule,
        "sample_weight": 1 + np.arange(37.0) % 3,
        "optimizer": nnkit.Adam(),
    }
    device = trained(IMAGES, LABELS, **options)
    assert_same(device, trained(nnkit.data.open_npy(tmp_path / "images.npy"), LABELS, **options))


def test_a_validation_table_beside_a_stream_is_put_in_the_order_of_its_names() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, Y = RNG.normal(size=(40, 3)), RNG.normal(size=(40, 2)) + np.array([0, 100])
    table, targets = pandas.DataFrame(X, columns=list("abc")), pandas.DataFrame(Y, columns=list("uv"))

    def minibatches() -> Iterator[tuple[Any, Any]]:
        for start in range(0, 40, 10):
            yield table[start : start + 10], targets[start : start + 10]

    validation = table[list("cab")], targets[list("vu")]
    net = nnkit.Network([3, 4, 2], cost="quadratic", seed=0)
    history = net.fit(minibatches, epochs=2, validation_data=validation, metrics=["mae"], progress=False)
    right = np.abs(np.asarray(net.predict(table)) - net.answers(targets)).mean()
    assert history["validation_mae"][-1] == pytest.approx(right, rel=1e-5)
