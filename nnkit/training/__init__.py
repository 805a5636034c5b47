"""Training: epochs over data of any size, checkpoints, early stopping and progress; `fit` is a network's method."""
