"""What every input is held to: it is read, or refused in one line with the exit code for bad input; in bounded time."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForAudioVisualClassification
from deepavfusion.processors import DeepAVFusionProcessor, MediaError, load_clip
from deepavfusion_cli import main
from tests.faults.mutations import generator, mutate_bytes, mutate_json, mutate_weights
from tests.tiny import INFERABLE

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


def run_command(words: Sequence[str], capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Run `deepavfusion` with arguments: exit code, output and errors."""
    capsys.readouterr()
    try:
        code = main(list(words))
    except SystemExit as ended:  # argparse
        code = ended.code if isinstance(ended.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


def small_model(folder: Path) -> Path:
    """Save a small classifier with its processor."""
    torch.manual_seed(0)
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1}, num_labels=3, classifier_input_norm=True)
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    for code in folder.glob("*.py"):  # the copied code is not under test
        code.unlink()
    return folder


def mutated_model(saved: Path, folder: Path, seed: int, number: int) -> str:
    """Copy a saved model and mutate one of its files; returns the file and what was done."""
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
    return f"{name}: {what}"


def try_model(folder: Path, capsys: pytest.CaptureFixture) -> str:
    """Classify a file that does not exist: a model that loads complains of the file, others of the model."""
    absent = folder / "absent.wav"
    start = time.process_time()
    code, out, err = run_command(["classify", "--model", str(folder), str(absent), "--device", "cpu"], capsys)
    expect(code == 2, f"exit code {code}: {err!r}")
    expect(not out, f"output {out!r}")
    expect(err.endswith("\n") and is_line(err[:-1]), f"errors {err!r}")
    expect(err.startswith("deepavfusion classify: "), f"errors {err!r}")
    expect(time.process_time() - start < MAX_SECONDS, f"{time.process_time() - start:.1f} s of CPU time")
    return READ if "absent.wav" in err else REFUSED
