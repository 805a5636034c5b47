"""The 8 × 8 handwritten digits that come with the package."""

from importlib import resources

import numpy as np
from numpy.typing import NDArray


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 1797 handwritten digits of the UCI repository, 8 × 8 pixels each.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0 (see DIGITS-LICENSE.md in this directory).

    Returns:
        The images, (1797, 64) float32 in [0, 1], each row by row: 0 is paper, 1 is ink (the number of set pixels in a
        4 × 4 block, divided by 16); and their labels, (1797,) int64, 0 to 9. Each call returns new arrays.

    Example:
        >>> X, y = digits()
        >>> X.shape, X.dtype, y.shape, y.dtype
        ((1797, 64), dtype('float32'), (1797,), dtype('int64'))
        >>> y[:10].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

    """
    # As a resource instead of a path, so that it also works from a zip file.
    resource = resources.files("nnkit.data") / "digits.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        images = archive["images"].astype(np.float32)
        labels = archive["labels"].astype(np.int64)
    images /= 16
    return images, labels
