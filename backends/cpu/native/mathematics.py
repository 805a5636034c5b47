"""Exponentials and logarithms for native text."""
