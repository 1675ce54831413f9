"""Source separation as a module of `evaluate`: BSS-eval, SI-SDR, and their improvements over the mixture."""

import logging

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.separation import bss_eval, is_silent, si_sdr
from deepavfusion.training.metrics.streaming import StreamingMetric

_DESCRIPTION = """\
Separation quality of mixtures, with estimate i for source i (no permutation). SDR, SIR and SAR: BSS-eval version 3 with
filters of 512 taps; SI-SDR: scale-invariant, of zero-mean waveforms; improvements are over the unprocessed mixture, by
default the sum of the sources. Means over all sources of all mixtures, in dB. Mixtures with a silent source or estimate
(RMS below -100 dB of full scale) are skipped, counted, and logged.
"""
_INPUTS = """
Args:
    predictions: estimates (sources, samples) of each mixture; lengths may differ between mixtures.
    references: the true sources, likewise.
    mixtures: the mixtures (samples,), if they are not the sums of their sources.
Returns:
    sdr, sir, sar, si_sdr, sdri, si_sdri: in dB.
    num_mixtures: number of scored mixtures.
    skipped: number of skipped mixtures, of which silent_sources and silent_estimates for that reason.
"""
_CITATION = """\
@article{vincent2006performance, title={Performance measurement in blind audio source separation},
  author={Vincent, Emmanuel and Gribonval, R{\\'e}mi and F{\\'e}votte, C{\\'e}dric},
  journal={IEEE Transactions on Audio, Speech, and Language Processing}, volume={14}, number={4}, year={2006}}
@inproceedings{leroux2019sdr, title={SDR -- half-baked or well done?},
  author={Le Roux, Jonathan and Wisdom, Scott and Erdogan, Hakan and Hershey, John R.}, booktitle={ICASSP}, year={2019}}
"""


logger = logging.getLogger(__name__)

_SCORED, _SILENT_SOURCE, _SILENT_ESTIMATE = range(3)
_NAMES = ("sdr", "sir", "sar", "si_sdr", "sdri", "si_sdri")


class SourceSeparation(StreamingMetric, evaluate.Metric):
    """BSS-eval and SI-SDR with improvements over the mixture; see `_DESCRIPTION`."""

    EXTRAS = ("mixtures",)

    def _info(self):
        waveforms = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": waveforms, "references": waveforms}),
        )

    def _row(self, index, prediction, reference, mixture=None):
        """Statistics: scores (6 * sources) of one mixture, empty if skipped. Kind: scored, or why not."""
        estimates = rectangle(prediction, f"Predictions {index}")
        sources = rectangle(reference, f"References {index}")
        if estimates.shape != sources.shape:
            raise ValueError(
                f"Expected predictions and references of the same shape for mixture {index}, got {estimates.shape} and "
                f"{sources.shape}."
            )
        mixture = sources.sum(0) if mixture is None else np.asarray(mixture, np.float64)
        if mixture.shape != sources.shape[1:]:
            raise ValueError(f"Expected mixture {index} of shape {sources.shape[1:]}, got {mixture.shape}.")
        if is_silent(sources).any():
            return (), _SILENT_SOURCE
        if is_silent(estimates).any():
            return (), _SILENT_ESTIMATE
        return _scores(sources, estimates, mixture).ravel(), _SCORED

    def _compute(self, predictions, references):
        kinds = np.asarray(references)
        silent = {
            "silent_sources": np.flatnonzero(kinds == _SILENT_SOURCE).tolist(),
            "silent_estimates": np.flatnonzero(kinds == _SILENT_ESTIMATE).tolist(),
        }
        for name, mixtures in silent.items():
            if mixtures:
                logger.warning("Skipped mixtures with %s: %s.", name.replace("_", " "), ", ".join(map(str, mixtures)))
        counts = {name: len(mixtures) for name, mixtures in silent.items()}
        rows = [np.reshape(row, (len(_NAMES), -1)) for row in predictions if row]
        if not rows:
            raise ValueError(
                f"Nothing to score: of {len(kinds)} mixtures, {counts['silent_sources']} have a silent source and "
                f"{counts['silent_estimates']} a silent estimate."
            )
        means = np.concatenate(rows, axis=1).mean(1)
        return {name: float(value) for name, value in zip(_NAMES, means, strict=True)} | {
            "num_mixtures": len(rows),
            "skipped": sum(counts.values()),
            **counts,
        }


def _scores(sources, estimates, mixture):
    """Scores (6, sources) of one mixture: SDR, SIR, SAR, SI-SDR, and the improvements of SDR and SI-SDR."""
    count = len(sources)
    both = np.concatenate([estimates, np.broadcast_to(mixture, (count, len(mixture)))])
    sdr, sir, sar = bss_eval(sources, both, targets=[*range(count), *range(count)])
    scale_invariant = si_sdr(sources, estimates)
    before = si_sdr(sources, both[count:])
    return np.stack(
        [sdr[:count], sir[:count], sar[:count], scale_invariant, sdr[:count] - sdr[count:], scale_invariant - before]
    )
