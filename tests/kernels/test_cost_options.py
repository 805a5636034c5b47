"""Constants and label smoothing: what get_cost takes, gives and refuses, and costs with them against PyTorch."""

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnkit
from nnkit.kernels.cost import output_pair
from nnkit.kernels.costs import cost_names, get_cost

if TYPE_CHECKING:
    from tests.conftest import Arrays

SMOOTHED = ("cross_entropy", "softmax_cross_entropy")


@pytest.mark.parametrize("name", cost_names())
def test_a_name_is_the_cost_without_options(name: str) -> None:
    cost = get_cost(name)
    assert (cost.name, cost.constants, cost.label_smoothing) == (name, (), 0.0)
    assert cost.describe() == {"name": name}
    assert get_cost(cost) is cost is get_cost(name)
    assert get_cost(**cost.describe()) == cost
    y = np.eye(2)
    assert cost.smoothed(nnkit.get_backend("numpy"), y) is y


@given(st.floats(1e-300, 1e300))
def test_a_constant_survives_json(delta: float) -> None:
    cost = get_cost("huber", delta=delta)
    assert get_cost(**json.loads(json.dumps(cost.describe()))) == cost
    assert cost.constants == ((("delta", delta),) if delta != 1 else ())


@given(st.sampled_from(SMOOTHED), st.floats(0, 1, exclude_max=True))
def test_label_smoothing_survives_json(name: str, s: float) -> None:
    cost = get_cost(name, label_smoothing=s)
    assert get_cost(**json.loads(json.dumps(cost.describe()))) == cost
    assert cost.describe() == ({"name": name, "label_smoothing": s} if s else {"name": name})


