"""Results of the published code: what the README of the authors' repository states, by that code's own protocol."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = "README of the authors' repository, by the protocol of the published code"
# Released pre-trained models -> data that they were pre-trained on, in the order of `PublishedResult.metrics`.
CHECKPOINTS = {"deepavfusion_vitb_vggsound_ep200": "VGGSound", "deepavfusion_vitb_as2m_ep200": "AudioSet-2M"}
# Size in bytes of their files, which all have the same name, and SHA-256 of the content, as the repository states them.
_FILES = {
    "deepavfusion_vitb_vggsound_ep200": (
        1282543933,
        "51437180761408f651ec51847164038a8c180afb2f45639f07f8fced2e8e63db",
    ),
    "deepavfusion_vitb_as2m_ep200": (1516280189, "109dbf04dbf86786a71ea0e2f8ac4762c9e19366887ea50d6260db8b96f5cd14"),
}


@dataclass(frozen=True)
class PublishedResult:
    """What the published code reaches from each of `CHECKPOINTS`.

    Attributes:
        title: Data and protocol.
        metrics: Name of the metric -> a value for each of `CHECKPOINTS`: fractions, or dB. None where the published
            table repeats the number of another row.
    """

    title: str
    metrics: dict[str, tuple[float | None, float | None]]

    def cells(self, metric: str) -> list[str]:
        """Values of a metric as text."""
        return [format_result(metric, value) for value in self.metrics[metric]]


# Recipe of the same training and evaluation -> results.
RESULTS = {
    "vggsound_finetune": PublishedResult("VGGSound, fine-tuned", {"top1": (0.5819, 0.5791)}),
    "vggsound_probe": PublishedResult("VGGSound, linear probe", {"top1": (0.5308, None)}),
    "vggsound_music_separation": PublishedResult(
        "VGGSound-Music", {"sdr": (5.79, 6.93), "sir": (8.24, 9.93), "sar": (13.82, 13.49)}
    ),
    "avsbench_s4": PublishedResult("AVSBench-S4, validation split", {"miou": (0.8994, 0.9027), "f": (0.9234, 0.9249)}),
}
METRICS = {"top1": "top-1 accuracy", "sdr": "SDR", "sir": "SIR", "sar": "SAR", "miou": "mIoU", "f": "F"}


def format_result(metric: str, value: float | None) -> str:
    """A value of one of `METRICS` with its unit; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.2f} dB" if metric in ("sdr", "sir", "sar") else f"{100 * value:.2f} %"


def checkpoint_name(path: Path) -> str | None:
    """Which of `CHECKPOINTS` a file is, by its content; None for others."""
    size = path.stat().st_size
    for name, (known_size, known_digest) in _FILES.items():
        if size == known_size:
            with path.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() == known_digest:
                    return name
    return None


def results_table(name: str) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows of the published results of one of `CHECKPOINTS`."""
    place = list(CHECKPOINTS).index(name)
    rows = [
        [result.title, METRICS[metric], result.cells(metric)[place], recipe]
        for recipe, result in RESULTS.items()
        for metric in result.metrics
        if result.metrics[metric][place] is not None
    ]
    return ["data", "metric", "published code", "recipe that measures it"], rows


__all__ = [
    "CHECKPOINTS",
    "METRICS",
    "RESULTS",
    "SOURCE",
    "PublishedResult",
    "checkpoint_name",
    "format_result",
    "results_table",
]
