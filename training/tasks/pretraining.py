"""Evaluation during pre-training: held-out losses under fixed masks, nearest-neighbour probe, reconstructions."""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

from ..data.loading import BrokenClips, evaluation_noise
from ..metrics.knn import STREAMS, chance, pool_streams, probe
from ..report.figures import reconstruction_pictures
from ..runs.preparation import num_patches

INPUTS = ("pixel_values", "input_features")


@dataclass
class Evaluation:
    """What one evaluation found.

    Args:
        losses: "loss", "image_loss", "audio_loss", means over the clips.
        probe: stream -> metric -> score in 0..1; None where clips have no labels.
        chance: metric -> score of random neighbours; None where clips have no labels.
        num_clips: how many were read.
        pictures: of the first clips, on the main process; None elsewhere.
        picture_names: the clips on them.
    """

    losses: dict[str, float]
    probe: dict[str, dict[str, float]] | None
    chance: dict[str, float] | None
    num_clips: int
    pictures: dict[str, list[np.ndarray]] | None
    picture_names: list[str]


def model_inputs(batch: dict[str, Any], config, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch's tensors on the device; one blank clip where no clip of it could be read.

    The blank one keeps processes together: their forward passes exchange data, so each must make as many.
    """
    if "pixel_values" in batch:
        return {name: batch[name].to(device, non_blocking=True) for name in INPUTS}
    return {name: torch.zeros(1, *shape, device=device) for name, shape in config.input_shapes.items()}


@torch.no_grad()
def evaluate(
    model,
    loader: DataLoader,
    accelerator: Accelerator,
    seed: int,
    broken: BrokenClips,
    picture_samples: int,
    normalization: tuple[list[float], list[float]],
) -> tuple[Evaluation, list[str]]:
    """Evaluates a model (not wrapped; left in the mode it came in). All processes must call it together.

    Args:
        loader: this process's share of the clips, from `evaluation_loader`: as many batches on every process.
        seed: of the masks.
        broken: unreadable clips so far; raises `BrokenDataError` when they are too many.
        normalization: mean and deviation of the image's channels.

    Returns:
        the evaluation, the same on all processes but for the pictures, and lines on newly found unreadable clips.
    """
    was_training = model.training
    model.eval()
    patches = num_patches(model.config)
    rows, unreadable, pictures, names = {}, [], None, []
    with _unsharded(model):
        for batch in loader:
            unreadable += batch["broken"]
            readable = "pixel_values" in batch
            clips = batch["index"] if readable else torch.zeros(1, dtype=torch.long)
            inputs = model_inputs(batch, model.config, accelerator.device)
            noise = [part.to(accelerator.device) for part in evaluation_noise(seed, clips, patches)]
            with accelerator.autocast():
                outputs = model(**inputs, image_noise=noise[0], audio_noise=noise[1])
                streams = pool_streams(model.deepavfusion(**inputs))
            if not readable:
                continue
            if pictures is None and accelerator.is_main_process:
                names = batch["path"][:picture_samples]
                pictures = _draw(model, inputs, outputs, len(names), normalization)
            losses = model.losses_per_sample(outputs, **inputs)
            errors = list(zip(losses["image_loss"].tolist(), losses["audio_loss"].tolist(), strict=True))
            streams = {name: stream.float().cpu() for name, stream in streams.items()}
            for place, clip in enumerate(clips.tolist()):
                label = batch["labels"][place] if "labels" in batch else None
                rows[clip] = (errors[place], [streams[name][place] for name in STREAMS], label)
    model.train(was_training)
    gathered = {}
    for part in gather_object([rows]):
        gathered.update(part)
    lines = broken.add(gather_object(unreadable))
    return _summarise(gathered, pictures, names), lines


@contextlib.contextmanager
def _unsharded(model):
    """Under FSDP, the parameters outside the sharded layers whole: the encoder is called without its root."""
    sharded = hasattr(model, "unshard")
    if sharded:
        model.unshard()
    try:
        yield
    finally:
        if sharded:
            model.reshard()


def _draw(model, inputs, outputs, count, normalization):
    first = {name: values[:count] for name, values in inputs.items()}
    fields = ("image_mask", "audio_mask", "image_logits", "audio_logits")
    shown = type(outputs)(**{name: outputs[name][:count] for name in fields})
    return reconstruction_pictures(model, first["pixel_values"], first["input_features"], shown, *normalization)


def _summarise(rows: dict[int, Any], pictures, names: list[str]) -> Evaluation:
    if not rows:
        raise RuntimeError("Not one held-out clip could be read: there is nothing to evaluate on.")
    ordered = [rows[clip] for clip in sorted(rows)]
    image, audio = np.array([row[0] for row in ordered], dtype=np.float64).mean(axis=0).tolist()
    scores = random = None
    if len(ordered) >= 2 and all(row[2] is not None for row in ordered):
        labels = torch.stack([torch.as_tensor(row[2]) for row in ordered])
        features = {name: torch.stack([row[1][k] for row in ordered]) for k, name in enumerate(STREAMS)}
        if labels.ndim == 1 or bool(((labels > 0).any(0) & (labels <= 0).any(0)).any()):
            scores, random = probe(features, labels), chance(labels)
    losses = {"loss": image + audio, "image_loss": image, "audio_loss": audio}
    return Evaluation(losses, scores, random, len(ordered), pictures, names)


__all__ = ["Evaluation", "evaluate", "model_inputs"]
