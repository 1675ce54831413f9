"""Source separation metrics: BSS-eval version 3 (Vincent et al. 2006) and SI-SDR (Le Roux et al. 2019)."""

from collections.abc import Sequence

import numpy as np

FILTER_TAPS = 512


def bss_eval(
    references: np.ndarray,
    estimates: np.ndarray,
    targets: Sequence[int] | None = None,
    filter_taps: int = FILTER_TAPS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SDR, SIR and SAR of estimates without permutation, as by `mir_eval.separation.bss_eval_sources`.

    An estimate is decomposed by orthogonal projection: onto its target under any filter of `filter_taps` taps, onto all
    references under such filters (interference), and the remainder (artifacts). Unlike mir_eval, all correlations come
    from one FFT per waveform, and several estimates of the same references share them.

    Args:
        references: (sources, N) waveforms, none silent.
        estimates: (estimates, N) waveforms, none silent.
        targets: Index of each estimate's reference; in order by default.
        filter_taps: Length of the allowed distortion filters, in samples.

    Returns:
        sdr, sir, sar: (estimates,) each in dB, within +-156.5, the precision of float64.

    Raises:
        ValueError: For mismatched shapes, and for silent or non-finite waveforms.
    """
    references = _waveforms(references, "references")
    estimates = _waveforms(estimates, "estimates")
    if references.shape[1] != estimates.shape[1]:
        raise ValueError(
            f"Expected references and estimates of equal length, got shapes {references.shape} and {estimates.shape}."
        )
    target = np.arange(len(estimates)) if targets is None else np.asarray(targets)
    if target.shape != (len(estimates),) or target.min() < 0 or target.max() >= len(references):
        raise ValueError(
            f"Expected as targets one index in 0..{len(references) - 1} per estimate, got {target.tolist()} for "
            f"{len(estimates)} estimates."
        )
    count, taps = len(references), filter_taps
    size = 1 << int(np.ceil(np.log2(references.shape[1] + taps)))
    spectra, estimated = np.fft.rfft(references, size), np.fft.rfft(estimates, size)
    # Correlations at every lag: gram[i, j, a, b] = <reference i delayed by a, reference j delayed by b>.
    lags = np.fft.irfft(spectra[:, None].conj() * spectra[None], size)
    gram = lags[:, :, (np.arange(taps)[:, None] - np.arange(taps)[None]) % size]
    cross = np.fft.irfft(spectra[None].conj() * estimated[:, None], size)[..., :taps]  # (estimates, sources, taps)
    energy = np.sum(estimates**2, axis=1)
    whole = _projected(
        gram.transpose(0, 2, 1, 3).reshape(count * taps, count * taps), cross.reshape(len(estimates), -1)
    )
    alone = np.array([_projected(gram[j, j], cross[i, j][None])[0] for i, j in enumerate(target)])
    return (
        _ratio_db(alone, energy - alone),
        _ratio_db(alone, whole - alone),
        _ratio_db(whole, energy - whole),
    )


def _projected(gram: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Energies of the projections whose inner products with the basis are the rows of `cross`."""
    try:
        weights = np.linalg.solve(gram, cross.T)
    except np.linalg.LinAlgError:
        weights = np.linalg.lstsq(gram, cross.T, rcond=None)[0]
    return np.sum(weights * cross.T, axis=0)


def _ratio_db(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Ratio of two energies in dB, within +-156.5: values beyond are rounding errors and would make means infinite."""
    limit = np.finfo(np.float64).eps * np.maximum(np.maximum(signal, noise), np.finfo(np.float64).tiny)
    return 10 * np.log10(np.maximum(signal, limit) / np.maximum(noise, limit))


def si_sdr(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Scale-invariant signal-to-distortion ratio of zero-mean waveforms.

    Args:
        references: (..., N) waveforms, whose means are removed first.
        estimates: (..., N) waveforms, likewise.

    Returns:
        (...) in dB, within +-156.5, the precision of float64.

    Raises:
        ValueError: For mismatched shapes, NaN or infinity, or a silent (constant) reference or estimate.
    """
    reference, estimate = (np.asarray(x, np.float64) for x in (references, estimates))
    if reference.shape != estimate.shape or not reference.size:
        raise ValueError(
            f"Expected references and estimates of one non-empty shape, got {reference.shape} and {estimate.shape}."
        )
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        raise ValueError("Expected finite references and estimates, got NaN or infinity.")
    reference = reference - reference.mean(-1, keepdims=True)
    estimate = estimate - estimate.mean(-1, keepdims=True)
    energy = np.sum(reference**2, -1, keepdims=True)
    if not np.all(energy > 0):
        raise ValueError("SI-SDR is not defined: a reference is silent.")
    if not np.all(np.any(estimate, axis=-1)):
        raise ValueError("SI-SDR is not defined: an estimate is silent.")
    target = np.sum(reference * estimate, -1, keepdims=True) / energy * reference
    return _ratio_db(np.sum(target**2, -1), np.sum((estimate - target) ** 2, -1))


def is_silent(waveforms: np.ndarray, level: float = 1e-5) -> np.ndarray:
    """Mask (...) of the waveforms (..., N) whose RMS is below `level`, relative to full scale (1e-5: -100 dB)."""
    return np.sqrt(np.mean(np.square(np.asarray(waveforms, np.float64)), axis=-1)) < level


def _waveforms(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"Expected {name} (sources, samples), got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"Expected finite {name}, got NaN or infinity.")
    silent = np.flatnonzero(~np.any(values, axis=1))
    if len(silent):
        raise ValueError(f"BSS-eval is not defined: {name} {silent.tolist()} are silent.")
    return values


__all__ = ["FILTER_TAPS", "bss_eval", "is_silent", "si_sdr"]
