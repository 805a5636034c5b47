"""Arrays that kernels seldom see: bytes in the other order, np.matrix, many axes, lists in every place."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.backends import get_backend
from nnkit.backends.formula import Formula, list_formulas
from nnkit.kernels import dropout as _dropout  # noqa: F401  makes its formulas
from nnkit.kernels.regularization import treated
from nnkit.kernels.updates import adam
from tests.support.accumulating import accumulate

if TYPE_CHECKING:
    from tests.conftest import Arrays

SIZES = [1, 511, 512, 600]
FORMULAS = {name: made for name, made in list_formulas().items() if name.startswith("nnkit.kernels.")}
ACTIVATIONS = [name for name in nnkit.activation_names() if name != "exponential"]


def swapped(array: Any) -> Any:
    """The same numbers with their bytes in the other order."""
    return np.asarray(array).astype(np.asarray(array).dtype.newbyteorder("S"))


def whole(a: Any) -> tuple[Any, ...]:
    return a if isinstance(a, tuple) else (a,)


def operands(formula: Formula, size: int, dtype: str) -> list[np.ndarray]:
    """Numbers on both sides of 0 and of ½; for dropout, whose operands are counts, whole ones."""
    rng = np.random.default_rng(size)
    made = [rng.normal(size=size).astype(dtype) for _ in formula.operands]
    return [np.floor(9 * np.abs(a)) for a in made] if "dropout" in formula.name else made


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_every_formula_whatever_the_order_of_bytes(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype == "float64":  # native code is compiled for one dtype only, which takes longer than all else
        monkeypatch.setenv("NNKIT_NATIVE", "0")
    formula = FORMULAS[name]
    for size in SIZES:
        given = operands(formula, size, dtype)
        wanted = whole(formula(*given))
        others = [swapped(a) for a in given]
        assert not others[0].dtype.isnative
        kept = copy.deepcopy(others)
        for found, value in zip(whole(formula(*others)), wanted, strict=True):
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, value)
        outs = tuple(swapped(np.full_like(value, 7)) for value in wanted)
        assert formula(*given, out=outs if len(outs) > 1 else outs[0]) is not None
        for found, value in zip(outs, wanted, strict=True):
            np.testing.assert_array_equal(found, value)
        for array, before in zip(others, kept, strict=True):
            assert array.tobytes() == before.tobytes()


def test_relu_grad_by_hand() -> None:
    """The example of the report: 3e-319 where 1 is right."""
    ones = np.ones(600, ">f8")
    assert nnkit.relu_grad(ones, ones).tolist() == [1.0] * 600
    assert nnkit.relu_grad(ones.astype("<f8"), ones).tolist() == [1.0] * 600
    assert nnkit.relu(-ones, out=ones).tolist() == [0.0] * 600


def test_in_place_and_fused() -> None:
    rng = np.random.default_rng(0)
    p, g, mean = rng.normal(size=(3, 600))
    square = rng.uniform(size=600)
    numbers = {"learning_rate": 0.1, "correction1": 0.5, "correction2": 0.25, "l2": 0.3}
    update = treated(adam, "l2")
    wanted = update(p, g, mean, square, **numbers)
    big = [swapped(a) for a in (p, g, mean, square)]
    update(*big, **numbers, out=(big[0], big[2], big[3]))
    for found, value in zip((big[0], big[2], big[3]), wanted, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_layers_whatever_the_order_of_bytes(activation: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for n, d_out, d_in in ((1, 1, 1), (73, 7, 5), (64, 8, 3), (30, 20, 40)):
        x, W, b, delta = (rng.normal(size=s).astype(dtype) for s in ((n, d_in), (d_out, d_in), d_out, (n, d_out)))
        z = x @ W.T + b
        h = nnkit.dense_forward(x, W, b, activation)
        wanted = nnkit.dense_backward(delta, x, W, h, activation, z=z)
        big = [swapped(a) for a in (x, W, b, delta, z, h)]
        np.testing.assert_array_equal(nnkit.dense_forward(big[0], big[1], big[2], activation), h)
        for found, value in zip(
            nnkit.dense_backward(big[3], big[0], big[1], big[5], activation, z=big[4]), wanted, strict=True
        ):
            np.testing.assert_array_equal(found, value)
        out, saved = swapped(np.zeros_like(h)), swapped(np.zeros_like(h))
        assert nnkit.dense_forward(x, W, b, activation, out=out, z=saved) is out
        np.testing.assert_allclose(out, h, rtol=1e-6)
        np.testing.assert_allclose(saved, z, rtol=1e-5, atol=1e-6)
        outs = tuple(swapped(np.zeros_like(a)) for a in wanted)
        nnkit.dense_backward(delta, x, W, h, activation, z=z, out=outs)
        for found, value in zip(outs, wanted, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
        one, other = [np.array(W), np.array(b)], [swapped(W), swapped(b)]
        gradients = np.empty_like(W), np.empty_like(b)
        for parameters in (one, other):
            with get_backend("numpy").recording() as tape:
                nnkit.dense_backward(big[3], big[0], W, big[5], activation, z=big[4], out=(None, *gradients))
                pairs = list(zip(parameters, gradients, strict=True))
                accumulate(get_backend("numpy"), pairs, np.array(-0.5, dtype))
            tape.replay()
        for found, value in zip(other, one, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_kernels_whatever_the_order_of_bytes(dtype: str) -> None:
    rng = np.random.default_rng(2)
    for n in SIZES:
        z, y = rng.normal(size=(n, 3)).astype(dtype), np.eye(3, dtype=dtype)[rng.integers(0, 3, n)]
        for kernel in (nnkit.softmax_cross_entropy, nnkit.softmax_cross_entropy_delta, nnkit.quadratic, nnkit.hinge):
            np.testing.assert_array_equal(kernel(swapped(z), swapped(y)), kernel(z, y))
        np.testing.assert_array_equal(nnkit.softmax(swapped(z)), nnkit.softmax(z))
        np.testing.assert_array_equal(nnkit.softmax_grad(swapped(y), swapped(z)), nnkit.softmax_grad(y, z))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(6, 5, 9), (70, 80, 90)])  # of NumPy's product, and of tiles
def test_products_and_sums_into_memory_of_any_layout(sizes: tuple[int, int, int], dtype: str) -> None:
    (m, k, n), rng, backend = sizes, np.random.default_rng(0), get_backend("numpy")
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    memory = np.zeros(4 * m * n + 1, dtype)
    views = [
        memory[: 2 * m * n].reshape(m, 2 * n)[:, :n],
        memory[: 2 * m * n].reshape(m, 2 * n)[:, ::-2],
        memory[: m * n].reshape(m, n)[::-1],
        memory[: 2 * m * n].reshape(n, 2 * m)[::-1, :m].T,
        memory.view(np.uint8)[3 : 3 + memory.itemsize * m * n].view(dtype).reshape(m, n),
        memory.view(np.uint8)[3 : 3 + memory.itemsize * m * n].view(dtype).reshape(n, m).T,
        memory[: m * n].reshape(m, n).view(memory.dtype.newbyteorder("S")),
    ]
    for out in views:
        memory[:], wanted = 0, a.astype(float) @ b
        left = swapped(a) if not out.dtype.isnative else a
        right = swapped(b) if not out.dtype.isnative else b
        assert backend.matmul(left, right, out=out) is out
        np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)
        found = np.array(out)
        with backend.recording() as tape:
            backend.matmul(left, right, out=out)
        tape.replay()
        np.testing.assert_array_equal(out, found)  # to the bit
        assert np.count_nonzero(memory.view(np.uint8)) <= m * n * memory.itemsize
        product = np.array(out)
        backend.sum(swapped(product) if out.dtype.isnative else product, axis=0, out=out[0])
        np.testing.assert_allclose(out[0], wanted.sum(axis=0), rtol=0, atol=1e-3 if dtype == "float32" else 1e-11)


def test_samples_of_a_network_whatever_the_order_of_bytes(arrays: "Arrays") -> None:
    X = np.random.default_rng(0).normal(size=(600, 3))
    y = (X[:, 0] > 0).astype(np.int64)
    net = nnkit.Network([3, 4, 2], "relu", "softmax_cross_entropy", seed=0, backend=arrays.backend)
    other = copy.deepcopy(net)
    options: Any = {"epochs": 1, "progress": False, "sample_weight": np.arange(1.0, 601.0)}
    net.fit(X, y, **options)
    options["sample_weight"] = swapped(options["sample_weight"])
    other.fit(swapped(X), swapped(y), **options)
    for found, wanted in ((other.parameters.flat, net.parameters.flat), (other.forward(swapped(X)), net.forward(X))):
        np.testing.assert_array_equal(arrays.backend.to_numpy(found), arrays.backend.to_numpy(wanted))
    assert get_backend("numpy").asarray(swapped(X)).dtype.isnative
    np.testing.assert_array_equal(arrays.backend.to_numpy(arrays.backend.asarray(swapped(X))), X)


def test_a_recording_converts_byte_order_at_each_replay() -> None:
    backend, x = get_backend("numpy"), swapped(np.arange(-300.0, 300.0))
    with backend.recording() as tape:
        found = nnkit.relu(x)
    x[...] = np.arange(600)
    tape.replay()
    assert found.tolist() == list(range(600))


@pytest.mark.parametrize("activation", ["identity", "relu", "gelu"])
def test_matrices_are_arrays(activation: str) -> None:
    """NumPy's own rules would make the sum of columns a matrix (1, n)."""
    rng = np.random.default_rng(0)
    x, W, delta = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=(4, 2))
    z = x @ W.T
    h = nnkit.dense_forward(x, W, np.zeros(2), activation)
    m = [a.view(np.matrix) for a in (delta, x, W, h, z)]
    assert type(nnkit.dense_forward(m[1], m[2], np.zeros(2), activation)) is np.ndarray
    found = nnkit.dense_backward(m[0], m[1], m[2], m[3], activation, z=m[4])
    for array, wanted in zip(found, nnkit.dense_backward(delta, x, W, h, activation, z=z), strict=True):
        assert type(array) is np.ndarray
        np.testing.assert_array_equal(array, wanted)
    for kernel in (nnkit.softmax, nnkit.relu):
        assert type(kernel(m[1])) is np.ndarray
    assert type(nnkit.softmax_grad(m[1], m[1])) is np.ndarray
    out = np.zeros((1, 680)).view(np.matrix)
    assert nnkit.relu(np.ones((1, 680)), out=out) is out
    assert out.tolist() == [[1.0] * 680]


