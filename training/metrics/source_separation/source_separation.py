"""Source separation as a module of `evaluate`: BSS-eval and SI-SDR, and what was gained over the mixture."""

import logging

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.rows import KeepsRows
from deepavfusion.training.metrics.separation import bss_eval, is_silent, si_sdr

_DESCRIPTION = """\
How well the sources of mixtures were separated, estimate i meaning source i (no permutation). SDR, SIR and SAR are
those of BSS-eval version 3 with filters of 512 taps; SI-SDR is scale-invariant, means removed; the improvements are
over the unprocessed mixture, taken as the sum of the sources. Means over all sources of all mixtures, in dB. Mixtures
with a silent source or a silent estimate (root mean square below -100 dB of full scale) are skipped, counted, and named
in the log.
"""
_INPUTS = """
Args:
    predictions: one entry for each mixture: estimates (sources, samples), all of one mixture equally long.
    references: the true sources, likewise.
    mixtures: the mixtures, each (samples,), where they are not the sum of their sources.
Returns:
    sdr, sir, sar, si_sdr, sdri, si_sdri: in dB.
    num_mixtures: that were scored.
    skipped: mixtures that were not, silent_sources and silent_estimates: for which reason.
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


class SourceSeparation(KeepsRows, evaluate.Metric):
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
        """Scores (6 * sources) of one mixture, or none and why."""
        estimates = rectangle(prediction, f"Predictions {index}")
        sources = rectangle(reference, f"References {index}")
        if estimates.shape != sources.shape:
            raise ValueError(f"Predictions {index} have shape {estimates.shape}, references {sources.shape}.")
        mixture = sources.sum(0) if mixture is None else np.asarray(mixture, np.float64)
        if mixture.shape != sources.shape[1:]:
            raise ValueError(f"Mixture {index} has shape {mixture.shape}, its sources {sources.shape}.")
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
                logger.warning("Skipped for %s: mixtures %s.", name.replace("_", " "), ", ".join(map(str, mixtures)))
        counts = {name: len(mixtures) for name, mixtures in silent.items()}
        rows = [np.reshape(row, (len(_NAMES), -1)) for row in predictions if row]
        if not rows:
            raise ValueError(
                f"No mixture can be scored: of {len(kinds)}, {counts['silent_sources']} have a silent source and "
                f"{counts['silent_estimates']} a silent estimate."
            )
        means = np.concatenate(rows, axis=1).mean(1)
        return {name: float(value) for name, value in zip(_NAMES, means, strict=True)} | {
            "num_mixtures": len(rows),
            "skipped": sum(counts.values()),
            **counts,
        }


def _scores(sources, estimates, mixture):
    """(6, sources) of one mixture: SDR, SIR, SAR, SI-SDR, and the improvements of SDR and SI-SDR."""
    count = len(sources)
    found = np.concatenate([estimates, np.broadcast_to(mixture, (count, len(mixture)))])
    sdr, sir, sar = bss_eval(sources, found, targets=[*range(count), *range(count)])
    scale_invariant = si_sdr(sources, estimates)
    before = si_sdr(sources, found[count:])
    return np.stack(
        [sdr[:count], sir[:count], sar[:count], scale_invariant, sdr[:count] - sdr[count:], scale_invariant - before]
    )
