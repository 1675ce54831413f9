"""What the commands that use a trained model share: loading, arguments, names of the files that they write."""

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers.utils import logging

import deepavfusion  # noqa: F401
from deepavfusion.processors import DeepAVFusionProcessor, MediaError
from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.pipelines_deepavfusion import pipelines

from .files import write_atomically
from .precision import set_float32_precision

STREAMS = ("fusion", "image", "audio")


@contextlib.contextmanager
def quiet_library():
    """Without transformers' progress bars and load reports: decoders that an encoder leaves aside are no news here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model(auto_class, origin: str, *, needed: str = "", fresh: Sequence[str] = (), **options):
    """A saved model that has the weights that it needs; others start at random.

    Args:
        auto_class: class of the model, or an Auto class.
        origin: folder or Hub name of the model.
        needed: beginning of the names of the weights that must be there, in the model's shapes; all by default.
        fresh: beginnings of names that may be missing all the same.
        options: for `from_pretrained`.

    Raises:
        OSError: there is no such model.
        ValueError: it lacks weights, or has others of other shapes.
    """
    if origin.startswith(("/", ".", "~", "runs/")) and not Path(origin).is_dir():
        raise OSError(f"Expected a saved model, but there is no folder {origin}.")
    with quiet_library():
        model, info = auto_class.from_pretrained(
            origin, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    absent = {name: name for name in info["missing_keys"]}
    absent |= {entry[0]: f"{entry[0]} (another shape)" for entry in info["mismatched_keys"]}
    lacking = [absent[name] for name in sorted(absent) if name.startswith(needed) and not name.startswith(tuple(fresh))]
    if lacking:
        stored = ", ".join(model.config.architectures or ["model"])
        raise ValueError(
            f"Expected a {type(model).__name__} in {origin}, found a {stored} that lacks {len(lacking)} of its "
            f"weights: {', '.join(lacking[:4])}{', ...' if len(lacking) > 4 else ''}."
        )
    return model


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
    pipeline_class = pipelines()[task]
    model = load_model(getattr(transformers, pipeline_class.auto_class), folder, fresh=fresh, **config)
    with warnings.catch_warnings():  # all weights are there, whatever model they were saved as
        warnings.simplefilter("ignore")
        processor = DeepAVFusionProcessor.from_pretrained(folder)
        return pipeline_class(model, processor, task=task, **({} if device is None else {"device": device}))


def command_parser(
    command: str, description: str, epilog: str, moments: bool = True, writes: bool = True
) -> argparse.ArgumentParser:
    """A parser with the arguments of all these commands.

    Args:
        moments: add those that choose moments of a file.
        writes: add the one that lets files be replaced.
    """
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
    if writes:
        parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
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


def check_absent(paths: Iterable[Path], overwrite: bool) -> None:
    """Raises `FileExistsError` for a file that would be replaced, unless `overwrite`."""
    for path in paths:
        if not overwrite and path.exists():
            raise FileExistsError(f"{path} exists: name another place to write to, or replace it with --overwrite.")


def write_files(files: Mapping[Path, bytes], overwrite: bool) -> None:
    """Writes files, each whole or not at all.

    Raises:
        FileExistsError: where one exists, unless `overwrite`; none is written then.
    """
    check_absent(files, overwrite)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def as_png(picture: Image.Image) -> bytes:
    """A PIL image in the mode that it has, as PNG; for frames and figures there is `png`."""
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return file.getvalue()


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


__all__ = [
    "STREAMS",
    "as_png",
    "check_absent",
    "command_parser",
    "load_model",
    "load_pipeline",
    "moment_names",
    "moments_of",
    "quiet_library",
    "run",
    "write_files",
]
