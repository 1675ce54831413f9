"""Parsers of the command lines, without importing what runs the commands."""

import argparse
import os
from pathlib import Path

from .exports import export_parser
from .parser import FITS, CommandParser, fraction, positive, seconds

# Data sets on disk.
DATA_SETS = ("folder", "vggsound", "audioset", "music", "vggsound_music", "avsbench", "vggss", "flickr_soundnet")


def _shared(command: str, description: str, epilog: str, timestamps: bool = True, writes: bool = True) -> CommandParser:
    """Build a parser with the arguments that all inference commands share.

    Args:
        command: Name of the command.
        description: Text above the arguments in `--help`.
        epilog: Text below the arguments in `--help`.
        timestamps: Whether to add `--at` and `--num-clips`.
        writes: Whether to add `--overwrite`.
    """
    parser = CommandParser(
        prog=f"deepavfusion {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="media files, in any container that FFmpeg reads, or folders of them"
    )
    parser.add_argument("--model", required=True, help="folder or Hub id of a saved model")
    parser.add_argument("--device", help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)")
    parser.add_argument("--fit", choices=FITS, help="how wide and upright frames are fitted (default: as saved; crop)")
    if writes:
        parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--batch-size", type=positive, default=8, help="windows per forward pass (8)")
    if timestamps:
        group = parser.add_mutually_exclusive_group()
        group.add_argument(
            "--at", type=seconds, nargs="+", metavar="SECONDS", help="timestamps (default: the middle of each file)"
        )
        group.add_argument("--num-clips", type=positive, help="number of timestamps, evenly spaced over each file")
    else:
        parser.set_defaults(at=None, num_clips=None)
    return parser


def embed_parser() -> CommandParser:
    """Build the parser of `deepavfusion embed`."""
    parser = _shared(
        "embed",
        "Write the fusion, image and audio tokens of media files, NAME.safetensors for each: tensors of shape\n"
        "(windows, tokens, hidden size), and timestamps (windows,) in seconds, the middle of each window. Files with\n"
        "video or audio only give two of the streams.",
        "Works with any saved model of the package; only its encoder is used.",
    )
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, help="output folder")
    place.add_argument("--output", type=Path, metavar="FILE", help="output file, for a single input file")
    return parser


def classify_parser() -> CommandParser:
    """Build the parser of `deepavfusion classify`."""
    parser = _shared(
        "classify",
        "Print the most likely labels of media files, including files with video or audio only.",
        "The logits of several timestamps are averaged.",
        writes=False,
    )
    parser.add_argument("--top-k", type=positive, default=5, help="number of labels to print (5)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per file and line: file, labels, timestamps"
    )
    return parser


def separate_parser() -> CommandParser:
    """Build the parser of `deepavfusion separate`."""
    parser = _shared(
        "separate",
        "Separate the audio of media files by what a frame shows: write mono wav files of the full length of each\n"
        "recording, and an image of their spectrograms.",
        "Without --frame, each window of the audio is separated by the frame in its middle.",
        timestamps=False,
    )
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    parser.add_argument(
        "--frame",
        type=frame,
        nargs="+",
        metavar="SECONDS|IMAGE",
        help="frames that show the target sources: timestamps of the file, or images; one wav file each",
    )
    parser.add_argument(
        "--consistency", action="store_true", help="normalize the masks of two or more frames by their sum"
    )
    parser.add_argument("--overlap", type=fraction, default=0.5, help="overlap of consecutive windows, in [0, 1) (0.5)")
    return parser


def segment_parser() -> CommandParser:
    """Build the parser of `deepavfusion segment`."""
    parser = _shared(
        "segment",
        "Write two images for each timestamp of media files: NAME_at_Ts_mask.png, whose pixels are class indices\n"
        "(with a single class, 1 for sounding pixels and 0 for others; 255 outside the model's view), and the mask\n"
        "over the frame, NAME_at_Ts_overlay.png. Names of photos are without _at_Ts.",
        "A file without audio is segmented from its frames only. The images hold the timestamp in seconds as text.",
    )
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    parser.add_argument("--threshold", type=fraction, default=0.5, help="probability threshold of a single class (0.5)")
    return parser


