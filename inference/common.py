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
from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from deepavfusion.tasks_deepavfusion import HEADS
from deepavfusion_cli.boundary import report
from deepavfusion_cli.early.models import head_fault, type_fault
from deepavfusion_cli.early.outputs import check_index, is_paged
from deepavfusion_cli.errors import cause, machine_failure, one_line, raised_by_package
from deepavfusion_cli.paths import missing_model, suggestion, unusable
from deepavfusion_cli.terminal import say

from .files import UnreadableError, damaged_file
from .jobs.inputs import find_files, folder_suffixes
from .jobs.progress import Progress, plain_output
from .jobs.records import say_written
from .pages.index import write_index
from .precision import fast_bfloat16, set_float32_precision, set_threads

STREAMS = ("fusion", "image", "audio")


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
        if fault is None and "no file named" in str(error) and Path(origin).is_dir():
            fault = "it holds no weights: expected model.safetensors"
        text = fault or cause(error, origin)
        hint = "" if Path(origin).exists() else suggestion(origin)  # a Hub id, or a misspelt folder
        raise UnreadableError(f"{origin} cannot be used: {text.rstrip('.') + hint if hint else text}") from error


def model_fault(error: Exception, origin: str) -> str:
    """Why a model cannot be used, for messages that name it already."""
    return cause(error, origin).removeprefix("it cannot be used: ")


def load_model(
    auto_class,
    origin: str,
    *,
    needed: str = "",
    fresh: Sequence[str] = (),
    alternative: str = "",
    training: str = "",
    **options,
):
    """Load a saved model and check that it has the required weights; missing optional weights are initialized.

    Args:
        auto_class: Model class or Auto class.
        origin: Folder or Hub id of the model.
        needed: Prefix of the weights that must be present with matching shapes; by default all weights.
        fresh: Prefixes of weights that may be missing nevertheless.
        alternative: What else to do with an encoder that was not fine-tuned, for the error message.
        training: Command and recipe that fine-tune it, for the error message; by default an example.
        options: Keyword arguments of `from_pretrained`.

    Raises:
        OSError: If there is no such model.
        ValueError: If the model is of another type, or required weights are missing or have other shapes.
    """
    if reason := missing_model(origin):
        raise OSError(unusable(origin, reason))
    with quiet_library(), reading_model(origin):
        # transformers would look for the code of an unknown model, and ask on the terminal whether to run it.
        kind = deepavfusion.DeepAVFusionConfig.get_config_dict(origin)[0].get("model_type")
        if fault := type_fault(origin, kind):
            raise ValueError(fault)
        model, info = auto_class.from_pretrained(
            origin, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    absent = {name: name for name in info["missing_keys"]}
    absent |= {entry[0]: f"{entry[0]} (another shape)" for entry in info["mismatched_keys"]}
    lacking = [absent[name] for name in sorted(absent) if name.startswith(needed) and not name.startswith(tuple(fresh))]
    if lacking:
        stored, wanted = ", ".join(model.config.architectures or ["model"]), type(model).__name__
        headless = not any(name.startswith("deepavfusion.") for name in lacking)
        if (stored in HEADS or headless) and (fault := head_fault(origin, stored, wanted, training, alternative)):
            raise ValueError(fault)
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


def mixed_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Dtype of matrix products on a device by `--precision`; None for that of the model."""
    fast = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device.type))
    return torch.bfloat16 if fast else None


def check_device(name: str | None) -> None:
    """Raise `ValueError` for a device that this machine does not have."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} is not available: {one_line(error)[:200]}") from error


def run(
    command: str,
    arguments: argparse.Namespace,
    load: Callable[[], DeepAVFusionPipeline],
    work: Callable[[DeepAVFusionPipeline, str, str], None],
    counted: bool = True,
) -> int:
    """Load a pipeline and process the files one by one.

    The error of a file is printed in one line, and the remaining files are processed nevertheless, except where the
    machine failed: a full disk, too little memory. If a folder or several files were given, a page shows all results
    in the output folder.

    Args:
        command: Name of the command, for error messages.
        arguments: Arguments from `deepavfusion_cli.preflight.parse`.
        load: Function that returns the pipeline.
        work: Function of the pipeline, a file, and the prefix of its output files (unique among the files).
        counted: Whether the progress counts windows; False for `work` that shows its own progress through a file.

    Returns:
        The exit code: 0, 2 if any file could not be read, or 1 for another error.
    """
    set_float32_precision()
    set_threads()
    plain_output()
    check_device(arguments.device)
    out = getattr(arguments, "out", None)
    files, errors, notes = find_files(arguments.files, folder_suffixes(command, arguments), out)
    for note in notes:
        say(f"deepavfusion {command}: {note}", stream=sys.stderr)
    code = max((report(f"deepavfusion {command}", error, lines=False) for error in errors), default=0)
    if not files:
        return code
    paged = is_paged(command, arguments)
    if paged:
        check_index(out, arguments.overwrite)
    pipeline = load()
    pipeline.mixed_precision = mixed_precision(arguments.precision, pipeline.device)
    try:
        return max(code, _process(command, arguments, pipeline, files, work, counted))
    finally:
        page = write_index(out) if paged else None
        if page is not None and not getattr(arguments, "json", False):
            say_written([page])


def _process(command: str, arguments, pipeline, files: Sequence[tuple[str, str]], work: Callable, counted: bool) -> int:
    """Process files one by one; see `run`."""
    code, windows = 0, arguments.num_clips or len(arguments.at or [None])
    unit, shown = ("window", True) if counted else ("file", len(files) > 1)
    total = len(files) * windows if counted else len(files)
    with Progress(command, total, unit, shown=shown) as progress:
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
            progress.reach(number * windows if counted else number)
    return code


def timestamp_options(arguments: argparse.Namespace) -> dict:
    """Convert `--at` and `--num-clips` to pipeline parameters that always give a list with a result per timestamp."""
    if arguments.num_clips is not None:
        return {"num_clips": arguments.num_clips}
    return {"timestamps": arguments.at or [None]}


__all__ = [
    "STREAMS",
    "check_device",
    "load_model",
    "load_pipeline",
    "mixed_precision",
    "model_fault",
    "quiet_library",
    "reading_model",
    "run",
    "timestamp_options",
]