def test_costs_are_frozen_and_hashable() -> None:
    one, other = get_cost("huber", delta=np.float64(2)), get_cost("huber", delta=2)
    assert one == other
    assert len({one, other, get_cost("huber"), get_cost("huber", delta=1.0), get_cost("quadratic")}) == 3
    assert type(one.constants[0][1]) is float
    assert output_pair(one) is output_pair(other)
    assert output_pair(one) is not output_pair(get_cost("huber"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"  # type: ignore[misc]


def test_a_cost_keeps_options_that_are_not_given() -> None:
    smooth = get_cost("cross_entropy", label_smoothing=0.2)
    assert get_cost(smooth) == smooth
    assert get_cost(smooth, label_smoothing=0.3).label_smoothing == 0.3
    assert get_cost(smooth, label_smoothing=0).label_smoothing == 0  # as given, and not what the cost had
    assert get_cost(smooth).label_smoothing == 0.2
    wide = get_cost("huber", delta=3.0)
    assert get_cost(wide) == wide
    assert get_cost(wide, delta=4.0).constants == (("delta", 4.0),)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "huber", "dleta": 1.0}, ValueError, "unknown option of huber 'dleta'; did you mean 'delta'"),
        (
            {"name": "quadratic", "delta": 1.0},
            ValueError,
            "unknown option of quadratic 'delta'; known: label_smoothing",
        ),
        ({"name": "huber", "delta": 0.0}, ValueError, "huber: delta is 0.0; expected a finite number above 0"),
        ({"name": "huber", "delta": -1}, ValueError, "huber: delta is -1; expected"),
        ({"name": "huber", "delta": float("inf")}, ValueError, "huber: delta is inf; expected"),
        ({"name": "huber", "delta": float("nan")}, ValueError, "huber: delta is nan; expected"),
        ({"name": "huber", "delta": "1"}, TypeError, "huber: delta is '1'; expected a finite number above"),
        ({"name": "huber", "delta": True}, TypeError, "huber: delta is True; expected a finite number"),
        ({"name": "huber", "delta": None}, TypeError, "huber: delta is None; expected a finite number"),
        (
            {"name": "cross_entropy", "label_smoothing": 1.0},
            ValueError,
            "label_smoothing is 1.0; expected a finite number of at least 0 and below 1",
        ),
        ({"name": "cross_entropy", "label_smoothing": -0.1}, ValueError, "label_smoothing is -0.1; expected"),
        ({"name": "cross_entropy", "label_smoothing": float("nan")}, ValueError, "label_smoothing is nan; expected"),
        ({"name": "cross_entropy", "label_smoothing": "0.1"}, TypeError, "label_smoothing is '0.1'; expected a finite"),
        (
            {"name": "hinge", "label_smoothing": 0.1},
            ValueError,
            "hinge has no label smoothing; it is for cross_entropy",
        ),
        ({"name": "huber", "label_smoothing": 0.1}, ValueError, "huber has no label smoothing"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_cost(**options)


def test_domains_and_classes() -> None:
    found = {name: (get_cost(name).domain, get_cost(name).classifies) for name in cost_names()}
    assert found == {
        "quadratic": ("any", False),
        "mean_absolute": ("any", False),
        "huber": ("any", False),
        "log_cosh": ("any", False),
        "quantile": ("any", False),
        "poisson": ("nonnegative", False),
        "gamma": ("positive", False),
        "tweedie": ("nonnegative", False),
        "cross_entropy": ("unit", True),
        "softmax_cross_entropy": ("distribution", True),
        "hinge": ("unit", True),
    }


@pytest.mark.parametrize("delta", [0.01, 0.3, 1.0, 2.0, 100.0])
def test_huber_agrees_with_torch(arrays: "Arrays", delta: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    h, y = rng.normal(0, 2, (5, 3)), rng.normal(0, 2, (5, 3))
    h[0, 0] = y[0, 0] + delta  # where the square turns into a line
    outputs = torch.tensor(h, requires_grad=True)
    cost = torch.nn.functional.huber_loss(outputs, torch.tensor(y), delta=delta)
    cost.backward()
    assert float(nnkit.huber(arrays(h), arrays(y), delta=delta)) == pytest.approx(3 * cost.item(), rel=1e-14)
    found = arrays.numpy(nnkit.huber_delta(arrays(h), arrays(y), delta=delta), "float64")
    np.testing.assert_allclose(found, 3 * outputs.grad.numpy(), rtol=1e-14, atol=1e-17)


def test_an_invalid_delta_of_huber_is_refused() -> None:
    for function in (nnkit.huber, nnkit.huber_delta):
        with pytest.raises(ValueError, match=r"huber: delta is 0\.0; expected a finite number above 0"):
            function(np.ones((1, 1)), np.ones((1, 1)), delta=0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("s", [0.1, 0.5, 0.999])
def test_smoothed_targets(arrays: "Arrays", s: float, dtype: str) -> None:
    y = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0]])
    for name, k in (("cross_entropy", 2), ("softmax_cross_entropy", 4)):
        found = arrays.numpy(get_cost(name, label_smoothing=s).smoothed(arrays.backend, arrays(y, dtype)), dtype)
        wanted = [[v * (1 - s) + s / k for v in row] for row in y.tolist()]
        np.testing.assert_allclose(found, wanted, rtol=2 * float(np.finfo(dtype).eps))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("s", [0.1, 0.5])
