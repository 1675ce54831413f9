"""Recordings of any length, separated in windows: nothing is lost, nothing is heard where windows meet."""

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
    """Noise between two frequencies, where the mel filters add up to 1; fading in and out."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    hertz = torch.fft.rfftfreq(samples, 1 / rate)
    sound = torch.fft.irfft(spectrum * ((hertz > low) & (hertz < high)), samples)
    edge = torch.linspace(0, 1, 500).square()
    sound[:500] *= edge
    sound[-500:] *= edge.flip(0)
    return sound


def masks(count, seed=0):
    return 3 * torch.randn(count, 1, MELS, WIDTH, generator=torch.Generator().manual_seed(seed))


def outputs(logits):
    return ModelOutput(logits=logits)


class TestStarts:
    @pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
    @pytest.mark.parametrize("samples", [1, 11_999, 12_000, 12_001, 12_250, 12_251, 30_000, 123_457])
    def test_cover_the_recording(self, extractor, samples, overlap):
        starts = windows.window_starts(extractor, samples, overlap)
        assert starts[0] == 0
        assert all(start % 250 == 0 for start in starts)
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= max(12_000 * (1 - overlap) + 0.1, 250)).all()
        assert samples <= starts[-1] + 12_000 < max(samples, 12_000) + 250
        windows.check_starts(extractor, starts, samples)

    def test_half_overlap_of_a_whole_number_of_windows(self, extractor):
        assert windows.window_starts(extractor, 24_000) == [0, 6_000, 12_000]

    @pytest.mark.parametrize("overlap", [-0.1, 1, 2, math.nan])
    def test_other_overlaps_are_refused(self, extractor, overlap):
        with pytest.raises(ValueError, match="overlap is"):
            windows.window_starts(extractor, 30_000, overlap)

    def test_what_a_window_holds(self, processor, extractor):
        sound = noise(30_100)
        found = processor.separation_windows(sound, 16000)
        assert found.starts == windows.window_starts(extractor, 30_100)
        for start, features in zip(found.starts[:-1], found.input_features, strict=False):
            expected = extractor(sound[start : start + 12_000], sampling_rate=16000).input_features[0]
            assert torch.equal(features, expected)
        assert found.times == pytest.approx([(start + min(start + 12_000, 30_100)) / 32000 for start in found.starts])

    def test_a_short_recording_is_one_window_as_the_processor_makes_it(self, processor):
        sound = noise(5_001)
        found = processor.separation_windows(sound, 16000)
        assert found.starts == [0]
        assert found.times == [5_001 / 32000]
        assert torch.equal(found.input_features, processor(audio=sound, sampling_rate=16000).input_features)

    def test_the_end_of_the_recording_lies_in_the_last_window(self, processor):
        quiet = torch.zeros(30_100)
        click = quiet.clone()
        click[-20:] = 1.0
        features = [processor.separation_windows(sound, 16000).input_features for sound in (quiet, click)]
        changed = [not torch.equal(one, other) for one, other in zip(*features, strict=True)]
        assert changed == [False] * (len(changed) - 1) + [True]

    def test_one_recording_at_a_time(self, processor):
        with pytest.raises(ValueError, match="one recording, got 2"):
            processor.separation_windows([noise(5_000)] * 2, 16000)


class TestCrossFade:
    def test_masks_that_agree_stay_as_they_are(self, extractor):
        """The weights of the windows add up to 1 at every frame."""
        level = torch.linspace(0, 1, MELS)[:, None].expand(-1, WIDTH)
        for samples in (12_001, 30_100, 100_003):
            for overlap in (0, 0.3, 0.5, 0.8):
                starts = windows.window_starts(extractor, samples, overlap)
                frames = samples // 250 + 1
                found = windows.cross_fade(extractor, level.expand(len(starts), -1, -1), starts, frames)
                assert found.shape == (MELS, frames)
                assert_close(found, level[:, :1].expand(-1, frames), rtol=0, atol=2e-7)

    def test_half_overlap_is_a_raised_cosine(self, extractor):
        found = windows.cross_fade(extractor, torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 1, WIDTH), [0, 6000], 72)
        position = (torch.arange(24) + 0.5) / 24
        assert_close(found[0, :24], torch.ones(24))
        assert_close(found[0, 24:48], (1 + torch.cos(math.pi * position)) / 2)
        assert_close(found[0, 48:], torch.zeros(24))

    def test_a_window_rules_its_own_part(self, extractor):
        sound = noise(60_000)
        starts = windows.window_starts(extractor, 60_000)
        logits = torch.full((len(starts), 1, MELS, WIDTH), -100.0)
        logits[3] = 100.0
        found = windows.separate_windows(extractor, logits, sound, starts)
        middle = starts[3] + 6_000
        assert_close(found[middle - 150 : middle + 150], sound[middle - 150 : middle + 150], rtol=0, atol=0.02)
        reach = 1_000
        assert found[: starts[3] - reach].abs().max() < 1e-6
        assert found[starts[3] + 12_000 + reach :].abs().max() < 1e-6


class TestWholeRecordings:
    LENGTHS = [12_001, 13_337, 23_999, 24_000, 61_111, 100_003]

    @pytest.mark.parametrize("samples", LENGTHS)
    @pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
    def test_a_mask_that_lets_all_pass_gives_back_the_mixture(self, processor, extractor, samples, overlap):
        sound = noise(samples)
        starts = windows.window_starts(extractor, samples, overlap)
        logits = torch.full((len(starts), 1, MELS, WIDTH), 100.0)
        (found,) = processor.post_process_source_separation(outputs(logits), sound, 16000, starts)
        assert_close(found, sound, rtol=0, atol=3e-4 * sound.abs().max().item())

    @pytest.mark.parametrize("samples", LENGTHS)
    def test_sources_whose_masks_add_up_add_up(self, processor, extractor, samples):
        """sigmoid(x) + sigmoid(-x) = 1, also outside of what the mel filters cover."""
        sound = torch.randn(samples, generator=torch.Generator().manual_seed(1))
        starts = windows.window_starts(extractor, samples)
        logits = masks(len(starts))
        one, other, both = (
            windows.separate_windows(extractor, x, sound, starts) for x in (logits, -logits, logits * 0 + 100)
        )
        assert one.square().mean() > 0.01 * both.square().mean()
        assert_close(one + other, both, rtol=0, atol=1e-5)

    def test_linear_in_the_mixture(self, extractor):
        first, second = noise(50_003, seed=1), noise(50_003, seed=2)
        starts = windows.window_starts(extractor, 50_003)
        logits = masks(len(starts))
        whole = windows.separate_windows(extractor, logits, 2 * first - second, starts)
        parts = [windows.separate_windows(extractor, logits, sound, starts) for sound in (first, second)]
        assert_close(whole, 2 * parts[0] - parts[1], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 44101, 48000])
    @pytest.mark.parametrize("seconds", [0.0311, 0.75, 0.7503, 2.7183])
    def test_exactly_as_long_as_the_recording(self, processor, rate, seconds):
        samples = round(rate * seconds) | 1
        sound = noise(samples, rate=rate) if samples > 1000 else torch.randn(samples)
        found = processor.separation_windows(sound, rate)
        separated = processor.post_process_source_separation(
            outputs(masks(len(found.starts))), sound, rate, found.starts
        )
        assert [source.shape for source in separated] == [(samples,)]
        assert torch.isfinite(separated[0]).all()

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_all_pass_at_other_rates(self, processor, rate):
        samples = round(2.5 * rate) | 1
        sound = noise(samples, low=300, high=min(6000, rate * 0.4), rate=rate)
        starts = processor.separation_windows(sound, rate).starts
        logits = torch.full((len(starts), 1, MELS, WIDTH), 100.0)
        (found,) = processor.post_process_source_separation(outputs(logits), sound, rate, starts)
        error = (found - sound).square().mean() / sound.square().mean()
        assert 10 * math.log10(error) < -30

    def test_channels_are_averaged(self, processor):
        stereo = torch.stack([noise(30_001, seed=1), noise(30_001, seed=2)])
        starts = processor.separation_windows(stereo, 16000).starts
        logits = masks(len(starts))
        (found,) = processor.post_process_source_separation(outputs(logits), [stereo], 16000, starts)
        (mono,) = processor.post_process_source_separation(outputs(logits), stereo.mean(0), 16000, starts)
        assert torch.equal(found, mono)

    @pytest.mark.parametrize("block", [20, 37, 64])
    def test_blocks_leave_no_trace(self, extractor, monkeypatch, block):
        sound = torch.randn(100_003, generator=torch.Generator().manual_seed(3))
        starts = windows.window_starts(extractor, 100_003)
        logits = masks(len(starts))
        whole = windows.separate_windows(extractor, logits, sound, starts)
        monkeypatch.setattr(windows, "_BLOCK", block)
        assert_close(windows.separate_windows(extractor, logits, sound, starts), whole, rtol=0, atol=2e-6)

    def test_one_window_is_separated_as_published(self, processor, extractor):
        sound = noise(9_000)
        (found,) = processor.post_process_source_separation(outputs(masks(1)), sound, 16000, [0])
        (plain,) = processor.post_process_source_separation(outputs(masks(1)), sound, 16000)
        assert torch.equal(found, plain)
        assert torch.equal(found, extractor.separate(masks(1), sound[None])[0])


class TestOutputsOfWindows:
    def test_half_overlapping_windows_need_no_starts(self, processor):
        sounds = [noise(30_001), noise(9_000), noise(50_000)]
        starts = [processor.separation_windows(sound, 16000).starts for sound in sounds]
        logits = masks(sum(map(len, starts)))
        found = processor.post_process_source_separation(outputs(logits), sounds, 16000)
        given = processor.post_process_source_separation(outputs(logits), sounds, 16000, starts)
        assert [len(source) for source in found] == [30_001, 9_000, 50_000]
        first = 0
        for source, same, sound, begins in zip(found, given, sounds, starts, strict=True):
            part = outputs(logits[first : first + len(begins)])
            first += len(begins)
            (alone,) = processor.post_process_source_separation(part, sound, 16000, begins)
            assert torch.equal(source, same)
            assert torch.equal(source, alone)

    def test_one_mask_for_a_long_mixture_is_of_its_beginning(self, processor):
        (found,) = processor.post_process_source_separation(outputs(masks(1)), noise(30_001), 16000)
        assert found.shape == (12_000,)

    @pytest.mark.parametrize(
        ("starts", "message"),
        [
            ([0, 12_000], "as many as masks"),
            ([0, 6_100, 12_000], "multiples of 250"),
            ([0, 12_000, 6_000], "ascending from 0"),
            ([250, 6_000, 12_000], "ascending from 0"),
            ([0, 12_250, 18_000], "steps of at most 12000"),
            ([0, 6_000, 12_000], "windows over all 30001 samples"),
            ([0, 12_000, 30_250], "steps of at most 12000"),
            ([[0, 6_000], [12_000]], "for each of 1 mixtures"),
        ],
    )
    def test_windows_that_do_not_fit_are_refused(self, processor, starts, message):
        with pytest.raises(ValueError, match=message):
            processor.post_process_source_separation(outputs(masks(3)), noise(30_001), 16000, starts)

    def test_a_number_of_masks_that_fits_nothing_is_refused(self, processor):
        with pytest.raises(ValueError, match="each of 3 masks, got 1, which would take 5 masks"):
            processor.post_process_source_separation(outputs(masks(3)), noise(30_001), 16000)


class TestConsistency:
    @pytest.mark.parametrize("sources", [2, 3, 5])
    def test_masks_add_up_to_one_in_their_proportions(self, processor, sources):
        logits = 5 * torch.randn(sources, 2, 1, MELS, WIDTH, generator=torch.Generator().manual_seed(0))
        found = processor.consistent_masks(logits).sigmoid()
        expected = logits.double().sigmoid() / logits.double().sigmoid().sum(0)
        assert_close(found, expected.float(), rtol=1e-4, atol=1e-6)
        assert_close(found.sum(0), torch.ones_like(found[0]))

    def test_masks_that_are_almost_silent_stay_apart(self, processor):
        found = processor.consistent_masks(torch.tensor([[-200.0], [-201.0]])).sigmoid()
        assert_close(found[0] / found[1], torch.tensor([math.e]), rtol=1e-3, atol=0)

    def test_sources_add_up_to_the_mixture(self, processor):
        sound = noise(30_001)
        starts = processor.separation_windows(sound, 16000).starts
        logits = torch.stack([masks(len(starts), seed) for seed in range(3)])
        separated = [
            processor.post_process_source_separation(outputs(source), sound, 16000, starts)[0]
            for source in processor.consistent_masks(logits)
        ]
        assert_close(sum(separated), sound, rtol=0, atol=3e-4 * sound.abs().max().item())

    def test_a_lone_source_is_refused(self, processor):
        with pytest.raises(ValueError, match="at least 2 sources"):
            processor.consistent_masks(masks(1)[None])
