"""Shared parts of the inference commands: loading models, command-line arguments, output files."""

import argparse
import contextlib
import difflib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
import transformers
from transformers.utils import logging

import deepavfusion
from deepavfusion.processors import DeepAVFusionProcessor, MediaError
from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.pipelines_deepavfusion import pipelines

from .folder import MARK_FILE, read_mark
from .precision import set_float32_precision

STREAMS = ("fusion", "image", "audio")
# Models without the head of a task.
_ENCODERS = ("DeepAVFusionModel", "DeepAVFusionForPreTraining")


@contextlib.contextmanager
def quiet_library():
    """Silence transformers' progress bars and load reports: unused decoder weights are expected here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
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
    with quiet_library():
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
    task: str, folder: str, device: str | None = None, fresh: Sequence[str] = (), alternative: str = "", **config
) -> DeepAVFusionPipeline:
    """Load the pipeline of a task from a saved model and its processor.

    Args:
        task: Name of the pipeline, such as "audio-visual-classification".
        folder: Folder or Hub id of a saved model.
        device: Device such as "cpu" or "cuda:1"; by default the first accelerator if there is one, else the CPU.
        fresh: Prefixes of weights that may be missing because their initial values are meaningful.
        alternative: See `load_model`.
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
        processor = DeepAVFusionProcessor.from_pretrained(folder)
        return pipeline_class(model, processor, task=task, **({} if device is None else {"device": device}))


class CommandParser(argparse.ArgumentParser):
    """Parser that answers an option that does not exist with the closest one."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with code 2."""
        if message.startswith("unrecognized arguments"):
            options = [name for action in self._actions for name in action.option_strings]
            words = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
            close = [name for word in words for name in difflib.get_close_matches(word, options, 1)]
            message += f" (did you mean {', '.join(close)}?)" if close else ""
        super().error(message)


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
    parser.add_argument("files", nargs="+", metavar="FILE", help="media files, in any container that FFmpeg reads")
    parser.add_argument("--model", required=True, help="folder or Hub id of a saved model")
    parser.add_argument(
        "--device", type=device, help="device such as cpu or cuda:1 (default: the first accelerator, else the CPU)"
    )
    if writes:
        parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--batch-size", type=positive, default=8, help="windows per forward pass (8)")
    if timestamps:
        group = parser.add_mutually_exclusive_group()
        group.add_argument(
            "--at", type=seconds, nargs="+", metavar="SECONDS", help="timestamps (default: the middle of each file)"
        )
        group.add_argument("--num-clips", type=positive, help="number of timestamps, evenly spaced over each file")
    return parser


def device(text: str) -> str:
    """Parse a device that is available on this machine."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise argparse.ArgumentTypeError(f"device {text!r} is not available: {one_line(error)[:200]}") from error
    return text


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Parse a timestamp in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a timestamp in seconds, got {text!r}")
    return value


def fraction(text: str) -> float:
    """Parse a number in [0, 1)."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number in [0, 1), got {text!r}")
    return value


def run(
    command: str,
    arguments: argparse.Namespace,
    load: Callable[[], DeepAVFusionPipeline],
    work: Callable[[DeepAVFusionPipeline, str, str], None],
) -> int:
    """Load a pipeline and process the files one by one.

    An error is printed in one line; the remaining files are processed nevertheless.

    Args:
        command: Name of the command, for error messages.
        arguments: Parsed arguments of `command_parser`.
        load: Function that returns the pipeline.
        work: Function of the pipeline, a file, and the prefix of its output files (unique among the files).

    Returns:
        The exit code: 0, or 2 if the model or any file could not be read.
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


def timestamp_options(arguments: argparse.Namespace) -> dict:
    """Convert `--at` and `--num-clips` to pipeline parameters that always give a list with a result per timestamp."""
    if arguments.num_clips is not None:
        return {"num_clips": arguments.num_clips}
    return {"timestamps": arguments.at or [None]}


def unique_names(files: Sequence[str]) -> list[str]:
    """Names of the files without folder and suffix, numbered where they would collide."""
    names, seen = [], set()
    for file in files:
        stem = Path(file).stem or "file"
        name, number = stem, 2
        while name in seen:
            name, number = f"{stem}_{number}", number + 1
        seen.add(name)
        names.append(name)
    return names


def timestamp_names(name: str, timestamps: Sequence[float]) -> list[str]:
    """Prefixes of the output files of each timestamp (s) of a file."""
    return unique_names([f"{name}_at_{timestamp:.2f}s.png" for timestamp in timestamps])


def one_line(error: Exception) -> str:
    """Message of an error without line breaks."""
    return " ".join(str(error).split())


__all__ = [
    "STREAMS",
    "CommandParser",
    "command_parser",
    "fraction",
    "load_model",
    "load_pipeline",
    "missing_model",
    "positive",
    "quiet_library",
    "run",
    "seconds",
    "timestamp_names",
    "timestamp_options",
    "unique_names",
]
