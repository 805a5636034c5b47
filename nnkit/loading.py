"""Networks from files."""

from os import PathLike

from nnkit import checkpoint
from nnkit.backends import Backend, get_backend
from nnkit.network import Network
from nnkit.training.keeping import restore_state


def load(path: str | PathLike[str], backend: str | Backend | None = None) -> Network:
    """Read a network that `save` or `fit(checkpoint=...)` wrote, onto a backend; None is the selected one.

    With a checkpoint comes the optimizer, with its state, as of the last epoch that was written.

    Activations and costs of your own are registered before loading (`nnkit.register_activation`, `register_cost`).
    Raises FileNotFoundError, ValueError for a file that is not such a network (truncated, foreign, or of a later
    format) or names what is not known here, and ImportError if safetensors is not installed.

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
        network = Network(
            saved.layers,
            cost=saved.cost,
            seed=saved.seed,
            dtype=saved.dtype,
            backend=target,
            preprocessing=saved.preprocessing,
            classes=saved.classes,
            features=saved.features,
        )
        network.epochs_trained, network.vector_targets = saved.epochs_trained, saved.vector_targets
        network.parameters.assign(saved.values)
        if saved.training is not None:
            network.optimizer = restore_state(network.placement, saved.training)
    return network
