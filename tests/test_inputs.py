"""X and y as users have them: any array, list or DLPack object; what does not fit is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit

if TYPE_CHECKING:
    from tests.conftest import Arrays

X = np.random.default_rng(0).normal(size=(6, 3))
LABELS = [0, 1, 1, 0, 3, 2]


def network(units: int = 4, cost: str = "softmax_cross_entropy", dtype: str = "float64") -> nnkit.Network:
    return nnkit.Network([3, 5, units], activation="tanh", cost=cost, seed=0, dtype=dtype)


def trained(x: Any, y: Any, **options: Any) -> list[np.ndarray]:
    """The parameters after three epochs."""
    net = network(**options)
    net.fit(x, y, epochs=3, batch_size=4, progress=False)
    return [np.array(net.backend.to_numpy(a)) for a in [*net.parameters.W, *net.parameters.b]]


def assert_same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert a.tobytes() == b.tobytes()


def test_labels_and_one_hot_rows_train_equally(arrays: "Arrays") -> None:
    by_labels = trained(arrays(X), LABELS)
    assert_same(trained(arrays(X), arrays(np.eye(4)[LABELS])), by_labels)
    assert_same(trained(arrays(X), nnkit.data.one_hot(LABELS, 4)), by_labels)
    for dtype in ("uint8", "int8", "int64"):
        assert_same(trained(arrays(X), np.array(LABELS, dtype)), by_labels)
        assert_same(trained(arrays(X), arrays.backend.asarray(np.array(LABELS), dtype)), by_labels)


def test_one_output_takes_a_vector_or_a_column(arrays: "Arrays") -> None:
    y = [0, 1, 1, 0, 0, 1]
    by_column = trained(arrays(X), arrays(np.array(y)[:, None]), units=1, cost="cross_entropy")
    others = y, np.array(y), np.array(y, bool), np.array(y, float), arrays(y)
    for vector in others:
        assert_same(trained(arrays(X), vector, units=1, cost="cross_entropy"), by_column)


def test_every_array_type_is_the_same_data(arrays: "Arrays", tmp_path: Path) -> None:
    wanted = trained(arrays(X), LABELS)
    np.save(tmp_path / "x.npy", X)
    read_only = X.copy()
    read_only.flags.writeable = False
    wide = np.full((12, 6), np.nan)
    wide[::2, ::2] = X
    memmap = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(memmap, np.memmap)
    for x in (X, X.tolist(), tuple(map(tuple, X.tolist())), read_only, memmap, np.asfortranarray(X), wide[::2, ::2]):
        assert_same(trained(x, tuple(LABELS)), wanted)
    assert (read_only == X).all()
    assert (np.asarray(memmap) == X).all()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32"])
def test_numbers_of_every_real_type_are_converted(arrays: "Arrays", dtype: str) -> None:
    x = np.arange(18).reshape(6, 3).astype(dtype)
    assert_same(trained(x, LABELS), trained(x.astype(np.float64), LABELS))


def test_torch_tensors_are_read_by_dlpack(arrays: "Arrays") -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert_same(trained(torch.tensor(X), torch.tensor(LABELS)), trained(X, LABELS))
    targets = torch.tensor(np.eye(4)[LABELS])
    assert_same(trained(torch.tensor(X), targets), trained(X, LABELS))


def test_tensors_that_require_gradients_are_accepted(arrays: "Arrays") -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, w = torch.tensor(X, requires_grad=True), torch.ones(6, requires_grad=True)
    assert_same(trained(x, LABELS), trained(X, LABELS))
    net, y = network(), torch.tensor(np.eye(4)[LABELS], requires_grad=True)
    assert net.evaluate(x, y, sample_weight=w) == net.evaluate(X, LABELS)
    assert nnkit.data.Normalization.fit(x) == nnkit.data.Normalization.fit(X)
    assert nnkit.metrics.r2(y, y) == 1
    assert x.requires_grad


def test_an_error_for_real_targets_gives_the_expected_shape() -> None:
    net = nnkit.Network([3, 2], cost="quadratic", seed=0)
    for ask in (net.evaluate, net.train_step):
        with pytest.raises(
            ValueError, match=r"^y has shape \(6,\); expected targets \(6, 2\), or integer labels \(6,\)$"
        ):
            ask(X, X[:, 0])


class OnlyDLPack:
    """What another library's array looks like that NumPy does not know."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.dtype, self.shape = values, values.dtype, values.shape

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._values.__dlpack_device__()


def test_any_dlpack_object_is_accepted(arrays: "Arrays") -> None:
    assert_same(trained(OnlyDLPack(X.copy()), LABELS), trained(X, LABELS))


