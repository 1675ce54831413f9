"""Separation of recordings of any length in windows: complete, and inaudible at their boundaries."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers.utils import ModelOutput

from deepavfusion import DeepAVFusionFeatureExtractor, DeepAVFusionProcessor
from deepavfusion.processors import chunking_deepavfusion as windows

MELS, WIDTH = 40, 48  # a window of 12000 samples, 0.75 s


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(num_mel_bins=MELS, spectrogram_length=WIDTH))


@pytest.fixture(scope="module")
def extractor(processor):
    return processor.feature_extractor


def noise(samples, seed=0, low=300.0, high=6000.0, rate=16000):
    """Generate noise between two frequencies, where the mel filters add up to 1, that fades in and out."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    hertz = torch.fft.rfftfreq(samples, 1 / rate)
    waveform = torch.fft.irfft(spectrum * ((hertz > low) & (hertz < high)), samples)
    edge = torch.linspace(0, 1, 500).square()
    waveform[:500] *= edge
    waveform[-500:] *= edge.flip(0)
    return waveform


def masks(count, seed=0):
    return 3 * torch.randn(count, 1, MELS, WIDTH, generator=torch.Generator().manual_seed(seed))


def outputs(logits):
    return ModelOutput(logits=logits)


class TestStarts:
    @pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
    @pytest.mark.parametrize("samples", [1, 11_999, 12_000, 12_001, 12_250, 12_251, 30_000, 123_457])
    def test_windows_cover_the_recording(self, extractor, samples, overlap):
        starts = windows.window_starts(extractor, samples, overlap)
        assert starts[0] == 0
        assert all(start % 250 == 0 for start in starts)
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= max(12_000 * (1 - overlap) + 0.1, 250)).all()
        assert samples <= starts[-1] + 12_000 < max(samples, 12_000) + 250
        windows.check_starts(extractor, starts, samples)

    def test_overlap_by_half(self, extractor):
        assert windows.window_starts(extractor, 24_000) == [0, 6_000, 12_000]

    @pytest.mark.parametrize("overlap", [-0.1, 1, 2, math.nan])
    def test_invalid_overlaps_raise(self, extractor, overlap):
        with pytest.raises(ValueError, match=r"overlap in \[0, 1\), got"):
            windows.window_starts(extractor, 30_000, overlap)

    def test_features_of_windows(self, processor, extractor):
        mixture = noise(30_100)
        found = processor.separation_windows(mixture, 16000)
        assert found.starts == windows.window_starts(extractor, 30_100)
        for start, features in zip(found.starts[:-1], found.input_features, strict=False):
            expected = extractor(mixture[start : start + 12_000], sampling_rate=16000).input_features[0]
            assert torch.equal(features, expected)
        assert found.times == pytest.approx([(start + min(start + 12_000, 30_100)) / 32000 for start in found.starts])

    def test_a_short_recording_is_one_window(self, processor):
        mixture = noise(5_001)
        found = processor.separation_windows(mixture, 16000)
        assert found.starts == [0]
        assert found.times == [5_001 / 32000]
        assert torch.equal(found.input_features, processor(audio=mixture, sampling_rate=16000).input_features)

    def test_only_the_last_window_contains_the_end(self, processor):
        quiet = torch.zeros(30_100)
        click = quiet.clone()
        click[-20:] = 1.0
        features = [processor.separation_windows(audio, 16000).input_features for audio in (quiet, click)]
        changed = [not torch.equal(one, other) for one, other in zip(*features, strict=True)]
        assert changed == [False] * (len(changed) - 1) + [True]

    def test_several_recordings_raise(self, processor):
        with pytest.raises(ValueError, match="one recording, got 2"):
            processor.separation_windows([noise(5_000)] * 2, 16000)


class TestCrossFade:
    def test_equal_masks_are_unchanged(self, extractor):
        """The weights of the windows add up to 1 at each frame."""
        level = torch.linspace(0, 1, MELS)[:, None].expand(-1, WIDTH)
        for samples in (12_001, 30_100, 100_003):
            for overlap in (0, 0.3, 0.5, 0.8):
                starts = windows.window_starts(extractor, samples, overlap)
                frames = samples // 250 + 1
                found = windows.cross_fade(extractor, level.expand(len(starts), -1, -1), starts, frames)
                assert found.shape == (MELS, frames)
                assert_close(found, level[:, :1].expand(-1, frames), rtol=0, atol=2e-7)

    def test_overlap_by_half_is_a_raised_cosine(self, extractor):
        found = windows.cross_fade(extractor, torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, WIDTH), [0, 6000], 72)
        position = (torch.arange(24) + 0.5) / 24
        assert_close(found[0, :24], torch.ones(24))
        assert_close(found[0, 24:48], (1 + torch.cos(math.pi * position)) / 2)
        assert_close(found[0, 48:], torch.zeros(24))

    def test_a_mask_applies_within_its_window(self, extractor):
        mixture = noise(60_000)
        starts = windows.window_starts(extractor, 60_000)
        logits = torch.full((len(starts), 1, MELS, WIDTH), -100.0)
        logits[3] = 100.0
        found = windows.separate_windows(extractor, logits, mixture, starts)
        middle = starts[3] + 6_000
        assert_close(found[middle - 150 : middle + 150], mixture[middle - 150 : middle + 150], rtol=0, atol=0.02)
        reach = 1_000
        assert found[: starts[3] - reach].abs().max() < 1e-6
        assert found[starts[3] + 12_000 + reach :].abs().max() < 1e-6


