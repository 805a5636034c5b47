"""What the NumPy backend is made of.

formulas    schedule: where each value lives, scratch; ufuncs: the calls; select, limits: faster ways for some of them
recordings  recording: the calls of their nodes
products    products, blas: NumPy's BLAS, and SciPy's where it is installed; rows: minibatches
work        blocks, threads: large arrays in parts, one after the other or side by side
"""
