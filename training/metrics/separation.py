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
    found = correlations(references, estimates, filter_taps)
    target = np.arange(len(estimates)) if targets is None else np.asarray(targets)
    if target.shape != (len(estimates),) or target.min() < 0 or target.max() >= len(references):
        raise ValueError(
            f"Expected as targets one index in 0..{len(references) - 1} per estimate, got {target.tolist()} for "
            f"{len(estimates)} estimates."
        )
    return bss_eval_of(*found, target)


def correlations(
    references: np.ndarray, estimates: np.ndarray, filter_taps: int = FILTER_TAPS
) -> tuple[np.ndarray, np.ndarray]:
    """All that BSS-eval needs to know of waveforms; arguments as of `bss_eval`.

    Returns:
        correlations: (sources, sources + estimates, taps), inner products of each reference, delayed by 0, 1, ...
            samples, with each reference and each estimate.
        energies: (estimates,), sums of squares.

    Raises:
        ValueError: For mismatched shapes, and for silent or non-finite waveforms.
    """
    references = _waveforms(references, "references")
    estimates = _waveforms(estimates, "estimates")
    if references.shape[1] != estimates.shape[1]:
        raise ValueError(
            f"Expected references and estimates of equal length, got shapes {references.shape} and {estimates.shape}."
        )
    size = 1 << int(np.ceil(np.log2(references.shape[1] + filter_taps)))
    spectra, energies = np.fft.rfft(np.concatenate([references, estimates]), size), np.sum(estimates**2, axis=1)
    delayed = spectra[: len(references), None].conj()
    return np.fft.irfft(delayed * spectra[None], size)[..., :filter_taps], energies


def bss_eval_of(
    correlations: np.ndarray, energies: np.ndarray, targets: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`bss_eval` from what `correlations` returns, and the index of each estimate's reference."""
    count, _, taps = correlations.shape
    # gram[i, j, a, b] = <reference i delayed by a, reference j delayed by b>, which depends on a - b.
    lag, own = np.arange(taps)[:, None] - np.arange(taps)[None], correlations[:, :count]
    gram = np.where(lag >= 0, own[:, :, abs(lag)], own.transpose(1, 0, 2)[:, :, abs(lag)])
    cross = correlations[:, count:].transpose(1, 0, 2)  # (estimates, sources, taps)
    whole = _projected(gram.transpose(0, 2, 1, 3).reshape(count * taps, count * taps), cross.reshape(len(cross), -1))
    alone = np.array([_projected(gram[j, j], cross[i, j][None])[0] for i, j in enumerate(targets)])
    return (
        _ratio_db(alone, energies - alone),
        _ratio_db(alone, whole - alone),
        _ratio_db(whole, energies - whole),
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
    reference = reference - reference.mean(-1, keepdims=True)
    estimate = estimate - estimate.mean(-1, keepdims=True)
    energies = (np.sum(waveform**2, -1) for waveform in (reference, estimate))
    return si_sdr_of(*energies, np.sum(reference * estimate, -1))


def si_sdr_of(reference: np.ndarray, estimate: np.ndarray, product: np.ndarray) -> np.ndarray:
    """`si_sdr` from the energies of zero-mean references and estimates, and their inner products, (...) each.

    Raises:
        ValueError: For NaN or infinity, and for a silent reference or estimate.
    """
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        raise ValueError("Expected finite references and estimates, got NaN or infinity.")
    for name, energy in (("a reference", reference), ("an estimate", estimate)):
        if not np.all(energy > 0):
            raise ValueError(f"SI-SDR is not defined: {name} is silent.")
    target = product**2 / reference
    return _ratio_db(target, estimate - target)


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


__all__ = ["FILTER_TAPS", "bss_eval", "bss_eval_of", "correlations", "is_silent", "si_sdr", "si_sdr_of"]
