"""Whatever arrays a network is given: an answer, or an error of a documented type that changes nothing."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

import nnkit

COSTS = ["quadratic", "cross_entropy", "softmax_cross_entropy", "hinge", "poisson", "huber"]
ANY = st.one_of(
    arrays(scalar_dtypes(), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=st.floats(width=64)),
    arrays(np.int64, st.integers(0, 5), elements=st.integers(-1, 2)),
    arrays(np.float32, st.tuples(st.integers(1, 5), st.sampled_from([1, 2])), elements=st.floats(0, 1, width=32)),
    st.lists(st.text(max_size=2), max_size=5),
    st.lists(st.lists(st.floats(width=16), max_size=3), max_size=4),
)


def state_of(net: nnkit.Network) -> tuple[Any, ...]:
    classes = None if net.classes is None else net.classes.tolist()
    return net.parameters.flat.tobytes(), net.epochs_trained, net.optimizer, net.state, classes


@pytest.mark.filterwarnings("ignore:feature . has a root mean square")  # of samples such as [[11, 0, 0]]
@settings(deadline=None, max_examples=200)
@given(ANY, ANY, st.sampled_from(COSTS), st.sampled_from([1, 2]), st.none() | ANY)
def test_fit(X: Any, y: Any, cost: str, outputs: int, weights: Any) -> None:
    wants = {"softmax_cross_entropy": "softmax", "hinge": "tanh"}.get(cost, "sigmoid")
    net = nnkit.Network([3, 4, 2 if wants == "softmax" else outputs], "tanh", cost, output_activation=wants, seed=0)
    before = state_of(net)
    try:
        history = net.fit(X, y, epochs=2, sample_weight=weights, optimizer=nnkit.SGD(0.1, momentum=0.5), progress=False)
    except (ValueError, TypeError):
        assert state_of(net) == before
    except nnkit.DivergenceError:
        assert np.isfinite(net.parameters.flat).all()
    else:
        assert np.isfinite(net.parameters.flat).all()
        assert history.epochs == 2
        assert np.asarray(net.predict(X)).shape[0] == len(X)


@settings(deadline=None, max_examples=200)
@given(ANY, ANY)
def test_everything_else(X: Any, y: Any) -> None:
    net = nnkit.Network([3, 4, 2], "tanh", "softmax_cross_entropy", seed=0)
    before = state_of(net)
    for call in (net.predict, net.predict_proba, net.logits):
        with suppress(ValueError, TypeError):
            assert np.asarray(call(X)).shape[0] == len(X)
    for method in (net.evaluate, net.gradients):
        with suppress(ValueError, TypeError):
            method(X, y)
    assert state_of(net) == before
