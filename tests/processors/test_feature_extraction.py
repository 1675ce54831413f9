"""Feature extractor: log-mel spectrograms, and separation by masks."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import deepavfusion.processors.feature_extraction_deepavfusion as module
from deepavfusion import DeepAVFusionFeatureExtractor, MediaError
from deepavfusion.processors.feature_extraction_deepavfusion import fill_window, resample, to_mono
from tests.golden_files import SHARED, load_golden


@pytest.fixture(scope="module")
def golden():
    return load_golden("audio_features")


@pytest.fixture(scope="module")
def extractor():
    return DeepAVFusionFeatureExtractor()


def tone(hertz, rate, seconds=3.0):
    return torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate)


def assert_features_equal(found, expected):
    """In quiet bins beside loud ones, rounding of float32 FFTs, which differs between CPUs, is off by up to 1.2e-4."""
    assert_close(found, expected, rtol=0, atol=3e-4)
    assert ((found - expected).abs() <= 1e-5).float().mean() > 0.98


@pytest.mark.parametrize("case", ["1", "2"], ids=["short, mirrored", "long, cut"])
def test_equals_the_published_features(golden, extractor, case):
    features = extractor(golden.inputs[f"waveform_{case}"], sampling_rate=16000).input_features
    assert features.dtype == torch.float32
    assert_features_equal(features[0], golden.outputs[f"logmel_{case}"])


def test_equals_the_published_features_of_a_full_window(extractor):
    if not (SHARED / "audio.safetensors").exists():
        pytest.skip("the full window is only in the shared folder beside the project")
    # load_golden would find a smaller copy first.
    from safetensors.torch import load_file

    golden = load_file(SHARED / "audio.safetensors")
    features = extractor(golden["in.waveform_0"], sampling_rate=16000).input_features
    assert_features_equal(features[0], golden["out.logmel_0"])


def test_equals_the_published_separation(golden, extractor):
    separated = extractor.separate(golden.inputs["mask_logits"][None], golden.inputs["mix_waveform"])
    assert_close(separated, golden.outputs["separated"], rtol=0, atol=1e-5)
    assert_close(extractor.separate(golden.inputs["mask_logits"], golden.inputs["mix_waveform"]), separated)


def test_log_mel_of_a_batch_equals_that_of_each_waveform(extractor):
    waveforms = torch.randn(3, 48000, generator=torch.Generator().manual_seed(0)) * 0.1
    batch = extractor.log_mel(waveforms)
    assert batch.shape == (3, 128, 192)
    for row, waveform in zip(batch, waveforms, strict=True):
        assert_close(extractor.log_mel(waveform), row)
        assert_close(extractor(waveform, sampling_rate=16000).input_features[0, 0], row)


def test_autocast_changes_nothing(golden, extractor):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = extractor(golden.inputs["waveform_1"], sampling_rate=16000).input_features
        separated = extractor.separate(golden.inputs["mask_logits"], golden.inputs["mix_waveform"])
    assert_features_equal(features[0], golden.outputs["logmel_1"])
    assert_close(separated, golden.outputs["separated"], rtol=0, atol=1e-5)


def test_log_mel_passes_gradients(extractor):
    waveform = (torch.randn(48000, generator=torch.Generator().manual_seed(0)) * 0.1).requires_grad_()
    extractor.log_mel(waveform).mean().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().max() > 0


def test_log_mel_of_other_lengths_raises(extractor):
    with pytest.raises(ValueError, match=r"48000 samples, got shape \(2, 100\)"):
        extractor.log_mel(torch.zeros(2, 100))


def test_istft_inverts_stft(extractor):
    waveform = tone(440, 16000)[None]
    spectrum = extractor.stft(waveform)
    assert spectrum.shape == (1, 401, 193)
    assert spectrum.is_complex()
    inverted = torch.istft(spectrum, 800, 250, window=torch.hann_window(800), length=48000)
    assert_close(inverted, waveform, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000, 44101])
def test_features_are_independent_of_the_sampling_rate(extractor, rate):
    features = extractor(tone(1000, rate), sampling_rate=rate).input_features
    reference = extractor(tone(1000, 16000), sampling_rate=16000).input_features
    loud = reference[..., 4:-4] > 0  # except at the ends, where filters ring
    assert loud.sum() > 500
    assert_close(features[..., 4:-4][loud], reference[..., 4:-4][loud], rtol=0, atol=0.02)


def test_resampling_between_coprime_rates_is_approximate():
    # A millionth too fast: after 3 s a tone of 440 Hz is 0.008 of a radian ahead.
    waveform = tone(440, 44101)
    resampled = resample(waveform, 44101, 16000)
    assert abs(len(resampled) - 48000) <= 1
    length = min(len(resampled), 48000)
    assert_close(resampled[200 : length - 200], tone(440, 16000)[200 : length - 200], rtol=0, atol=1e-2)


def test_short_audio_is_repeated_forward_and_backward():
    filled = fill_window(torch.tensor([[1.0, 2.0, 3.0]]), 11)
    assert filled.tolist() == [[1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2]]
    assert fill_window(torch.arange(5.0), 3).tolist() == [0, 1, 2]


def test_sizes_of_tiny_models():
    extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=96)
    assert extractor.num_samples == 24000
    assert extractor.seconds == 1.5
    features = extractor(tone(440, 16000), sampling_rate=16000).input_features
    assert features.shape == (1, 1, 64, 96)
    # 1.5 s of the same frames, in half as many mel bins.
    full = DeepAVFusionFeatureExtractor(num_mel_bins=64)(tone(440, 16000), sampling_rate=16000).input_features
    assert_close(features[..., :94], full[..., :94])


def test_silence_is_finite(extractor):
    features = extractor(np.zeros(48000, np.float32), sampling_rate=16000).input_features
    assert_close(features, torch.full_like(features, -7.0))


MONO = np.sin(np.arange(48000) / 20).astype(np.float32) * 0.5


@pytest.mark.parametrize(
    "audio",
    [
        torch.from_numpy(MONO),
        torch.from_numpy(MONO).double(),
        MONO.astype(np.float64),
        MONO.tolist(),
        MONO[None],
        np.stack([MONO * 1.5, MONO * 0.5]),
        MONO[::-1][::-1],
        [MONO],
        torch.from_numpy(MONO)[None, None],
        MONO.astype(MONO.dtype.newbyteorder()),
        MONO.astype(np.longdouble),
        MONO.astype(np.dtype(np.longdouble).newbyteorder()),
    ],
    ids=[
        *("torch", "torch double", "double", "list", "one channel", "stereo", "negative strides", "batch", "3-D batch"),
        *("foreign byte order", "long double", "long double in foreign byte order"),
    ],
)
def test_accepted_forms_of_audio_are_equivalent(extractor, audio):
    reference = extractor(MONO, sampling_rate=16000).input_features
    # 1e-3 in log10: bins without the tone contain only rounding errors, which differ.
    assert_close(extractor(audio, sampling_rate=16000).input_features, reference, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 128, 128), (np.uint16, 2**15, 2**15)],
)
def test_integers_are_divided_by_full_scale(dtype, scale, offset):
    audio = (np.array([-1.0, -0.5, 0.0, 0.5]) * scale + offset).astype(dtype)
    assert to_mono(audio).tolist() == [-1.0, -0.5, 0.0, 0.5]
    assert to_mono(audio.astype(audio.dtype.newbyteorder())).tolist() == [-1.0, -0.5, 0.0, 0.5]


def test_waveforms_of_a_batch_may_differ_in_length_and_channels(extractor):
    audio = [MONO[:1000], np.stack([MONO, MONO]), torch.from_numpy(MONO)]
    features = extractor(audio, sampling_rate=16000).input_features
    assert features.shape == (3, 1, 128, 192)
    assert_close(features[1], features[2], rtol=0, atol=1e-3)
    assert not torch.equal(features[0], features[2])


def test_returns_numpy_arrays(extractor):
    features = extractor(MONO, sampling_rate=16000, return_tensors="np").input_features
    assert isinstance(features, np.ndarray)
    assert features.shape == (1, 1, 128, 192)


def test_missing_sampling_rate_warns_once(monkeypatch, extractor):
    warnings = []
    monkeypatch.setattr(type(module.logger), "warning", lambda self, message, *args: warnings.append(message))
    type(module.logger).warning_once.cache_clear()  # ty: ignore[missing-attribute]
    first, second = extractor(MONO).input_features, extractor(MONO).input_features
    assert len(warnings) == 1
    assert "16000 Hz is assumed" in warnings[0]
    assert_close(first, second)
    assert_close(first, extractor(MONO, sampling_rate=16000).input_features)
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("audio", "error", "message"),
    [
        (np.array([0.0, np.nan, np.inf]), ValueError, "2 of 3 in audio are NaN or infinite"),
        ([MONO, np.array([np.nan])], ValueError, r"1 of 1 in audio\[1\] are NaN"),
        (np.zeros(0), ValueError, r"not empty, got \(0,\)"),
        (np.zeros((2, 0)), ValueError, "not empty"),
        ([], ValueError, "got an empty list"),
        (np.zeros((48000, 2)), ValueError, r"\(channels, samples\), got \(48000, 2\): transpose"),
        (np.zeros((1, 1, 1, 100)), ValueError, "of shape"),
        ("clip.wav", MediaError, "clip.wav: expected a media file, but there is no such file"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_invalid_audio_raises(extractor, audio, error, message):
    with pytest.raises(error, match=message):
        extractor(audio, sampling_rate=16000)


@pytest.mark.parametrize("rate", [0, -16000, 22050.5])
def test_invalid_sampling_rates_raise(extractor, rate):
    with pytest.raises(ValueError, match="whole number of Hz"):
        extractor(MONO, sampling_rate=rate)


def test_unknown_arguments_raise(extractor):
    with pytest.raises(TypeError, match="Unexpected arguments: padding_side"):
        extractor(MONO, sampling_rate=16000, padding_side="left")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_mel_bins": 0}, "num_mel_bins as a positive int of at most 4096, got 0"),
        ({"hop_length": 2.5}, "hop_length as a positive int of at most 65536, got 2.5"),
        ({"spectrogram_length": 1}, "longer than half a window .* got spectrogram_length=1, 250 samples"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepAVFusionFeatureExtractor(**settings)


def test_missing_torchaudio_is_named(monkeypatch, extractor):
    monkeypatch.setattr(module, "torchaudio", None)
    module._mel_filters.cache_clear()
    with pytest.raises(ImportError, match="Expected torchaudio to compute mel spectrograms"):
        extractor(MONO, sampling_rate=16000)
    with pytest.raises(ImportError, match="Expected torchaudio to resample audio from 8000 to 16000 Hz"):
        extractor(MONO, sampling_rate=8000)


def test_separation_by_constant_masks(extractor):
    mixture = (tone(440, 16000) + tone(3000, 16000))[None] / 2
    shape = (1, 1, 128, 192)
    nothing = extractor.separate(torch.full(shape, -40.0), mixture)
    assert nothing.abs().max() < 1e-6
    everything = extractor.separate(torch.full(shape, 40.0), mixture)
    assert_close(everything[:, 800:-800], mixture[:, 800:-800], rtol=0, atol=1e-3)


def test_separation_by_a_mask_of_low_frequencies(extractor):
    low, high = tone(440, 16000)[None] / 2, tone(5000, 16000)[None] / 2
    mask = torch.full((1, 1, 128, 192), -20.0)
    mask[:, :, :64] = 20.0  # up to about 2 kHz
    separated = extractor.separate(mask, low + high)
    assert_close(separated[:, 800:-800], low[:, 800:-800], rtol=0, atol=2e-2)


@pytest.mark.parametrize(("length", "expected"), [(10000, 10000), (48000, 48000), (60000, 48000)])
def test_separated_length(extractor, length, expected):
    assert extractor.separate(torch.zeros(2, 1, 128, 192), torch.randn(2, length)).shape == (2, expected)


@pytest.mark.parametrize("shape", [(1, 1, 128, 191), (2, 1, 128, 192), (1, 64, 192)])
def test_separation_with_other_shapes_raises(extractor, shape):
    with pytest.raises(ValueError, match="a mask for each"):
        extractor.separate(torch.zeros(shape), torch.zeros(1, 48000))


def test_save_and_load(tmp_path):
    extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=96)
    extractor.save_pretrained(tmp_path)
    loaded = DeepAVFusionFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.num_mel_bins, loaded.spectrogram_length, loaded.n_fft, loaded.hop_length) == (64, 96, 800, 250)
    assert_close(
        loaded(MONO, sampling_rate=16000)["input_features"], extractor(MONO, sampling_rate=16000)["input_features"]
    )
    wider = DeepAVFusionFeatureExtractor.from_pretrained(tmp_path, num_mel_bins=128)
    assert wider(MONO, sampling_rate=16000).input_features.shape == (1, 1, 128, 96)
