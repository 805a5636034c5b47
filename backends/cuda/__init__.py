"""What the CuPy backend is made of.

kernels     formula_text, reduction_text, row_text: CUDA text, which needs no GPU; launch: how operands meet it
products    gemm: how matrices lie; cublas: the library
recordings  device_tape, chain_tape, cast_tape, graph: each adds to the one before it
the backend device, memory, products, reductions, rows, which `nnkit.backends.cupy_backend` brings together; check
"""
