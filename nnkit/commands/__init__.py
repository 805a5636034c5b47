"""The commands of the command line, one a file: each adds its arguments to a parser, and runs."""
