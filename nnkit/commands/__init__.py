"""The commands of the command line: `add` adds one, or the three of `reports`, with its arguments to a parser."""
