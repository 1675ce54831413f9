"""Shared parts of the inference commands: loading models, command-line arguments, output files."""

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch
import transformers
from huggingface_hub.utils import enable_progress_bars
from transformers.utils import logging

import deepavfusion
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.processors.fit_deepavfusion import FITS
from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from deepavfusion_cli.boundary import report
from deepavfusion_cli.errors import cause, machine_failure, one_line, raised_by_package
from deepavfusion_cli.parser import CommandParser, positive, seconds

from .files import UnreadableError, check_writable, damaged_file
from .folder import MARK_FILE, read_mark
from .jobs.inputs import AUDIO_SUFFIXES, VIDEO_SUFFIXES, find_files
from .jobs.progress import Progress, plain_output
from .precision import set_float32_precision, set_threads

STREAMS = ("fusion", "image", "audio")
# Models without the head of a task.
_ENCODERS = ("DeepAVFusionModel", "DeepAVFusionForPreTraining")


@contextlib.contextmanager
def quiet_library():
    """Silence transformers' load reports and all progress bars but those of downloads to a terminal.

    Unused decoder weights are expected here.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if bars and sys.stderr.isatty():
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def missing_model(origin: str) -> str | None:
    """Reason why a folder holds no model; None if it holds one, or if `origin` is a Hub id."""
    path = Path(origin)
    local = path.is_dir() or path.parts[:1] == ("runs",) or origin.startswith(("/", ".", "~"))
    if not local or (path / "config.json").is_file():
        return None
    if (path / MARK_FILE).is_file() and not read_mark(path, "model")["finished"]:
        return "the run in that folder has not finished; the command that started it resumes it"
    return "there is no model in that folder" if path.is_dir() else "there is no such folder"


@contextlib.contextmanager
def reading_model(origin: str) -> Generator[None]:
    """Raise `UnreadableError`, which names model and file, for what libraries raise while a model is read."""
    try:
        yield
    except Exception as error:
        named = origin in str(error) and isinstance(error, ValueError | OSError) and raised_by_package(error)
        fault = None if named else damaged_file(origin)
        if named or (fault is None and machine_failure(error)):
            raise
        raise UnreadableError(f"{origin} cannot be used: {fault or cause(error, origin)}") from error


def model_fault(error: Exception, origin: str) -> str:
    """Why a model cannot be used, for messages that name it already."""
    return cause(error, origin).removeprefix("it cannot be used: ")


def load_model(
    auto_class, origin: str, *, needed: str = "", fresh: Sequence[str] = (), alternative: str = "", **options
):
    """Load a saved model and check that it has the required weights; missing optional weights are initialized.

    Args:
        auto_class: Model class or Auto class.
        origin: Folder or Hub id of the model.
        needed: Prefix of the weights that must be present with matching shapes; by default all weights.
        fresh: Prefixes of weights that may be missing nevertheless.
        alternative: What else to do with an encoder that was not fine-tuned, for the error message.
        options: Keyword arguments of `from_pretrained`.

    Raises:
        OSError: If there is no such model.
        ValueError: If the model is of another type, or required weights are missing or have other shapes.
    """
    if reason := missing_model(origin):
        raise OSError(f"{origin} cannot be used: {reason}.")
    with quiet_library(), reading_model(origin):
        # transformers would look for the code of an unknown model, and ask on the terminal whether to run it.
        kind = deepavfusion.DeepAVFusionConfig.get_config_dict(origin)[0].get("model_type")
        if kind != "deepavfusion":
            raise ValueError(f"{origin} holds a model of type {kind!r}: expected 'deepavfusion'.")
        model, info = auto_class.from_pretrained(
            origin, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    absent = {name: name for name in info["missing_keys"]}
    absent |= {entry[0]: f"{entry[0]} (another shape)" for entry in info["mismatched_keys"]}
    lacking = [absent[name] for name in sorted(absent) if name.startswith(needed) and not name.startswith(tuple(fresh))]
    if lacking:
        stored, wanted = ", ".join(model.config.architectures or ["model"]), type(model).__name__
        headless = not any(name.startswith("deepavfusion.") for name in lacking)
        if headless and stored in _ENCODERS and wanted not in _ENCODERS:
            raise ValueError(
                f"{origin} holds a pre-trained encoder ({stored}) without the weights of a {wanted}: fine-tune it "
                f"first, e.g. deepavfusion finetune RECIPE model.init_from={origin}"
                f"{alternative and f', or {alternative}'}."
            )
        more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
        raise ValueError(
            f"Expected a {wanted} in {origin}, found a {stored} that lacks {len(lacking)} of its "
            f"weights: {', '.join(lacking[:4])}{more}."
        )
    return model


def load_pipeline(
    task: str,
    folder: str,
    device: str | None = None,
    fresh: Sequence[str] = (),
    alternative: str = "",
    fit: str | None = None,
    **config,
) -> DeepAVFusionPipeline:
    """Load the pipeline of a task from a saved model and its processor.

    Args:
        task: Name of the pipeline, such as "audio-visual-classification".
        folder: Folder or Hub id of a saved model.
        device: Device such as "cpu" or "cuda:1"; by default the first accelerator if there is one, else the CPU.
        fresh: Prefixes of weights that may be missing because their initial values are meaningful.
        alternative: See `load_model`.
        fit: How frames are fitted to the model's input; by default as the saved processor says.
        config: Overrides of the saved configuration.

    Raises:
        OSError: If there is no such model, or no processor beside it.
        ValueError: If weights of the task's model are missing, or an override is invalid.
    """
    pipeline_class = pipelines()[task]
    model = load_model(
        getattr(transformers, pipeline_class.auto_class), folder, fresh=fresh, alternative=alternative, **config
    )
    with warnings.catch_warnings():  # `load_model` has checked the weights, whatever class they were saved from
        warnings.simplefilter("ignore")
        with reading_model(folder):
            processor = DeepAVFusionProcessor.from_pretrained(folder)
        options = {} if device is None else {"device": device}
        return pipeline_class(model, processor.with_fit(fit), task=task, **options)


def command_parser(
    command: str, description: str, epilog: str, timestamps: bool = True, writes: bool = True
) -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--device", type=device, help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)"
    )
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


def device(text: str) -> str:
    """Parse a device that is available on this machine."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(f"device {text!r} is not available: {one_line(error)[:200]}") from error
    return text


