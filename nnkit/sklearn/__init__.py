"""scikit-learn estimators: `DenseClassifier` and `DenseRegressor`, used like MLPClassifier and MLPRegressor.

They have the parameters, defaults and attributes of scikit-learn's, and more: dropout, class weights, any activation,
cost and optimizer of nnkit, learning rate schedules, a validation curve, and GPUs. Needs scikit-learn 1.9 or newer:
`python -m pip install "scikit-learn>=1.9"`.

>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True)
>>> model = DenseClassifier(solver="lbfgs", tol=1e-2, random_state=0).fit(X, y)
>>> model.score(X, y) > 0.95
True
"""

try:
    import sklearn.callback  # noqa: F401 - new in version 1.9
except ImportError as error:
    if error.name is not None and not error.name.startswith("sklearn"):
        raise
    hint = 'nnkit.sklearn needs scikit-learn 1.9 or newer: python -m pip install "scikit-learn>=1.9"'
    raise ImportError(hint, name="sklearn") from error

from nnkit.sklearn.estimators import DenseClassifier, DenseRegressor

__all__ = ["DenseClassifier", "DenseRegressor"]
