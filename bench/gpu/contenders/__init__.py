"""Who takes part on a GPU: the products alone, nnkit, and its peers; last those that take long to be ready."""

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
EPOCHS = tuple(name for name in NAMES if name not in ("floor", "nnkit-train-step"))  # that train an epoch
ONLY_EPOCHS = ("nnkit-graph",)  # whose step is another's
