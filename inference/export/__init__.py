"""Export a saved model, or what it predicts, to the format of another program.

deepavfusion export onnx runs/scenes_recognition recognition.onnx
deepavfusion export vggsounder runs/recognition CLIPS --output predictions/recognition.pkl
"""

import importlib

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse

# Format -> module with a function `export` of the parsed command line, which returns the exit code.
FORMATS = {
    "onnx": "deepavfusion.inference.export.onnx",
    "vggsounder": "deepavfusion.inference.benchmarks.vggsounder",
}


@command("deepavfusion export")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("export", argv)
    return importlib.import_module(FORMATS[arguments.format]).export(arguments)


__all__ = ["FORMATS", "main"]
