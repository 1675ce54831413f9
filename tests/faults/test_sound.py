"""Audio whose meaning is not certain is refused with what to do, and never taken for something else."""

import re

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionFeatureExtractor,
    DeepAVFusionProcessor,
    MediaError,
    load_clip,
)
from deepavfusion.processors.feature_extraction_deepavfusion import logger as rate_logger
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion.processors.waveforms_deepavfusion import as_waveforms, logger, to_mono
from tests.media_factory import write_media
from tests.processors.torchcodec_stand_ins import AudioDecoder

RATE = 16000
MONO = np.sin(np.arange(RATE) / 20).astype(np.float32) / 2
SIXTEEN = np.round(MONO * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def extractor():
    return DeepAVFusionFeatureExtractor()


@pytest.mark.parametrize("count", [3, 6, 8, 100])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_stacked_sounds_are_refused(extractor, convert, count):
    stacked = convert(np.stack([MONO[:200]] * count))
    with pytest.raises(ValueError, match=rf"list\(audio\) for {count} mono sounds"):
        extractor(stacked, sampling_rate=RATE)
    assert extractor(list(stacked), sampling_rate=RATE).input_features.shape[0] == count


def test_channels_in_a_list_are_one_sound(extractor):
    surround = np.stack([MONO * gain for gain in (0.5, 0.5, 1.0, 1.0, 1.5, 1.5)])
    found = extractor([surround], sampling_rate=RATE).input_features
    assert_close(found, extractor(MONO, sampling_rate=RATE).input_features, rtol=0, atol=1e-2)


def test_stereo_is_accepted_and_said(monkeypatch):
    said = []
    monkeypatch.setattr(logger, "warning_once", said.append)
    assert len(as_waveforms(np.stack([MONO, MONO]))) == 1
    assert len(said) == 1
    assert "one stereo sound" in said[0]
    assert len(as_waveforms([np.stack([MONO, MONO])])) == 1
    assert len(said) == 1


@pytest.mark.parametrize("shape", [(4000, 2), (40, 2), (9, 8)])
def test_transposed_channels_are_refused(extractor, shape):
    for audio in (np.zeros(shape), [np.zeros(shape)]):
        with pytest.raises(ValueError, match="transpose it"):
            extractor(audio, sampling_rate=RATE)


class ArrowArray:
    """The part of a pyarrow array that matters: it converts itself to numpy, of its own type."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


UNSCALED = {
    "16 bits as float32": SIXTEEN.astype(np.float32),
    "16 bits as float64": SIXTEEN.astype(np.float64),
    "16 bits as float tensor": torch.from_numpy(SIXTEEN).float(),
    "16 bits as a list": SIXTEEN.tolist(),
    "16 bits as a list of floats": SIXTEEN.astype(float).tolist(),
    "16 bits as int64": SIXTEEN.astype(np.int64),
    "16 bits as int64 tensor": torch.from_numpy(SIXTEEN).long(),
    "16 bits as int32": SIXTEEN.astype(np.int32),
    "16 bits as uint64": SIXTEEN.astype(np.int64).clip(0).astype(np.uint64),
    "24 bits as int32": np.round(MONO * (2**23 - 1)).astype(np.int32),
    "8 bits as floats": np.round(MONO * 127),
    "quiet 16 bits as floats": np.round(MONO * 6),
    "16 bits in Arrow without their type": ArrowArray(SIXTEEN.astype(np.int64)),
    "resampled 16 bits": MONO * 20000.5,
    "4.6e7": MONO * 4.6e7,
    "a single one of 4.6e7": np.append(MONO, 4.6e7),
    "stereo": np.stack([SIXTEEN, SIXTEEN]).astype(np.float32),
}


@pytest.mark.parametrize("kind", UNSCALED)
def test_samples_of_unknown_scale_are_refused(extractor, kind):
    for audio in (UNSCALED[kind], [UNSCALED[kind]]):
        with pytest.raises(ValueError, match=r"-1\.\.1.*32768 for 16-bit"):
            extractor(audio, sampling_rate=RATE)


@pytest.mark.parametrize(
    "audio",
    [
        SIXTEEN,
        torch.from_numpy(SIXTEEN),
        list(SIXTEEN),
        ArrowArray(SIXTEEN),
        SIXTEEN.astype(np.int32) << 16,
        SIXTEEN.astype(np.float32) / 32768,
        (SIXTEEN / 32768).tolist(),
    ],
    ids=["int16", "int16 tensor", "list of int16", "Arrow of int16", "int32", "floats", "list of floats"],
)
def test_samples_of_known_scale_are_accepted(audio):
    assert_close(to_mono(audio), torch.from_numpy(SIXTEEN / np.float32(32768)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(10), np.zeros(10, np.int64), [0] * 10, np.zeros(10, np.int32), np.array([1.0, -1.0, 0.0]), [1, -1, 0]],
)
def test_silence_and_full_scale_have_no_ambiguous_scale(audio):
    assert to_mono(audio).abs().max() in (0, 1)


def test_overshoot_of_lossy_formats_is_kept():
    assert to_mono(MONO * 3.56).max() == pytest.approx(1.78, abs=1e-3)


@pytest.mark.parametrize(
    "audio",
    [np.zeros(9, bool), np.zeros(9, complex), torch.zeros(9, dtype=torch.cfloat), ["a", "b"], np.array([{}], object)],
)
def test_what_is_no_number_is_refused(audio):
    with pytest.raises(TypeError, match="Expected audio as real numbers"):
        to_mono(audio)


def test_ragged_lists_are_refused():
    with pytest.raises(ValueError, match="one waveform"):
        to_mono([[0.0, 1.0], [0.0]])


@pytest.mark.parametrize("scale", [32768.0, 4.6e7, 100.25])
def test_files_with_samples_of_unknown_scale_are_refused(tmp_path, scale):
    audio = (MONO * scale)[None]
    path = write_media(tmp_path / "loud.wav", codec=None, audio_codec="pcm_f32le", audio=audio)
    for read in (load_clip, lambda path: list(Recording(path).audio())):
        with pytest.raises(MediaError, match=r"loud\.wav: expected samples with a full scale of 1, but it has"):
            read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["sound.wav", "sound.mkv", "clip.mov"])
def test_samples_of_files_that_are_no_numbers_are_refused(tmp_path, name, value):
    """Wherever the window starts, the time of the first is told; windows without any are read."""
    audio = np.tile(MONO, 3)[None]
    audio[:, int(2.25 * RATE) : int(2.25 * RATE) + 3] = value
    codec = "mpeg4" if name == "clip.mov" else None
    path = write_media(tmp_path / name, codec=codec, seconds=3, audio_codec="pcm_f32le", audio=audio)
    message = rf"{re.escape(name)}: expected finite samples, but 3 are NaN or infinite, the first at 2\.250 s\.$"
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
    for read in (
        lambda: load_clip(path, 2.0, seconds=1.0),
        lambda: load_clip(path, seconds=99),
        lambda: list(Recording(path).audio()),
        lambda: processor(audio=str(path)),
    ):
        with pytest.raises(MediaError, match=message):
            read()
    np.testing.assert_array_equal(load_clip(path, 1.0, seconds=1.0).waveform[0], MONO[np.arange(RATE) - RATE // 2])


def test_samples_of_decoders_that_are_no_numbers_are_refused(tmp_path):
    path = write_media(tmp_path / "sound.wav", codec=None, audio_codec="pcm_f32le", audio=np.tile(MONO, 3)[None])
    decoder = AudioDecoder(str(path))
    decoder._samples[:, 2 * RATE] = np.nan
    with pytest.raises(MediaError, match=r"expected finite samples, but 1 is NaN or infinite, the first at 2\.000 s"):
        load_clip(decoder, 2.0, seconds=1.0)


def test_files_with_many_channels_are_one_sound(tmp_path):
    audio = np.stack([MONO] * 6)
    path = write_media(tmp_path / "surround.wav", codec=None, audio_codec="pcm_s16le", audio=audio)
    clip = load_clip(path)
    assert clip.waveform.shape[0] == 6
    assert to_mono(clip.waveform).shape == (RATE,)


@pytest.fixture(params=["mapping", "decoder"])
def value(request, tmp_path):
    """Audio as `datasets` returns it, at twice `RATE`."""
    if request.param == "mapping":
        return {"path": None, "array": MONO, "sampling_rate": RATE * 2}
    path = tmp_path / "sound.wav"
    write_media(path, codec=None, audio_codec="pcm_f32le", audio=MONO[None], rate=RATE * 2)
    return AudioDecoder(str(path))


def test_values_of_datasets_come_with_their_sampling_rate(value):
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
    expected = processor(audio=MONO, sampling_rate=RATE * 2).input_features
    for audio in (value, [value], [value, None]):
        assert_close(processor(audio=audio).input_features[:1], expected, rtol=0, atol=0)
    mixed = processor(audio=[value, MONO], sampling_rate=RATE * 2).input_features
    assert_close(mixed, expected.expand_as(mixed), rtol=0, atol=0)
    with pytest.raises(ValueError, match="one sampling rate, got 32000 with the audio and sampling_rate=16000"):
        processor(audio=value, sampling_rate=RATE)
    masks = {"logits": torch.zeros(1, 1, 128, 192)}
    separated = processor.post_process_source_separation(masks, value)
    assert_close(separated, processor.post_process_source_separation(masks, MONO, RATE * 2), rtol=0, atol=0)


def test_a_missing_sampling_rate_is_assumed_and_said(extractor, monkeypatch):
    said = []
    monkeypatch.setattr(rate_logger, "warning_once", said.append)
    processor = DeepAVFusionProcessor(extractor)
    for call in (extractor, lambda audio: processor(audio=audio), processor.separation_windows):
        call(MONO)
        assert "No sampling_rate given, 16000 Hz is assumed" in said.pop()
        assert not said
