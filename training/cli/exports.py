"""Parsers of the formats of `deepavfusion export`."""

import argparse
from pathlib import Path

from .parser import CommandParser, positive


def export_parser() -> CommandParser:
    """Build the parser of `deepavfusion export`, whose formats have parsers of their own."""
    parser = CommandParser(
        prog="deepavfusion export",
        description="Export a saved model, or what it predicts, to the format of another program.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True, parser_class=CommandParser)
    _add_onnx(formats)
    return parser


def _add_onnx(formats) -> None:
    parser = formats.add_parser(
        "onnx",
        help="an ONNX file for batches of any size, checked against PyTorch",
        description="Write a saved model, with its head, to an ONNX file for batches of any size, and check its\n"
        "outputs on ONNX Runtime against those of PyTorch. Inputs and outputs have the names of the model's; the\n"
        "configuration is in the file's metadata. Needs the extra onnx.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a saved model")
    parser.add_argument("output", metavar="OUT.onnx", type=Path, help="file to write")
    parser.add_argument("--opset", type=positive, help="version of ONNX's operators (default: that of PyTorch)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


__all__ = ["export_parser"]
