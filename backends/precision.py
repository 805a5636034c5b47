"""The precision of float32 matrix products on a GPU, for the whole process, like PyTorch's."""

_PRECISIONS = ("highest", "high", "medium")
_selected = "highest"


def set_matmul_precision(precision: str) -> None:
    """Set the precision of float32 matrix products on a GPU, for the whole process.

    Args:
        precision: `"highest"` (the default), float32; `"high"`, TensorFloat-32, with 10 bits in the fraction of each
            factor; `"medium"`, factors rounded to bfloat16, with 7 bits. Products are summed in float32, and
            parameters, their gradients and updates stay float32. In each mode, the same seed on the same GPU gives the
            same bits. Tensor cores for both formats exist in GPUs from Ampere on (compute capability 8.0); others
            compute in float32, and warn once.

    In `"medium"`, a training step stores activations and errors that only products read as bfloat16, which changes no
    number. If large products contain ReLU (see "How a step works" in the documentation), they add a bias rounded to
    bfloat16, and the gradients of biases are sums of the errors as stored.

    Errors of a product are about 1e-7, 1e-3 and 1e-2 of its terms. Other dtypes and other backends than CuPy are not
    affected. A change takes effect in a network's next step. Raises ValueError for another value.

    >>> nnkit.set_matmul_precision("high")
    >>> nnkit.get_matmul_precision()
    'high'
    >>> nnkit.set_matmul_precision("highest")
    """
    global _selected
    if not isinstance(precision, str) or precision not in _PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected {', '.join(map(repr, _PRECISIONS))}")
    _selected = precision


def get_matmul_precision() -> str:
    """The precision of float32 matrix products on a GPU: `"highest"`, `"high"` or `"medium"`.

    >>> nnkit.get_matmul_precision()
    'highest'
    """
    return _selected
