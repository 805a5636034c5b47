"""What the dense layer refuses, by the name of the argument."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nnkit

if TYPE_CHECKING:
    from tests.conftest import Arrays


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"W": (5, 3)}, r"x has shape \(2, 4\); expected \(..., 3\) to fit W"),
        ({"W": (4,)}, r"W has shape \(4,\); expected \(d_out, d_in\)"),
        ({"W": (6, 5, 4), "b": (6, 5)}, r"x has shape \(2, 4\); expected the leading axes of W, \(6,\)"),
        ({"x": ()}, r"x has shape \(\); expected \(..., 4\)"),
        ({"b": (4,)}, r"b has shape \(4,\); expected \(5,\)"),
        ({"b": (1, 5)}, r"b has shape \(1, 5\); expected \(5,\)"),
        ({"out": (2, 4)}, r"out has shape \(2, 4\); expected \(2, 5\)"),
        ({"z": (5,)}, r"z has shape \(5,\); expected \(2, 5\)"),
        ({"delta": (2, 4)}, r"delta has shape \(2, 4\); expected \(2, 5\)"),
        ({"h": (5,)}, r"h has shape \(5,\); expected that of delta, \(2, 5\)"),
        ({"dx": (2, 5)}, r"dx has shape \(2, 5\); expected \(2, 4\)"),
        ({"dW": (4, 5)}, r"dW has shape \(4, 5\); expected \(5, 4\)"),
        ({"db": (1, 5)}, r"db has shape \(1, 5\); expected \(5,\)"),
    ],
)
def test_a_wrong_shape_names_the_argument(arrays: "Arrays", changed: dict[str, tuple[int, ...]], message: str) -> None:
    shapes: dict[str, Any] = {"x": (2, 4), "W": (5, 4), "b": (5,), "delta": (2, 5), "h": (2, 5)} | changed
    a = {name: arrays(np.ones(shape)) for name, shape in shapes.items()}
    forward = functools.partial(nnkit.dense_forward, a["x"], a["W"], a["b"], out=a.get("out"), z=a.get("z"))
    out = a.get("dx"), a.get("dW"), a.get("db")
    backward = functools.partial(nnkit.dense_backward, a["delta"], a["x"], a["W"], a["h"], out=out)
    call = forward if changed.keys() & {"x", "W", "b", "out", "z"} else backward
    with pytest.raises(ValueError, match=message):
        call(activation="tanh")


def test_other_errors_name_the_argument() -> None:
    x, W, b, delta = (np.ones(shape) for shape in ((3, 4), (5, 4), (5,), (3, 5)))
    with pytest.raises(ValueError, match="the gradient of sigmoid needs h, the output"):
        nnkit.dense_backward(delta, x, W, activation="sigmoid")
    with pytest.raises(ValueError, match="the gradient of gelu needs z, the preactivation"):
        nnkit.dense_backward(delta, x, W, delta, "gelu")
    with pytest.raises(TypeError, match="W has dtype int64"):
        nnkit.dense_forward(x, W.astype(int), b)
    strict = nnkit.get_backend("standard:array_api_strict")
    with pytest.raises(
        nnkit.BackendMismatchError, match="x is on backend 'numpy' and b on 'standard:array_api_strict'"
    ):
        nnkit.dense_forward(x, W, strict.asarray(b))
    with pytest.raises(nnkit.BackendMismatchError, match="dW on 'standard:array_api_strict'"):
        nnkit.dense_backward(delta, x, W, out=(None, strict.asarray(W), None))


def test_results_that_overlap_operands_are_refused() -> None:
    x, W, b, delta = np.ones((3, 2)), np.eye(2), np.ones(2), np.ones((3, 2))
    square = np.ones((2, 2))
    for out, message in (((None, W, None), "dW overlaps W"), ((None, None, W[0]), "db overlaps W")):
        with pytest.raises(ValueError, match=message):
            nnkit.dense_backward(delta, x, W, out=out)
    with pytest.raises(ValueError, match="dW overlaps delta"):
        nnkit.dense_backward(square, square.copy(), W, out=(None, square, None))
    with pytest.raises(ValueError, match="out overlaps b"):
        nnkit.dense_forward(x, W, delta[0], out=delta)
    with pytest.raises(ValueError, match="z overlaps b"):
        nnkit.dense_forward(x, W, delta[0], "silu", z=delta)
    h = nnkit.dense_forward(square, W, b, "tanh")  # then δh̄ is an array of its own
    expected = nnkit.dense_backward(h.copy(), square, W, h, "tanh")
    found = nnkit.dense_backward(h, square, W, h.copy(), "tanh", out=(None, h, None))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
