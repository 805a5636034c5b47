"""The parts of the NumPy backend.

formulas    schedule: the place of each value, scratch; ufuncs: the calls; select, limits: faster variants of some
recordings  recording: their pass, and the calls of their nodes
products    products, blas: NumPy's BLAS, and SciPy's if installed; rows: minibatches
work        blocks, threads: large arrays in blocks, one after another or in parallel
"""