def test_lists_are_accepted_everywhere(arrays: "Arrays") -> None:
    delta, x, W, h = [[1.0, -1.0]], [[1.0, 2.0, 3.0]], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[4.0, 0.0]]
    found = nnkit.dense_backward(delta, x, W, h, "relu")
    by_hand: list[Any] = [[[1.0, 0.0, 1.0]], [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], [1.0, 0.0]]
    assert [arrays.numpy(a).tolist() for a in found] == by_hand
    found = nnkit.dense_backward(arrays(delta), arrays(x), arrays(W), h, "relu")
    assert [arrays.numpy(a).tolist() for a in found] == by_hand
    found = nnkit.dense_backward(arrays(delta), x, W, activation="gelu", z=[[40.0, -40.0]])
    assert [arrays.numpy(a).tolist() for a in found] == by_hand
    with pytest.raises(ValueError, match=r"h has shape \(\); expected that of delta"):
        nnkit.dense_backward(delta, x, W, 1.0, "relu")


def test_more_axes_than_numpy_knows() -> None:
    for axes in (33, 64):
        a = np.ones((1,) * axes)
        for kernel in (nnkit.relu, nnkit.sigmoid, nnkit.softmax):
            with pytest.raises(ValueError, match=rf"z has {axes} axes; expected at most 32"):
                kernel(a)
        with pytest.raises(ValueError, match=rf"p has {axes} axes; expected at most 32"):
            nnkit.softmax_grad(a, a)
        with pytest.raises(ValueError, match=rf"W has {axes} axes; expected at most 32"):
            nnkit.dense_forward(a, a, a[0])
    a = np.full((1,) * 32, 2.0)
    assert nnkit.relu(a).shape == nnkit.softmax(a).shape == a.shape