class TestWholeRecordings:
    LENGTHS = [12_001, 13_337, 23_999, 24_000, 61_111, 100_003]

    @pytest.mark.parametrize("samples", LENGTHS)
    @pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
    def test_a_mask_of_ones_returns_the_mixture(self, processor, extractor, samples, overlap):
        mixture = noise(samples)
        starts = windows.window_starts(extractor, samples, overlap)
        logits = torch.full((len(starts), 1, MELS, WIDTH), 100.0)
        (found,) = processor.post_process_source_separation(outputs(logits), mixture, 16000, starts)
        assert_close(found, mixture, rtol=0, atol=3e-4 * mixture.abs().max().item())

    @pytest.mark.parametrize("samples", LENGTHS)
    def test_complementary_masks_give_complementary_sources(self, processor, extractor, samples):
        """sigmoid(x) + sigmoid(-x) = 1, also at frequencies beyond the mel filters."""
        mixture = torch.randn(samples, generator=torch.Generator().manual_seed(1))
        starts = windows.window_starts(extractor, samples)
        logits = masks(len(starts))
        one, other, both = (
            windows.separate_windows(extractor, x, mixture, starts) for x in (logits, -logits, logits * 0 + 100)
        )
        assert one.square().mean() > 0.01 * both.square().mean()
        assert_close(one + other, both, rtol=0, atol=1e-5)

    def test_linear_in_the_mixture(self, extractor):
        first, second = noise(50_003, seed=1), noise(50_003, seed=2)
        starts = windows.window_starts(extractor, 50_003)
        logits = masks(len(starts))
        whole = windows.separate_windows(extractor, logits, 2 * first - second, starts)
        parts = [windows.separate_windows(extractor, logits, mixture, starts) for mixture in (first, second)]
        assert_close(whole, 2 * parts[0] - parts[1], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 44101, 48000])
    @pytest.mark.parametrize("seconds", [0.0311, 0.75, 0.7503, 2.7183])
    def test_length_is_that_of_the_recording(self, processor, rate, seconds):
        samples = round(rate * seconds) | 1
        mixture = noise(samples, rate=rate) if samples > 1000 else torch.randn(samples)
        found = processor.separation_windows(mixture, rate)
        separated = processor.post_process_source_separation(
            outputs(masks(len(found.starts))), mixture, rate, found.starts
        )
        assert [source.shape for source in separated] == [(samples,)]
        assert torch.isfinite(separated[0]).all()

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_a_mask_of_ones_at_other_sampling_rates(self, processor, rate):
        samples = round(2.5 * rate) | 1
        mixture = noise(samples, low=300, high=min(6000, rate * 0.4), rate=rate)
        starts = processor.separation_windows(mixture, rate).starts
        logits = torch.full((len(starts), 1, MELS, WIDTH), 100.0)
        (found,) = processor.post_process_source_separation(outputs(logits), mixture, rate, starts)
        error = (found - mixture).square().mean() / mixture.square().mean()
        assert 10 * math.log10(error) < -30

    def test_channels_are_averaged(self, processor):
        stereo = torch.stack([noise(30_001, seed=1), noise(30_001, seed=2)])
        starts = processor.separation_windows(stereo, 16000).starts
        logits = masks(len(starts))
        (found,) = processor.post_process_source_separation(outputs(logits), [stereo], 16000, starts)
        (mono,) = processor.post_process_source_separation(outputs(logits), stereo.mean(0), 16000, starts)
        assert torch.equal(found, mono)

    @pytest.mark.parametrize("block", [20, 37, 64])
    def test_result_is_independent_of_the_block_size(self, extractor, monkeypatch, block):
        mixture = torch.randn(100_003, generator=torch.Generator().manual_seed(3))
        starts = windows.window_starts(extractor, 100_003)
        logits = masks(len(starts))
        whole = windows.separate_windows(extractor, logits, mixture, starts)
        monkeypatch.setattr(windows, "_BLOCK", block)
        assert_close(windows.separate_windows(extractor, logits, mixture, starts), whole, rtol=0, atol=2e-6)

    def test_one_window_equals_published_separation(self, processor, extractor):
        mixture = noise(9_000)
        (found,) = processor.post_process_source_separation(outputs(masks(1)), mixture, 16000, [0])
        (plain,) = processor.post_process_source_separation(outputs(masks(1)), mixture, 16000)
        assert torch.equal(found, plain)
        assert torch.equal(found, extractor.separate(masks(1), mixture[None])[0])


