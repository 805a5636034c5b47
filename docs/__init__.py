"""The documentation's sources. `_ext` is what Sphinx imports to make pages from the code."""
