"""Parsers of the command lines, without importing what runs the commands."""

import argparse
from pathlib import Path

from .environment import usable_cores
from .exports import convert_parser, demo_parser, evaluate_parser, export_parser, push_parser, verify_parser
from .parser import FITS, CommandParser, add_precision, fraction, maps_rate, part, positive, rate, seconds, whole

# Data sets on disk.
DATA_ACTIONS = ("check", "prepare")
DATA_SETS = (
    "folder",
    "vggsound",
    "audioset",
    "music",
    "vggsound_music",
    "shards",
    "avsbench",
    "vggss",
    "flickr_soundnet",
    "is3",
)


def _shared(command: str, description: str, epilog: str, timestamps: bool = True) -> CommandParser:
    """Build a parser with the arguments that all inference commands share.

    Args:
        command: Name of the command.
        description: Text above the arguments in `--help`.
        epilog: Text below the arguments in `--help`.
        timestamps: Whether to add `--at` and `--num-clips`.
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
    add_precision(parser)
    parser.add_argument("--overwrite", "--force", action="store_true", help="replace existing files")
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


def _add_film(parser: CommandParser, film: str, maps: bool = True) -> None:
    """Add the options of films.

    Args:
        parser: Parser of a command that writes films.
        film: Name of a film in `--help`.
        maps: Whether to add `--maps-per-second`.
    """
    parser.add_argument("--no-film", action="store_false", dest="film", help=f"leave out {film}")
    if maps:
        parser.add_argument(
            "--maps-per-second", type=maps_rate, default=2.0, metavar="R", help="maps of a film, up to 10 a second (2)"
        )


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
    )
    parser.add_argument("--out", type=Path, help="folder for NAME_labels.json, and of folders a page, index.html")
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
        "Without --frame, each window of the audio is separated by the frame in its middle. Of videos, films are\n"
        "written as well: their frames with the separated audio. NAME_separated.json holds names and times in seconds.",
        timestamps=False,
    )
    _add_film(parser, "the films, NAME_separated.mp4 or NAME_FRAME.mp4", maps=False)
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
        "over the frame, NAME_at_Ts_overlay.png. Names of photos are without _at_Ts. Of videos, the masks over the\n"
        "moving frames are written with the audio, NAME_overlay.mp4; NAME_mask.json holds all that was found.",
        "A file without audio is segmented from its frames only. The images hold the timestamp in seconds as text.",
    )
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    _add_film(parser, "NAME_overlay.mp4")
    parser.add_argument("--threshold", type=fraction, default=0.5, help="probability threshold of a single class (0.5)")
    return parser


def localize_parser() -> CommandParser:
    """Build the parser of `deepavfusion localize`."""
    parser = _shared(
        "localize",
        "Write the heat map of sound sources over the frame, NAME_at_Ts_heat.png (NAME_heat.png of a photo), for each\n"
        "timestamp of media files, and print the position of its maximum and, as score, the probability that anything\n"
        "in the frame sounds. Of videos, the maps over the moving frames are written with the audio, NAME_heat.mp4;\n"
        "NAME_heat.json holds all that was found.",
        "Each map has its own range of colors; in films, they fade with the score. Images hold the timestamp as text.",
    )
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    _add_film(parser, "NAME_heat.mp4")
    parser.add_argument(
        "--map",
        choices=("attention", "similarity"),
        help="use a map that needs no localization training, and has no score; works with any saved encoder",
    )
    return parser


def data_parser(action: str | None = None) -> CommandParser:
    """Build the parser of `deepavfusion data`, or of one of its actions, "check" or "prepare"."""
    operands = {"check": "NAME PATH [data.key=value ...]", "prepare": "NAME PATH OUT [data.key=value ...]"}
    parser = CommandParser(
        f"deepavfusion data {action or ''}".strip(),
        usage=f"%(prog)s [options] {operands[action]}" if action else None,
        description=_DATA_DESCRIPTIONS[action],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=(action,) if action else DATA_ACTIONS, help="what to do")
    if action is None:
        return parser
    parser.add_argument("name", metavar="NAME", choices=DATA_SETS, help=f"data set: {', '.join(DATA_SETS)}")
    parser.add_argument("path", metavar="PATH", nargs="?", help="its folder")
    parser.add_argument(
        "options",
        metavar="data.key=value" if action == "check" else "OUT data.key=value",
        nargs="*",
        default=[],
        help="its options" if action == "check" else "new folder to write, and options of the data set",
    )
    parser.add_argument(
        "--num-workers",
        type=whole(0, 64),
        metavar="N",
        default=min(usable_cores(), 8),
        help="processes that read clips (one for each core that may be used, at most 8); 0 reads in this one",
    )
    if action == "check":
        parser.add_argument("--out", type=Path, metavar="FILE", help="list of the usable clips to write, NAME.parquet")
        parser.add_argument(
            "--report", type=Path, metavar="FILE", help="file for all that was found, with every name, NAME.json"
        )
        parser.add_argument(
            "--no-decode",
            action="store_false",
            dest="decode",
            help="read only the headers of videos: much faster, but damaged streams are not found",
        )
        parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    if action == "prepare":
        parser.add_argument("--fps", type=rate, help="JPEG files per second to store (4)")
        parser.add_argument(
            "--short-side", type=positive, help="largest short side of frames, pixels (256; 360 with --keep-video)"
        )
        parser.add_argument("--quality", type=whole(1, 95), metavar="N", help="of JPEG (90)")
        parser.add_argument("--keep-video", action="store_true", help=_KEEP_VIDEO)
        parser.add_argument("--audio", choices=("flac", "pcm"), default="flac", help=_AUDIO)
        parser.add_argument(
            "--clips-per-shard",
            type=positive,
            metavar="N",
            help="clips in each tar file (a hundredth of all, at most 256); what is begun goes on with its own number",
        )
        parser.add_argument(
            "--part",
            type=part,
            default=(0, 1),
            metavar="K/N",
            help="write only part K of N, 0/N to N-1/N, for several machines",
        )
        parser.add_argument("--check-space", action=argparse.BooleanOptionalAction, default=True, help=_SPACE)
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


_DATA_DESCRIPTIONS = {
    None: "Check a data set, or prepare its clips for training: `deepavfusion data check --help` and\n"
    "`deepavfusion data prepare --help` say how.",
    "check": "Check a data set: read every clip as training does, and name those that cannot be read. For each split,\n"
    "clips that are missing, too short or without audio or images, and clips per class are counted.\n\n"
    "    deepavfusion data check folder VIDEOS\n"
    "    deepavfusion data check vggsound VGGSOUND data.annotations=vggsound.csv --num-workers 8\n"
    "    deepavfusion data check vggsound VGGSOUND --out vggsound.parquet\n\n"
    "Training with data.checked_list=vggsound.parquet starts at once, with the usable clips of that list.\n"
    "Options of the data set are given as in recipes; data.path=PATH may stand for PATH. Exit codes: 0 all clips can "
    "be\nread; 1 some cannot; 2 for an unusable data set.",
    "prepare": "Decode every clip of a data set once, and store its frames as JPEG and its audio as 16 kHz FLAC, in\n"
    "tar files (WebDataset) with an index. Training reads them by data.name=shards data.path=OUT. What was\n"
    "interrupted goes on when the same command is run again, and ends with the same files.\n\n"
    "    deepavfusion data prepare vggsound VGGSOUND PREPARED\n"
    "    deepavfusion pretrain vggsound_base data.name=shards data.path=PREPARED\n\n"
    "Exit codes: 0 all clips are stored; 1 some could not be read, and are left out; 2 for an unusable data set or\n"
    "folder.",
}
_KEEP_VIDEO = (
    "store MP4 files (H.264, at most 30 frames per second, a key frame every 16) instead of JPEG files, which are read "
    "faster"
)
_AUDIO = "store 16-bit audio as FLAC, or as PCM, which takes more space and no decoding (flac)"
_SPACE = "estimate the size first, from a few clips, and stop if the disk has less free space (default: yes)"

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
    "demo": demo_parser,
}

__all__ = [
    "DATA_SETS",
    "FITS",
    "PARSERS",
    "classify_parser",
    "convert_parser",
    "data_parser",
    "demo_parser",
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
