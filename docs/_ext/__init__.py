"""Extensions of Sphinx that make pages from the code: what a page shows was computed when it was built."""
