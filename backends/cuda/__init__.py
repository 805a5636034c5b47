"""What the CuPy backend is made of.

kernels     formula_text, reduction_text, row_text: CUDA text, which needs no GPU; launch: how operands meet it
products    gemm: how matrices lie; cublas: the library
recordings  recording: the passes over their nodes; elementwise_call: what these join; graph: one launch of all
the backend device, memory, products, reductions, rows, which `nnkit.backends.cupy_backend` brings together; check
"""
