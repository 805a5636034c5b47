"""How many threads the products of a training use: one, where more were measured to be slower.

By size and not by a stopwatch: the number of threads decides the last bits, which a seed must decide alone. A step of
gradient descent with one and with two threads on two cores (float32, µs):

    784-30-10, batch 10       0.7 million products      21    25
    300-64-64-64-2, 48        4.0                      105   106
    784-100-10, 32            7.6                      167   190
    784-100-10, 64             15                      276   230
    784-100-10, 128            31                      509   351
    784-512-512-10, 256       514                     8647  5007
"""

from collections.abc import Iterator
from contextlib import contextmanager

from nnkit.backends.blas import blas_function
from nnkit.model import Model
from nnkit.optimizers import DescentState

SMALL = 10_000_000  # multiplications of numbers in a step


@contextmanager
def threads_for(model: Model, batch_size: int) -> Iterator[None]:
    """Compute with one BLAS thread inside, if this network's steps are small; afterwards with as many as before."""
    products = 3 * batch_size * sum(d.inputs * d.units for d in model.dense)
    if model.backend.name != "numpy" or products > SMALL:
        yield
        return
    from threadpoolctl import ThreadpoolController

    if isinstance(model.state, DescentState) and model.state.pure:
        blas_function("gemm", model.dtype)  # SciPy's BLAS, if it is to be used, must be there to be limited
    blas = ThreadpoolController().select(user_api="blas")
    several = any(pool["num_threads"] > 1 for pool in blas.info())
    try:
        with blas.limit(limits=1):
            yield
    finally:
        if several:
            model.recorded.clear()  # recorded for one thread; see nnkit.backends.blas
