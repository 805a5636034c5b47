"""The parts of the CuPy backend, which `nnkit.backends.cupy_backend` brings together.

kernels     formula_text: CUDA text, which needs no GPU; elementwise, reductions, rows: kernels and their launches
products    cublas: the library, and how matrices lie; products; cublas_lt, epilogues: with bias and ReLU inside
calls       prepared: outside of recordings, each decided once for arrays of the same layouts
recordings  recording: the passes over their nodes; graph: one launch of all
the device  check: what is missing; device, memory; cluster: launches of clusters of blocks
"""
