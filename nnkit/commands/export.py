"""nnkit export: a network as an ONNX model."""

import argparse
from pathlib import Path

from nnkit.commands.arguments import Commands, add_command, add_model, add_option, at_least, show
from nnkit.commands.outputs import check_packages, output_path
from nnkit.network import load

_DESCRIPTION = """
The model has the input X, the samples before any preprocessing, and the outputs label and probabilities, or prediction
for a regression. ONNX Runtime and other programs compute it without nnkit."""
_EPILOG = """example:
  nnkit export nnkit-model.safetensors nnkit-model.onnx"""


def add(commands: Commands) -> None:
    """Add the command and its arguments."""
    parser = add_command(commands, "export", "write a network as an ONNX model", run, _DESCRIPTION, _EPILOG)
    add_model(parser)
    add_option(parser, "output", "FILE", Path, "the model to write: .onnx")
    add_option(parser, "--opset", "N", at_least(13), "version of ONNX's operators (default: 13)", default=13)


def run(options: argparse.Namespace) -> int:
    """Write the model, and print its inputs and outputs."""
    check_packages({"MODEL": "safetensors", "FILE": "onnx"})
    if options.output.suffix.lower() != ".onnx":
        raise ValueError(f"{options.output}: expected a file .onnx")
    path = output_path(options.output, "FILE", [options.model])
    model = load(options.model, "numpy").to_onnx(path, opset=options.opset)
    names = [", ".join(value.name for value in values) for values in (model.graph.input, model.graph.output)]
    show(f"written: {path}\ninput   {names[0]}\noutputs {names[1]}")
    return 0
