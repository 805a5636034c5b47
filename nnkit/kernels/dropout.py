"""Dropout: h ⊙ s with random factors s, which are 0 or 1/(1 − p), from a counter (Srivastava et al., JMLR 2014).

A factor is a function of where it stands, and nothing is kept between two of them (Salmon et al., Parallel random
numbers: as easy as 1, 2, 3, SC 2011): a 32-bit number r is mixed from the key of a network, its layer, the step, the
column and the row, and s = 0 where r < 2³² p. All of this is whole-number arithmetic, so that every backend drops the
same entries, float32 and float64 do too, and a row's factors do not depend on how many rows there are.

The mixing is the finalizer of MurmurHash3 (A. Appleby, 2011), which takes each 32-bit number to another so that about
half of the bits of the result change with any bit of the argument. Floats hold 32-bit words as two halves of 16 bits.
"""

from typing import Any

from nnkit.backends.formula import formula

_GOLDEN = 0x9E3779B9  # 2³² over the golden ratio: its multiples lie far apart


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

    With m for MurmurHash3's finalizer and g for 2³² over the golden ratio, all in arithmetic modulo 2³²,

        r = m(m(m(m(key ⊕ g (layer + 1)) ⊕ step) ⊕ column) ⊕ row).

    h: values (n, d), float32 or float64. row: (n, 1), the number of each sample in its minibatch; column: (d,), of each
    unit. key_high, key_low, step_high, step_low: 0-d, the halves of 32-bit words, word = 65536 high + low. All of them
    are whole numbers of at least 0 in the dtype of h, which is not checked; float32 holds those below 2²⁴. rate is the
    probability p, 0 ≤ p < 1, rounded down to a multiple of 2⁻³² for the comparison; layer is a whole number below 2³².
    ValueError is raised for another rate or layer, and for shapes that do not broadcast.

    As in PyTorch, a dropped entry is a product with 0: NaN where h is NaN or infinite, so that neither is hidden.

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
    # From the fewest entries to the most: only the last line has a number for each entry of h.
    bits = _mixed(_word(xp, key_high, key_low) ^ (int(layer) + 1) * _GOLDEN % 2**32)
    bits = _mixed(bits ^ _word(xp, step_high, step_low))
    bits = _mixed(bits ^ xp.astype(column, xp.uint32))
    bits = _mixed(bits ^ xp.astype(row, xp.uint32))
    # A cast, not xp.where: NumPy's masked copy of a random mask takes as long as all the rest.
    scale = xp.astype(bits >= int(rate * 2**32), h.dtype) * (1 / (1 - rate))
    return h * scale, scale


@formula
def dropout_grad(xp: Any, delta: Any, scale: Any) -> Any:
    """δh = s ⊙ Δ: Δ with respect to h of `dropout`; delta: Δ (n, d), scale: its second result.

    >>> nnkit.kernels.dropout.dropout_grad(np.array([1.0, 3.0]), np.array([2.0, 0.0]))
    array([2., 0.])
    """
    return delta * scale


@formula
def dropout_clock(xp: Any, step_high: Any, step_low: Any) -> Any:
    """step ← step + 1 modulo 2³², as two halves; meant to be written over the old in a recorded step.

    Returns (high, low), 0-d and of the dtype of step_high and step_low, which hold whole numbers from 0 to 65535.

    >>> nnkit.kernels.dropout.dropout_clock(np.array(0.0), np.array(65535.0))
    (array(1.), array(0.))
    """
    full = step_low >= 65535
    high = xp.where(step_high >= 65535, 0.0, step_high + 1)
    return xp.where(full, high, step_high), xp.where(full, 0.0, step_low + 1)
