"""Training: epochs over data of any size, and all that goes with them; `fit` is a network's method."""
