"""Native code for the CPU: Python text that numba compiles once, kept as object code on disk.

compiler     from text to the address of a C function `void f(int64_t *arguments)`
intrinsics   what the text can use besides arithmetic: memory by address, selects, the bits of numbers
mathematics  exponentials and logarithms, as statements of such text
formulas     the text of a formula's program, and its calls on arrays
calls        a native node, `(address, arguments)`, as a call; runs of them as one call
products     products of matrices, by tiles or BLAS;  tiles  their text, which is LLVM's own
rows         adjacent operations on rows of few columns as one loop
nodes        the native nodes of whatever else a recorded step does
"""
