"""Network: what one does with a model: predict, train, check, move and keep it."""

from os import PathLike
from typing import Any

from nnkit import checkpoint, training
from nnkit.backends import Backend, get_backend
from nnkit.backends.base import Array
from nnkit.inputs import predicted_labels
from nnkit.model import Model
from nnkit.optimizers import Optimizer, OptimizerState
from nnkit.step import Step, step_for


class Network(Model):
    """A network of dense layers.

    Args:
        layers: sizes such as `[784, 100, 10]`, or `Dense` layers whose widths meet.
        activation: of the hidden layers, where sizes are given.
        cost: "cross_entropy" (eq. 18), "softmax_cross_entropy" or "quadratic" (eq. 3).
        output_activation: of the last layer; None is the one that the cost is paired with (eq. 19): sigmoid, softmax,
            identity.
        init: a name or function of `nnkit.initializers`; None takes what suits each activation.
        seed: of the initial parameters and the batch orders; None draws one, kept in `seed`.
        dtype: "float32" or "float64". backend: a name; None is the selected one.

    Attributes:
        layers, cost, seed, dtype, backend: as given, filled in.
        parameters, gradient: flat vectors with views `W` and `b` for each layer.
        optimizer: what `train_step` and `fit` use where they are given none.
        epochs_trained: how many epochs `fit` has finished.

    Raises ValueError for wrong sizes, names and numbers, and BackendUnavailableError.

    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> net
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    >>> net.forward([[0.0, 1.0]]).shape
    (1, 1)
    """

    predict_proba = Model.forward

    def predict(self, x: Any) -> Array:
        """The class (n,) of each sample, the largest output, as integers; for a network that does not classify, h.

        A single output that classifies gives 1 above ½ and 0 below.
        """
        if not self.classifies:
            return self.forward(x)
        return predicted_labels(self.backend, self.output, self.logits(x))

    def evaluate(self, x: Any, y: Any) -> dict[str, float]:
        """The mean cost over samples x (n, d_in) with labels or targets y, and the accuracy if it classifies.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> sorted(net.evaluate([[0.0, 1.0], [1.0, 0.0]], [0, 1]))
        ['accuracy', 'cost']
        """
        return training.evaluate(self, *self._checked(x, y))

    # --- training it --------------------------------------------------------------------------------------------

    fit = training.fit

    def train_step(self, x: Any, y: Any, optimizer: Optimizer | None = None) -> Array:
        """One step on a minibatch: forward, backward, update. Returns the mean cost before it, a 0-d array.

        For a loop of one's own. The step is recorded for each new number of samples and replayed afterwards; on a GPU
        nothing waits until the cost is read, with `float(cost)`.

        >>> net = nnkit.Network([2, 2], seed=0)
        >>> before = net.train_step([[0.0, 1.0]], [0], optimizer=nnkit.SGD(1.0))
        >>> after = net.train_step([[0.0, 1.0]], [0])
        >>> bool(after < before)
        True
        """
        x, y = self._checked(x, y)
        return self._run(x, y, self.optimizer_state(optimizer)).cost()

    def gradients(self, x: Any, y: Any) -> tuple[Array, list[tuple[Array, Array]]]:
        """The mean cost, 0-d, and [(δW, δb), ...] of each layer, the mean over the samples (eq. 10, 12); new arrays."""
        step = self._run(*self._checked(x, y), None)
        found = [
            tuple(self.backend.copy(a, self.backend.empty(a.shape, self.dtype)) for a in pair)
            for pair in zip(self.gradient.W, self.gradient.b, strict=True)
        ]
        return step.cost(), found

    # --- keeping it ---------------------------------------------------------------------------------------------

    def to(self, backend: str | Backend) -> "Network":
        """Move parameters and the optimizer's state to a backend; returns this network."""
        target = get_backend(backend)
        if target is not self.backend:
            old, state = self.parameters, self.state
            self.place(target)
            self.parameters.assign(
                (old.backend.to_numpy(W), old.backend.to_numpy(b)) for W, b in zip(old.W, old.b, strict=True)
            )
            if state is not None:
                self.state = state.optimizer.start(self.parameters)
                for name, array in self.state.arrays.items():
                    target.copy(target.asarray(state.backend.to_numpy(state.arrays[name])), array)
        return self

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to a `.safetensors` file; see `nnkit.checkpoint`."""
        checkpoint.save(self, path)

    def _run(self, x: Array, y: Array, state: OptimizerState | None) -> Step:
        """Do a step on a minibatch; without an optimizer's state it stops at the gradients."""
        step = step_for(self, x.shape[0], state)
        self.backend.copy(x, step.x)
        self.backend.copy(y, step.y)
        step.run()
        return step

    def _checked(self, x: Any, y: Any) -> tuple[Array, Array]:
        x = self.samples(x)
        return x, self.targets(y, x.shape[0])


def load(path: str | PathLike[str], backend: str | Backend | None = None) -> Network:
    """Read a network that `save` wrote, onto a backend; None is the selected one.

    Raises FileNotFoundError, ValueError for a file that is no such network (truncated, foreign, or of a later format),
    and ImportError if safetensors is not installed.

    >>> import tempfile, pathlib
    >>> net = nnkit.Network([2, 3, 1], seed=0)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> net.save(path)
    >>> nnkit.load(path)
    Network(2 → 3 sigmoid → 1 sigmoid, cross_entropy, 13 parameters in float32 on numpy, seed 0)
    """
    target = get_backend(backend)
    saved = checkpoint.read(path)
    with checkpoint.damage(path):
        network = Network(saved.layers, cost=saved.cost, seed=saved.seed, dtype=saved.dtype, backend=target)
    network.epochs_trained = saved.epochs_trained
    network.parameters.assign(saved.values)
    return network