Call = Callable[[nnkit.Network, Any, Any], Any]
CALLS: dict[str, Call] = {
    "fit": lambda net, x, y: net.fit(x, y, epochs=1, progress=False),
    "train_step": lambda net, x, y: net.train_step(x, y),
    "gradients": lambda net, x, y: net.gradients(x, y),
    "evaluate": lambda net, x, y: net.evaluate(x, y),
    "forward": lambda net, x, y: net.forward(x),
    "predict": lambda net, x, y: net.predict(x),
    "check_gradients": nnkit.check_gradients,
}
WRONG_X = {
    "vector": (
        X[0],
        ValueError,
        r"X has shape \(3,\); expected \(samples, 3\); for one sample, reshape it to \(1, 3\)",
    ),
    "width": (X[:, :2], ValueError, r"X has shape \(6, 2\); expected \(samples, 3\)$"),
    "rank": (X[None], ValueError, r"X has shape \(1, 6, 3\); expected \(samples, 3\)$"),
    "number": (1.0, TypeError, "X is 1.0; expected an array, a list or a table"),
    "0-d array": (np.array(1.0), ValueError, r"X has shape \(\); expected"),
    "class": (np.ndarray, TypeError, "X is a type; expected an array"),
    "dict of columns": ({"a": [1.0], "b": [2.0], "c": [3.0]}, TypeError, r"X is a dict; .* pandas.DataFrame\(X\)"),
    "empty": (X[:0], ValueError, "X has no samples; expected at least one"),
    "complex": (X + 0j, TypeError, "X has dtype complex128; expected real numbers"),
    "text": ([["a", "b", "c"]], TypeError, "X has dtype str.*; expected real numbers"),
    "None": (None, TypeError, "X is None; expected an array, a list or a table"),
    "huge": ([[10**400, 0, 0]], TypeError, "X has dtype object; expected real numbers"),
    "ragged": ([[1, 2, 3], [4, 5]], ValueError, "X: .*inhomogeneous"),
    "masked": (np.ma.masked_array(X, X > 0), TypeError, "X is a masked array"),
}
WRONG_Y = {
    "label too large": ([0, 1, 4, 0, 0, 0], ValueError, r"y holds label 4 at \[2\]; expected 0 to 3"),
    "label negative": ([0, 1, 0, 0, 0, -1], ValueError, r"y holds label -1 at \[5\]; expected 0 to 3"),
    "float labels": (
        [0.0, 1.0, 2.0, 3.0, 0.0, 0.0],
        TypeError,
        r"y has dtype float64 and shape \(6,\); .* integer labels",
    ),
    "too few": ([0, 1], ValueError, r"y has shape \(2,\); expected labels \(6,\) or targets \(6, 4\)"),
    "too narrow": (np.ones((6, 3)), ValueError, r"y has shape \(6, 3\); expected labels \(6,\) or targets \(6, 4\)"),
    "column of numbers": (np.ones((6, 1)), ValueError, r"y has shape \(6, 1\); expected labels \(6,\)"),
    "transposed": (np.ones((4, 6)), ValueError, r"y has shape \(4, 6\)"),
    "text": (list("abcabc"), TypeError, r"y holds 'a' at \[0\]; expected integer labels"),
    "complex": (np.ones((6, 4)) + 0j, TypeError, "y has dtype complex128; expected real numbers"),
    "number": (1, TypeError, "y is 1; expected an array, a list or a table"),
    "huge": ([[10**400, 0, 0, 0.5]] * 6, TypeError, "y has dtype object; expected real numbers"),
    "masked": (np.ma.masked_array(LABELS, [True] + 5 * [False]), TypeError, "y is a masked array"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", WRONG_X)
def test_wrong_samples(wrong: str, call: str) -> None:
    x, error, message = WRONG_X[wrong]
    with pytest.raises(error, match=message):
        CALLS[call](network(), x, LABELS)


@pytest.mark.parametrize("call", ["fit", "train_step", "gradients", "evaluate", "check_gradients"])
@pytest.mark.parametrize("wrong", WRONG_Y)
def test_wrong_targets(wrong: str, call: str) -> None:
    y, error, message = WRONG_Y[wrong]
    if (wrong, call) == ("text", "fit"):  # fit learns the names of classes
        error, message = ValueError, r"y holds 3 classes, \['a', 'b', 'c'\]; this network has 4"
    net = network()
    with pytest.raises(error, match=message):
        CALLS[call](net, X, y)
    assert net.classes is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fit_names_the_entry_that_is_not_finite(arrays: "Arrays", bad: float) -> None:
    x, y = X.copy(), np.eye(4)[LABELS]
    x[4, 1] = bad
    with pytest.raises(ValueError, match=rf"X holds {bad} at \[4, 1\]; expected finite numbers"):
        network().fit(arrays(x), arrays(y), progress=False)
    with pytest.raises(ValueError, match=rf"validation X holds {bad} at \[4, 1\]"):
        network().fit(arrays(X), arrays(y), validation_data=(arrays(x), y), progress=False)
    y[2, 3] = bad
    with pytest.raises(ValueError, match=rf"y holds {bad} at \[2, 3\]; expected finite numbers"):
        network().fit(arrays(X), arrays(y), progress=False)


def test_lazy_arrays_of_dask() -> None:
    dask = pytest.importorskip("dask.array", reason="dask is not installed")
    X, y = np.random.default_rng(0).random((12, 4)), np.arange(12) % 3
    net, same = (nnkit.Network([4, 3], seed=0) for _ in range(2))
    net.fit(dask.from_array(X, chunks=(5, 4)), dask.from_array(y, chunks=5), epochs=1, progress=False)
    same.fit(X, y, epochs=1, progress=False)
    assert np.array_equal(net.predict_proba(dask.from_array(X)), same.predict_proba(X))
    with pytest.raises(TypeError, match="z is a Array; expected an array"):
        nnkit.sigmoid(dask.from_array(X))


def test_the_lazy_sign_of_pytorch_is_not_lost() -> None:
    """`z.conj().imag` has the memory of `z.imag`, also for DLPack."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    z = torch.complex(*torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    X = z.conj().imag
    assert X.is_neg()
    plain, weights = np.array(X.tolist()), abs(X[:, 0])
    for name in ("numpy", "standard:array_api_strict", "standard:array_api_compat.torch"):
        backend = nnkit.get_backend(name)
        assert backend.to_numpy(backend.asarray(X)).tolist() == plain.tolist()
    net = nnkit.Network([3, 3], cost="quadratic", seed=0, dtype="float64")
    assert net.predict(X).tolist() == net.predict(plain).tolist()
    assert net.evaluate(X, X, sample_weight=weights) == net.evaluate(plain, plain, sample_weight=weights.numpy())
