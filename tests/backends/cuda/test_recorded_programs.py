"""Recordings that nobody wrote a pass for: a layer's calls in any order, and with anything between them."""

import itertools
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnkit
from nnkit.backends.formula import Formula, compose
from nnkit.backends.recording import Tape
from nnkit.kernels.activations import get_activation
from nnkit.kernels.dense import biased
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host

TWICE = Formula(lambda xp, a: a * 2, "twice", ["a"])
WRAPPED = Formula(lambda xp, a: a - 4 * xp.floor((a + 2) / 4), "wrapped", ["a"])  # to −2, −1, 0 or 1


RELU = get_activation("relu")

SHAPES = {"x": (4, 8), "W": (8, 8), "b": (8,), "Δ": (4, 3), "V": (3, 8), "h": (4, 8), "z": (4, 8), "δ": (4, 8)}
SHAPES |= {"δW": (8, 8), "δb": (8,)}


def gelu(x: Any) -> Any:
    """Hendrycks and Gimpel, arXiv:1606.08415, eq. 2, of complex numbers too: a step of 1e-20 i gives the derivative."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))


class Layer:
    """The six calls of a layer's two passes, and the same by NumPy in float64; whole numbers, which ReLU leaves so."""

    def __init__(self, host: HostDevice, activation: str = "relu") -> None:
        rng = np.random.default_rng(5)
        self.expected = {name: rng.integers(-3, 4, shape).astype(float) for name, shape in SHAPES.items()}
        self.arrays = {name: host.asarray(values.copy(), "float32") for name, values in self.expected.items()}
        a, f = self.arrays, get_activation(activation)
        saves = f.gradient_from == "preactivation"
        fused = compose(f.forward, biased, keep_inner=saves)
        self.calls = [
            partial(host.matmul, a["x"], a["W"].mT, out=a["h"]),
            partial(host.elementwise, fused, (a["h"], a["b"]), out=(a["z"], a["h"]) if saves else a["h"]),
            partial(host.matmul, a["Δ"], a["V"], out=a["δ"]),
            partial(host.elementwise, f.gradient, (a["z" if saves else "h"], a["δ"]), out=a["δ"]),
            partial(host.matmul, a["δ"].mT, a["x"], out=a["δW"]),
            partial(host.sum, a["δ"], axis=0, out=a["δb"]),
        ]
        self.saves = saves

    def by_numpy(self, number: int) -> None:
        n = self.expected
        if number == 1:
            z = n["h"] + n["b"]
            n["h"][...] = gelu(z) if self.saves else np.maximum(z, 0)
            n["z"][...] = z if self.saves else n["z"]
        elif number == 3:
            n["δ"] *= gelu(n["z"] + 1e-20j).imag / 1e-20 if self.saves else n["h"] > 0
        else:
            name, value = {
                0: ("h", n["x"] @ n["W"].T), 2: ("δ", n["Δ"] @ n["V"]),
                4: ("δW", n["δ"].T @ n["x"]), 5: ("δb", n["δ"].sum(axis=0)),
            }[number]  # fmt: skip
            n[name][...] = value

    def check(self, what: object) -> None:
        for name, values in self.expected.items():
            off = 1e-5 * max(1, abs(values).max()) if self.saves else 0
            np.testing.assert_allclose(on_host(self.arrays[name]), values, rtol=0, atol=off, err_msg=f"{name}: {what}")


