"""Recorded forward passes: the bits of passes that are not, whatever happens between two questions."""

import copy
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit
from nnkit.model import FEW
from tests.support.pairs import PAIRS

if TYPE_CHECKING:
    from tests.conftest import Arrays

RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(40, 5)), RNG.integers(0, 3, 40)


def network(cost: str = "softmax_cross_entropy", **options: Any) -> nnkit.Network:
    return nnkit.Network([5, 7, 3], "gelu", cost, seed=1, dtype="float64", **options)


def eager(net: nnkit.Network, x: Any) -> Any:
    return net.propagate(net.samples(x))


@pytest.mark.parametrize("cost", ["softmax_cross_entropy", "cross_entropy", "quadratic"])
@pytest.mark.parametrize("n", [1, 2, 17])
def test_recorded_passes_equal_eager_ones(arrays: "Arrays", n: int, cost: str) -> None:
    net = network(cost, preprocessing=nnkit.data.Normalization.fit(X))
    for start in range(4):
        x = arrays(X[start : start + n])
        wanted = arrays.numpy(eager(net, x))
        assert arrays.numpy(net.logits(x)).tobytes() == wanted.tobytes()
        assert (
            arrays.numpy(net.forward(x)).tobytes()
            == arrays.numpy(net.output.outputs(net.backend, eager(net, x))).tobytes()
        )
        if cost != "quadratic":
            assert arrays.numpy(net.predict(x)).tolist() == np.argmax(wanted, axis=1).tolist()
    assert net.placement._idle


def test_results_are_not_overwritten(arrays: "Arrays") -> None:
    net = network("quadratic")  # whose outputs are the logits
    kept = [(net.logits(arrays(X[i : i + 1])), net.forward(arrays(X[i : i + 1]))) for i in range(5)]
    for i, pair in enumerate(kept):
        for answer in pair:
            assert arrays.numpy(answer).tobytes() == arrays.numpy(eager(net, arrays(X[i : i + 1]))).tobytes()


def test_results_follow_the_parameters(arrays: "Arrays") -> None:
    net = network()
    for _ in range(4):
        net.predict_proba(X[:2])
        net.train_step(X, LABELS, nnkit.SGD(0.5))
        assert arrays.numpy(net.logits(X[:2])).tobytes() == arrays.numpy(eager(net, X[:2])).tobytes()


def test_changing_numbers_of_samples_are_not_recorded() -> None:
    net = network()
    for n in (1, 2, 3, 4, 1, 2, 3, 4, *([] if net.backend.compiles else [FEW + 1, FEW + 1])):
        net.predict(RNG.normal(size=(n, 5)))
        assert not net.placement._idle
    for n in (5, 6, 7):
        net.predict(X[:n])
    assert not net.placement._idle
    for n in (5, 6, 7):  # alternating ones are
        net.predict(X[:n])
    assert len(net.placement._idle) == 3
    net.to("standard:array_api_strict")
    assert not net.placement._idle


@pytest.mark.parametrize("kind", ["plain", "fortran", "strided", "float32", "uint8", "read-only", "preprocessed"])
def test_many_samples_are_computed_in_chunks(kind: str) -> None:
    """Also the first time, and into new arrays; a sample gets the same bits at any place of a chunk."""
    n = 2 * FEW + 37
    x = RNG.integers(0, 200, (n, 5)).astype("uint8") if kind == "uint8" else RNG.normal(size=(n, 5))
    x = x.astype("float32") if kind == "float32" else x
    given = {"fortran": np.asfortranarray(x), "strided": np.repeat(x, 2, axis=1)[:, ::2]}.get(kind, x)
    given.flags.writeable = kind != "read-only"
    net = network(preprocessing=nnkit.data.Normalization.fit(X) if kind == "preprocessed" else None)
    found = [net.predict_proba(given) for _ in range(2)]
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], net.output.outputs(net.backend, eager(net, x)), rtol=1e-13)
    net.parameters.flat[...] *= 2
    changed = net.predict_proba(given)
    np.testing.assert_allclose(changed, net.output.outputs(net.backend, eager(net, x)), rtol=1e-13)
    assert found[0].tobytes() == found[1].tobytes() != changed.tobytes()
    assert net.predict(given).tolist() == changed.argmax(axis=1).tolist()


