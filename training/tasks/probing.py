"""Probes of a pre-trained encoder's features, fitted on clips of the training split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepavfusion.inference.common import STREAMS

from ..metrics.probes import linear_probe, linear_probes, whitened_knn_probe
from ..report.tables import Table
from ..wording import count, percent

ALONE = {"image_alone": "frame alone", "audio_alone": "sound alone"}
# Properties that a data set may label beside the class, each shown by one modality: (key, features, title).
_PROPERTIES = (
    ("shape_label", "image_alone", "shape, frame alone"),
    ("timbre_label", "audio_alone", "timbre, sound alone"),
)


@torch.no_grad()
def probe_features(model, inputs: dict[str, torch.Tensor], batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean-pooled features and labels of each clip.

    Args:
        model: Encoder.
        inputs: `pixel_values` and `input_features`.
        batch: The whole batch.

    Returns:
        For each clip, `"features"`, name -> (D,) array: the streams of a pass with both modalities, and those of passes
        in which the other modality is absent (fusion tokens and tokens of the one that is there); and `"labels"`.
    """
    outputs = model(**inputs)
    states = (outputs.last_hidden_state, outputs.image_last_hidden_state, outputs.audio_last_hidden_state)
    features = {name: state.mean(dim=1) for name, state in zip(STREAMS, states, strict=True)}
    for name, key in (("image", "pixel_values"), ("audio", "input_features")):
        outputs = model(**{key: inputs[key]})
        parts = (outputs.last_hidden_state, outputs[f"{name}_last_hidden_state"])
        features[f"{name}_alone"] = torch.cat([part.mean(dim=1) for part in parts], dim=-1)
    features = {name: values.float().cpu().numpy() for name, values in features.items()}
    labels = {key: batch[key].numpy() for key in ("labels", *(key for key, *_ in _PROPERTIES)) if key in batch}
    return [
        {
            "features": {name: values[k] for name, values in features.items()},
            "labels": {key: values[k] for key, values in labels.items()},
        }
        for k in range(len(batch["path"]))
    ]


def probe_metrics(train: list[dict], test: list[dict], num_labels: Sequence[int]) -> dict[str, float]:
    """Scores of all probes, by names such as "fusion_linear_500" and "fusion_whitened".

    Args:
        train: Rows of `probe_features` of the training split.
        test: Rows of held-out clips.
        num_labels: Numbers of labels of the linear probes; see `label_counts`.

    Raises:
        ValueError: If clips have no labels.
    """
    if any("labels" not in row["labels"] for row in (*train, *test)):
        raise ValueError("task.probe_labels needs data with labels, and these clips have none: set it to [].")
    given, held_out = _columns(train), _columns(test)
    labels, test_labels = _labels(train, "labels"), _labels(test, "labels")
    counts = label_counts(num_labels, len(train))
    metrics = {}
    for names in (STREAMS, *((name,) for name in ALONE)):
        streams = ({name: part[name] for name in names} for part in (given, held_out))
        for name, scores in linear_probes(next(streams), labels, next(streams), test_labels, counts).items():
            metrics |= {f"{name}_linear_{count}": next(iter(score.values())) for count, score in scores.items()}
    streams = ({name: part[name] for name in STREAMS} for part in (given, held_out))
    for name, score in whitened_knn_probe(next(streams), next(streams), torch.from_numpy(test_labels)).items():
        metrics[f"{name}_whitened"] = next(iter(score.values()))
    for key, name, _ in _PROPERTIES:
        if all(key in row["labels"] for row in (*train, *test)):
            score = linear_probe(given[name], _labels(train, key), held_out[name], _labels(test, key))
            metrics[f"{key.removesuffix('_label')}_{name}_linear"] = next(iter(score.values()))
    return metrics


def label_counts(num_labels: Sequence[int], available: int) -> list[int]:
    """Numbers of labels on which probes are fitted: those for which there are clips, or else the number of clips."""
    return [number for number in num_labels if number <= available] or [available]


def fewer_labels(num_labels: Sequence[int], available: int) -> list[str]:
    """A sentence, if any, that says that there are too few training clips for some of the probes.

    Args:
        num_labels: Numbers of labels, `task.probe_labels`.
        available: Number of training clips.
    """
    absent = [number for number in num_labels if number > available]
    if not absent:
        return []
    fitted, left_out = _listed(label_counts(num_labels, available)), _listed(absent)
    why = f"there are {count(available, 'training clip')} (data.train_size)"
    return [f"Linear probes are fitted on {fitted} labels, not on {left_out}, as task.probe_labels says: {why}."]


def _listed(numbers: Sequence[int]) -> str:
    *others, last = (f"{number:,}" for number in numbers)
    return f"{', '.join(others)} and {last}" if others else last


def probe_tables(metrics: dict[str, Any], before: dict[str, Any] | None) -> list[Table]:
    """Table of the linear probes in `metrics`, and of those before training; empty if there are none."""
    names = {**{name: name for name in (*STREAMS, "all")}, **ALONE}
    counts = [int(key.removeprefix("fusion_linear_")) for key in metrics if key.startswith("fusion_linear_")]
    if not counts:
        return []
    columns = {"before training": before, "trained": metrics} if before else {"trained": metrics}
    header = [f"{count:,} labels{'' if title == 'trained' else f', {title}'}" for count in counts for title in columns]
    rows = []
    for name, title in names.items():
        cells = [percent(of[f"{name}_linear_{count}"]) for count in counts for of in columns.values()]
        rows.append([title, *cells])
    for key, name, title in _PROPERTIES:
        key = f"{key.removesuffix('_label')}_{name}_linear"
        if key in metrics:
            empty = ["-"] * (len(header) - len(columns))
            rows.append([title, *empty, *(percent(of[key]) for of in columns.values())])
    return [Table("Linear probes", ["features", *header], rows)]


def _columns(rows: list[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([row["features"][name] for row in rows]) for name in rows[0]["features"]}


def _labels(rows: list[dict], key: str) -> np.ndarray:
    return np.stack([row["labels"][key] for row in rows])


__all__ = ["ALONE", "fewer_labels", "label_counts", "probe_features", "probe_metrics", "probe_tables"]
