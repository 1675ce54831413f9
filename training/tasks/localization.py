"""Sound source localization."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from deepavfusion import DeepAVFusionForSoundLocalization
from deepavfusion.inference.drawing import heat_overlay

from ..data.clips import BrokenClip
from ..data.random import Stream, generator
from ..metrics.localization import (
    average_precision,
    centered_box,
    ciou,
    confidence,
    interactive_ciou,
    localization_auc,
    max_f1,
    silent_auc,
    success_rate,
)
from ..report.charts import success_curves
from ..report.predictions import pack, unpack
from ..report.report import Example, ExampleImage, Table
from ..wording import CONDITIONS, clip_title, count, metric_title, percent
from .base import Task

_MAPS = {"own": "own audio", **{name: CONDITIONS[name] for name in ("shuffled", "whole", "centre")}}

# Audio of nothing that a frame shows.
_NEGATIVE = {name: CONDITIONS[name] for name in ("silence", "noise", "offscreen")}

# Candidates of `localization_threshold`, which is chosen on the selection split.
_THRESHOLDS = tuple(k / 20 for k in range(1, 20))


class Localization(Task):
    """Heat maps of sound sources, from boxes or from audio-visual matching."""

    NAME = "localization"
    MODEL = DeepAVFusionForSoundLocalization
    UNITS = "frames with a visible source"
    NEXT = ("localize {clip} --model {folder} --out OUT",)
    PROTOCOL = (
        "Frame at the middle of the audio window; maps are resized bilinearly to the frame. cIoU: sum of the "
        "consensus map within the predicted area / (sum of the consensus map + predicted area outside it). Predicted "
        "area: probability above an absolute threshold, the same for all frames and chosen by mean cIoU on the "
        "selection split (0.5 without one), or above the median of each map (EZ-VSL). cIoU@0.5: fraction of frames "
        "with a cIoU of at least 0.5; AUC: area under that fraction over thresholds 0, 0.05 ... 1. AP and max-F1: a "
        "frame counts as detected if its cIoU at the absolute threshold is at least 0.5; frames are ranked by "
        "confidence (mean of the top quarter of the map), and frames without a visible source are negatives. Audio of "
        "another clip: that of the next pair. IIoU@0.5: fraction of images with several sources of which all have a "
        "cIoU of at least 0.5. Negative audio, of frames with a visible source: silence, white noise of unit variance, "
        "and audio of another clip whose source is not visible, with the predicted area as a fraction of the frame, "
        "AUC_N (area under the fraction of frames with a predicted area below 0, 0.05 ... 1), and AP and max-F1 of the "
        "frames with their own audio against the same frames with the negative one."
    )

    @property
    def primary(self) -> str:
        return "ciou_50"

    @classmethod
    def _supervised(cls, recipe, config) -> bool:
        return recipe.model.config.get("localization_loss", config.localization_loss) == "supervised"

    @classmethod
    def data_options(cls, recipe, config, train):
        # The matching loss assumes that every clip's frame shows the source of its audio.
        return {"foreign_sounds": cls._supervised(recipe, config)} if train else {}

    @classmethod
    def build_clips(cls, recipe, config, split, train, size=None):
        clips = super().build_clips(recipe, config, split, train, size)
        if train and cls._supervised(recipe, config) and not getattr(clips, "annotated", True):
            raise ValueError(
                f"The training frames have no boxes ({clips.card}). Provide annotations, or train without them with "
                "model.localization_loss=matching."
            )
        return clips

    @classmethod
    def depends_on_batch(cls, recipe, config):
        return not cls._supervised(recipe, config)

    @classmethod
    def calibration(cls, metrics):
        return {"localization_threshold": metrics["threshold"]}

    def score(self, model, inputs, batch, full):
        truth, threshold = batch["labels"].float(), model.config.localization_threshold
        maps = {"own": model(**inputs).logits}
        other = self.mismatched_audio(inputs, batch) if full else None
        if other is not None:
            maps["shuffled"] = model(pixel_values=inputs["pixel_values"], input_features=other).logits
        if full and self.recipe is not None and self.recipe.task.negative_audio:
            maps |= self._negative_maps(model, inputs, batch)
        maps = {name: [part.float().cpu().numpy() for part in logits] for name, logits in maps.items()}
        rows = []
        for i, consensus in enumerate(truth.numpy()):
            row = {"sounding": bool(batch["sounding"][i]) if "sounding" in batch else bool(consensus.any())}
            if "scene" in batch:
                row["scene"] = batch["scene"][i]
            predicted = {name: values[i] for name, values in maps.items() if len(values[i])}
            if full:
                row |= {"maps": predicted, "target": pack(consensus), "threshold": threshold}
            rows.append(row | self._row_scores(predicted, consensus, threshold, full))
        return rows

    def _negative_maps(self, model, inputs: dict, batch: dict) -> dict[str, list[torch.Tensor]]:
        """Maps of a batch's frames with negative audio; empty where there is no off-screen audio."""
        extractor, pixels = self.processor.feature_extractor, inputs["pixel_values"]
        places = batch["index"].tolist()
        draws = [generator(self.recipe.run.seed, Stream.NOISE, place) for place in places]
        noise = torch.stack([torch.randn(extractor.num_samples, generator=part) for part in draws])
        waveforms = {"silence": torch.zeros_like(noise), "noise": noise}
        features = {name: list(extractor.log_mel(values)[:, None]) for name, values in waveforms.items()}
        offscreen = getattr(self.clips, "offscreen", lambda place: None)
        found = [None if (other := offscreen(place)) is None else self.clips[other] for place in places]
        features["offscreen"] = [
            None if part is None or isinstance(part, BrokenClip) else part["input_features"] for part in found
        ]
        maps = {}
        for name, parts in features.items():
            maps[name] = [pixels.new_zeros(0) for _ in parts]
            given = [i for i, part in enumerate(parts) if part is not None]
            if given:
                audio = torch.stack([parts[i] for i in given]).to(pixels)
                logits = model(pixel_values=pixels[given], input_features=audio).logits
                for i, part in zip(given, logits, strict=True):
                    maps[name][i] = part
        return maps

    def _row_scores(self, maps: dict[str, np.ndarray], consensus: np.ndarray, threshold: float, full: bool) -> dict:
        """Scores of a frame from its maps (h, w) of logits and its target (H, W)."""
        heats = {name: self._maps(torch.from_numpy(values)[None], consensus.shape)[0] for name, values in maps.items()}
        row = {}
        for name in _NEGATIVE.keys() & heats.keys():
            heat = heats.pop(name)
            row |= {f"{name}_area": float((heat > _logit(threshold)).mean()), f"{name}_confidence": confidence(heat)}
        for name, heat in heats.items():
            row[name] = ciou(heat > _logit(threshold), consensus)
            row[f"{name}_median"] = ciou(heat > np.median(heat), consensus)
        own = heats["own"]
        row |= {"confidence": confidence(own), "area": float((own > _logit(threshold)).mean())}
        if not full:
            row["curve"] = [ciou(own > _logit(level), consensus) for level in _THRESHOLDS]
            return row
        row["at_0.5"] = ciou(own > 0, consensus)
        row["whole"] = ciou(np.ones_like(consensus, bool), consensus)
        row["centre"] = ciou(centered_box(consensus.shape), consensus)
        row["median_bound"] = _median_bound(consensus)
        return row

    def rescore(self, row):
        return self._row_scores(row["maps"], unpack(row["target"]), row["threshold"], full=True)

    @staticmethod
    def _maps(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Resize maps (B, h, w) to the size (H, W) of the targets."""
        return F.interpolate(logits[:, None].float().cpu(), size=size, mode="bilinear", align_corners=False)[
            :, 0
        ].numpy()

    def num_scored(self, rows):
        return sum(row["sounding"] for row in rows)

    def summarize(self, rows, full):
        sounding = [row for row in rows if row["sounding"]]
        if not sounding:
            raise ValueError("No frame has a visible source; cannot score localization.")
        metrics, table = {}, []
        if full:
            metrics["threshold"] = sounding[0]["threshold"]
        else:
            best = int(np.mean([row["curve"] for row in sounding], axis=0).argmax())
            metrics["threshold"] = _THRESHOLDS[best]
            rows = [{**row, "own": row["curve"][best]} for row in rows]
            sounding = [row for row in rows if row["sounding"]]
        for name, title in _MAPS.items():
            if name not in sounding[0]:
                continue
            values = np.array([row[name] for row in sounding])
            scores = {"ciou_50": float((values >= 0.5).mean()), "auc": localization_auc(values)}
            cells = [percent(scores["ciou_50"]), percent(scores["auc"])]
            if f"{name}_median" in sounding[0]:
                median = np.array([row[f"{name}_median"] for row in sounding])
                scores |= {"median_ciou_50": float((median >= 0.5).mean()), "median_auc": localization_auc(median)}
                cells += [percent(scores["median_ciou_50"]), percent(scores["median_auc"])]
            else:
                cells += ["-", "-"]
            prefix = "" if name == "own" else f"{name}_"
            metrics.update({f"{prefix}{key}": value for key, value in scores.items()})
            table.append([title, *cells])
        if len(sounding) < len(rows):
            correct = np.array([row["sounding"] and row["own"] >= 0.5 for row in rows])
            confidences = np.array([row["confidence"] for row in rows])
            truth = np.array([row["sounding"] for row in rows])
            metrics["ap"] = average_precision(confidences, correct, truth)
            metrics["max_f1"] = max_f1(confidences, correct, truth)
        if not full:
            return metrics, [], {}
        bound = np.array([row["median_bound"] for row in sounding])
        metrics["median_bound_ciou_50"] = float((bound >= 0.5).mean())
        metrics["ciou_50_at_0.5"] = float((np.array([row["at_0.5"] for row in sounding]) >= 0.5).mean())
        columns = ["with", *map(metric_title, ("ciou_50", "auc", "median_ciou_50", "median_auc"))]
        note = (
            f"Frames with a visible source: {len(sounding)}. Threshold: {metrics['threshold']:g}; at a threshold "
            f"of 0.5, cIoU@0.5 is {percent(metrics['ciou_50_at_0.5'])}. The median threshold predicts half of each "
            f"frame, so cIoU@0.5 is at most {percent(metrics['median_bound_ciou_50'])} with it."
        )
        if "ap" in metrics:
            scores = f"AP {percent(metrics['ap'])}, max-F1 {percent(metrics['max_f1'])}"
            note += f" With {count(len(rows) - len(sounding), 'negative')}: {scores}."
        shared = [row for row in sounding if "scene" in row]
        interactive = interactive_ciou([row["own"] for row in shared], [row["scene"] for row in shared])
        if len(interactive):
            metrics |= {"iiou_50": success_rate(interactive), "iauc": localization_auc(interactive)}
            scores = f"IIoU@0.5 {percent(metrics['iiou_50'])}, IAUC {percent(metrics['iauc'])}"
            note += f" {count(len(interactive), 'image')} of several sources: {scores}."
        tables = [Table("Sound localization", columns, table, note)]
        negative, more = self._negative_scores(sounding)
        return metrics | negative, tables + more, {}

    @staticmethod
    def _negative_scores(sounding: list[dict]) -> tuple[dict[str, float], list[Table]]:
        """Metrics and table of frames with negative audio, from rows of frames with a visible source."""
        metrics, table = {}, []
        for name, title in _NEGATIVE.items():
            rows = [row for row in sounding if f"{name}_area" in row]
            if not rows:
                continue
            areas = np.array([row[f"{name}_area"] for row in rows])
            own, other = ([row[key] for row in rows] for key in ("confidence", f"{name}_confidence"))
            correct = np.array([row["own"] >= 0.5 for row in rows] + [False] * len(rows))
            detections = np.array(own + other), correct, np.arange(2 * len(rows)) < len(rows)
            scores = {"area": float(areas.mean()), "auc_n": silent_auc(areas)}
            scores |= {"ap": average_precision(*detections), "max_f1": max_f1(*detections)}
            metrics |= {f"{name}_{key}": value for key, value in scores.items()}
            table.append([title, *map(percent, scores.values()), len(rows)])
        if not table:
            return {}, []
        metrics["own_area"] = float(np.mean([row["area"] for row in sounding]))
        columns = ["with", *map(metric_title, ("area", "auc_n", "ap", "max_f1")), "frames"]
        note = f"Predicted area with the frames' own audio: {percent(metrics['own_area'])}."
        return metrics, [Table("Negative audio", columns, table, note)]

    def examples(self, model, inputs, batch):
        truth = batch["labels"].float()
        maps = self._maps(model(**inputs).logits, truth.shape[-2:])
        shown = []
        for i, frame in enumerate(self.frames(inputs["pixel_values"])):
            heat = 1 / (1 + np.exp(-maps[i].astype(np.float64)))
            value = ciou(maps[i] > _logit(model.config.localization_threshold), truth[i].numpy())
            text = f"cIoU {percent(value)}" if truth[i].any() else f"no visible source; maximum {percent(heat.max())}"
            overlay = heat_overlay(frame, heat, target=truth[i].numpy(), limits=(0, 1))
            images = [ExampleImage(frame, "frame"), ExampleImage(overlay, "heat map; outline: target")]
            shown.append(Example(clip_title(batch["path"][i]), images, text=text))
        return shown

    def figures(self, rows):
        sounding = [row for row in rows if row["sounding"]]
        curves = {title: [row[name] for row in sounding] for name, title in _MAPS.items() if name in sounding[0]}
        figure = success_curves(curves, baselines=tuple(title for name, title in _MAPS.items() if name != "own"))
        alt = "Fraction of frames whose cIoU reaches a threshold, with their own audio and for the controls."
        return [("Success rate", figure, "At the model's absolute threshold.", alt)]


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _median_bound(consensus: np.ndarray) -> float:
    """Highest cIoU that any map can reach if half of the frame is predicted."""
    half = np.sort(consensus, axis=None)[::-1][: consensus.size // 2]
    return float(half.sum() / (consensus.sum() + (half == 0).sum())) if consensus.any() else 0.0
