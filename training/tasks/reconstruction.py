"""Reconstruction losses with and without the other modality, those of oracles, and the best possible ones."""

from collections.abc import Sequence
from typing import Any

import torch

from ..data.scenes import link_strengths
from ..report.tables import Table
from ..wording import percent

NUM_CLIPS = 256  # the first held-out clips
MASKS = {"recipe": "by the mask ratios", "few": "few", "hidden": "none"}
OTHERS = {"true": "matching", "shuffled": "mismatched", "none": "absent"}
_FEW = (0.05, 0.02)  # fraction of image and audio patches that are few, but at least one patch
_MODALITIES = ("image", "audio")
ORACLE = "oracle: mean color of each patch, mean of each mel row of a patch"


def few_patches(num_patches: tuple[int, int]) -> tuple[int, int]:
    """How many visible patches of image and audio are few."""
    return tuple(max(1, round(fraction * count)) for fraction, count in zip(_FEW, num_patches, strict=True))


def cross_modal_losses(
    model, inputs: dict[str, torch.Tensor], noise: dict[str, torch.Tensor]
) -> list[dict[str, float]]:
    """Reconstruction losses of each sample of a batch, for every combination of masks and other modality.

    With the masks of the recipe, the other modality is masked too; with few or no visible patches it is whole.

    Args:
        model: Pre-training model in eval mode.
        inputs: `pixel_values` and `input_features` of at least two samples.
        noise: `image_noise` and `audio_noise`, which determine the masks.

    Returns:
        For each sample, losses by names such as "audio_loss_few_true".
    """
    names = dict(zip(_MODALITIES, ("pixel_values", "input_features"), strict=True))
    num_patches = model.config.num_patches
    few = few_patches(num_patches)
    found: dict[str, torch.Tensor] = {}
    for k, (modality, name) in enumerate(names.items()):
        other = _MODALITIES[1 - k]
        for masks in MASKS:
            visible = {"recipe": None, "few": few[k], "hidden": 0}[masks]
            context = None if masks == "recipe" else num_patches[1 - k]
            for kind in OTHERS:
                if masks == "hidden" and kind == "none":
                    continue
                given = {name: inputs[name], f"{modality}_noise": noise[f"{modality}_noise"]}
                given[f"num_visible_{modality}_patches"] = visible
                if kind != "none":
                    values = inputs[names[other]]
                    given[names[other]] = values.roll(1, dims=0) if kind == "shuffled" else values
                    given[f"{other}_noise"] = noise[f"{other}_noise"]
                    given[f"num_visible_{other}_patches"] = context
                outputs = model(**given, return_loss=False)
                found[f"{modality}_loss_{masks}_{kind}"] = model.losses_per_sample(outputs, **{name: inputs[name]})[
                    f"{modality}_loss"
                ]
    columns = {name: values.tolist() for name, values in found.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def mean_losses(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means of the losses over samples, and for each masks how much of the loss the true other modality saves.

    `"audio_saved_few"` is the fraction of the loss with another clip's image that the true one saves.
    """
    if not rows:
        return {}
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    for modality in _MODALITIES:
        for masks in MASKS:
            true, shuffled = (means[f"{modality}_loss_{masks}_{kind}"] for kind in ("true", "shuffled"))
            means[f"{modality}_saved_{masks}"] = 1 - true / shuffled
    return means


@torch.no_grad()
def bound_errors(model, clips, count: int = NUM_CLIPS) -> list[dict[str, dict[str, float]]]:
    """Squared errors of predictions of a wholly hidden modality, of which one sees the other modality and one does not.

    They follow from the data, not from the model.

    Args:
        model: Pre-training model, which defines the targets.
        clips: Data set, whose `redrawn` draws a modality anew given the other one.
        count: Number of clips, at most.

    Returns:
        For each clip and modality the means over values: "redrawn" of an independent draw given the other modality,
        "mean" of the mean over clips. Empty for data whose modalities cannot be redrawn.
    """
    items = list(range(min(count, len(clips))))
    if not hasattr(clips, "redrawn") or len(items) < 2 or clips.redrawn(items[:1], "image") is None:
        return []
    samples = clips.__getitems__(items)
    errors: list[dict[str, dict[str, float]]] = [{} for _ in items]
    for modality, name in zip(_MODALITIES, ("pixel_values", "input_features"), strict=True):
        decoder = getattr(model, f"{modality}_decoder")
        given = decoder.targets(torch.stack([sample[name] for sample in samples]))
        predicted = {"redrawn": decoder.targets(clips.redrawn(items, modality)), "mean": given.mean(dim=0)}
        means = {kind: (values - given).square().flatten(1).mean(dim=1) for kind, values in predicted.items()}
        for place, row in enumerate(errors):
            row[modality] = {kind: float(values[place]) for kind, values in means.items()}
    return errors


def hidden_bounds(errors: Sequence[dict[str, dict[str, float]]]) -> dict[str, float]:
    """The smallest losses with which a wholly hidden modality can be predicted, in the units of the model's targets.

    With the other modality, half the squared difference of two independent draws of the hidden one given the other;
    without, the variance of each value over clips.

    Args:
        errors: What `bound_errors` returns.

    Returns:
        "image_bound_true" (with the other modality), "image_bound_none" (without) and "image_bound_saved" (the fraction
        that the other modality saves), and the same for audio; empty without errors.
    """
    bounds = {}
    for modality in _MODALITIES if errors else ():
        redrawn, mean = (sum(row[modality][kind] for row in errors) for kind in ("redrawn", "mean"))
        known, unknown = redrawn / len(errors) / 2, mean / (len(errors) - 1)
        bounds |= {f"{modality}_bound_true": known, f"{modality}_bound_none": unknown}
        bounds[f"{modality}_bound_saved"] = 1 - known / unknown
    return bounds


def links_table(clips) -> Table | None:
    """Table of the information that links of scenes carry; None for data without links."""
    coupling = getattr(getattr(clips, "config", None), "coupling", 0.0)
    if not coupling:
        return None
    rows = [
        [name, f"{strength['bits']:.2f}", percent(strength["best_loss"])]
        for name, strength in link_strengths(coupling).items()
    ]
    note = "Best loss: mean squared error of one property given the other, relative to its variance."
    return Table(f"Links of the scenes, coupling {coupling:g}", ["link", "bits", "best loss"], rows, note)


def cross_modal_table(metrics: dict[str, Any]) -> Table | None:
    """Table of the losses in `metrics`; None if there are none."""
    if "image_saved_recipe" not in metrics:
        return None
    rows = []
    for modality in _MODALITIES:
        for masks, title in MASKS.items():
            losses = (metrics.get(f"{modality}_loss_{masks}_{kind}") for kind in OTHERS)
            cells = ["-" if loss is None else f"{loss:.4f}" for loss in losses]
            rows.append([modality, title, *cells, percent(metrics[f"{modality}_saved_{masks}"])])
        if f"{modality}_bound_saved" in metrics:
            true, none = metrics[f"{modality}_bound_true"], metrics[f"{modality}_bound_none"]
            rows.append([modality, "none: best possible losses", f"{true:.4f}", "-", f"{none:.4f}", "-"])
    return Table(
        "How much the other modality helps",
        ["target", "visible patches", *(f"loss, other modality {title}" for title in OTHERS.values()), "reduction"],
        rows,
        "Reduction: by the matching modality, relative to that of another clip. The best possible losses follow from "
        "what links image and audio of the data.",
    )


def oracle_losses(model, outputs, inputs: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Losses of oracles that know the mean color of each hidden patch, and the mean of each mel row of it.

    Args:
        model: Pre-training model.
        outputs: Its outputs for the inputs, which hold the masks.
        inputs: `pixel_values` and `input_features`.

    Returns:
        "image_oracle_loss" and "audio_oracle_loss" of each sample, in the units of the model's losses.
    """
    image, audio = model.image_decoder, model.audio_decoder
    pixels, features = inputs["pixel_values"], inputs["input_features"]
    colors = image.targets(pixels).unflatten(-1, (-1, image.patches.num_channels))
    colors = colors.mean(dim=-2, keepdim=True).expand_as(colors).flatten(-2)
    rows = audio.targets(features).unflatten(-1, audio.patches.patch)
    rows = rows.mean(dim=-1, keepdim=True).expand_as(rows).flatten(-2)
    found = {
        "image_oracle_loss": image.losses(colors, pixels, outputs.image_ids_restore, outputs.image_mask),
        "audio_oracle_loss": audio.losses(rows, features, outputs.audio_ids_restore, outputs.audio_mask),
    }
    return {name: losses.tolist() for name, losses in found.items()}


__all__ = [
    "MASKS",
    "NUM_CLIPS",
    "ORACLE",
    "bound_errors",
    "cross_modal_losses",
    "cross_modal_table",
    "few_patches",
    "hidden_bounds",
    "links_table",
    "mean_losses",
    "oracle_losses",
]
