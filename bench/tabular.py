"""`python -m bench.tabular`: the preset for tables beside scikit-learn's MLP and gradient boosting, untuned.

Accuracy, or R² of a regression, in five folds. The data sets are those that scikit-learn ships or generates and, where
they are installed (`python -m pip install --no-deps islp palmerpenguins`), tables with categories and missing values
of these two packages, of which only the CSV files are read. One process, no network.
"""

import argparse
import importlib.util
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from bench import machine
from nnkit.sklearn import DenseClassifier, DenseRegressor

FOLDS = 5
# Package, folder and file, target, columns to leave out.
FILES = [
    ("palmerpenguins", "penguins", "species", []), ("ISLP", "OJ", "Purchase", []), ("ISLP", "Boston", "medv", []),
    ("ISLP", "Carseats", "Sales", []), ("ISLP", "Auto", "mpg", ["name"]), ("ISLP", "College", "Grad.Rate", []),
    ("ISLP", "Wage", "wage", ["logwage"]), ("ISLP", "Hitters", "Salary", []),
]  # fmt: skip
OURS, MLP, SCALED, BOOSTING = "nnkit, preset", "MLP", "MLP, scaled y", "HistGradientBoosting"


class Data(NamedTuple):
    """A table with labels, or targets of a regression."""

    name: str
    X: pd.DataFrame
    y: Any
    classifies: bool


def data_sets() -> Iterator[Data]:
    """The data sets, those of other packages last."""
    for name in ("iris", "wine", "breast_cancer", "digits"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield Data(name, _frame(X), y, True)
    X, y = datasets.make_classification(
        2000, 20, n_informative=8, n_classes=3, flip_y=0.05, class_sep=0.8, random_state=1
    )
    X[:, ::2] = np.sinh(1.5 * X[:, ::2])
    yield Data("heavy tails (generated)", _frame(X), y, True)
    X, y = datasets.load_diabetes(return_X_y=True)
    yield Data("diabetes", _frame(X), y, False)
    for number, noise in ((1, 1.0), (2, 50.0), (3, 0.1)):
        X, y = getattr(datasets, f"make_friedman{number}")(1500, noise=noise, random_state=0)
        yield Data(f"friedman {number} (generated)", _frame(X), y, False)
    for package, name, target, unused in FILES:
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            table = pd.read_csv(Path(found.submodule_search_locations[0]) / "data" / f"{name}.csv")
            table = table[table[target].notna()].drop(columns=unused)
            y = table.pop(target).to_numpy()
            yield Data(f"{name} ({package})", table, y, y.dtype.kind == "O")


def _frame(X: Any) -> pd.DataFrame:
    return pd.DataFrame(np.asarray(X, np.float64), columns=[f"x{i}" for i in range(X.shape[1])])


def contenders(classifies: bool) -> dict[str, Callable[[], Any]]:
    """Untuned models for tables, by name."""
    numbers = make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True))
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")), (texts, make_column_selector(dtype_exclude="number"))
    )
    options: dict[str, Any] = {"categorical_features": "from_dtype", "random_state": 0}
    if classifies:
        return {
            OURS: lambda: DenseClassifier(preset="tabular", random_state=0),
            MLP: lambda: make_pipeline(encoder, MLPClassifier(random_state=0)),
            BOOSTING: lambda: HistGradientBoostingClassifier(**options),
        }
    return {
        OURS: lambda: DenseRegressor(preset="tabular", random_state=0),
        MLP: lambda: make_pipeline(encoder, MLPRegressor(random_state=0)),
        SCALED: lambda: TransformedTargetRegressor(
            make_pipeline(encoder, MLPRegressor(random_state=0)), transformer=StandardScaler()
        ),
        BOOSTING: lambda: HistGradientBoostingRegressor(**options),
    }


def measure(data: Data) -> dict[str, Any]:
    """The score of each contender in each fold, and the seconds of all its folds."""
    folds = (StratifiedKFold if data.classifies else KFold)(FOLDS, shuffle=True, random_state=0)
    found: dict[str, Any] = {}
    for name, make in contenders(data.classifies).items():
        X, scores, started = data.X, [], time.perf_counter()
        if name == BOOSTING:
            X = X.astype({column: "category" for column in X if X[column].dtype.kind not in "iuf"})
        for train, test in folds.split(X, data.y):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = make().fit(X.iloc[train], data.y[train])
            scores.append(float(model.score(X.iloc[test], data.y[test])))
        found[name] = {"scores": scores, "seconds": time.perf_counter() - started}
    return found


def difference(row: dict[str, Any], other: str) -> tuple[float, float]:
    """The mean difference of the preset's and another contender's scores over the folds, and its standard error."""
    gaps = np.subtract(row[OURS]["scores"], row[other]["scores"])
    return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(len(gaps)))


def markdown(result: dict[str, Any]) -> str:
    """A table of mean scores with the difference to the preset, and what they say."""
    lines = [
        f"# Untuned on tables, {FOLDS} folds", "",
        "Accuracy, or R² of a regression: the mean over the folds; in brackets the preset's score minus this one, with",
        "the standard error of this difference over the folds; and the seconds of all folds on one core of a machine",
        "with other work.", "",
        f"| data | n | {' | '.join((OURS, MLP, SCALED, BOOSTING))} |", "|---" * 6 + "|",
    ]  # fmt: skip
    worse, ahead = [], []
    for name, about in result["data"].items():
        row, cells = about["contenders"], []
        for other in (OURS, MLP, SCALED, BOOSTING):
            if other not in row:
                cells.append("")
                continue
            text = f"{np.mean(row[other]['scores']):.3f}"
            if other != OURS:
                gap, error = difference(row, other)
                text += f" ({gap:+.3f} ± {error:.3f})"
            cells.append(f"{text}, {row[other]['seconds']:.0f} s")
        lines.append(f"| {name} | {about['samples']} | {' | '.join(cells)} |")
        gap, error = difference(row, MLP)
        worse += [name] if gap < -2 * error else []
        ahead += [name] if difference(row, BOOSTING)[0] > 0 else []
    count = len(result["data"])
    lines += [
        "", f"Worse than MLP by more than two standard errors: {', '.join(worse) or 'nowhere'}.",
        f"Ahead of gradient boosting on {len(ahead)} of {count}: {', '.join(ahead)}.", "",
        f"{result['machine']['cpu']}, Python {result['machine']['python']}, {result['machine']['date']}, "
        f"nnkit {result['machine']['commit']}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all data sets, or those whose names contain one of the given texts, and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only data sets whose names contain one of these")
    parser.add_argument("--output", type=Path, default=Path("bench/results/tabular-cpu"), help="path without suffix")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine.describe(), "data": {}}
    for data in data_sets():
        if options.names and not any(name in data.name for name in options.names):
            continue
        result["data"][data.name] = {"samples": len(data.y), "contenders": measure(data)}
        print(markdown(result).splitlines()[7 + len(result["data"])], flush=True)
        options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        options.output.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    main()
