"""What every input is held to: it is read, or refused in one line with the exit code for bad input; in bounded time."""

import contextlib
import io
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    export_original_state_dict,
    load_original_checkpoint,
)
from deepavfusion.processors import DeepAVFusionProcessor, MediaError, load_clip
from deepavfusion.training.config.options import RecipeError
from deepavfusion.training.config.recipe import Recipe, load_recipe, recipe_command
from deepavfusion.training.config.sections import SECTIONS, section_options
from deepavfusion_cli import main
from tests.faults.mutations import generator, mutate_bytes, mutate_json, mutate_tensors, mutate_weights
from tests.tiny import INFERABLE

OPTIONS = {section: section_options(section) for section in SECTIONS}
READ, REFUSED = "read", "refused"
MAX_SECONDS = 20.0  # of CPU time, of the slowest input: a thousand times that of most


class Broken(AssertionError):
    """An input that broke the contract."""


def expect(holds: bool, what: str) -> None:
    """Raise `Broken` unless a part of the contract holds."""
    if not holds:
        raise Broken(what)


def is_line(text: str) -> bool:
    """Whether a text is one line that a person can read: no traceback, no control characters."""
    return bool(text) and text.isprintable() and "Traceback" not in text


def try_media(data: bytes) -> str:
    """Read a file as commands do: it is read, with finite values, or refused by a `MediaError` of one line."""
    start = time.process_time()
    try:
        clip = load_clip(data, seconds=0.5)
    except MediaError as error:
        expect(is_line(str(error)), f"the message is {str(error)!r}")
        outcome = REFUSED
    else:
        if clip.frames is not None:
            expect(clip.frames.dtype == np.uint8 and clip.frames.shape[3] == 3, "frames are not (T, H, W, 3) uint8")
        if clip.waveform is not None:
            expect(bool(np.isfinite(clip.waveform).all()), "the waveform is not finite")
        outcome = READ
    expect(time.process_time() - start < MAX_SECONDS, f"{time.process_time() - start:.1f} s of CPU time")
    return outcome


def try_mutated_media(files: dict[str, bytes], seed: int, number: int) -> tuple[str, str]:
    """Mutate one of the files and read it: the mutation, and what became of the file."""
    name = list(files)[number % len(files)]
    kind, data = mutate_bytes(files[name], generator(seed, number))
    try:
        return kind, try_media(data)
    except Exception as error:
        raise Broken(f"seed {seed}, number {number}: {name} with {kind}: {error}") from error


def run_command(words: Sequence[str]) -> tuple[int, str, str]:
    """Run `deepavfusion` with arguments: exit code, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(words))
        except SystemExit as ended:  # argparse
            code = ended.code if isinstance(ended.code, int) else 1
    return code, out.getvalue(), err.getvalue()


def small_model(folder: Path) -> Path:
    """Save a small classifier with its processor."""
    torch.manual_seed(0)
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1, "num_labels": 3, "classifier_input_norm": True})
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    for code in folder.glob("*.py"):  # the copied code is not under test
        code.unlink()
    return folder


def try_mutated_model(saved: Path, folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Copy a saved model to a folder, mutate one of its files, and use it: the file, and what became of the model."""
    name, what = mutate_model(saved, folder, seed, number)
    try:
        return name, try_model(folder)
    except Exception as error:
        raise Broken(f"seed {seed}, number {number}: {name}: {what}: {error}") from error


def mutate_model(saved: Path, folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Copy a saved model and mutate one of its files: the file, and what was done."""
    draws = generator(seed, number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    name = ("config.json", "processor_config.json", "model.safetensors")[number % 3]
    path = folder / name
    if name == "model.safetensors":
        what = mutate_weights(path, draws)
    elif draws.random() < 0.7:
        what = mutate_json(path, draws)
    else:
        what, data = mutate_bytes(path.read_bytes(), draws)
        path.write_bytes(data)
    return name, what


def try_model(folder: Path) -> str:
    """Classify a file without audio: with a model that loads, the command complains of the file, else of the model."""
    broken = folder.parent / "broken.wav"
    broken.write_bytes(b"no audio")
    start = time.process_time()
    code, out, err = run_command(["classify", "--model", str(folder), str(broken), "--device", "cpu"])
    expect(code == 2, f"exit code {code}: {err!r}")
    expect(not out, f"output {out!r}")
    expect(err.endswith("\n") and is_line(err[:-1]), f"errors {err!r}")
    expect(err.startswith("deepavfusion classify: "), f"errors {err!r}")
    expect(time.process_time() - start < MAX_SECONDS, f"{time.process_time() - start:.1f} s of CPU time")
    return READ if "broken.wav" in err else REFUSED


def published_tensors() -> dict[str, torch.Tensor]:
    """A small published checkpoint."""
    torch.manual_seed(0)
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1, "num_labels": 3})
    return export_original_state_dict(DeepAVFusionForAudioVisualClassification(config))


def try_mutated_tensors(tensors: dict[str, torch.Tensor], seed: int, number: int) -> tuple[str, str]:
    """Convert a published checkpoint with one mutated tensor: what was done, and what became of it."""
    what, changed = mutate_tensors(tensors, generator(seed, number))
    same = changed.keys() == tensors.keys() and all(_same(changed[name], tensors[name]) for name in tensors)
    try:
        load_original_checkpoint(changed)
    except ValueError as error:
        expect(is_line(str(error)) and not same, f"seed {seed}, number {number}: {what}: {error}")
        return what, REFUSED
    except Exception as error:
        raise Broken(f"seed {seed}, number {number}: {what}: {type(error).__name__}: {error}") from error
    expect(same, f"seed {seed}, number {number}: {what} was converted")  # what is flat was flattened
    return what, READ


def _same(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.dtype == other.dtype and torch.equal(tensor, other)


def try_recipe(name: str, overrides: Sequence[str]) -> str:
    """Load a recipe with overrides: it is refused, or loaded with all numbers within their ranges."""
    try:
        recipe = load_recipe(recipe_command(name) or "pretrain", name, list(overrides))
    except RecipeError as error:
        expect(bool(str(error)), "no message")
        return REFUSED
    check_recipe(recipe)
    return READ


def check_recipe(recipe: Recipe) -> None:
    """Check a recipe that was loaded: every number is finite and within its range, and it is the same when saved."""
    for section, options in OPTIONS.items():
        values = vars(getattr(recipe, section))
        values = {**values, **values.get("config", {})}
        for option in options:
            value = values.get(option.name)
            if option.range is not None and value is not None and not isinstance(value, str):
                assert all(entry in option.range for entry in (value if isinstance(value, list) else [value]))
    with contextlib.suppress(RecipeError):  # sizes that do not fit each other
        assert isinstance(recipe.model.build_config(), DeepAVFusionConfig)
    again = yaml.safe_load(recipe.to_yaml())
    assert again["command"] == recipe.command
    assert not any(isinstance(v, float) and not math.isfinite(v) for s in SECTIONS for v in again[s].values())
