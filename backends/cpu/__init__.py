"""The parts of the NumPy backend.

formulas    allocation: the array of each value; calls: ufuncs and faster variants of some; blocks: in parts
products    products: NumPy's BLAS, and SciPy's if installed
recordings  recording: their pass, and the calls of their nodes
native      formulas as machine code, if numba is installed
"""
