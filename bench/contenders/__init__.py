"""Who takes part: the floor, nnkit, and its peers, each a file and loaded only where it is asked for."""

from importlib import import_module

from bench.contenders.base import Contender
from nnkit.kernels.names import unknown_name

# The class of each contender, in the order of the tables.
_CLASSES = {
    "floor": "floor:Floor",
    "nnkit": "nnkit_step:RecordedStep",
    "nnkit-train-step": "nnkit_step:TrainStep",
    "nnkit-without-scipy": "nnkit_step:WithoutSciPy",
    "numpy": "plain_numpy:PlainNumPy",
    "jax": "jax_jit:Jax",
    "torch": "pytorch:Eager",
    "torch-compiled": "pytorch_compiled:Compiled",
    "thinc": "thinc_model:Thinc",
    "scikit-learn": "scikit_learn:ScikitLearn",
}
NAMES = tuple(_CLASSES)


def contender(name: str) -> type[Contender]:
    """The class of a name; ValueError for an unknown one, with the nearest. Its peer is not imported yet."""
    if name not in _CLASSES:
        raise unknown_name("contender", name, _CLASSES)
    module, kind = _CLASSES[name].split(":")
    found: type[Contender] = getattr(import_module(f"bench.contenders.{module}"), kind)
    return found
