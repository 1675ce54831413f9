"""Parsers of the formats of `deepavfusion export`."""

import argparse
from pathlib import Path

from .parser import FITS, CommandParser, positive


def export_parser() -> CommandParser:
    """Build the parser of `deepavfusion export`, whose formats have parsers of their own."""
    parser = CommandParser(
        prog="deepavfusion export",
        description="Export a saved model, or what it predicts, to the format of another program.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True, parser_class=CommandParser)
    _add_onnx(formats)
    _add_vggsounder(formats)
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


def _add_vggsounder(formats) -> None:
    parser = formats.add_parser(
        "vggsounder",
        help="logits per modality for VGGSounder's benchmark",
        description="Write the logits of a classifier of VGGSound for the clips of its test set, with audio alone,\n"
        "with images alone and with both, as a pickle file that `vggsounder.benchmark` reads. Clips are named as in\n"
        "VGGSound: ID_START.mp4 or ID_START_END.mp4.",
        epilog="The modality that is left out is absent from the model's input, as in clips that lack it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a saved classifier")
    parser.add_argument("files", nargs="+", metavar="FILE", help="clips, or folders of them")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write, NAME.pkl")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="VGGSounder's classes.csv (default: of the installed package)"
    )
    parser.add_argument("--num-clips", type=positive, help="windows spread over each clip, averaged (default: one)")
    parser.add_argument("--device", help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--fit", choices=FITS, help="how wide and upright frames are fitted (default: as saved; crop)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(at=None)


__all__ = ["export_parser"]