def test_label_smoothing_agrees_with_torch(s: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(1)
    z, labels = rng.normal(0, 3, (6, 4)), rng.integers(0, 4, 6)
    logits = torch.tensor(z, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), label_smoothing=s)
    loss.backward()
    y = get_cost("softmax_cross_entropy", label_smoothing=s).smoothed(nnkit.get_backend("numpy"), np.eye(4)[labels])
    assert float(nnkit.softmax_cross_entropy(z, y)) == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(nnkit.softmax_cross_entropy_delta(z, y), logits.grad.numpy(), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    ("name", "options", "deviance"),
    [
        ("quantile", {"q": 0.1}, lambda m, y, h: m.mean_pinball_loss(y, h, alpha=0.1)),
        ("quantile", {"q": 0.75}, lambda m, y, h: m.mean_pinball_loss(y, h, alpha=0.75)),
        ("poisson", {}, lambda m, y, h: m.mean_poisson_deviance(y, h) / 2),
        ("gamma", {}, lambda m, y, h: m.mean_gamma_deviance(y, h) / 2),
        ("tweedie", {}, lambda m, y, h: m.mean_tweedie_deviance(y, h, power=1.5) / 2),
        ("tweedie", {"power": 1.2}, lambda m, y, h: m.mean_tweedie_deviance(y, h, power=1.2) / 2),
    ],
)
def test_half_the_deviance_of_scikit_learn_up_to_terms_of_the_targets(
    arrays: "Arrays", name: str, options: dict[str, float], deviance: Any
) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, one, other = (rng.uniform(0.1, 3, (9, 1)) for _ in range(3))
    function = getattr(nnkit, name)
    forms = [np.asarray(h) if name == "quantile" else np.log(h) for h in (one, other)]
    found = [float(function(arrays(form), arrays(y), **options)) for form in forms]
    wanted = [deviance(metrics, y[:, 0], h[:, 0]) for h in (one, other)]
    assert found[0] - found[1] == pytest.approx(wanted[0] - wanted[1], rel=1e-12)
    network = nnkit.Network([2, 1], cost=get_cost(name, **options), seed=0, dtype="float64")
    assert nnkit.check_gradients(network, rng.normal(size=(9, 2)), y).max_error < 1e-13


def test_constants_have_their_ranges() -> None:
    for name, constant, value in (("quantile", "q", 1.0), ("quantile", "q", 0), ("tweedie", "power", 2)):
        with pytest.raises(ValueError, match=f"{name}: {constant} is {value}; expected"):
            get_cost(name, **{constant: value})
    with pytest.raises(ValueError, match="tweedie: power is 1; expected a number above 1 and below 2"):
        get_cost("tweedie", power=1)
    assert get_cost(**get_cost("tweedie", power=1.2).describe()) == get_cost("tweedie", power=1.2)


def test_amounts_must_be_positive_for_gamma() -> None:
    network = nnkit.Network([2, 1], cost="gamma", seed=0)
    with pytest.raises(ValueError, match=r"y holds 0.0 at \[1, 0\]; expected targets above 0 for gamma"):
        network.fit([[0.0, 1.0], [1.0, 0.0]], [1.0, 0.0], progress=False)


def test_quantiles_of_noise_are_learned() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (4000, 1))
    y = X[:, 0] + rng.normal(size=4000)
    network = nnkit.Network([1, 1], cost=get_cost("quantile", q=0.9), seed=0)
    network.fit(X, y, epochs=20, batch_size=100, optimizer=nnkit.Adam(0.02), progress=False)
    assert np.mean(y < network.predict(X)) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("dtype", "power", "logit"), [("float32", 1.5, -200.0), ("float32", 1.9, -100.0), ("float64", 1.99, -720.0)]
)
def test_tweedie_of_a_target_0_and_a_tiny_prediction(dtype: str, power: float, logit: float) -> None:
    """y h^(1 − p) is 0 for y = 0, also where the power of h overflows."""
    z, y = np.array([[logit]], dtype), np.zeros((1, 1), dtype)
    right, rtol = math.exp((2 - power) * logit), 1e-12 if dtype == "float64" else 0.02  # subnormal
    np.testing.assert_allclose(nnkit.tweedie(z, y, power=power), right / (2 - power), rtol=rtol)
    np.testing.assert_allclose(nnkit.tweedie_delta(z, y, power=power), [[right]], rtol=rtol)
    net = nnkit.Network([1, 1], cost=get_cost("tweedie", power=power), init="zeros", dtype=dtype, seed=0)
    net.parameters.vector = np.array([0.0, logit])
    np.testing.assert_allclose(net.evaluate([[1.0]], [0.0])["cost"], right / (2 - power), rtol=rtol)
