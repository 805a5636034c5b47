"""Formulas as functions: how arguments are sorted into operands and constants, what comes back, and composition."""

import inspect
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from nnkit.backends import using_backend
from nnkit.backends.errors import FormulaError
from nnkit.backends.formula import Formula, compose, formula, list_formulas
from nnkit.backends.formulas.program import Program
from nnkit.backends.numpy_backend import NumpyBackend

if TYPE_CHECKING:
    from tests.conftest import Arrays


@formula
def weighted(xp: Any, a: Any, b: Any, weight: float = 0.5, shift: float = 0.0) -> Any:
    """a + weight b + shift."""
    return a + weight * b + shift


@formula
def sum_and_difference(xp: Any, a: Any, b: Any) -> Any:
    return a + b, a - b


A, B = np.array([1.0, 2.0]), np.array([4.0, 8.0])


def test_arguments_by_position_and_by_name() -> None:
    for result in (weighted(A, B), weighted(A, b=B), weighted(b=B, a=A), weighted(a=A, b=B, weight=0.5)):
        np.testing.assert_array_equal(result, [3.0, 6.0])
    for result in (weighted(A, B, 2.0, 1), weighted(A, B, shift=1, weight=2.0), weighted(A, B, 2, shift=1.0)):
        np.testing.assert_array_equal(result, [10.0, 19.0])


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((), {}, r"weighted\(\): missing a required argument: 'a'"),
        ((A,), {}, r"weighted\(\): missing a required argument: 'b'"),
        ((A, B, 1.0, 2.0, 3.0), {}, r"weighted\(\): too many positional arguments"),
        ((A, B), {"wieght": 1.0}, r"weighted\(\): got an unexpected keyword argument 'wieght'"),
        ((A, B), {"a": A}, r"weighted\(\): multiple values for argument 'a'"),
        ((A, B), {"weight": A}, r"weighted\(\): weight is a ndarray; expected a Python number"),
        ((A, B), {"weight": True}, r"weighted\(\): weight is a bool"),
        ((A, B, "1"), {}, r"weighted\(\): weight is a str"),
        ((None, B), {}, "a is None; expected an array, a list or a number"),
        (("text", B), {}, "a is a str; expected an array, a list or a number"),
        ((A, B), {"weight": float("inf")}, "constant inf"),
    ],
)
def test_wrong_arguments_are_named(positional: tuple[Any, ...], named: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        weighted(*positional, **named)


def test_numbers_take_the_dtype_of_the_arrays() -> None:
    for number in (2, 2.0, np.float64(2), np.int64(2), np.float32(2)):
        result = weighted(A.astype(np.float32), number)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, [2.0, 3.0])
    assert weighted(A.astype(np.float16), [2, 4]).dtype == np.float16
    assert weighted(A.astype(np.float32), np.array(2.0)).dtype == np.float64  # a 0-d array is an array


