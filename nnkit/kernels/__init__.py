"""The mathematics of the lecture: pure functions without state, each citing its equation."""
