"""Native code for the CPU: Python text that numba compiles once, kept as object code on disk.

compiler     from text to the address of a C function `void f(int64_t *arguments)`
intrinsics   what the text can use besides arithmetic: memory by address, selects, the bits of numbers
calls        a native node, `(address, arguments)`, as a call; runs of them as one call
"""