def test_numbers_alone() -> None:
    with using_backend("numpy"):
        result = weighted(1, 2.0)
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype, float(result)) == ((), np.float64, 2.0)
        assert weighted(np.float32(1), 2).dtype == np.float32
        assert weighted(np.int32(1), True).dtype == np.float64
        np.testing.assert_array_equal(weighted([1, 2], [[4], [8]]), [[3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "longdouble", "complex256"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    if dtype == "complex256" and not hasattr(np, dtype):
        pytest.skip("no complex256 on this platform")
    with pytest.raises(TypeError, match=f"b has dtype {np.dtype(dtype).name}; expected one of float16, bfloat16"):
        weighted(A, np.ones(2, dtype))


def test_float16_with_bfloat16_is_refused() -> None:
    with pytest.raises(TypeError, match="operands have dtypes float16 and bfloat16; expected one of them"):
        weighted(A.astype(np.float16), B.astype(ml_dtypes.bfloat16))


def test_out_receives_the_result() -> None:
    out = np.empty(2)
    assert weighted(A, B, out=out) is out
    np.testing.assert_array_equal(out, [3.0, 6.0])
    outs = np.empty(2), np.empty(2, np.float32)
    assert sum_and_difference(A, B, out=outs) is outs
    np.testing.assert_array_equal(outs, [[5.0, 10.0], [-3.0, -6.0]])


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("function", "out", "error", "message"),
    [
        (weighted, np.empty(3), ValueError, r"weighted: out has shape \(3,\); expected \(2,\)"),
        (weighted, np.empty((1, 2)), ValueError, r"out has shape \(1, 2\)"),
        (weighted, (np.empty(2), np.empty(2)), ValueError, r"out has 2 array\(s\); expected 1"),
        (sum_and_difference, np.empty(2), ValueError, r"out has 1 array\(s\); expected 2"),
        (weighted, np.empty(2, int), TypeError, "out has dtype int64"),
        (weighted, read_only(np.empty(2)), ValueError, "out is read-only"),
        (weighted, [0.0, 0.0], TypeError, "out is or holds a list"),
        (sum_and_difference, (np.empty(2), None), TypeError, "out is or holds a NoneType"),
        (weighted, (), TypeError, "out is or holds a tuple"),
    ],
)
def test_invalid_out_arguments_are_refused(function: Formula, out: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        function(A, B, out=out)


def test_programs_get_checked_and_allocated_arrays() -> None:
    seen: list[tuple[Any, Any]] = []

    class Watched(NumpyBackend):
        def run_program(self, program: Program, name: str, operands: Any, outs: Any) -> None:
            seen.append((list(operands), list(outs)))
            super().run_program(program, name, operands, outs)

    backend = Watched()
    bad: Any = ([(A, B), np.empty(3)], [(A, np.ones(3)), None], [(A, np.ones(2, int)), None], [(A, None), None])
    for operands, out in bad:
        with pytest.raises((TypeError, ValueError)):
            backend.elementwise(weighted, operands, out)
    assert not seen
    sums, differences = backend.elementwise(sum_and_difference, (A.astype("f4"), [[1.0], [2.0]]))
    ((operands, outs),) = seen
    assert [(type(a), a.dtype.name) for a in (*operands, *outs)] == [(np.ndarray, "float32")] * 4
    assert [a.shape for a in outs] == [(2, 2)] * 2
    assert (sums is outs[0], differences is outs[1]) == (True, True)
    np.testing.assert_array_equal(sums, [[2.0, 3.0], [3.0, 4.0]])


def test_shapes_that_do_not_broadcast_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"weighted: operands do not broadcast: a \(2,\), b \(3,\)"):
        weighted(A, np.ones(3))


def test_a_formula_looks_like_its_function() -> None:
    assert weighted.__name__ == "weighted"
    assert weighted.__doc__ == "a + weight b + shift."
    assert str(inspect.signature(weighted)) == "(a, b, weight=0.5, shift=0.0, *, out=None)"
    assert repr(weighted) == "<formula weighted(a, b, weight=0.5, shift=0.0, *, out=None)>"
    assert list_formulas()[f"{__name__}.weighted"] is weighted


def test_each_set_of_constants_is_traced_once() -> None:
    assert weighted.program() is weighted.program()
    assert weighted.program({"weight": 2.0}) is weighted.program({"weight": 2.0})
    assert weighted.program({"weight": 2.0}) is not weighted.program({"weight": 3.0})


def test_composition() -> None:
    inner = Formula(lambda xp, a, b: a + b, "add", ["a", "b"])
    outer = Formula(lambda xp, z: xp.sin(z) * z, "wave", ["z"])
    composed = compose(outer, inner)
    assert composed.operands == ("a", "b")
    np.testing.assert_array_equal(composed(A, B), np.sin(A + B) * (A + B))
    assert [value.op for value in composed.program().values[2:]] == ["add", "sin", "multiply"]
    kept, result = compose(outer, inner, keep_inner=True)(A, B)
    np.testing.assert_array_equal(kept, A + B)
    np.testing.assert_array_equal(result, np.sin(A + B) * (A + B))
    assert compose(outer, inner) is composed
    assert len({composed.name, compose(outer, inner, keep_inner=True).name, inner.name, outer.name}) == 4


def test_invalid_compositions_are_refused() -> None:
    unary = Formula(lambda xp, z: 2 * z, "double", ["z"])
    with pytest.raises(FormulaError, match="weighted takes a, b; expected a single operand"):
        compose(weighted, unary)
    with pytest.raises(FormulaError, match="sum_and_difference has 2 results; expected a single result"):
        compose(unary, sum_and_difference)(A, B)


def test_results_are_new_arrays_of_full_shape(arrays: "Arrays") -> None:
    """A formula may hand back an operand, a number, one value twice: every backend makes separate arrays of them."""

    def many_results(xp: Any, a: Any, b: Any) -> Any:
        total = a + b
        return a, 3, total, b * b, a, total

    many = Formula(many_results, "many", ["a", "b"])
    a, b = arrays([[1.0], [2.0]]), arrays([4.0, 8.0])
    results = many(a, b)
    ones, total = [[1, 1], [2, 2]], [[5, 9], [6, 10]]
    expected = [ones, [[3, 3], [3, 3]], total, [[16, 64], [16, 64]], ones, total]
    for result, value in zip(results, expected, strict=True):
        np.testing.assert_array_equal(arrays.numpy(result, "float64"), value)
    results[0][...] = -1
    np.testing.assert_array_equal(arrays.numpy(a), [[1.0], [2.0]])
    np.testing.assert_array_equal(arrays.numpy(results[4]), ones)
    swapped = Formula(lambda xp, a, b: (b, a), "swap", ["a", "b"])
    swapped(results[2], results[3], out=(results[2], results[3]))
    np.testing.assert_array_equal(arrays.numpy(results[2]), expected[3])
    np.testing.assert_array_equal(arrays.numpy(results[3]), total)
    np.testing.assert_array_equal(arrays.numpy(results[5]), total)


def test_operands_are_not_changed_in_place(arrays: "Arrays") -> None:
    """`z += 1` in a formula is z = z + 1, also where the operand is an array that could be changed."""

    def shifted(xp: Any, z: Any) -> Any:
        z += 1.0
        z *= z
        return z

    z = arrays([0.0, 2.0])
    np.testing.assert_array_equal(arrays.numpy(Formula(shifted, "shifted", ["z"])(z)), [1.0, 9.0])
    np.testing.assert_array_equal(arrays.numpy(z), [0.0, 2.0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_numbers_have_the_dtype_of_the_operands(dtype: str, arrays: "Arrays") -> None:
    functions: list[Any] = [
        lambda xp, z: z * xp.where(z > 0, 1.0, 0.1),
        lambda xp, z: z * xp.where(z > 0, 1.0, xp.maximum(0.1, -1)),
        lambda xp, z: z * xp.exp(xp.where(z > 0, 0.0, xp.log(0.1))),
    ]
    z = np.array([-3.0, 0.5], dtype)
    for function in functions:
        slopes = Formula(function, "slopes", ["z"])
        found = arrays.numpy(slopes(arrays(z, dtype)), dtype)
        np.testing.assert_allclose(found, z * np.array([0.1, 1.0], dtype), rtol=3 * float(np.finfo(dtype).eps))


def test_out_is_checked_on_every_backend(arrays: "Arrays") -> None:
    x, backend = arrays([1.0, 2.0]), arrays.backend
    for out in (backend.empty((1, 2), "float64"), backend.empty((), "float64")):
        with pytest.raises(ValueError, match="shape"):
            weighted(x, x, out=out)
    with pytest.raises(ValueError, match="2"):
        sum_and_difference(x, x, out=backend.empty((2,), "float64"))
    with pytest.raises(TypeError, match="int32"):
        weighted(arrays([1, 2], "int32"), x)


@pytest.mark.parametrize("native", ["0", "1"])
def test_constants_of_either_sign_are_different_ones(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.0 == -0.0, whose quotients are opposite infinities."""
    monkeypatch.setenv("NNKIT_NATIVE", native)
    divide = Formula(lambda xp, x, c: x / c, "divide", ["x"], {"c": 1.0})
    x = np.array([1.0, -2.0])
    for c in (0.0, -0.0, 0.0):
        np.testing.assert_array_equal(divide(x, c=c), np.copysign(np.inf, x) * np.copysign(1.0, c))
