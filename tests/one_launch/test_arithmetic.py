"""The text of one launch an epoch, run by threads of the host: it trains as nnkit's own steps do."""

import ctypes
import re
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import nnkit
from nnkit.one_launch.layout import Layout, Recipe
from nnkit.one_launch.text import arguments
from tests.support.epoch_cases import (
    CASES,
    Array,
    Case,
    Trained,
    assert_as_exact_as_numpy,
    bits,
    kept,
    size,
    train_by_steps,
    trained,
)
from tests.support.host_cluster import compiled, host_text, run

SGD = nnkit.SGD


class Host:
    """A case's kernel, compiled for the host."""

    def __init__(self, case: Case, folder: Path, lanes: int = 1, change: tuple[str, str] | None = None) -> None:
        self.case, self.model = case, case.network()
        self.state = self.model.optimizer_state(case.optimizer())
        self.recipe, self.layout = case.plan(self.model, self.state)
        text = host_text(self.recipe, self.layout, self.model.parameters.starts, lanes)
        if change is not None:
            assert text.count(change[0]) == 1
            text = text.replace(*change)
        self.compiled = ctypes.CDLL(str(compiled(text, folder)))
        self.start = [array.copy() for array in self.changed()]

    def changed(self) -> list[Array]:
        return [self.model.parameters.flat, *self.state.arrays.values()]

    def train(self, threads: int = 3, data: tuple[Array, Array] | None = None, ordered: bool = True) -> Trained:
        """From the start; with `ordered` False the samples are put in order beforehand."""
        for array, start in zip(self.changed(), self.start, strict=True):
            array[...] = start
        X, y = data or self.case.data()
        logits = np.full((self.case.samples, self.case.sizes[-1]), np.nan, np.float32)
        for number in range(self.case.epochs):
            order, rates = self.case.epoch(number)
            samples = (X, y[order], order) if ordered else (X[order], y[order], None)
            given = [*samples, rates, *kept(self.model, self.state, self.recipe), logits]
            run(self.compiled, self.layout, threads, self.case.samples, given)
        return trained(self.model, self.state, logits)


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_trains_like_recorded_steps(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert case.steps * case.epochs >= 200
    host = Host(case, tmp_path)
    found, by_steps, exact = host.train(), train_by_steps(case, "float32"), train_by_steps(case, "float64")
    assert_as_exact_as_numpy(found, by_steps, exact)
    before = np.concatenate([a.ravel() for a in (*case.network().parameters.W, *case.network().parameters.b)])
    assert size(exact.parameters - before) > 0.01 * size(before)  # it did go somewhere


@pytest.mark.parametrize("name", ["the lecture's", "four layers, Adam"])
def test_an_epoch_without_samples_changes_nothing(name: str, tmp_path: Path) -> None:
    host = Host(replace(CASES[name], epochs=1), tmp_path)
    host.train()
    before = [array.tobytes() for array in host.changed()]
    d_in, d_out = host.case.sizes[0], host.case.sizes[-1]
    none = [np.empty(shape, np.float32) for shape in ((0, d_in), (0, d_out), (0,), (0, d_out))]
    X, y, rates, logits = none
    run(host.compiled, host.layout, 3, 0, [X, y, None, rates, *kept(host.model, host.state, host.recipe), logits])
    assert [array.tobytes() for array in host.changed()] == before


@pytest.mark.parametrize("name", ["the lecture's", "all options of SGD", "four layers, Adam"])
def test_any_number_of_threads_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    host = Host(replace(CASES[name], epochs=1), tmp_path)
    first = bits(host.train())
    assert bits(host.train()) == first
    assert bits(host.train(threads=1)) == first
    assert bits(host.train(threads=8)) == first
    assert bits(host.train(ordered=False)) == first


@pytest.mark.parametrize("name", ["one block", "all options of SGD", "four layers, Adam"])
def test_members_of_one_launch_have_the_bits_that_each_has_alone(name: str, tmp_path: Path) -> None:
    """Three networks with their own starts, orders and, for Adam, step counts."""
    host, members, rng = Host(replace(CASES[name], epochs=1), tmp_path), 3, np.random.default_rng(1)
    (X, y), (_, rates), count = host.case.data(), host.case.epoch(0), host.case.samples
    starts = [np.stack([start + (k if start.ndim == 0 else 0) for k in range(members)]) for start in host.start]
    starts[0] = starts[0] + rng.normal(0, 0.01, starts[0].shape).astype(np.float32)
    orders = np.stack([rng.permutation(count) for _ in range(members)])
    vectors, numbers = len(host.recipe.vectors), kept(host.model, host.state, host.recipe)
    numbers = numbers[1 + vectors : 1 + vectors + len(host.recipe.numbers)]

    def trained_from(chosen: slice) -> list[Array]:
        changed = [np.array(start[chosen]) for start in starts]
        order = np.array(orders[chosen])
        logits = np.full((len(order), *y.shape), np.nan, np.float32)
        state = [*changed[: 1 + vectors], *numbers, *changed[1 + vectors :]]
        run(host.compiled, host.layout, 3, count, [X, y[order], order, rates, *state, logits], len(order))
        return [*changed, logits]

    together = trained_from(slice(members))
    for k in range(members):
        for ours, alone in zip(together, trained_from(slice(k, k + 1)), strict=True):
            assert ours[k].tobytes() == alone[0].tobytes()
    assert len({weights.tobytes() for weights in together[0]}) == members


def test_wide_copies_give_the_same_bits(tmp_path: Path) -> None:
    case = replace(CASES["the lecture's"], samples=101)
    (tmp_path / "wide").mkdir()
    assert bits(Host(case, tmp_path / "wide", lanes=4).train()) == bits(Host(case, tmp_path).train())


def test_padding_is_not_changed(tmp_path: Path) -> None:
    host = Host(replace(CASES["all options of SGD"], epochs=1), tmp_path)
    parameters = host.model.parameters
    padding = np.ones(parameters.flat.shape, bool)
    for start, view in zip(parameters.starts, [*parameters.W, *parameters.b], strict=True):
        padding[start : start + view.size] = False
    assert padding.any()
    for array in host.start:
        array[padding] = 7
    host.train()
    for array, before in zip(host.changed(), host.start, strict=True):
        np.testing.assert_array_equal(array[padding], 7)
        assert not np.array_equal(array, before)


def test_nan_and_infinities_are_passed_on(tmp_path: Path) -> None:
    for name in ("one block", "all options of SGD", "softmax with another cost"):
        (tmp_path / name).mkdir()
        host = Host(replace(CASES[name], epochs=1), tmp_path / name)
        X, y = host.case.data()
        X[17, 3] = np.nan
        found = host.train(data=(X, y))
        assert np.isnan(found.parameters).any()
        assert np.isnan(found.logits).any()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("the lecture's", ("(R)(rows == 10 ? 0.1 : 1.0 / rows)", "(R)0.1")),  # the last minibatch has five samples
        ("the lecture's", ("const R n0 = *number0;", "const R n0 = 0;")),  # no L2
        ("the lecture's", ("const R rate = rates[step],", "const R rate = rates[step ? step - 1 : 0],")),
        ("one block", ("const R z = sum + b0[unit];", "const R z = sum;")),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_detected(name: str, change: tuple[str, str], tmp_path: Path) -> None:
    case = CASES[name]
    found = Host(case, tmp_path, change=change).train()
    with pytest.raises(AssertionError, match=r"parameters: .*, NumPy"):
        assert_as_exact_as_numpy(found, train_by_steps(case, "float32"), train_by_steps(case, "float64"))


# --- missing barriers ---------------------------------------------------------------------------------------------


def with_main(case: Case) -> str:
    """A kernel's text as a program, which trains for an epoch on some numbers."""
    model = case.network()
    recipe, made = case.plan(model, state := model.optimizer_state(case.optimizer()))
    sizes = [array.size for array in kept(model, state, recipe)]
    X, y = case.data()
    return host_text(recipe, made, model.parameters.starts, 1) + _main(
        case, recipe, made, [X.size, y.size, case.samples, case.steps, *sizes, y.size]
    )


def _main(case: Case, recipe: Recipe, made: Layout, sizes: list[int]) -> str:
    lines = ["unsigned state = 1;", "auto number = [&] { return ((state = state * 1664525u + 1) >> 8) * 0x1p-24f; };"]
    for (kind, name), length in zip(arguments(recipe)[:-2], sizes, strict=True):
        whole = "long" in kind
        value = f"{case.samples - 1} - i" if whole else "number()"
        lines.append(f"alignas(16) static {'long long' if whole else 'float'} of_{name}[{max(length, 1)}];")
        lines.append(f"for (int i = 0; i < {length}; ++i) of_{name}[i] = {value};")
    given = ", ".join(f"of_{name}" for _, name in arguments(recipe)[:-2])
    lines += [f"void *p[] = {{{given}}};", f"run(p, {case.samples}, {made.blocks}, 3, {made.bytes});"]
    return "int main() {\n" + "\n".join(lines) + "\n}\n"


def races(text: str, folder: Path) -> str:
    """What ThreadSanitizer says of a program; skips the test where it does not work."""
    if not sanitizer_works():
        pytest.skip("ThreadSanitizer does not work here")
    program = compiled_with_sanitizer(text, folder)
    assert program is not None
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode != 0) == ("WARNING: ThreadSanitizer: data race" in done.stderr), done.stderr[:4000]
    return done.stderr


