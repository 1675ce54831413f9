"""Command lines of what is done with a trained model: conversion, export, verification, publishing, a demo."""

import argparse
from pathlib import Path

from deepavfusion.formats_deepavfusion import checkpoint_fault
from deepavfusion.inference.jobs.inputs import VIDEO_SUFFIXES

from .early.marks import check_folder, conversion_fingerprint
from .early.models import check_model
from .early.outputs import check_media
from .early.publishing import check_hub_id, check_license, check_push
from .parser import FITS, CommandParser, add_precision, positive
from .paths import (
    InputError,
    check_empty,
    check_writable,
    missing_evaluation,
    no_data,
    similar,
    unusable,
)

CONVERTED = ("encoder", "pretraining", "classification", "separation", "segmentation")  # tasks of published models
_PLAYED = (".mp4", ".webm")  # examples in model cards
_EXAMPLE_MEGABYTES = 20


def convert_parser() -> CommandParser:
    """Build the parser of `deepavfusion convert`."""
    parser = CommandParser(
        prog="deepavfusion convert",
        description="Convert a published checkpoint to a folder that `from_pretrained` loads, and optionally push it "
        "to the Hub.\n\n"
        "deepavfusion convert checkpoint_latest.pth converted/\n"
        "deepavfusion convert checkpoint_latest.pth converted/ --push-to-hub ORG/NAME --license apache-2.0\n"
        "deepavfusion convert checkpoint_latest.pth converted/ --task encoder --config other_folder\n"
        "deepavfusion convert checkpoint_latest.pth converted/ --example clip.mp4",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="published checkpoint, .pth or .safetensors")
    parser.add_argument("output", type=Path, help="output folder")
    parser.add_argument("--task", choices=CONVERTED, help="what the model is for (default: inferred)")
    parser.add_argument("--config", help="folder or Hub id with a config.json, if the sizes cannot be inferred")
    parser.add_argument(
        "--example",
        type=Path,
        metavar="CLIP",
        help="MP4 or WebM file, published with the model: the card plays it, and shows what the model makes of it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another converted model in that folder")
    parser.add_argument(
        "--push-to-hub", metavar="ORG/NAME", help="repository to publish it in, as deepavfusion push does"
    )
    parser.add_argument("--license", help="license of the weights, for the card, e.g. apache-2.0")
    return parser


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
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="VGGSounder's csv of labels: also print scores, and write NAME.json"
    )
    parser.add_argument("--num-clips", type=positive, help="windows spread over each clip, averaged (default: one)")
    parser.add_argument("--device", help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--fit", choices=FITS, help="how wide and upright frames are fitted (default: as saved; crop)")
    add_precision(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(at=None)


def evaluate_parser(description: str, epilog: str, recipe: str = "RECIPE") -> CommandParser:
    """Build the parser of `deepavfusion evaluate`.

    Args:
        description: Text above the arguments in `--help`.
        epilog: Text below the arguments in `--help`.
        recipe: Recipe that is named.
    """
    parser = CommandParser(
        "deepavfusion evaluate",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe in the package, or path of a recipe file")
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="overrides of recipe options")
    parser.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    place = f"runs/evaluations/{recipe}-MODEL"
    parser.add_argument("--out", type=Path, help=f"folder of the report (run.output_dir if given, else {place})")
    parser.add_argument("--overwrite", action="store_true", help="replace another evaluation in that folder")
    return parser


def verify_parser() -> CommandParser:
    """Build the parser of `deepavfusion verify`."""
    parser = CommandParser(
        prog="deepavfusion verify",
        description="Derive every number of an evaluation anew from the predictions that are stored beside it, and\n"
        "compare, also with the results in the model card and in .eval_results.",
        epilog="Exit codes: 0 all numbers agree; 1 a number differs by more than 1e-6; 2 for a folder without "
        "predictions.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a run, or of `deepavfusion evaluate`")
    return parser


def push_parser() -> CommandParser:
    """Build the parser of `deepavfusion push`."""
    parser = CommandParser(
        prog="deepavfusion push",
        description="Publish a model on the Hub: check its card, results and code, load it where this package is not\n"
        "installed, show what is uploaded, and upload it in one commit with a tag.\n\n"
        "deepavfusion push runs/quickstart ORG/NAME --dry-run\n"
        "deepavfusion push runs/quickstart ORG/NAME --private\n"
        "deepavfusion push runs/quickstart ORG/NAME --overwrite --tag best",
        epilog="Checkpoints, states of optimizers, logs and media are left out, except what the card shows or links.\n"
        "Log in by `hf auth login`, or set HF_TOKEN. Exit codes: 0 success; 1 the Hub cannot be reached; 2 the model\n"
        "cannot be published, or the Hub refuses it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a run, or of a saved model with its card")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="Hub id of the repository")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--gated", choices=("auto", "manual"), help="let users ask for access: how it is approved")
    parser.add_argument("--revision", help="branch, which is created if it is absent (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that the repository holds")
    tags = parser.add_mutually_exclusive_group()
    tags.add_argument("--tag", help="name of this version (default: the next of v1, v2, ...)")
    tags.add_argument("--no-tag", action="store_const", const="", dest="tag", help="do not tag this version")
    parser.add_argument("--license", help="license of the weights, if the card names none, e.g. apache-2.0")
    parser.add_argument("--include", nargs="+", default=[], metavar="GLOB", help="further files to upload")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="GLOB", help="files not to upload")
    parser.add_argument("--commit-message", help="title of the commit (Upload model)")
    parser.add_argument("--commit-description", help="description of the commit")
    parser.add_argument("--dry-run", action="store_true", help="check and show everything, and upload nothing")
    return parser


