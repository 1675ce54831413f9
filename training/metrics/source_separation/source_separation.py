"""Source separation as a module of `evaluate`: BSS-eval and SI-SDR, and what was gained over the mixture."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.separation import bss_eval, is_silent, si_sdr

_DESCRIPTION = """\
How well the sources of mixtures were separated, estimate i meaning source i (no permutation). SDR, SIR and SAR are
those of BSS-eval version 3 with filters of 512 taps; SI-SDR is scale-invariant, means removed; the improvements are
over the unprocessed mixture, taken as the sum of the sources. Means over all sources of all mixtures, in dB. Mixtures
with a silent source or a silent estimate (root mean square below -100 dB of full scale) are left out and counted.
"""
_INPUTS = """
Args:
    predictions: one entry for each mixture: estimates (sources, samples), all of one mixture equally long.
    references: the true sources, likewise.
    mixtures: for `compute`: the mixtures, each (samples,), where they are not the sum of their sources.
Returns:
    sdr, sir, sar, si_sdr, sdri, si_sdri: in dB.
    num_mixtures: that were scored.
    silent_sources, silent_estimates: mixtures that were left out.
"""
_CITATION = """\
@article{vincent2006performance, title={Performance measurement in blind audio source separation},
  author={Vincent, Emmanuel and Gribonval, R{\\'e}mi and F{\\'e}votte, C{\\'e}dric},
  journal={IEEE Transactions on Audio, Speech, and Language Processing}, volume={14}, number={4}, year={2006}}
@inproceedings{leroux2019sdr, title={SDR -- half-baked or well done?},
  author={Le Roux, Jonathan and Wisdom, Scott and Erdogan, Hakan and Hershey, John R.}, booktitle={ICASSP}, year={2019}}
"""


class SourceSeparation(evaluate.Metric):
    def _info(self):
        waveforms = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": waveforms, "references": waveforms}),
        )

    def _compute(self, predictions, references, mixtures=None):
        if mixtures is not None and len(mixtures) != len(references):
            raise ValueError(f"There are {len(mixtures)} mixtures for {len(references)} references.")
        rows, silent_sources, silent_estimates = [], 0, 0
        for index, (estimates, sources) in enumerate(zip(predictions, references, strict=True)):
            estimates = rectangle(estimates, f"Predictions {index}")
            sources = rectangle(sources, f"References {index}")
            if estimates.shape != sources.shape:
                raise ValueError(f"Predictions {index} have shape {estimates.shape}, references {sources.shape}.")
            mixture = sources.sum(0) if mixtures is None else np.asarray(mixtures[index], np.float64)
            if mixture.shape != sources.shape[1:]:
                raise ValueError(f"Mixture {index} has shape {mixture.shape}, its sources {sources.shape}.")
            if is_silent(sources).any():
                silent_sources += 1
            elif is_silent(estimates).any():
                silent_estimates += 1
            else:
                rows.append(_scores(sources, estimates, mixture))
        if not rows:
            raise ValueError(
                f"No mixture can be scored: of {len(references)}, {silent_sources} have a silent source and "
                f"{silent_estimates} a silent estimate."
            )
        means = np.concatenate(rows, axis=1).mean(1)
        names = ("sdr", "sir", "sar", "si_sdr", "sdri", "si_sdri")
        return {name: float(value) for name, value in zip(names, means, strict=True)} | {
            "num_mixtures": len(rows),
            "silent_sources": silent_sources,
            "silent_estimates": silent_estimates,
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