@cache
def sanitizer_works() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        empty = compiled_with_sanitizer("int main() {}", Path(folder))
        return empty is not None and subprocess.run([empty], capture_output=True, check=False).returncode == 0


def compiled_with_sanitizer(text: str, folder: Path) -> Path | None:
    try:
        return compiled(text, folder, "-fsanitize=thread", "-g")
    except AssertionError:
        return None


SMALL = {
    "cluster": Case((13, 9, 6, 4), 3, 16, 2, lambda: SGD(0.1, momentum=0.9), cost="softmax_cross_entropy"),
    "one block": Case((13, 9, 4), 3, 16, 1, lambda: nnkit.Adam(), "gelu", "quadratic", "softmax"),
}


@pytest.mark.parametrize("name", SMALL)
def test_all_barriers_are_there(name: str, tmp_path: Path) -> None:
    assert races(with_main(SMALL[name]), tmp_path) == ""


MISSING = {
    "between layers": ("one block", {r"block_sync\(\);(?=\s+weight_gradients)": ""}),
    "before the sum is read": (
        "cluster",
        {r"cluster_arrive\(\);(\s+ask_for_samples.*\s+ask_for_indices.*\s+)cluster_wait\(\);": r"\1block_sync();"},
    ),
    "before the parts are overwritten": (
        "cluster",
        {
            r"cluster_arrive\(\);(?=\s+for \(long long step)": "block_sync();",
            r"cluster_wait\(\);  // until the other blocks.*": "",
            r"cluster_arrive\(\);(?=\s+block_sync)": "",
            r"cluster_wait\(\);  // no block may end.*": "",
        },
    ),
}


@pytest.mark.parametrize("where", MISSING)
def test_a_missing_barrier_is_detected(where: str, tmp_path: Path) -> None:
    name, changes = MISSING[where]
    text = with_main(SMALL[name])
    for barrier, instead in changes.items():
        text, count = re.subn(barrier, instead, text)
        assert count == 1
    assert "data race" in races(text, tmp_path)