def test_softmax_grad_refuses_other_shapes(arrays: "Arrays") -> None:
    for p, delta, message in (
        ((), (), r"p has shape \(\); expected \(\.\.\., classes\) with at least one class"),
        ((2, 0), (2, 0), r"p has shape \(2, 0\); expected \(\.\.\., classes\)"),
        ((2, 3), (2, 1), r"delta has shape \(2, 1\); expected the shape of p, \(2, 3\)"),
        ((2, 3), (3,), r"delta has shape \(3,\); expected the shape of p"),
    ):
        with pytest.raises(ValueError, match=message):
            nnkit.softmax_grad(arrays(np.ones(p)), arrays(np.ones(delta)))
    with pytest.raises(ValueError, match=r"p has shape \(\)"):
        nnkit.softmax_grad(1.0, 1.0)


def test_a_transposed_W_is_suspected(arrays: "Arrays") -> None:
    x, W, b, delta = (arrays(np.ones(shape)) for shape in ((5, 3), (3, 2), 2, (5, 2)))
    hint = r"x has shape \(5, 3\); expected \(..., 2\) .*; W is \(d_out, d_in\); is it transposed\?"
    with pytest.raises(ValueError, match=hint):
        nnkit.dense_forward(x, W, b)
    with pytest.raises(ValueError, match=hint):
        nnkit.dense_backward(delta, x, W)
    for wrong in (arrays(np.ones((4, 2))), arrays(np.ones((3, 4)))):  # the transposed one would not fit either
        with pytest.raises(ValueError, match=r"fit W of shape \(\d, \d\)$"):
            nnkit.dense_forward(x, wrong, b)
    with pytest.raises(ValueError, match=r"W of layer 0 has shape \(3, 2\); expected \(2, 3\); .*transposed\?"):
        nnkit.Network([3, 2], seed=0).parameters.assign([(np.ones((3, 2)), np.ones(2))])


