"""The limits of a GPU, and how close nnkit and its peers come to them (`python -m bench.gpu`)."""
