"""The commands of the command line, one per file: `add` adds the arguments to a parser, `run` runs it."""
