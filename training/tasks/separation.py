"""Source separation of two-source mixtures, conditioned on a frame (paper, section 4.3)."""

from typing import Any

import numpy as np
import torch

from deepavfusion import DeepAVFusionForSourceSeparation

from ..metrics.separation import bss_eval_of, correlations, is_silent, si_sdr, si_sdr_of
from ..report.charts import log_mels
from ..report.predictions import pack, unpack
from ..report.report import Example, ExampleImage, Table
from ..wording import clip_title, decibels, metric_title
from .base import Task

_SILENT_SOURCE, _SILENT_ESTIMATE = "silent source", "silent estimate"
_BSS_EVAL = ("sdr", "sir", "sar", "sdri")
_MOST_MIXTURES = 4096  # whose correlations are kept, 32 KiB each: 128 MiB


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
        sounds = {"target": waveforms[:, 0], "other": waveforms[:, 1], "mixture": mixture}
        sounds["estimate"] = extractor.separate(model(**inputs).logits.float(), mixture)
        if full:
            sounds["swapped"] = extractor.separate(self._swapped(model, inputs).float(), mixture)
            sounds["oracle"] = extractor.separate(self.oracle(waveforms), mixture)
        rows = []
        for sound in torch.stack(list(sounds.values()), 1).cpu().double().numpy():
            if is_silent(sound[:2]).any():
                rows.append(_SILENT_SOURCE)
            elif not sound.any(axis=1).all():
                rows.append(_SILENT_ESTIMATE)
            else:
                rows.append(self._row(dict(zip(sounds, sound, strict=True)), full))
        return rows

    def _row(self, sounds: dict[str, np.ndarray], full: bool) -> dict[str, Any]:
        """Scores of a mixture and, in a full evaluation, the inner products of its waveforms that they follow from."""
        centered = np.stack([sound - sound.mean() for sound in sounds.values()])
        products = dict(zip(sounds, centered @ centered.T, strict=True))
        if not full:
            return self._si_sdr_scores(products)
        sources, estimates = ("target", "other"), ("estimate", "mixture")
        lags, energies = correlations(*(np.stack([sounds[name] for name in names]) for names in (sources, estimates)))
        row = {"products": products, **self._si_sdr_scores(products), **self._bss_eval_scores(lags, energies)}
        if len(self.clips) <= _MOST_MIXTURES:
            row |= {"correlations": pack(lags), "energies": energies}
        return row

    @staticmethod
    def _si_sdr_scores(products: dict[str, np.ndarray]) -> dict[str, float]:
        """Scores from the inner products (W,) of each waveform with all waveforms, without their means."""
        places = {name: place for place, name in enumerate(products)}

        def score(source: str, sound: str) -> float:
            i, j = places[source], places[sound]
            return float(si_sdr_of(products[source][i], products[sound][j], products[source][j]))

        before = score("target", "mixture")
        row = {"si_sdr": score("target", "estimate")}
        row["si_sdri"] = row["si_sdr"] - before
        if "swapped" in products:
            row["swapped"] = score("other", "swapped") - score("other", "mixture")
            row["wrong_frame"] = score("target", "swapped") - before
            row["oracle"] = score("target", "oracle") - before
        return row

    @staticmethod
    def _bss_eval_scores(lags: np.ndarray, energies: np.ndarray) -> dict[str, float]:
        """Scores from the `correlations` of both sources with estimate and mixture."""
        sdr, sir, sar = bss_eval_of(lags, energies, targets=(0, 0))
        return dict(zip(_BSS_EVAL, map(float, (sdr[0], sir[0], sar[0], sdr[0] - sdr[1])), strict=True))

    def rescore(self, row):
        if "products" not in row:
            return {}
        scores = self._si_sdr_scores(row["products"])
        if "correlations" in row:
            scores |= self._bss_eval_scores(unpack(row["correlations"]), row["energies"])
        return scores

    def taken_as_stored(self, tables):
        if any("products" in row and "correlations" not in row for row in tables["clips"]):
            return {", ".join(_BSS_EVAL): f"correlations are kept of {_MOST_MIXTURES:,} mixtures at most"}
        return {}

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
        names = [name for name, value in scored[0].items() if isinstance(value, float)]
        values = {name: np.array([row[name] for row in scored]) for name in names}
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
                    clip_title(batch["path"][i]),
                    [ExampleImage(frame, "frame"), ExampleImage(figure, "mixture, estimate, reference")],
                    [(name, track.numpy(), rate) for name, track in tracks.items()],
                    f"SI-SDR improvement {decibels(gain)}",
                )
            )
        return shown