def localize_parser() -> CommandParser:
    """Build the parser of `deepavfusion localize`."""
    parser = _shared(
        "localize",
        "Write the heat map of sound sources over the frame, NAME_at_Ts_heat.png (NAME_heat.png of a photo), for each\n"
        "timestamp of media files, and print the position of its maximum and, as score, the probability that anything\n"
        "in the frame sounds.",
        "Each map is drawn between its own minimum and maximum. The image holds the timestamp in seconds as text.",
    )
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    parser.add_argument(
        "--map",
        choices=("attention", "similarity"),
        help="use a map that needs no localization training, and has no score; works with any saved encoder",
    )
    return parser


def convert_parser() -> CommandParser:
    """Build the parser of `deepavfusion convert`."""
    parser = CommandParser(
        prog="deepavfusion convert",
        description="Convert a published checkpoint to a folder that `from_pretrained` loads, and optionally push it "
        "to the Hub.\n\n"
        "deepavfusion convert deepavfusion_vitb_vggsound_ep200.pth converted/\n"
        "deepavfusion convert checkpoint_latest.pth converted/ --push-to-hub ORG/NAME\n"
        "deepavfusion convert checkpoint_latest.pth converted/ --task encoder --config other_folder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="published checkpoint, .pth or .safetensors")
    parser.add_argument("output", type=Path, help="output folder")
    parser.add_argument(
        "--task", help="encoder, pretraining, classification, separation or segmentation (default: inferred)"
    )
    parser.add_argument("--config", help="folder or Hub id with a config.json, if the sizes cannot be inferred")
    parser.add_argument("--overwrite", action="store_true", help="replace another converted model in that folder")
    parser.add_argument("--push-to-hub", metavar="ORG/NAME", help="Hub id of the repository to push to")
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


def data_parser() -> CommandParser:
    """Build the parser of `deepavfusion data`."""
    parser = CommandParser(
        "deepavfusion data",
        description="Check a data set: read every clip as training does, and name those that cannot be read.\n\n"
        "    deepavfusion data check folder VIDEOS\n"
        "    deepavfusion data check vggsound VGGSOUND data.annotations=vggsound.csv --num-workers 8\n\n"
        "Options of the data set are given as in recipes; data.path=PATH may stand for PATH. Exit codes: 0 all clips "
        "can be\nread; 1 some cannot; 2 for an unusable data set.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("check",), help="what to do")
    parser.add_argument("name", metavar="NAME", choices=DATA_SETS, help=f"data set: {', '.join(DATA_SETS)}")
    parser.add_argument("path", metavar="PATH", nargs="?", help="its folder")
    parser.add_argument("options", metavar="data.key=value", nargs="*", default=[], help="its options")
    parser.add_argument(
        "--num-workers",
        type=int,
        choices=range(65),
        metavar="N",
        default=min(os.cpu_count() or 1, 8),
        help="processes that read clips (number of CPUs, at most 8); 0 reads in this one",
    )
    return parser


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
    place = f"runs/evaluations/{recipe}"
    parser.add_argument("--out", type=Path, help=f"folder of the report (run.output_dir if given, else {place})")
    parser.add_argument("--overwrite", action="store_true", help="replace another evaluation in that folder")
    return parser


def frame(text: str) -> float | str:
    """Parse a timestamp in seconds or the path of an image."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a timestamp in seconds or an image, got {text!r}")
    return value


PARSERS = {
    "embed": embed_parser,
    "classify": classify_parser,
    "separate": separate_parser,
    "segment": segment_parser,
    "localize": localize_parser,
    "convert": convert_parser,
    "export": export_parser,
    "verify": verify_parser,
    "push": push_parser,
}

__all__ = [
    "DATA_SETS",
    "FITS",
    "PARSERS",
    "classify_parser",
    "convert_parser",
    "data_parser",
    "embed_parser",
    "evaluate_parser",
    "export_parser",
    "frame",
    "localize_parser",
    "push_parser",
    "segment_parser",
    "separate_parser",
    "verify_parser",
]
