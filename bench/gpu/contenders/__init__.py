"""The contenders on a GPU: the products alone, nnkit and its peers; those with a long setup are last."""

CLASSES = {
    "floor": "bench.gpu.contenders.floor:GraphedProducts",
    "nnkit": "bench.gpu.contenders.nnkit_gpu:Replayed",
    "nnkit-graph": "bench.gpu.contenders.nnkit_gpu:WithoutOneLaunch",
    "nnkit-train-step": "bench.gpu.contenders.nnkit_gpu:TrainStepOnDevice",
    "torch": "bench.gpu.contenders.pytorch_gpu:EagerOnDevice",
    "torch-graph": "bench.gpu.contenders.pytorch_gpu:Graphed",
    "jax": "bench.gpu.contenders.jax_gpu:JaxOnDevice",
    "torch-compiled": "bench.gpu.contenders.pytorch_gpu:CompiledOnDevice",
    "torch-compiled-graph": "bench.gpu.contenders.pytorch_gpu:CompiledGraphed",
}
NAMES = tuple(CLASSES)
EPOCHS = tuple(name for name in NAMES if name not in ("floor", "nnkit-train-step"))  # those that train epochs
ONLY_EPOCHS = ("nnkit-graph",)  # their step is the same as another contender's