@pytest.mark.parametrize("activation", ["relu", "gelu_tanh"])
def test_calls_of_a_layer_in_any_order(host: HostDevice, activation: str) -> None:
    """Most make no sense, and do what they say all the same."""
    for p in itertools.permutations(range(4)):
        for order in ((*p, 4, 5), (*p, 5, 4), (*p[:3], 5, 4, p[3])):
            layer = Layer(host, activation)
            with host.recording() as tape:
                for number in order:
                    layer.calls[number]()
                    layer.by_numpy(number)
            tape.replay()
            layer.check(order)


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("disturbance", ["doubled", "read", "written", "doubled by a replay"])
def test_a_layer_with_calls_in_between(host: HostDevice, disturbance: str, precision: str) -> None:
    """Each array, before each call, is changed by a kernel or a copy or on another tape, or read as it is there."""
    nnkit.set_matmul_precision(precision)
    for name, place in itertools.product(SHAPES, range(7)):
        layer = Layer(host)
        array, values = layer.arrays[name], layer.expected[name]
        other, kept = host.asarray(np.full(array.shape, 2), "float32"), np.full(values.shape, 2.0)
        with host.recording() as tape:
            for number in range(7):
                if number == place:
                    if disturbance == "read":
                        host.copy(array, other)
                        kept = values.copy()
                    elif disturbance == "written":
                        host.copy(other, array)
                        values[...] = 2
                    else:
                        with host.recording() if "replay" in disturbance else nullcontext(Tape()) as inner:
                            host.elementwise(TWICE, (array,), out=array)
                        inner.replay()
                        values *= 2
                if number < 6:
                    layer.calls[number]()
                    layer.by_numpy(number)
        tape.replay()
        layer.check((name, place))
        np.testing.assert_array_equal(on_host(other), kept, err_msg=f"{name}, {place}")


DISTURBANCES = ["nothing", "double", "copy", "sums", "product", "inner"]
NUMBER = st.integers(0, 3)
LAYER = st.tuples(NUMBER, NUMBER, NUMBER, st.sampled_from(DISTURBANCES), NUMBER, NUMBER, st.integers(0, 6))


def test_any_program() -> None:
    """Random layers that something disturbs: at once and from a tape. Small whole numbers are exact."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

    @settings(deadline=None, max_examples=50)
    @given(program=st.lists(LAYER, min_size=1, max_size=4), precision=st.sampled_from(["highest", "medium"]))
    def check(program: Any, precision: str) -> None:
        found = []
        nnkit.set_matmul_precision(precision)
        for at_once in (True, False):
            host = HostDevice(cupy)
            rng = np.random.default_rng(1)
            arrays = [host.asarray(rng.integers(-2, 2, (8, 8)), "float32") for _ in range(4)]
            arrays += [host.asarray(rng.integers(-2, 2, 8), "float32") for _ in range(4)]
            with nullcontext(Tape()) if at_once else host.recording() as tape:
                for part in program:
                    disturbed_layer(host, arrays, *part)
            tape.replay()
            found.append([on_host(array).copy() for array in arrays])
        for once, taped in zip(*found, strict=True):
            assert taped.tobytes() == once.tobytes()

    try:
        check()
    finally:
        nnkit.set_matmul_precision("highest")


def disturbed_layer(
    host: HostDevice, arrays: list[Any], i: int, j: int, k: int, disturbance: str, one: int, other: int, place: int
) -> None:
    """Both passes of a layer, with one call more at a place; of four matrices two are its factors.

    So no number is above 256, and bfloat16 holds all that is summed.
    """
    matrices, vectors = arrays[:4], arrays[4:]
    order = [number % 4 for number in range(i, i + 4)]
    h, delta, x, V = (matrices[number] for number in (order if j % 2 else order[::-1]))

    def inner() -> None:
        with host.recording() as tape:
            host.elementwise(WRAPPED, (matrices[one],), out=matrices[other])
        tape.replay(2)

    def product() -> None:
        arrays[one] = host.elementwise(WRAPPED, (host.matmul(matrices[one], matrices[other].mT),))

    calls: list[Any] = [
        partial(host.matmul, x, V.mT, out=h),
        partial(host.elementwise, compose(RELU.forward, biased), (h, vectors[k]), out=h),
        partial(host.matmul, V, x, out=delta),
        partial(host.elementwise, RELU.gradient, (h, delta), out=delta),
        partial(host.matmul, delta.mT, x, out=(h, x, V, x)[k]),
        partial(host.sum, delta, axis=0, out=vectors[j]),
    ]
    calls.insert(place, {
        "nothing": lambda: None, "inner": inner, "product": product,
        "double": partial(host.elementwise, TWICE, (matrices[one],), out=matrices[other]),
        "copy": partial(host.copy, matrices[one], matrices[other]),
        "sums": partial(host.sum, matrices[one], axis=0, out=vectors[other]),
    }[disturbance])  # fmt: skip
    for call in calls:
        call()
    for array in arrays:
        host.elementwise(WRAPPED, (array,), out=array)