def run(
    command: str,
    arguments: argparse.Namespace,
    load: Callable[[], DeepAVFusionPipeline],
    work: Callable[[DeepAVFusionPipeline, str, str], None],
    suffixes: Sequence[str] = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES),
    counted: bool = True,
) -> int:
    """Load a pipeline and process the files one by one.

    The error of a file is printed in one line, and the remaining files are processed nevertheless, except where the
    machine failed: a full disk, too little memory.

    Args:
        command: Name of the command, for error messages.
        arguments: Parsed arguments of `command_parser`.
        load: Function that returns the pipeline.
        work: Function of the pipeline, a file, and the prefix of its output files (unique among the files).
        suffixes: Endings of the files that a folder stands for.
        counted: Whether the progress counts windows; False for `work` that shows its own progress through a file.

    Returns:
        The exit code: 0, 2 if any file could not be read, or 1 for another error.
    """
    set_float32_precision()
    set_threads()
    plain_output()
    out = getattr(arguments, "out", None)
    if out is not None:
        check_writable(out, "--out")
    files, errors = find_files(arguments.files, suffixes, out)
    code = max((report(f"deepavfusion {command}", error, lines=False) for error in errors), default=0)
    if not files:
        return code
    pipeline, windows = load(), arguments.num_clips or len(arguments.at or [None])
    unit, shown = ("window", True) if counted else ("file", len(files) > 1)
    with Progress(command, len(files) * windows, unit, shown=shown) as progress:
        pipeline.progress = progress.update if counted else None
        for number, (file, name) in enumerate(files, start=1):
            try:
                work(pipeline, file, name)
            except BrokenPipeError:
                raise
            except Exception as error:
                if machine_failure(error):
                    raise
                code = max(code, report(f"deepavfusion {command}", error, lines=False))
            progress.reach(number * windows)
    return code


def timestamp_options(arguments: argparse.Namespace) -> dict:
    """Convert `--at` and `--num-clips` to pipeline parameters that always give a list with a result per timestamp."""
    if arguments.num_clips is not None:
        return {"num_clips": arguments.num_clips}
    return {"timestamps": arguments.at or [None]}


__all__ = [
    "STREAMS",
    "command_parser",
    "load_model",
    "load_pipeline",
    "missing_model",
    "model_fault",
    "quiet_library",
    "reading_model",
    "run",
    "timestamp_options",
]
