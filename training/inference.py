"""What the commands that use a trained model share: loading, arguments, names of the files that they write."""

import argparse
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

import deepavfusion  # noqa: F401
from deepavfusion.processors import MediaError
from deepavfusion.processors.pipelines_deepavfusion import DeepAVFusionPipeline, pipelines

from .checkpointing import write_atomically
from .precision import set_float32_precision
from .report_media import png
from .tracking import quiet_library


def load_pipeline(
    task: str, folder: str, device: str | None = None, fresh: Sequence[str] = (), **config
) -> DeepAVFusionPipeline:
    """The pipeline of a task with a saved model and the processor beside it.

    Args:
        task: such as "audio-visual-classification".
        folder: folder or Hub name of a saved model.
        device: such as "cpu" or "cuda:1"; the first accelerator by default, else the CPU.
        fresh: beginnings of the names of weights that may be missing, for they start with a meaning.
        config: settings that replace the stored ones.

    Raises:
        OSError: where there is no such model, or no processor beside it.
        ValueError: for a folder that lacks weights of the task's model, or a wrong setting.
    """
    if folder.startswith(("/", ".", "~", "runs/")) and not Path(folder).is_dir():
        raise OSError(f"Expected a saved model, but there is no folder {folder}.")
    pipeline_class = pipelines()[task]
    with quiet_library():
        model, info = getattr(transformers, pipeline_class.auto_class).from_pretrained(
            folder, output_loading_info=True, **config
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(tuple(fresh)))
    if missing or info["mismatched_keys"]:
        stored = ", ".join(model.config.architectures or ["model"])
        raise ValueError(
            f"Expected a {pipeline_class.model_name} in {folder}, found a {stored} that lacks {len(missing)} of its "
            f"weights: {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}."
        )
    with warnings.catch_warnings():  # all weights are there, whatever model they were saved as
        warnings.simplefilter("ignore")
        return pipeline_class(model, task=task, **({} if device is None else {"device": device}))


def command_parser(command: str, description: str, epilog: str, moments: bool = True) -> argparse.ArgumentParser:
    """A parser with the arguments of all these commands; `moments` adds those that choose moments of a file."""
    parser = argparse.ArgumentParser(
        prog=f"deepavfusion {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="media files, in any container that FFmpeg reads")
    parser.add_argument("--model", required=True, help="folder or Hub name of a saved model")
    parser.add_argument(
        "--device", type=device, help="such as cpu or cuda:1; the first accelerator by default, else the CPU"
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="windows that the model sees at once (8)")
    if moments:
        group = parser.add_mutually_exclusive_group()
        group.add_argument(
            "--at", type=seconds, nargs="+", metavar="SECONDS", help="moments to look at; the middle by default"
        )
        group.add_argument("--num-clips", type=positive, help="moments spread evenly over each file instead")
    return parser


def device(text: str) -> str:
    """A device of the command line that this machine has."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(f"no device {text!r} here: {one_line(error)[:200]}") from error
    return text


def positive(text: str) -> int:
    """A positive whole number of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A moment in seconds of the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a moment in seconds, got {text!r}")
    return value


def share(text: str) -> float:
    """A number from 0 to less than 1 of the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to less than 1, got {text!r}")
    return value


def run(
    command: str,
    arguments: argparse.Namespace,
    load: Callable[[], DeepAVFusionPipeline],
    work: Callable[[DeepAVFusionPipeline, str, str], None],
) -> int:
    """Loads a pipeline and gives it the files one by one.

    Args:
        command: name, for messages.
        arguments: of `command_parser`.
        load: gives the pipeline.
        work: of pipeline, file and the beginning of what it writes about the file (unique among the files).

    Returns:
        0, or 2 where the model could not be loaded or a file not be read: what failed is said in a line, and the files
        after it are worked on.
    """
    set_float32_precision()
    try:
        pipeline = load()
    except (MediaError, OSError, ValueError) as error:
        print(f"deepavfusion {command}: {one_line(error)}", file=sys.stderr)
        return 2
    code = 0
    for file, name in zip(arguments.files, unique_names(arguments.files), strict=True):
        try:
            work(pipeline, file, name)
        except (MediaError, OSError) as error:
            print(f"deepavfusion {command}: {one_line(error)}", file=sys.stderr)
            code = 2
    return code


def moments_of(arguments: argparse.Namespace) -> dict:
    """The pipeline's parameters for `--at` and `--num-clips`; its result is a list of moments in any case."""
    if arguments.num_clips is not None:
        return {"num_clips": arguments.num_clips}
    return {"timestamps": arguments.at or [None]}


def unique_names(files: Sequence[str]) -> list[str]:
    """The files' names without folder and suffix; a number keeps those apart that are alike."""
    names, seen = [], set()
    for file in files:
        stem = Path(file).stem or "file"
        name, number = stem, 2
        while name in seen:
            name, number = f"{stem}_{number}", number + 1
        seen.add(name)
        names.append(name)
    return names


def moment_names(name: str, times: Sequence[float]) -> list[str]:
    """Beginnings of what is written about moments (s) of a file."""
    return unique_names([f"{name}_at_{time:.2f}s.png" for time in times])


def write_picture(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Writes a PNG, whole or not at all, of a frame (H, W, 3) uint8, a figure or a PIL image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Image.Image):
        file = io.BytesIO()
        picture.save(file, format="png", optimize=True)
        write_atomically(path, file.getvalue())
    else:
        write_atomically(path, png(picture))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


__all__ = ["command_parser", "load_pipeline", "moment_names", "moments_of", "run", "write_picture"]