def test_threads_predict_with_one_network() -> None:
    net, wrong = network(), []
    wanted = np.array(eager(net, X))

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            i = int(rng.integers(0, 40))
            if not np.allclose(net.logits(X[i : i + 1]), wanted[i], rtol=1e-12, atol=1e-13):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_prediction_while_a_tape_records() -> None:
    net = network()
    for _ in range(2):
        net.logits(X[:2])
    x = X[:2].copy()
    with net.backend.recording() as tape:
        found = net.logits(x)
    x[...] = X[2:4]
    tape.replay()
    assert np.array_equal(found, eager(net, X[2:4]))


@pytest.mark.parametrize("optimizer", [nnkit.SGD(0.1), nnkit.SGD(0.1, momentum=0.9), nnkit.Adam(0.01)])
def test_a_deep_copy_is_independent(arrays: "Arrays", optimizer: Any) -> None:
    layers = [nnkit.Dense(5, 7, "relu"), nnkit.Dropout(0.5), nnkit.Dense(7, 3)]
    net = nnkit.Network(layers, cost="softmax_cross_entropy", seed=1, dtype="float64")
    net.fit(X, LABELS, epochs=2, optimizer=optimizer, progress=False)
    net.predict(X[:1])
    net.predict(X[:1])
    before = arrays.numpy(net.parameters.flat)
    twin = copy.deepcopy(net)
    twin.fit(X, LABELS, epochs=2, progress=False)
    assert arrays.numpy(net.parameters.flat).tobytes() == before.tobytes()
    net.fit(X, LABELS, epochs=2, progress=False)
    assert arrays.numpy(net.parameters.flat).tobytes() == arrays.numpy(twin.parameters.flat).tobytes()
    assert arrays.numpy(twin.parameters.flat).tobytes() != before.tobytes()
    twin.optimizer.learning_rate = 5.0
    assert net.optimizer.learning_rate != 5.0


@pytest.mark.parametrize(
    ("cost", "activation"), [p for p in PAIRS if p[1] in ("softmax", "sigmoid", "identity", "exponential")]
)
def test_evaluations_are_recorded_and_correct(cost: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second on neither the pass nor the cost is decided anew; the numbers are those of the first."""
    if activation == "softmax" and cost != "softmax_cross_entropy":  # whose loops over rows take a second to compile
        monkeypatch.setenv("NNKIT_NATIVE", "0")
    net = nnkit.Network([5, 7, 3], "gelu", cost, output_activation=activation, seed=1, dtype="float64")
    Y = np.eye(3)[LABELS] + (cost == "gamma")  # whose targets are above 0
    data = [(X[i : i + 10], Y[i : i + 10], 1.0 + RNG.random(10)) for i in range(0, 40, 10)]
    plain = [copy.deepcopy(net).evaluate(x, y) for x, y, _ in data]
    weighted = [copy.deepcopy(net).evaluate(x, y, sample_weight=w) for x, y, w in data]
    outputs = [np.array(net.output.outputs(net.backend, eager(net, x))) for x, _, _ in data]
    for weights, expected in ((False, plain), (True, weighted)):
        for _ in range(2):
            net.evaluate(*data[0][:2], sample_weight=data[0][2] if weights else None)
        net.forward(data[0][0])
        with monkeypatch.context() as patched:
            patched.setattr("nnkit.layers.layer_forward", None)
            patched.setattr(type(net.output), "terms", None)
            for (x, y, w), right in zip(data, expected, strict=True):
                found = net.evaluate(x, y, sample_weight=w if weights else None)
                assert found.keys() == right.keys()
                np.testing.assert_array_equal([*found.values()], [*right.values()])
            if activation != "identity":
                patched.setattr(type(net.output), "outputs", None)
            for (x, _, _), h in zip(data, outputs, strict=True):
                assert net.forward(x).tobytes() == h.tobytes()
