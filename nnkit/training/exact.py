"""What metrics get of the user's targets and weights: the numbers themselves, which a network rounds and scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.dtypes import dtype_name
from nnkit.inputs import checked_weights, on_host
from nnkit.kernels.costs import Cost

Rows = slice | NDArray[np.int64]

_EXACT = ("float32", "float16", "bfloat16", "bool", "int8", "int16", "uint8", "uint16")  # are not rounded in float32


@dataclass(frozen=True, slots=True)
class Exact:
    """Numbers in float64 on the host, in the order of the data.

    Attributes:
        y: targets (n, d_out); None if those of the network are the same.
        weights: sample weights (n, 1), not scaled; None if there are none.
    """

    y: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None

    def rows(self, rows: Rows) -> "Exact":
        """Those of some samples."""
        return Exact(*(None if a is None else a[rows] for a in (self.y, self.weights)))

    def copy(self) -> "Exact":
        return Exact(*(None if a is None else a.copy() for a in (self.y, self.weights)))


def joined(parts: Sequence[Exact]) -> Exact:
    """Those of several minibatches."""
    columns = [part.y for part in parts], [part.weights for part in parts]
    return Exact(*(None if any(a is None for a in some) else np.concatenate(some) for some in columns))  # type: ignore[arg-type]


def exact_of(dtype: str, cost: Cost, width: int, y: Any, sample_weight: Any) -> Exact:
    """Those of checked targets, of `width` outputs, and sample weights, for a network of this dtype and cost."""
    weights = None if sample_weight is None else checked_weights(sample_weight, y.shape[0], "sample_weight")[:, None]
    same = cost.classifies or dtype == "float64" or dtype_name(y.dtype) in _EXACT or len(y.shape) < 2 <= width
    return Exact(None if same else np.asarray(on_host(y), np.float64).reshape(-1, width), weights)