def demo_parser() -> CommandParser:
    """Build the parser of `deepavfusion demo`."""
    parser = CommandParser(
        prog="deepavfusion demo",
        description="Serve a page to try models in the browser, without a network: drop a video, see what sounds,\n"
        "click a thing and hear it alone, mask what is silent, show labels over time, reconstruct what is hidden,\n"
        "search clips. What no model can do is not offered. Needs the extra demo.\n\n"
        "deepavfusion demo runs/scenes_localization runs/scenes_separation\n"
        "deepavfusion demo runs/search --clips videos/\n"
        "deepavfusion demo runs/scenes_segmentation --export-space space/",
        epilog="What visitors upload and what is computed for them lies in a temporary folder, which is removed at the "
        "end.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="DIR", help="folders or Hub ids of saved models")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="folder of clips to search (default: the examples)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the built-in scenes among the examples (0)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for others (127.0.0.1)")
    parser.add_argument("--port", type=positive, help="port to serve at (default: the first free one from 7860)")
    parser.add_argument("--max-megabytes", type=positive, default=200, help="largest file of a visitor (200)")
    parser.add_argument("--max-seconds", type=positive, default=60, help="longest video of a visitor (60)")
    parser.add_argument("--device", help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--fit", choices=FITS, help="how wide and upright frames are fitted (default: as saved; crop)")
    add_precision(parser)
    parser.add_argument(
        "--export-space", type=Path, metavar="OUT", help="write the repository of a Space to a new folder instead"
    )
    return parser


def check_demo(given: argparse.Namespace) -> None:
    """Raise `InputError` for models or clips that are not there, `FolderError` for a folder that cannot be written."""
    for origin in given.models:
        check_model(origin, known=True)
    if given.clips is not None and not given.clips.is_dir():
        what = "that is a file, not a folder" if given.clips.exists() else "there is no such folder"
        raise InputError(unusable(f"--clips={given.clips}", f"{what}{similar(given.clips)}"))
    if given.export_space is not None:
        if given.clips is not None:
            raise InputError("--export-space: expected no --clips, which are not part of a Space.")
        check_writable(given.export_space, "--export-space")
        check_empty(given.export_space, "--export-space")
    elif given.clips is not None:
        check_media([str(given.clips)], VIDEO_SUFFIXES)


def check_conversion(given: argparse.Namespace) -> None:
    """Raise `InputError` for files that are not there, `FolderError` for a folder that cannot be written."""
    if given.checkpoint.is_dir():
        raise InputError(f"{given.checkpoint} is a folder: expected a checkpoint, .pth or .safetensors.")
    if not given.checkpoint.is_file():
        raise InputError(f"the file {given.checkpoint} does not exist.")
    fingerprint = conversion_fingerprint(given.checkpoint, given.task, given.config, given.example)
    check_folder(given.output, "output", "convert", fingerprint, given.overwrite)
    if given.config:
        check_model(given.config, f"--config {given.config}")
    if given.example is not None:
        check_example(given.example)
    if given.push_to_hub is not None:
        check_hub_id(given.push_to_hub)
        if not given.license:
            raise InputError("--push-to-hub: name the license of the weights, which the card shows, by --license.")
    check_license(given.license)
    if fault := checkpoint_fault(given.checkpoint):
        raise InputError(f"{given.checkpoint}: {fault}.")


def check_verify(given: argparse.Namespace) -> None:
    """Raise `InputError` for a folder that is not there, or that holds no evaluation with predictions."""
    if not given.folder.is_file() and (reason := no_data(str(given.folder))):
        raise InputError(unusable(str(given.folder), reason))
    if reason := missing_evaluation(given.folder):
        raise InputError(reason)


def check_example(path: Path) -> None:
    """Raise `InputError` for an example that is not there, or that browsers do not play."""
    if not path.is_file():
        what = "that is a folder" if path.is_dir() else f"there is no such file{similar(path)}"
        raise InputError(unusable(f"--example={path}", what))
    if path.suffix.lower() not in _PLAYED:
        raise InputError(f"--example={path}: expected an MP4 or WebM file, which browsers play.")
    if (size := path.stat().st_size / 1e6) > _EXAMPLE_MEGABYTES:
        raise InputError(
            f"--example={path}: expected a file of at most {_EXAMPLE_MEGABYTES} MB, got {size:.0f} MB; cut it first."
        )


# What is checked of a parsed command line, by command.
CHECKS = {"convert": check_conversion, "demo": check_demo, "push": check_push, "verify": check_verify}

__all__ = [
    "CHECKS",
    "CONVERTED",
    "convert_parser",
    "demo_parser",
    "evaluate_parser",
    "export_parser",
    "push_parser",
    "verify_parser",
]
