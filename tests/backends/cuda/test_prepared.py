"""Calls outside of recordings are decided once, and are right for every later array: compared with NumPy's results."""

import random
from typing import Any

import numpy as np
import pytest

import nnkit
from nnkit.backends.cuda import prepared
from nnkit.backends.formula import formula
from tests.support.host_device import HostDevice
from tests.support.host_memory import on_host


@formula
def shifted(xp: Any, a: Any, b: Any) -> Any:
    return a + 2.0 * b


@pytest.fixture
def made(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call was prepared."""
    found: list[bool] = []
    ask = prepared.Prepared.made

    def asked(*given: Any) -> Any:
        results = ask(*given)
        found.append(results is not None)
        return results

    monkeypatch.setattr(prepared.Prepared, "made", asked)
    return found


def view(memory: Any, choose: random.Random, shapes: list[tuple[int, int]], turns: bool) -> Any:
    """A matrix, a row, a column or a number anywhere in the memory, possibly transposed."""
    rows, columns = choose.choice(shapes)
    start = choose.choice([0, 1, 4, 8, 12, 64, 65, 128])
    found = memory[start : start + rows * columns]
    return found.reshape(columns, rows).T if turns and choose.random() < 0.3 else found.reshape(rows, columns)


def test_formulas_anywhere_in_one_memory(host: HostDevice, made: list[bool]) -> None:
    choose = random.Random(0)
    memory = host.asarray(np.zeros(200), "float32")
    for number in range(600):
        on_host(memory)[...] = np.random.default_rng(number).integers(-8, 9, 200)
        a, b = (view(memory, choose, [(4, 8), (4, 8), (1, 8), (4, 1), (1, 1)], turns=True) for _ in range(2))
        expected = on_host(a) + 2 * on_host(b)
        out = choose.choice([None, view(memory, choose, [expected.shape], turns=False)])
        before = on_host(memory).copy()
        found = shifted(a, b, out=out)
        np.testing.assert_array_equal(on_host(found), expected)
        if out is not None:
            on_host(out)[...] = 0
            start = (out.data.ptr - memory.data.ptr) // 4
            before[start : start + out.size] = 0
        np.testing.assert_array_equal(on_host(memory), before)
    assert 100 < sum(made) < len(made)


def test_products_anywhere_in_one_memory(host: HostDevice, made: list[bool]) -> None:
    choose = random.Random(1)
    memory = host.asarray(np.zeros(400), "float64")
    for number in range(400):
        on_host(memory)[...] = np.random.default_rng(number).integers(-8, 9, 400)
        a, b = view(memory, choose, [(4, 8)], turns=True), view(memory, choose, [(8, 4), (8, 2)], turns=True)
        out = choose.choice([None, view(memory, choose, [(4, b.shape[1])], turns=True)])
        expected = on_host(a) @ on_host(b)
        np.testing.assert_array_equal(on_host(host.matmul(a, b, out=out)), expected)
    assert 100 < sum(made) < len(made)


def test_stacks_of_products(host: HostDevice, made: list[bool]) -> None:
    for seed in range(3):
        a, b = (np.random.default_rng(seed).integers(-8, 9, (3, 4, 4)).astype(float) for _ in range(2))
        found = host.matmul(host.asarray(a), host.asarray(b).swapaxes(1, 2))
        np.testing.assert_array_equal(on_host(found), a @ b.swapaxes(1, 2))
    assert made == [False, True, True]


def test_a_change_of_precision_is_another_product(host: HostDevice, made: list[bool]) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    a = host.asarray(np.full((2, 2), 1 + 2**-12), "float32")
    found = []
    for precision in ("highest", "medium", "medium", "highest"):
        nnkit.set_matmul_precision(precision)
        try:
            found.append(float(on_host(host.matmul(a, a))[0, 0]))
        finally:
            nnkit.set_matmul_precision("highest")
    assert found == [found[0], 2.0, 2.0, found[0]]
    assert found[0] == pytest.approx(2 * (1 + 2**-12) ** 2, rel=1e-7)


def test_new_results_have_their_own_dtype(host: HostDevice) -> None:
    a = host.asarray(np.ones((4, 8)), "float32")
    wide = host.empty((4, 8), "float64")
    for _ in range(3):
        assert shifted(a, a, out=wide) is wide
        assert host.matmul(a, a.T, out=wide[:, :4]).dtype == "float64"
        assert (shifted(a, a).dtype, host.matmul(a, a.T).dtype) == ("float32", "float32")


def test_memory_of_a_user_may_start_anywhere(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for aligned memory would read 16 bytes at once."""
    a = host.asarray(np.arange(4096.0), "float32")
    new = host.new
    for shift in (0, 1, 0, 1, 2):
        monkeypatch.setattr(host, "new", lambda shape, dtype, by=shift: new((4104,), dtype)[by : by + 4096])
        host.prepared._new = host.new
        found = shifted(a, a)
        np.testing.assert_array_equal(on_host(found), 3 * on_host(a))
        blocks = 16 if shift else 4  # of 256 threads, each with one entry or four
        assert host.launched[-1][1] == (blocks,)


def test_operands_at_one_address_are_another_call(host: HostDevice) -> None:
    """A row of the result, which is overwritten before other threads read it, has to be copied first."""
    values = np.arange(32.0).reshape(4, 8)
    for part in (slice(0, 1), (slice(None), slice(0, 1)), (slice(0, 1), slice(0, 1))):
        for elsewhere in (True, True, False, True, False):
            a = host.asarray(values, "float32")
            b = host.asarray(values[part], "float32") if elsewhere else a[part]
            shifted(a, b, out=a)
            np.testing.assert_array_equal(on_host(a), values + 2 * values[part])


def test_recordings_do_not_use_prepared_calls(host: HostDevice, made: list[bool]) -> None:
    a = host.asarray(np.ones((4, 8)), "float32")
    shifted(a, a)
    with host.recording() as tape:
        found = shifted(a, a)
    on_host(a)[...] = 2
    tape.replay()
    assert (on_host(found) == 6).all()
    assert not any(made)


def test_few_are_kept(host: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "KEPT", 3)
    for n in range(1, 9):
        a = host.asarray(np.ones(n), "float32")
        assert on_host(shifted(a, a)).tolist() == [3.0] * n
        assert len(host.prepared._calls) <= 3