class TestOutputsOfWindows:
    def test_windows_that_overlap_by_half_need_no_starts(self, processor):
        mixtures = [noise(30_001), noise(9_000), noise(50_000)]
        starts = [processor.separation_windows(mixture, 16000).starts for mixture in mixtures]
        logits = masks(sum(map(len, starts)))
        found = processor.post_process_source_separation(outputs(logits), mixtures, 16000)
        given = processor.post_process_source_separation(outputs(logits), mixtures, 16000, starts)
        assert [len(source) for source in found] == [30_001, 9_000, 50_000]
        first = 0
        for source, same, mixture, begins in zip(found, given, mixtures, starts, strict=True):
            part = outputs(logits[first : first + len(begins)])
            first += len(begins)
            (alone,) = processor.post_process_source_separation(part, mixture, 16000, begins)
            assert torch.equal(source, same)
            assert torch.equal(source, alone)

    @pytest.mark.parametrize("convert", [np.array, torch.tensor, tuple, iter, lambda s: list(map(torch.tensor, s))])
    def test_forms_of_starts_are_equivalent(self, processor, convert):
        mixtures = [noise(30_001), noise(50_000)]
        starts = [processor.separation_windows(mixture, 16000).starts for mixture in mixtures]
        logits = masks(sum(map(len, starts)))
        expected = processor.post_process_source_separation(outputs(logits), mixtures, 16000, starts)
        found = processor.post_process_source_separation(outputs(logits), mixtures, 16000, list(map(convert, starts)))
        assert all(map(torch.equal, found, expected))
        part = outputs(logits[: len(starts[0])])
        (alone,) = processor.post_process_source_separation(part, mixtures[0], 16000, convert(starts[0]))
        assert torch.equal(alone, expected[0])

    def test_one_mask_separates_the_start_of_a_long_mixture(self, processor):
        (found,) = processor.post_process_source_separation(outputs(masks(1)), noise(30_001), 16000)
        assert found.shape == (12_000,)

    @pytest.mark.parametrize(
        ("starts", "message"),
        [
            ([0, 12_000], "one per mask"),
            ([0, 6_100, 12_000], "multiples of 250"),
            ([0, 12_000, 6_000], "ascending from 0"),
            ([250, 6_000, 12_000], "ascending from 0"),
            ([0, 12_250, 18_000], "steps of at most 12000"),
            ([0, 6_000, 12_000], "cover all 30001 samples"),
            ([0, 12_000, 30_250], "steps of at most 12000"),
            ([[0, 6_000], [12_000]], "for each of 1 mixtures"),
            (np.array([0, 12_000]), "one per mask"),
            (np.array([0.0, 12_000.0, 18_000.0]), "ascending from 0"),
        ],
    )
    def test_invalid_starts_raise(self, processor, starts, message):
        with pytest.raises(ValueError, match=message):
            processor.post_process_source_separation(outputs(masks(3)), noise(30_001), 16000, starts)

    def test_other_numbers_of_masks_raise(self, processor):
        with pytest.raises(ValueError, match="each of 3 masks, got 1 mixtures, which have 5 windows"):
            processor.post_process_source_separation(outputs(masks(3)), noise(30_001), 16000)


class TestConsistency:
    @pytest.mark.parametrize("sources", [2, 3, 5])
    def test_masks_are_divided_by_their_sum(self, processor, sources):
        logits = 5 * torch.randn(sources, 2, 1, MELS, WIDTH, generator=torch.Generator().manual_seed(0))
        found = processor.consistent_masks(logits).sigmoid()
        expected = logits.double().sigmoid() / logits.double().sigmoid().sum(0)
        assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)
        assert_close(found.sum(0), torch.ones_like(found[0]))

    def test_ratios_of_tiny_masks_are_kept(self, processor):
        found = processor.consistent_masks(torch.tensor([[-200.0], [-201.0]])).sigmoid()
        assert_close(found[0] / found[1], torch.tensor([math.e]), rtol=1e-3, atol=0)

    def test_sources_add_up_to_the_mixture(self, processor):
        mixture = noise(30_001)
        starts = processor.separation_windows(mixture, 16000).starts
        logits = torch.stack([masks(len(starts), seed) for seed in range(3)])
        separated = [
            processor.post_process_source_separation(outputs(source), mixture, 16000, starts)[0]
            for source in processor.consistent_masks(logits)
        ]
        assert_close(sum(separated), mixture, rtol=0, atol=3e-4 * mixture.abs().max().item())

    def test_a_single_source_raises(self, processor):
        with pytest.raises(ValueError, match="at least 2 sources"):
            processor.consistent_masks(masks(1)[None])
