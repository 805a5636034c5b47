"""Ensembles: several networks of one structure, trained in one pass (`nnkit.Ensemble`)."""
