"""Network: what it is made of, its parameters, and what it answers, on every backend."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.parameters import Parameters
from tests.support.exact import exact

if TYPE_CHECKING:
    from tests.conftest import Arrays

Dense, Network = nnkit.Dense, nnkit.Network


def parameters(net: nnkit.Network) -> list[np.ndarray]:
    pairs = zip(net.parameters.W, net.parameters.b, strict=True)
    return [np.array(net.backend.to_numpy(a)) for pair in pairs for a in pair]


def constant(*values: tuple[Any, Any]) -> Any:
    """An initializer that hands out these W and b, layer by layer."""
    left = [(np.array(W, float), np.array(b, float)) for W, b in values]
    return lambda rng, units, inputs: left.pop(0)


def test_sizes_become_layers() -> None:
    net = Network([4, 5, 6, 3], activation="tanh", seed=1)
    assert net.layers == [Dense(4, 5, "tanh"), Dense(5, 6, "tanh"), Dense(6, 3, "softmax")]
    for cost, output in (("quadratic", "identity"), ("softmax_cross_entropy", "softmax"), ("cross_entropy", "sigmoid")):
        assert Network([4, 3], cost=cost, seed=0).dense[-1].activation == output
        assert Network([4, 3], cost=cost, output_activation="softmax", seed=0).dense[-1].activation == "softmax"
    assert [W.shape for W in net.parameters.W] == [(5, 4), (6, 5), (3, 6)]
    assert [b.shape for b in net.parameters.b] == [(5,), (6,), (3,)]
    assert net.parameters.count == 5 * 5 + 6 * 6 + 3 * 7
    assert Network([1, 1], seed=0).parameters.count == 2


@pytest.mark.parametrize(
    ("layers", "options", "output", "cost"),
    [
        ([4, 10], {}, "softmax", "softmax_cross_entropy"),
        ([4, 2], {}, "softmax", "softmax_cross_entropy"),
        ([4, 1], {}, "sigmoid", "cross_entropy"),
        ([4, 10], {"output_activation": "sigmoid"}, "sigmoid", "cross_entropy"),
        ([4, 10], {"output_activation": "softmax"}, "softmax", "softmax_cross_entropy"),
        ([Dense(4, 10)], {}, "softmax", "softmax_cross_entropy"),
        ([Dense(4, 10)], {"output_activation": "sigmoid"}, "sigmoid", "cross_entropy"),
        ([Dense(4, 10, "sigmoid")], {}, "sigmoid", "cross_entropy"),
        ([Dense(4, 1, "sigmoid")], {}, "sigmoid", "cross_entropy"),
        ([4, 10], {"cost": "cross_entropy"}, "sigmoid", "cross_entropy"),
        ([4, 1], {"cost": "quadratic"}, "identity", "quadratic"),
        ([4, 1], {"cost": "quadratic", "output_activation": "tanh"}, "tanh", "quadratic"),
    ],
    ids=str,
)
def test_the_default_cost(layers: Any, options: Any, output: str, cost: str) -> None:
    net = Network(layers, **options, seed=0)
    assert (net.dense[-1].activation, net.cost.name) == (output, cost)


def test_default_probabilities_of_a_sample_sum_to_1(arrays: "Arrays") -> None:
    net = Network([5, 7, 10], seed=0, dtype="float64")
    p = arrays.numpy(net.predict_proba(np.random.default_rng(0).normal(size=(20, 5))), "float64")
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-15)
    logits = arrays.numpy(net.logits([[1.0, -2.0, 0.0, 0.5, 3.0]]), "float64")[0].tolist()
    wanted = [math.exp(z) / math.fsum(map(math.exp, logits)) for z in logits]
    np.testing.assert_allclose(arrays.numpy(net.forward([[1.0, -2.0, 0.0, 0.5, 3.0]]))[0], wanted, rtol=1e-14)


@pytest.mark.parametrize("outputs", [1, 3])
def test_an_error_for_real_targets_names_their_cost(outputs: int) -> None:
    net, y = Network([2, outputs], seed=0), np.full((3, outputs), 1 / outputs)
    X = np.ones((3, 2))
    for wrong in (2.5, -0.5):
        y[1, 0] = wrong
        for call in (net.fit, net.partial_fit, net.evaluate):
            with pytest.raises(ValueError, match=r'y holds .* at \[1, 0\]; .* give the network cost="quadratic"$'):
                call(X, y)
    if outputs > 1:
        y[1, 0] = 0.9  # in [0, 1], but no distribution
        with pytest.raises(ValueError, match=r'targets of sample 1 sum to 1\.5.*; for real-.* cost="quadratic"$'):
            net.fit(X, y)
        with pytest.raises(TypeError, match=r'y has dtype float64 .* give the network cost="quadratic"$'):
            net.fit(X, [0.5, 1.7, 2.0])
    assert net.epochs_trained == 0


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([Dense(3, 4), Dense(4, 2)], {"activation": "relu"}, "activation is 'relu', which has no effect with layers"),
        ([Dense(3, 4), Dense(4, 2)], {"activation": "nonsense"}, "activation is 'nonsense', which has no effect"),
        ([Dense(3, 2, "tanh")], {"cost": "quadratic", "output_activation": "tanh"}, "output_activation is 'tanh', whi"),
        ([Dense(3, 2, "tanh")], {"cost": "quadratic", "output_activation": "wrong"}, "output_activation is 'wrong'"),
        ([Dense(3, 2, init="zeros")], {"init": "zeros"}, "init is 'zeros', which has no effect"),
        ([Dense(3, 4, init="zeros"), Dense(4, 2, init="zeros")], {"init": "nonsense"}, "init is 'nonsense', which has"),
    ],
)
def test_arguments_without_effect_are_refused(layers: Any, options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Network(layers, **options)


class OwnDense(nnkit.Dense):
    """A layer that would be computed as a Dense."""


class OwnDropout(nnkit.Dropout):
    """A layer that would be computed as a Dropout."""


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([OwnDense(3, 4), Dense(4, 2)], "layers contains a OwnDense, whose own code .*register_activation"),
        ([Dense(3, 4), OwnDense(4, 2)], "layers contains a OwnDense, whose own code would not run"),
        ([Dense(3, 4), OwnDropout(0.1), Dense(4, 2)], "layers contains a OwnDropout, .*derive from nnkit.Layer"),
        ([Dense(3, 4), Dense], r"layers contains the class Dense; expected an instance, such as Dense\(4, 8"),
        ([Dense(3, 4), np.tanh, Dense(4, 2)], "layers contains <ufunc 'tanh'>; expected integers, or Dense and"),
        (["a", 3], "layers contains 'a'; expected integers, or Dense and Dropout layers"),
        ("ab", "layers is 'ab'; expected a list of sizes or of layers"),
        (5, "layers is 5; expected a list of sizes or of layers"),
        (None, "layers is None; expected a list of sizes or of layers"),
    ],
)
def test_invalid_layers_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Network(layers)


def test_arguments_with_an_effect_besides_layers() -> None:
    net = Network([Dense(3, 4, init="nielsen_large"), Dense(4, 2)], output_activation="sigmoid", init="zeros", seed=0)
    first, _, second, _ = parameters(net)
    assert first.all()
    assert not second.any()
    assert net.dense[-1].activation == "sigmoid"


def test_layers_and_sizes_have_equal_initial_values() -> None:
    by_sizes = Network([4, 5, 3], activation="relu", seed=9)
    by_layers = Network([Dense(4, 5, "relu"), Dense(5, 3)], seed=9)
    for a, b in zip(parameters(by_sizes), parameters(by_layers), strict=True):
        assert a.tobytes() == b.tobytes()
    mixed = Network([Dense(4, 5, "relu", init="nielsen_large"), Dense(5, 3)], seed=9)
    assert (mixed.parameters.b[0] != 0).all()
    assert (mixed.parameters.b[1] == 0).all()


@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        ([], {}, ValueError, r"layers is \[\]; expected at least two sizes"),
        ([4], {}, ValueError, r"layers is \[4\]; expected at least two sizes"),
        ([4, 0], {}, ValueError, "units is 0; expected a whole number of at least 1"),
        ([-4, 3], {}, ValueError, "inputs is -4; expected a whole number"),
        ([4, 2.5], {}, ValueError, "units is 2.5; expected a whole number"),
        ([4, True], {}, ValueError, "units is True; expected a whole number"),
        ([4, Dense(4, 3)], {}, TypeError, "sizes and layers cannot be mixed"),
        ([Dense(4, 5), Dense(6, 3)], {}, ValueError, r"Dense\(inputs=4, units=5.* gives 5 values, but .* takes 6"),
        ([Dense(4, 5, "softmax"), Dense(5, 3)], {}, ValueError, "softmax couples the units"),
        ([4, 5, 3], {"activation": "softmax"}, ValueError, "softmax couples the units"),
        ([4, 3], {"activation": "softmax"}, ValueError, "softmax couples the units"),
        ([4, 5, 3], {"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'"),
        ([4, 3], {"activation": "rleu"}, ValueError, "unknown activation 'rleu'; did you mean 'relu'"),
        ([4, 3], {"output_activation": "tanh"}, ValueError, "output activation is 'tanh'; expected a cost as well"),
        ([Dense(4, 3, "identity")], {}, ValueError, r"is 'identity'; expected a cost .* such as cost='quadratic'"),
        ([4, 1], {"output_activation": "softmax"}, ValueError, "softmax of a single output is always 1"),
        ([4, 3], {"output_activation": "tanhh"}, ValueError, "unknown activation 'tanhh'; did you mean 'tanh'"),
        ([4, 3], {"cost": "crossentropy"}, ValueError, "unknown cost 'crossentropy'; did you mean 'cross_entropy'"),
        ([4, 3], {"init": "he"}, ValueError, "unknown initializer 'he'"),
        ([4, 3], {"init": "glorot_norm"}, ValueError, "did you mean 'glorot_normal'"),
        ([4, 3], {"dtype": "float16"}, ValueError, "dtype is 'float16'; expected 'float32' or 'float64'"),
        ([4, 3], {"dtype": "nonsense"}, ValueError, "dtype is 'nonsense'; expected 'float32' or 'float64'"),
        ([4, 3], {"dtype": None}, ValueError, "dtype is None; expected 'float32' or 'float64'"),
        ([4, 3], {"seed": -1}, ValueError, "seed is -1; expected a whole number of at least 0"),
        ([4, 3], {"seed": 1.5}, ValueError, "seed is 1.5"),
        ([4, 3], {"seed": True}, ValueError, "seed is True"),
        ([4, 3], {"backend": "numppy"}, nnkit.BackendUnavailableError, "unknown backend 'numppy'"),
        (
            [4, 3],
            {"init": constant(([[1, 2, 3, 4]], [0]))},
            ValueError,
            r"of layer 0: W has shape \(1, 4\); .* \(3, 4\)",
        ),
        (
            [1, 3],
            {"init": constant(([[1], [2], [3]], 0))},
            ValueError,
            r"of layer 0: b has shape \(\); expected \(3,\)",
        ),
    ],
)
def test_errors_of_construction(layers: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Network(layers, **options)


@pytest.mark.parametrize("init", [None, "nielsen_large", nnkit.initializers.uniform(0.1)])
def test_a_seed_gives_equal_initial_values_on_every_backend(arrays: "Arrays", init: Any) -> None:
    wide = Network([7, 5, 3], init=init, seed=42, dtype="float64", backend="numpy")
    for dtype in ("float32", "float64"):
        net = Network([7, 5, 3], init=init, seed=42, dtype=dtype)
        assert net.backend is arrays.backend
        for found, drawn in zip(parameters(net), parameters(wide), strict=True):
            assert found.dtype == dtype
            assert found.tobytes() == drawn.astype(dtype).tobytes()
    for other in (Network([7, 5, 3], init=init, seed=43), Network([7, 5, 3], init=init, seed=None)):
        assert (parameters(other)[0] != parameters(wide)[0].astype("float32")).any()


def test_without_a_seed_one_is_drawn_and_kept() -> None:
    nets = [Network([3, 2]) for _ in range(3)]
    assert len({net.seed for net in nets}) > 1
    again = Network([3, 2], seed=nets[0].seed)
    assert parameters(again)[0].tobytes() == parameters(nets[0])[0].tobytes()


def test_repr_describes_the_network() -> None:
    net = Network([784, 100, 10], activation="relu", cost="softmax_cross_entropy", seed=5, dtype="float64")
    assert repr(net) == (
        "Network(784 → 100 relu → 10 softmax, softmax_cross_entropy, 79510 parameters in float64 on numpy, seed 5)"
    )
    sizes: Any = np.array([2, 1])
    seed: Any = np.int64(3)
    assert repr(Network(sizes, seed=seed)).endswith("3 parameters in float32 on numpy, seed 3)")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_have_the_documented_shapes(arrays: "Arrays", dtype: str) -> None:
    W, b, V, c = (
        [[1.0, -2.0], [0.5, 1.0], [2.0, 0.0]],
        [0.1, 0.2, -0.3],
        [[1.0, 2.0, -1.0], [0.0, -1.0, 1.0]],
        [0.5, -0.5],
    )
    net = Network([2, 3, 2], "tanh", "cross_entropy", init=constant((W, b), (V, c)), seed=0, dtype=dtype)
    x = np.array([[0.5, -1.0], [2.0, 0.25], [-1.0, 0.0]])
    h = [
        [math.tanh(math.fsum([*(a * v for a, v in zip(w, s, strict=True)), k])) for w, k in zip(W, b, strict=True)]
        for s in x
    ]
    z = [[math.fsum([*(a * v for a, v in zip(w, s, strict=True)), k]) for w, k in zip(V, c, strict=True)] for s in h]
    p = [[exact("sigmoid", v)[0] for v in row] for row in z]
    rtol = 1e-5 if dtype == "float32" else 1e-14
    for given in (arrays(x, dtype), x, x.tolist()):
        np.testing.assert_allclose(arrays.numpy(net.logits(given), dtype), z, rtol=rtol)
        np.testing.assert_allclose(arrays.numpy(net.forward(given), dtype), p, rtol=rtol)
        np.testing.assert_allclose(arrays.numpy(net.predict_proba(given), dtype), p, rtol=rtol)
        assert arrays.numpy(net.predict(given), "int64").tolist() == np.argmax(p, axis=1).tolist()
    y = [1, 0, 0]
    cost = [
        -sum(math.log(v if k == label else 1 - v) for k, v in enumerate(row)) for row, label in zip(p, y, strict=True)
    ]
    measured = net.evaluate(arrays(x, dtype), y)
    assert measured["cost"] == pytest.approx(math.fsum(cost) / 3, rel=rtol)
    assert measured["accuracy"] == np.mean(np.argmax(p, axis=1) == y)
    assert {type(value) for value in measured.values()} == {float}


def test_one_output_is_a_class_above_one_half(arrays: "Arrays") -> None:
    net = Network([1, 1], init=constant(([[2.0]], [0.0])), seed=0)
    x = arrays([[-3.0], [-0.1], [0.1], [3.0]])
    assert arrays.numpy(net.predict(x), "int64").tolist() == [0, 0, 1, 1]
    assert net.evaluate(x, [0, 1, 1, 0])["accuracy"] == 0.5
    assert net.evaluate(x, [[0.2], [0.4], [0.6], [0.3]])["accuracy"] == 0.75  # soft targets: above ½ or not


def test_the_class_is_the_largest_output(arrays: "Arrays") -> None:
    """GELU falls before it rises: the largest logit need not be the largest output."""
    identity = constant((np.eye(2), [0.0, 0.0]))
    net = Network([2, 2], cost="hinge", output_activation="gelu", init=identity, seed=0)
    assert arrays.numpy(net.predict(arrays([[-0.7, -5.0], [-5.0, -4.0]]))).tolist() == [1, 1 - 1]
    # Saturated: both outputs are 1 in float32, the logits still tell.
    net = Network([2, 2], cost="cross_entropy", init=constant((np.eye(2), [0.0, 0.0])), seed=0)
    assert arrays.numpy(net.predict(arrays([[200.0, 300.0], [300.0, 200.0]]))).tolist() == [1, 0]


def test_a_regression_predicts_its_outputs(arrays: "Arrays") -> None:
    net = Network([2, 3], cost="quadratic", seed=0)
    x = arrays(np.ones((4, 2)))
    assert arrays.numpy(net.predict(x), "float32").tolist() == arrays.numpy(net.forward(x)).tolist()
    assert net.evaluate(x, np.zeros((4, 3))).keys() == {"cost"}


def test_gradients_are_new_arrays_and_do_not_change_the_network(arrays: "Arrays") -> None:
    net = Network([3, 4, 2], seed=0, dtype="float64")
    before = parameters(net)
    cost, gradients = net.gradients(np.ones((2, 3)), [0, 1])
    kept = [arrays.numpy(a, "float64") for pair in gradients for a in pair]
    net.gradients(-np.ones((2, 3)), [1, 1])
    assert all((arrays.numpy(a) == k).all() for a, k in zip([a for p in gradients for a in p], kept, strict=True))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, parameters(net), strict=True))
    assert cost.shape == ()
    assert float(cost) == pytest.approx(net.evaluate(np.ones((2, 3)), [0, 1])["cost"], rel=1e-14)


def test_parameters_are_in_one_vector(arrays: "Arrays") -> None:
    p = Parameters(arrays.backend, [nnkit.Dense(d_in, d_out).shapes for d_out, d_in in [(3, 5), (2, 3)]], "float32")
    p.assign([(np.full((3, 5), 1.0), np.full(3, 2.0)), (np.full((2, 3), 3.0), np.full(2, 4.0))])
    flat = arrays.numpy(p.flat, "float32")
    # Each piece starts at a multiple of 64 bytes, 16 numbers; weights before biases; zeros between.
    expected = [1.0] * 15 + [0] + [3.0] * 6 + [0] * 10 + [2.0] * 3 + [0] * 13 + [4.0] * 2 + [0] * 14
    assert flat.tolist() == expected
    assert arrays.numpy(p.weights).tolist() == expected[:32]
    assert arrays.numpy(p.biases).tolist() == expected[32:]
