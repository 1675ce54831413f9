"""Export a saved model to another format.

deepavfusion export onnx runs/scenes_recognition recognition.onnx
"""

import argparse
import importlib.util
import sys

from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from ..common import quiet_library
from ..files import check_absent
from ..jobs.progress import plain_output
from . import onnx


def export_onnx(arguments: argparse.Namespace) -> int:
    """Run `deepavfusion export onnx`; returns its exit code."""
    missing = [name for name in onnx.PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        say(
            f"deepavfusion export onnx: needs the package {missing[0]}; install it by `pip install "
            "'deepavfusion[onnx]'`",
            stream=sys.stderr,
        )
        return BAD_INPUT
    check_absent([arguments.output], arguments.overwrite)
    try:
        model = onnx.load(arguments.model)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with quiet_library():
            difference = onnx.export_onnx(model, arguments.output, arguments.opset)
    except onnx.ExportError as error:
        say(f"deepavfusion export onnx: {arguments.model}: {error}", stream=sys.stderr)
        return FAILED
    say(f"{type(model).__name__} written to {arguments.output}")
    inputs = onnx.example_inputs(model, 1)
    for name, value in inputs.items():
        say(f"  {name:<15} ({', '.join(['batch', *map(str, value.shape[1:])])}) {str(value.dtype)[6:]}")
    say(f"largest difference to PyTorch {difference:.0e} of the largest value")
    return 0


EXPORTS = {"onnx": export_onnx}


@command("deepavfusion export")
def main(argv: list[str]) -> int:
    """Run the command; returns 0, 1 if the model cannot be exported, 2 for unusable arguments."""
    arguments = parse("export", argv)
    plain_output()
    return EXPORTS[arguments.format](arguments)


if __name__ == "__main__":
    sys.exit(main())