def test_results_must_be_arrays() -> None:
    x, W, b, delta = (np.ones(shape) for shape in ((5, 3), (2, 3), 2, (5, 2)))
    with pytest.raises(TypeError, match="z is a list; expected an array to write to"):
        nnkit.dense_forward(x, W, b, "relu", z=[[0.0]])
    for out, message in (
        ((None, None), "out holds 2; expected a tuple of three"),
        (np.ones(3), "out is a ndarray; expected a tuple of three"),
        ((None, None, [0.0, 0.0]), "db is a list; expected an array to write to"),
    ):
        with pytest.raises(TypeError, match=message):
            nnkit.dense_backward(delta, x, W, out=out)  # type: ignore[arg-type]


def test_integers_above_all_floats() -> None:
    big = 10**400
    for call in (nnkit.relu, nnkit.softmax, nnkit.sigmoid):
        for z in (big, [big, 1]):
            with pytest.raises(ValueError, match="z holds an integer that is too large for float64"):
                call(z)
    with pytest.raises(ValueError, match="delta holds an integer that is too large for float32"):
        nnkit.relu_grad(np.ones(2, np.float32), [big, 1])
    with pytest.raises(ValueError, match="h holds an integer that is too large"):
        nnkit.dense_backward(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)), [[big]], "relu")
    with pytest.raises(ValueError, match=r"elu\(\): alpha is a whole number that is too large"):
        nnkit.elu([1.0], alpha=-big)
    with pytest.raises(ValueError, match=r"SGD: learning_rate is 1000.* expected a finite number"):
        nnkit.SGD(big)


@pytest.mark.parametrize("wrong", ["DataFrame", "Series", "class", "array", "string"])
def test_invalid_preprocessing(wrong: str) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame({"kind": [1.0], "b": [2.0]})  # it has an `apply` too
    given = {"DataFrame": table, "Series": table["b"], "class": nnkit.data.Normalization, "array": np.ones(2)}
    message = "preprocessing is .*; expected a fitted nnkit.data.Normalization, Whitening or TableEncoding"
    with pytest.raises(TypeError, match=message):
        nnkit.Network([2, 2], preprocessing=given.get(wrong, "normalization"))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("DataFrame", TypeError, "classes is a DataFrame; expected a list of names"),
        ({"x": 0, "y": 1}, TypeError, "classes is a dict; expected a list of names"),
        ({"x", "y"}, TypeError, "classes is a set; expected a list of names"),
        (np.array([["x"], ["y"]]), ValueError, r"classes has shape \(2, 1\); expected \(2,\)"),
        (np.array("x"), ValueError, r"classes has shape \(\); expected \(2,\)"),
        ([["x"], ["y"]], TypeError, r"classes holds \['x'\]; expected names"),
    ],
)
def test_invalid_classes(classes: Any, error: Any, message: str) -> None:
    if isinstance(classes, str):
        classes = pytest.importorskip("pandas", reason="pandas is not installed").DataFrame({"a": ["x", "y"]})
    with pytest.raises(error, match=message):
        nnkit.Network([2, 2], classes=classes)
