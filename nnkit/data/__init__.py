"""Data to train on: digits that come with the package, MNIST from its files, splits and label encodings.

All of it is NumPy on the host; a network moves what it is given to its own device.
"""

from nnkit.data.digits import digits
from nnkit.data.labels import one_hot
from nnkit.data.mnist import MNIST, mnist
from nnkit.data.preprocessing import Normalization, Whitening
from nnkit.data.splitting import split

__all__ = ["MNIST", "Normalization", "Whitening", "digits", "mnist", "one_hot", "split"]
