"""How exactly float32 products are computed on a GPU: one choice for the whole process, as PyTorch has it."""

_PRECISIONS = ("highest", "high", "medium")
_selected = "highest"


def set_matmul_precision(precision: str) -> None:
    """Choose how products of float32 matrices are computed on a GPU, for the whole process.

    Args:
        precision: `"highest"` (as it is at the start), float32; `"high"`, TensorFloat-32, whose factors have 10 bits
            after the point; `"medium"`, factors rounded to bfloat16, which have 7. All sums are of float32, and
            parameters, activations and updates stay in it. The same seed on the same GPU gives the same bits in each.
            Tensor cores of both kinds are in GPUs from Ampere on (compute capability 8.0).

    Errors of a product are about 1e-7, 1e-3 and 1e-2 of its terms. Other dtypes, NumPy and other backends than CuPy are
    not touched: their products are as they were. A network takes a change at its next step. Raises ValueError for
    anything else.

    >>> nnkit.set_matmul_precision("high")
    >>> nnkit.get_matmul_precision()
    'high'
    >>> nnkit.set_matmul_precision("highest")
    """
    global _selected
    if precision not in _PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected {', '.join(map(repr, _PRECISIONS))}")
    _selected = precision


def get_matmul_precision() -> str:
    """How products of float32 matrices are computed on a GPU: `"highest"`, `"high"` or `"medium"`.

    >>> nnkit.get_matmul_precision()
    'highest'
    """
    return _selected
