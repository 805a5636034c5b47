"""The contenders: the floor, nnkit and its peers, each in a file that is imported on demand."""

from importlib import import_module

from bench.contenders.base import Contender
from nnkit.checks import unknown_name

# The class of each contender, in the order of the tables.
_CLASSES = {
    "floor": "bench.contenders.floor:Floor",
    "nnkit": "bench.contenders.nnkit_step:RecordedStep",
    "nnkit-train-step": "bench.contenders.nnkit_step:TrainStep",
    "nnkit-without-scipy": "bench.contenders.nnkit_step:WithoutSciPy",
    "numpy": "bench.contenders.plain_numpy:PlainNumPy",
    "jax": "bench.contenders.jax_jit:Jax",
    "torch": "bench.contenders.pytorch:Eager",
    "torch-compiled": "bench.contenders.pytorch_compiled:Compiled",
    "thinc": "bench.contenders.thinc_model:Thinc",
    "scikit-learn": "bench.contenders.scikit_learn:ScikitLearn",
}
NAMES = tuple(_CLASSES)
_CLASSES |= {  # of `python -m bench --epochs`
    "epoch-products": "bench.contenders.epochs:Products",
    "epoch-nnkit": "bench.contenders.epochs:Fit",
    "epoch-nnkit-without-numba": "bench.contenders.epochs:FitWithoutNumba",
    "epoch-jax": "bench.contenders.epochs:JaxScan",
    "epoch-torch": "bench.contenders.epochs:TorchEager",
    "epoch-torch-compiled": "bench.contenders.epochs:TorchCompiled",
    "epoch-scikit-learn": "bench.contenders.epochs:ScikitEpoch",
    "epoch-numpy": "bench.contenders.epochs:NumpyEpoch",
    "ensemble-alone": "bench.contenders.ensembles:OneByOne",
    "ensemble-nnkit": "bench.contenders.ensembles:Together",
    "ensemble-alone-ufuncs": "bench.contenders.ensembles:OneByOneUfuncs",
    "ensemble-nnkit-ufuncs": "bench.contenders.ensembles:TogetherUfuncs",
    "ensemble-jax": "bench.contenders.ensembles:JaxVmap",
    "fit-network": "bench.contenders.fits:FitNetwork",
    "fit-estimator": "bench.contenders.fits:FitEstimator",
    "fit-scikit-learn": "bench.contenders.fits:FitScikit",
    "serve-nnkit": "bench.contenders.served:ServedNnkit",
    "serve-onnx": "bench.contenders.served:ServedOnnx",
    "serve-scikit-learn": "bench.contenders.served:ServedScikit",
}


def contender(name: str, classes: dict[str, str] = _CLASSES) -> type[Contender]:
    """The contender class with this name, without importing its package; raises ValueError for an unknown name."""
    if name not in classes:
        raise unknown_name("contender", name, classes)
    module, kind = classes[name].split(":")
    found: type[Contender] = getattr(import_module(module), kind)
    return found
