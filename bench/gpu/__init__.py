"""What a GPU can do, and how near nnkit and its peers come to it (`python -m bench.gpu`)."""
