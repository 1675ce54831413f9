"""Wording of reports, cards and log lines: counted nouns, display names of metrics, fractions and levels."""

import re
from collections.abc import Sequence

from deepavfusion_cli.terminal import percent, printable

NEIGHBOR_METRICS = {"accuracy": "1-NN accuracy", "map": "1-NN mAP", "auc": "1-NN AUC"}
_NEIGHBOR_SCORE = re.compile(rf"(fusion|image|audio|all|chance)_({'|'.join(NEIGHBOR_METRICS)})")
# The chance level of nearest neighbors depends on the labels of the evaluated clips, that of a classifier does not.
RANDOM_NEIGHBOR = "random neighbor"

_METRICS = {
    "loss": "loss",
    "image_loss": "image loss",
    "audio_loss": "audio loss",
    "alignment_loss": "alignment loss",
    "invariance_loss": "invariance loss",
    "sigreg_loss": "SIGReg loss",
    "image_saved_few": "image loss saved by audio",
    "audio_saved_few": "audio loss saved by the image",
    "accuracy": "accuracy",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "map": "mAP",
    "mAP": "mAP",
    "auc": "AUC",
    "precision_at_1": "precision at 1",
    "ciou_50": "cIoU@0.5",
    "ciou_50_at_0.5": "cIoU@0.5 (threshold 0.5)",
    "threshold": "threshold",
    "area": "predicted area",
    "auc_n": "AUC_N",
    "iiou_50": "IIoU@0.5",
    "iauc": "IAUC",
    "ap": "AP",
    "max_f1": "max-F1",
    "miou": "mIoU",
    "f": "F",
    "sounding_coverage": "coverage of sounding objects",
    "silent_coverage": "coverage of silent objects",
    "sdr": "SDR",
    "sir": "SIR",
    "sar": "SAR",
    "sdri": "SDR improvement",
    "si_sdr": "SI-SDR",
    "si_sdri": "SI-SDR improvement",
    "si_sdri_median": "SI-SDR improvement (median)",
    "both_sources_improved": "mixtures with both sources improved",
    **{f"r{k}": f"R@{k}" for k in (1, 5, 10)},
}

# Prefixes of names of metrics: input, stream, control or bound. Of two that match, the longer one comes first.
CONDITIONS = {
    "dense": "mean over windows",
    "single_object": "one object",
    "image_stream": "image stream",
    "audio_stream": "audio stream",
    "fusion_stream": "fusion stream",
    "image_only": "image only",
    "audio_only": "audio only",
    "shuffled": "audio of another clip",
    "silent": "no audio",
    "silence": "silence",
    "noise": "white noise",
    "offscreen": "off-screen audio",
    "whole": "whole frame",
    "centre": "centered box",
    "median_bound": "median, upper bound",
    "median": "median",
    "all_foreground": "all foreground",
    "wrong_frame": "frame of the other source",
    "oracle": "ideal ratio mask",
    "audio_to_image": "audio to image",
    "image_to_audio": "image to audio",
    "chance": "chance",
}
# Those that say what is reached without a modality or with a wrong one, without a model, or at best.
_CONTROLS = (
    *("shuffled", "silent", "silence", "noise", "offscreen", "whole", "centre", "median_bound", "all_foreground"),
    *("wrong_frame", "oracle", "chance"),
)


def metric_title(name: str) -> str:
    """Display name of a metric of evaluation.json, such as "cIoU@0.5 (audio of another clip)" of "shuffled_ciou_50".

    Names without a display name are returned as they are.
    """
    score = _NEIGHBOR_SCORE.fullmatch(name)
    if score is not None:
        stream, metric = score.groups()
        return f"{NEIGHBOR_METRICS[metric]} ({RANDOM_NEIGHBOR if stream == 'chance' else stream})"
    prefixes, metric = _split(name)
    if metric not in _METRICS:
        return name
    conditions = ", ".join(CONDITIONS[prefix] for prefix in prefixes)
    return f"{_METRICS[metric]} ({conditions})" if conditions else _METRICS[metric]


def is_control(name: str) -> bool:
    """Whether a metric of evaluation.json is a control or bound, which says nothing of the model by itself."""
    return any(prefix in _CONTROLS for prefix in _split(name)[0])


def _split(name: str) -> tuple[list[str], str]:
    """The prefixes of the name of a metric, the last one first, and the rest."""
    prefixes: list[str] = []
    while name not in _METRICS:
        prefix = next((prefix for prefix in CONDITIONS if name.startswith(f"{prefix}_")), None)
        if prefix is None:
            break
        prefixes.insert(0, prefix)
        name = name.removeprefix(f"{prefix}_")
    return prefixes, name


def with_path(path: str, reason: str) -> str:
    """Why a file cannot be read, with its path: most errors of media files start with it."""
    return reason if reason.startswith(path) else f"{path}: {reason}"


def clip_title(path: str) -> str:
    """The name of a clip's file, or those of a mixture, without folders, which say more of a machine than of the clip.

    Other names, such as those of scenes, stay as they are.
    """
    titles = [(part, part.rpartition("/")[2]) for part in path.split(" + ")]
    return " + ".join(name if name and (part.startswith("/") or "." in name) else part for part, name in titles)


def count(number: float, noun: str, plural: str | None = None) -> str:
    """A number and its noun, in the plural unless the number reads 1: "1 clip", "1,280 clips", "1.5 epochs".

    Args:
        number: The number; floats are rounded to three digits.
        noun: Noun in the singular.
        plural: Noun in the plural; by default with an s.
    """
    text = f"{number:,}" if isinstance(number, int) else f"{number:.3g}"
    return f"{text} {noun if text == '1' else plural or noun + 's'}"


def listing(names: Sequence[str], most: int = 10) -> str:
    """Names in a row, at most some of them: "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def decibels(value: float | None) -> str:
    """Format a level or ratio in dB, None as "-"."""
    return "-" if value is None else f"{value:.2f} dB"


__all__ = [
    "CONDITIONS",
    "NEIGHBOR_METRICS",
    "RANDOM_NEIGHBOR",
    "clip_title",
    "count",
    "decibels",
    "is_control",
    "listing",
    "metric_title",
    "percent",
    "with_path",
]
