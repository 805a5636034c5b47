"""Dropout: h ⊙ s with random factors s, either 0 or 1/(1 − p) (Srivastava et al., JMLR 2014), by a counter-based RNG.

A factor depends only on its position; no state is kept (Salmon et al., Parallel random numbers: as easy as 1, 2, 3,
SC 2011). A 32-bit number r is hashed from the network's key, the layer, the step, the column and the row, and s = 0
where r < 2³² p. This is integer arithmetic, so every backend drops the same entries, in float32 and in float64, and a
row's factors do not depend on the number of rows.

The hash is the finalizer of MurmurHash3 (A. Appleby, 2011), a bijection of 32-bit numbers in which flipping any bit of
the argument changes about half of the bits of the result. Floats hold 32-bit words as two halves of 16 bits.
"""

from typing import Any

from nnkit.backends.formula import formula

_GOLDEN = 0x9E3779B9  # 2³² divided by the golden ratio: its multiples are far apart


def _mixed(bits: Any) -> Any:
    """MurmurHash3's finalizer fmix32."""
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B
    bits = (bits ^ (bits >> 13)) * 0xC2B2AE35
    return bits ^ (bits >> 16)


def _word(xp: Any, high: Any, low: Any) -> Any:
    return xp.astype(high, xp.uint32) * 2**16 ^ xp.astype(low, xp.uint32)


@formula
def dropout(
    xp: Any,
    h: Any,
    row: Any,
    column: Any,
    key_high: Any,
    key_low: Any,
    step_high: Any,
    step_low: Any,
    rate: float = 0.5,
    layer: float = 0.0,
) -> Any:
    """Inverted dropout: s = 0 where r < 2³² p, else 1/(1 − p); returns (h ⊙ s, s), both (n, d).

    With MurmurHash3's finalizer m and g = 2³² divided by the golden ratio, modulo 2³²,

        r = m(m(m(m(key ⊕ g (layer + 1)) ⊕ step) ⊕ column) ⊕ row).

    h: values (n, d), float32 or float64. row: (n, 1), the index of each sample in its minibatch; column: (d,), the
    index of each unit. key_high, key_low, step_high, step_low: 0-d, halves of 32-bit words, word = 65536 high + low.
    All of these are nonnegative integers in the dtype of h, which is not checked; float32 is exact below 2²⁴. rate is
    the probability p, 0 ≤ p < 1, rounded down to a multiple of 2⁻³² for the comparison; layer is an integer from 0 to
    2³² − 1. Raises ValueError for another rate or layer, and for shapes that do not broadcast.

    As in PyTorch, a dropped entry is a product with 0: NaN if h is NaN or infinite, so that neither is hidden.

    >>> h, row, column = np.ones((2, 4)), np.array([[0.0], [1.0]]), np.arange(4.0)
    >>> dropped, scale = nnkit.kernels.dropout.dropout(h, row, column, 0.0, 7.0, 0.0, 0.0, rate=0.5)
    >>> dropped
    array([[2., 2., 0., 0.],
           [2., 2., 2., 0.]])
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate is {rate!r}; expected a number of at least 0 and below 1")
    if not (0 <= layer < 2**32 and layer % 1 == 0):
        raise ValueError(f"dropout: layer is {layer!r}; expected a whole number from 0 to 2³² − 1")
    # From the smallest array to the largest: only the last line computes a number for each entry of h.
    bits = _mixed(_word(xp, key_high, key_low) ^ (int(layer) + 1) * _GOLDEN % 2**32)
    bits = _mixed(bits ^ _word(xp, step_high, step_low))
    bits = _mixed(bits ^ xp.astype(column, xp.uint32))
    bits = _mixed(bits ^ xp.astype(row, xp.uint32))
    # A cast instead of xp.where: NumPy's masked copy with a random mask takes as long as all the rest.
    scale = xp.astype(bits >= int(rate * 2**32), h.dtype) * (1 / (1 - rate))
    return h * scale, scale


@formula
def dropout_grad(xp: Any, delta: Any, scale: Any) -> Any:
    """δh = s ⊙ Δ, the gradient by h of `dropout`; delta: Δ (n, d), scale: the second result of `dropout`.

    >>> nnkit.kernels.dropout.dropout_grad(np.array([1.0, 3.0]), np.array([2.0, 0.0]))
    array([2., 0.])
    """
    return delta * scale


@formula
def dropout_clock(xp: Any, step_high: Any, step_low: Any) -> Any:
    """step ← step + 1 modulo 2³², as two halves; a recorded step updates them in place.

    Returns (high, low), 0-d, in the dtype of step_high and step_low, which are integers from 0 to 65535.

    >>> nnkit.kernels.dropout.dropout_clock(np.array(0.0), np.array(65535.0))
    (array(1.), array(0.))
    """
    full = step_low >= 65535
    high = xp.where(step_high >= 65535, 0.0, step_high + 1)
    return xp.where(full, high, step_high), xp.where(full, 0.0, step_low + 1)
