"""Predictions of a classifier for VGGSounder, the re-annotated test set of VGGSound with labels for each modality.

    deepavfusion export vggsounder runs/vggsound_finetune CLIPS --output predictions/deepavfusion.pkl
    deepavfusion export vggsounder MODEL CLIPS --output predictions/deepavfusion.pkl --labels vggsounder.csv

The file is what `vggsounder.benchmark` reads: a pickled dictionary from the id of each video to its logits with audio
alone ("a"), with images alone ("v") and with both ("av"). With one modality, the other one is absent from the input of
the model, as in clips that lack it. With the benchmark's labels, they are scored, too (`vggsounder_scores`).
"""

import csv
import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion_cli.early.outputs import exported
from deepavfusion_cli.terminal import say

from ..common import load_pipeline, run
from ..files import UnreadableError, check_absent, reading, to_json, write_atomically
from .names import match_names
from .vggsounder_scores import read_labels, score, summary

# Names of files as VGGSound's tools make them: id of the video, start and, in some, end of the clip.
_CLIP_NAME = re.compile(r"(.{11}_\d{6})(_\d{6})?")
_INPUTS = {"a": ("input_features",), "v": ("pixel_values",), "av": ("pixel_values", "input_features")}


def class_order(path: Path | None = None) -> list[str]:
    """Names of VGGSounder's classes, in the order of the logits.

    Args:
        path: File of the classes, with a column `display_name`; by default that of the installed package `vggsounder`.

    Raises:
        ImportError: If there is no file and the package is not installed.
        OSError: If the file does not exist.
        ValueError: If it has no such column or no rows.
    """
    if path is None:
        spec = importlib.util.find_spec("vggsounder")  # found, but not imported
        if spec is None or spec.origin is None:
            raise ImportError("the order of VGGSounder's classes is needed: pip install vggsounder, or give --classes.")
        path = Path(spec.origin).parent / "data" / "classes.csv"
    with reading(path), open(path, encoding="utf-8", newline="") as file:
        names = [row.get("display_name") for row in csv.DictReader(file)]
    if not names or not all(names):
        raise UnreadableError(f"{path}: expected the classes of VGGSounder in a column display_name.")
    return names


def class_positions(names: list[str], id2label: dict[int, str]) -> list[int]:
    """Position among the logits of a model of each class of VGGSounder.

    Args:
        names: Classes of VGGSounder.
        id2label: Classes of the model.

    Raises:
        ValueError: If the model lacks classes; the message names them.
    """
    own = [id2label[index] for index in range(len(id2label))]
    places = match_names(names, own)
    missing = [name for name in names if name not in places]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"Expected a model with the {len(names)} classes of VGGSounder, got one that lacks {len(missing)} of them: "
            f"{shown}."
        )
    return [places[name] for name in names]


def video_id(file: str) -> str:
    """Id of a video in VGGSounder, from the name of the clip's file."""
    stem = Path(file).stem
    found = _CLIP_NAME.fullmatch(stem)
    return found[1] if found else stem


@torch.no_grad()
def predict(pipeline: DeepAVFusionPipeline, file: str, num_clips: int = 1) -> dict[str, torch.Tensor | None]:
    """Logits of a clip with audio alone, images alone, and both.

    Args:
        pipeline: Pipeline for classification.
        file: Path of the clip.
        num_clips: Number of windows spread evenly over the clip, whose logits are averaged.

    Returns:
        "a", "v" and "av" -> (classes,) float32 on the CPU, None where the clip has none of these modalities. A clip
        with a single one has its logits as "av", too.

    Raises:
        MediaError: If the clip cannot be read.
    """
    model = pipeline.model
    inputs = pipeline.processor(videos=[file], num_clips=num_clips, return_tensors="pt")
    # Windows of a clip may differ in what they hold, so that each is a batch.
    logits: dict[str, list[torch.Tensor]] = {name: [] for name in _INPUTS}
    for index in range(len(next(iter(inputs.values())))):
        present = {"pixel_values": "image_present", "input_features": "audio_present"}
        row = {
            name: inputs[name][index : index + 1].to(model.device, model.dtype)
            for name, mask in present.items()
            if name in inputs and (mask not in inputs or bool(inputs[mask][index]))
        }
        for modality, names in _INPUTS.items():
            given = {name: row[name] for name in names if name in row}
            if given:
                logits[modality].append(model(**given).logits[0].float().cpu())
    return {name: torch.stack(values).mean(0) if values else None for name, values in logits.items()}


def export(arguments) -> int:
    """Run `deepavfusion export vggsounder`; returns its exit code.

    Args:
        arguments: Its parsed command line.

    Raises:
        FileExistsError: If there is such a file.
        ImportError: If the order of the classes is not known.
        ValueError: If the model cannot be used.
    """
    scores = arguments.output.with_suffix(".json")
    check_absent(exported(arguments), arguments.overwrite)
    labels: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    positions: list[int] = []

    def load() -> DeepAVFusionPipeline:
        names = class_order(arguments.classes)
        if arguments.labels is not None:
            labels.update(read_labels(arguments.labels, names))
        pipeline = load_pipeline("audio-visual-classification", arguments.model, arguments.device, fit=arguments.fit)
        positions.extend(class_positions(names, pipeline.model.config.id2label))
        return pipeline

    def work(pipeline: DeepAVFusionPipeline, file: str, _: str) -> None:
        key = video_id(file)
        if key in files:
            raise UnreadableError(f"{file}: expected one clip of video {key}, but {files[key]} is another.")
        logits = predict(pipeline, file, arguments.num_clips or 1)
        files[key] = file
        found[key] = {
            "logits": {name: None if part is None else part[positions].tolist() for name, part in logits.items()}
        }

    code = run("export", arguments, load, work, counted=False)
    if found:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.output, pickle.dumps(found))
        say(f"logits of {len(found)} clips written to {arguments.output}")
    if found and labels:
        result = score({key: row["logits"] for key, row in found.items()}, labels)
        write_atomically(scores, to_json(result).encode())
        unknown = sum(key not in labels for key in found)
        for line in summary(result):
            say(line)
        say(f"scores written to {scores}" + (f"; {unknown} clips have no labels" if unknown else ""))
    return code


__all__ = ["class_order", "class_positions", "export", "predict", "video_id"]
