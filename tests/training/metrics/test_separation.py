"""BSS-eval and SI-SDR: cases by hand, what scaling and order change, and other implementations of them."""

import warnings

import numpy as np
import pytest
import torch

from deepavfusion.training.metrics.separation import bss_eval, is_silent, si_sdr
from tests.golden_files import load_golden


@pytest.fixture
def sounds():
    """Two sources (2, 6000) and imperfect estimates of them."""
    generator = np.random.default_rng(7)
    sources = generator.standard_normal((2, 6000))
    filtered = np.stack([np.convolve(row, [0.8, 0.3, -0.2])[:6000] for row in sources])
    return sources, filtered + 0.2 * sources[::-1] + 0.1 * generator.standard_normal((2, 6000))


def test_si_sdr_by_hand():
    # Orthogonal signals without mean: target energy 4, error energy 4 / 100.
    reference, noise = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    assert si_sdr(reference, 3 * reference + 0.3 * noise + 5) == pytest.approx(20)
    # Within the precision of double numbers, so that means stay finite.
    assert si_sdr(reference, -reference) == -si_sdr(reference, noise) == pytest.approx(156.5, abs=0.1)
    both = si_sdr(np.stack([reference, noise]), np.stack([reference + noise, reference + 2 * noise]))
    np.testing.assert_allclose(both, [0, 10 * np.log10(4)], atol=1e-9)


def test_bss_eval_by_hand():
    # One tap and orthogonal signals: the projections are scalings. Target 1, interference 0.5, artifact 0.25.
    first, second, noise = np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1]), np.array([1.0, -1, -1, 1])
    sdr, sir, sar = bss_eval(np.stack([first, second]), (first + 0.5 * second + 0.25 * noise)[None], filter_taps=1)
    np.testing.assert_allclose(sdr, 10 * np.log10(1 / (0.25 + 0.0625)))
    np.testing.assert_allclose(sir, 10 * np.log10(1 / 0.25))
    np.testing.assert_allclose(sar, 10 * np.log10(1.25 / 0.0625))


def test_gain_does_not_matter(sounds):
    sources, estimates = sounds
    gains = np.array([[0.01], [30.0]])
    np.testing.assert_allclose(bss_eval(sources, gains * estimates), bss_eval(sources, estimates), atol=1e-8)
    np.testing.assert_allclose(si_sdr(sources, gains * estimates), si_sdr(sources, estimates), atol=1e-8)
    np.testing.assert_allclose(si_sdr(gains * sources, estimates), si_sdr(sources, estimates), atol=1e-8)


def test_order_of_sources_is_kept(sounds):
    sources, estimates = sounds
    straight = np.array(bss_eval(sources, estimates))
    np.testing.assert_allclose(bss_eval(sources[::-1], estimates[::-1]), straight[:, ::-1], atol=1e-8)
    named = np.array(bss_eval(sources, estimates[::-1], targets=(1, 0)))
    np.testing.assert_allclose(named, straight[:, ::-1], atol=1e-8)
    # Estimates that were handed out in the wrong order are not put right.
    assert np.all(np.array(bss_eval(sources, estimates[::-1]))[0] < straight[0] - 10)


def test_a_filter_is_forgiven_by_bss_eval_alone(sounds):
    sources, _ = sounds
    delayed = np.roll(sources, 100, axis=1)
    delayed[:, :100] = 0
    assert np.all(bss_eval(sources, delayed)[0] > 15)
    assert np.all(si_sdr(sources, delayed) < -10)


def test_more_noise_is_worse(sounds):
    sources, _ = sounds
    noise = np.random.default_rng(1).standard_normal(sources.shape)
    values = [(si_sdr(sources, sources + level * noise), bss_eval(sources, sources + level * noise)[0]) for level in
              (0.01, 0.1, 1.0, 10.0)]  # fmt: skip
    assert np.all(np.diff(values, axis=0) < -5)


def test_perfect_estimates_stay_finite_in_bss_eval(sounds):
    sources, _ = sounds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = np.array(bss_eval(sources, sources))
    assert np.isfinite(values).all()
    assert np.all(values > 100)


@pytest.mark.parametrize("count", [2, 3])
def test_same_as_mir_eval(sounds, count):
    separation = pytest.importorskip("mir_eval.separation")
    sources, estimates = (np.concatenate([rows, np.cumsum(rows[:1, ::-1], axis=1)])[:count] for rows in sounds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        *expected, _ = separation.bss_eval_sources(sources, estimates, compute_permutation=False)
    np.testing.assert_allclose(bss_eval(sources, estimates), expected, atol=1e-4)


def test_same_as_fast_bss_eval(sounds):
    other = pytest.importorskip("fast_bss_eval")
    sources, estimates = sounds
    expected = other.si_sdr(sources, estimates, zero_mean=True)
    np.testing.assert_allclose(si_sdr(sources, estimates), expected, atol=1e-4)
    # Its numpy half does not know numpy 2's `solve`; its torch half does not care.
    expected = other.bss_eval_sources(torch.tensor(sources), torch.tensor(estimates), compute_permutation=False)
    np.testing.assert_allclose(bss_eval(sources, estimates), torch.stack(expected).numpy(), atol=1e-4)


def test_published_numbers():
    golden = load_golden("separation_metrics")
    found = bss_eval(golden.inputs["sources"].numpy(), golden.inputs["estimates"].numpy())
    for name, values in zip(("sdr", "sir", "sar"), found, strict=True):
        np.testing.assert_allclose(values, golden.outputs[name].numpy(), atol=1e-4, err_msg=name)


def test_silence_is_relative_to_full_scale():
    waveforms = np.stack([np.full(100, 2e-5), np.full(100, 0.5e-5), np.zeros(100)])
    assert is_silent(waveforms).tolist() == [False, True, True]


def test_refusals(sounds):
    sources, estimates = sounds
    broken = estimates.copy()
    broken[1, 5] = np.nan
    with pytest.raises(ValueError, match="finite estimates, got NaN"):
        bss_eval(sources, broken)
    with pytest.raises(ValueError, match="NaN or infinity"):
        si_sdr(sources, broken)
    with pytest.raises(ValueError, match=r"\(2, 6000\) and \(2, 5999\)"):
        bss_eval(sources, estimates[:, 1:])
    with pytest.raises(ValueError, match=r"\(2, 6000\) and \(6000,\)"):
        si_sdr(sources, estimates[0])
    with pytest.raises(ValueError, match=r"\(sources, samples\), got"):
        bss_eval(sources, np.zeros((2, 0)))
    with pytest.raises(ValueError, match="non-empty"):
        si_sdr(np.zeros((2, 0)), np.zeros((2, 0)))
    with pytest.raises(ValueError, match=r"estimates \[1\] are silent"):
        bss_eval(sources, estimates * [[1], [0]])
    with pytest.raises(ValueError, match="reference is silent"):
        si_sdr(np.ones(8), np.arange(8))
    with pytest.raises(ValueError, match="estimate is silent"):
        si_sdr(sources, estimates * [[1], [0]])
    with pytest.raises(ValueError, match="one index in 0..1 per estimate"):
        bss_eval(sources, estimates, targets=(0, 2))
