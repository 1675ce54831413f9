"""Source separation of two-source mixtures, conditioned on a frame (paper, section 4.3)."""

import numpy as np
import torch

from deepavfusion import DeepAVFusionForSourceSeparation

from ..metrics.separation import bss_eval, is_silent, si_sdr
from ..report.charts import log_mels
from ..report.report import Example, ExampleImage, Table
from ..wording import decibels, metric_title
from .base import Task

_SILENT_SOURCE, _SILENT_ESTIMATE = "silent source", "silent estimate"


class Separation(Task):
    """Mask-based separation of the source that a frame shows."""

    NAME = "separation"
    MODEL = DeepAVFusionForSourceSeparation
    UNITS = "mixtures"
    NEXT = ("separate {clip} --model {folder} --out OUT",)
    PROTOCOL = (
        "Mixtures are sums of two clips' audio; each source is separated by its own frame, with the phase of the "
        "mixture. SDR, SIR, SAR: BSS-eval version 3 (512 taps, no permutation). SI-SDR: scale-invariant, means "
        "removed. Improvements: over the unprocessed mixture. Mixtures with a silent source or estimate are left out "
        "and counted."
    )

    @property
    def primary(self) -> str:
        return "si_sdri"

    def score(self, model, inputs, batch, full):
        extractor = self.processor.feature_extractor
        waveforms = batch["waveforms"].to(inputs["input_features"].device)
        mixture = waveforms.sum(1)
        separated = extractor.separate(model(**inputs).logits.float(), mixture)
        swapped = oracle = None
        if full:
            swapped = extractor.separate(self._swapped(model, inputs).float(), mixture)
            oracle = extractor.separate(self.oracle(waveforms), mixture)
        rows = []
        for i, (target, other) in enumerate(waveforms.cpu().numpy()):
            mix, found = mixture[i].cpu().numpy(), separated[i].cpu().numpy()
            if is_silent(np.stack([target, other])).any():
                rows.append(_SILENT_SOURCE)
                continue
            if not found.any():
                rows.append(_SILENT_ESTIMATE)
                continue
            before, after = si_sdr(target, mix), si_sdr(target, found)
            row = {"si_sdr": after, "si_sdri": after - before}
            if full:
                with_other = swapped[i].cpu().numpy()
                row["swapped"] = si_sdr(other, with_other) - si_sdr(other, mix)
                row["wrong_frame"] = si_sdr(target, with_other) - before
                row["oracle"] = si_sdr(target, oracle[i].cpu().numpy()) - before
                sdr, sir, sar = bss_eval(np.stack([target, other]), np.stack([found, mix]), targets=(0, 0))
                row |= {"sdr": sdr[0], "sir": sir[0], "sar": sar[0], "sdri": sdr[0] - sdr[1]}
            rows.append(row)
        return rows

    @staticmethod
    def _swapped(model, inputs):
        """Mask logits with the frame of the pair's other source."""
        pixels = inputs["pixel_values"]
        swapped = pixels.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        return model(pixel_values=swapped, input_features=inputs["input_features"]).logits

    def oracle(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Logits of the ideal ratio mask over mel bins, from sources (B, 2, N): an approximate upper bound."""
        power = 10 ** self.processor.feature_extractor.log_mel(waveforms)
        ratio = power[:, :1] / power.sum(1, keepdim=True)
        return torch.logit(ratio.clamp(1e-6, 1 - 1e-6))

    def num_scored(self, rows):
        return sum(isinstance(row, dict) for row in rows)

    def summarize(self, rows, full):
        scored = [row for row in rows if isinstance(row, dict)]
        left_out = {f"mixtures with a {kind}": rows.count(kind) for kind in (_SILENT_SOURCE, _SILENT_ESTIMATE)}
        if not scored:
            raise ValueError("Every mixture has a silent source or estimate; cannot score separation.")
        values = {name: np.array([row[name] for row in scored]) for name in scored[0]}
        metrics = {name: float(column.mean()) for name, column in values.items()}
        metrics["si_sdri_median"] = float(np.median(values["si_sdri"]))
        tables = []
        if full:
            both = np.minimum(values["si_sdri"], values["swapped"]) > 0
            del metrics["swapped"]  # over complete pairs its mean equals that of `si_sdri`
            metrics["wrong_frame_si_sdri"] = metrics.pop("wrong_frame")
            metrics["oracle_si_sdri"] = metrics.pop("oracle")
            metrics["both_sources_improved"] = float(both.mean())
            columns = ["", "mean", "median", "standard deviation"]
            names = {name: name for name in ("sdr", "sir", "sar", "sdri", "si_sdr", "si_sdri")}
            names |= {"wrong_frame": "wrong_frame_si_sdri", "oracle": "oracle_si_sdri"}
            table = [
                [metric_title(name), *map(decibels, (values[key].mean(), np.median(values[key]), values[key].std()))]
                for key, name in names.items()
            ]
            note = (
                f"Both sources improve, each with its own frame, in {100 * metrics['both_sources_improved']:.1f} % of "
                "the mixtures."
            )
            tables.append(Table("Separation", columns, table, note))
        return metrics, tables, left_out

    def examples(self, model, inputs, batch):
        extractor = self.processor.feature_extractor
        waveforms = batch["waveforms"].to(inputs["input_features"].device)
        mixture = waveforms.sum(1)
        separated = extractor.separate(model(**inputs).logits.float(), mixture).cpu()
        mixture, waveforms = mixture.cpu(), waveforms.cpu()
        frames, rate, shown = self.frames(inputs["pixel_values"]), extractor.sampling_rate, []
        for i, frame in enumerate(frames):
            if is_silent(waveforms[i].numpy()).any():
                continue
            tracks = {"mixture": mixture[i], "estimate": separated[i], "reference": waveforms[i, 0]}
            figure = log_mels(
                {name: extractor.log_mel(track) for name, track in tracks.items()},
                frames_per_second=rate / extractor.hop_length,
                max_frequency=rate / 2,
            )
            gain = si_sdr(waveforms[i, 0].numpy(), separated[i].numpy()) - si_sdr(
                waveforms[i, 0].numpy(), mixture[i].numpy()
            )
            shown.append(
                Example(
                    batch["path"][i],
                    [ExampleImage(frame, "frame"), ExampleImage(figure, "mixture, estimate, reference")],
                    [(name, track.numpy(), rate) for name, track in tracks.items()],
                    f"SI-SDR improvement {decibels(gain)}",
                )
            )
        return shown
