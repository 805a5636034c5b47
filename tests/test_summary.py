"""The summary of a network, its score, and predictions with dropout."""

import copy
import threading
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import nnkit

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(50, 4)), RNG.integers(0, 3, 50)


class Cells(HTMLParser):
    """The cells of a table, row by row, and its caption; asserts that each tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


def test_the_summary_counts_what_pytorch_counts() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layers = [nnkit.Dense(4, 7, "relu", rate=0.0), nnkit.Dropout(0.3), nnkit.Dense(7, 3, bias_rate=0.5)]
    net = nnkit.Network(layers, seed=0, preprocessing=nnkit.data.Normalization.fit(X))
    linear = [torch.nn.Linear(4, 7), torch.nn.Linear(7, 3)]
    linear[0].requires_grad_(False)
    counts = [sum(p.numel() for p in module.parameters()) for module in linear]
    summary = net.summary()
    assert summary.parameters == sum(counts)
    assert summary.frozen == sum(p.numel() for module in linear for p in module.parameters() if not p.requires_grad)
    assert summary.rows == (
        ("", "inputs", "4", "", ""),
        ("", "normalization", "4", "", ""),
        ("0", "relu", "7", str(counts[0]), "W 0, b 0"),
        ("1", "dropout 0.3", "7", "", ""),
        ("2", "softmax", "3", str(counts[1]), "b 0.5"),
        ("", "total", "", str(sum(counts)), f"0.0 MB, {counts[0]} frozen"),
    )
    shown = Cells(net._repr_html_())
    assert shown.caption == summary.title == repr(net)
    assert [tuple(row) for row in shown.rows] == [summary.head, *summary.rows]


def test_names_are_escaped_in_html() -> None:
    nnkit.register_activation("a<b&c", lambda xp, x: x, lambda xp, x, delta: delta, "preactivation")
    try:
        text = nnkit.Network([nnkit.Dense(2, 2, "a<b&c"), nnkit.Dense(2, 2)], seed=0)._repr_html_()
    finally:
        nnkit.unregister_activation("a<b&c")
    assert "a&lt;b&amp;c" in text
    assert "<b&" not in text


def test_score_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    weights = RNG.uniform(0.1, 2, 50)
    net = nnkit.Network([4, 5, 3], seed=0, classes=["a", "b", "c"], dtype="float64")
    names = np.array(["a", "b", "c"])[LABELS]
    for given in (None, weights):
        wanted = metrics.accuracy_score(names, net.predict(X), sample_weight=given)
        assert net.score(X, names, sample_weight=given) == pytest.approx(wanted, rel=1e-12)
    for targets in (X[:, 0], X[:, :2]):
        regression = nnkit.Network([4, 5, targets[0].size], cost="quadratic", seed=0, dtype="float64")
        regression.fit(X, targets, epochs=3, progress=False)
        for given in (None, weights):
            wanted = metrics.r2_score(targets, regression.predict(X), sample_weight=given)
            assert regression.score(X, targets, sample_weight=given) == pytest.approx(wanted, rel=1e-12)


def test_predictions_with_dropout_are_those_of_a_training_step() -> None:
    layers = [nnkit.Dropout(0.1), nnkit.Dense(4, 30, "tanh"), nnkit.Dropout(0.4), nnkit.Dense(30, 3)]
    net = nnkit.Network(layers, seed=3, dtype="float64")
    other = copy.deepcopy(net)
    plain = net.forward(X)
    for _ in range(3):  # new masks in each call, those of the steps of a network that learns nothing
        h = net.forward(X, training=True)
        cost = float(other.train_step(X, LABELS, nnkit.SGD(1e-300)))
        assert -np.log(h[np.arange(50), LABELS]).mean() == pytest.approx(cost, rel=1e-12)
        assert not np.allclose(h, plain)
    assert np.array_equal(net.forward(X), plain)
    assert np.array_equal(net.predict_proba(X), plain)


def test_a_share_of_the_units_is_dropped_and_the_others_grow() -> None:
    net = nnkit.Network([nnkit.Dense(200, 200), nnkit.Dropout(0.3), nnkit.Dense(200, 200)], cost="quadratic", seed=1)
    net.parameters.assign([(np.eye(200), np.zeros(200))] * 2)
    h = np.concatenate([net.forward(np.ones((50, 200)), training=True) for _ in range(4)])
    kept = h > 0
    np.testing.assert_allclose(h[kept], 1 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / h.size)
    assert abs((kept[:50] == kept[50:100]).mean() - (0.49 + 0.09)) < 0.03  # independent masks


def test_predictions_with_dropout_of_rows_on_disk(tmp_path: Any) -> None:
    net = nnkit.Network([nnkit.Dense(1, 1), nnkit.Dropout(0.5), nnkit.Dense(1, 1)], cost="quadratic", seed=0)
    np.save(tmp_path / "x.npy", np.ones((9000, 1), np.float32))
    h = net.forward(np.load(tmp_path / "x.npy", mmap_mode="r"), training=True)
    assert h.shape == (9000, 1)
    assert 0.45 < (h == h[h == net.parameters.b[1]][0]).mean() < 0.55


def test_without_dropout_and_with_another_thread() -> None:
    net = nnkit.Network([4, 3], seed=0)
    assert np.array_equal(net.forward(X, training=True), net.forward(X))
    with pytest.raises(TypeError, match="forward: training is 1; expected True or False"):
        net.forward(X, training=1)  # type: ignore[arg-type]
    net = nnkit.Network([nnkit.Dense(4, 3), nnkit.Dropout(0.5), nnkit.Dense(3, 3)], seed=0)
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            net.forward(X, training=True)
        except RuntimeError as error:
            failures.append(error)

    with net.turn:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert "another thread is training" in str(failures[0])
