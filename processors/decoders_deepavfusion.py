"""Decoders of torchcodec, which `datasets` returns and users make, as sources of frames and audio."""

from contextlib import nullcontext
from typing import Any

import numpy as np

from .audio_streams_deepavfusion import wrong_samples
from .limits_deepavfusion import MediaError
from .sources_deepavfusion import is_audio_decoder
from .streams_deepavfusion import MediaInfo


class DecoderSource:
    """Frames of a `VideoDecoder` or audio of an `AudioDecoder`, whose file is not known.

    Has the methods of the source of a file that `load_clip` calls. Times are in seconds from the start of the stream.
    """

    still = None
    kept_open = staticmethod(nullcontext)

    def __init__(self, decoder: Any):
        self._decoder = decoder
        self.name = getattr(decoder.metadata, "path", None) or type(decoder).__name__

    def error(self, expected: str, reason: str) -> MediaError:
        """Return an error that names the decoder."""
        return MediaError(f"{self.name}: expected {expected}, but {reason}.")

    def probe(self, exact: bool = False) -> MediaInfo:
        """Return the span of the stream."""
        about = self._decoder.metadata
        end = getattr(about, "end_stream_seconds", None)
        seconds = about.duration_seconds if end is None else end - self._start
        if seconds is None:
            seconds = self.all_audio()[0].shape[1] / about.sample_rate
        span = (0.0, float(seconds))
        return MediaInfo(None, span) if is_audio_decoder(self._decoder) else MediaInfo(span, None)

    @property
    def _start(self) -> float:
        return float(self._decoder.metadata.begin_stream_seconds or 0.0)

    def read_frames(self, times: list[float]) -> tuple[np.ndarray, float]:
        """Decode the frames at ascending times: (T, H, W, 3) uint8, and how much is missing at the end, 0 seconds."""
        last = max(self.probe().end - 1e-3, 0.0)
        times = [self._start + min(time, last) for time in times]
        frames = self._decode("images", lambda: self._decoder.get_frames_played_at(seconds=times)).data
        channels_last = frames.shape[-1] == 3 and frames.shape[1] != 3
        return (frames if channels_last else frames.movedim(1, -1)).contiguous().numpy(force=True), 0.0

    def read_audio(self, start: float, seconds: float) -> tuple[np.ndarray, int]:
        """Decode audio: (channels, samples) float32, and its sampling rate in Hz."""
        begin = self._start + start
        return self._audio(lambda: self._decoder.get_samples_played_in_range(begin, begin + seconds), start)

    def all_audio(self) -> tuple[np.ndarray, int]:
        """Decode the audio from start to end, as `read_audio` does a part of it."""
        return self._audio(self._decoder.get_all_samples)

    def _audio(self, read, start: float = 0.0) -> tuple[np.ndarray, int]:
        samples = self._decode("audio", read)
        waveform, rate = samples.data.numpy(force=True), int(samples.sample_rate)
        if waveform.size and (wrong := wrong_samples(waveform, rate, start)):
            raise self.error(*wrong)
        return waveform, rate

    def _decode(self, expected: str, read) -> Any:
        try:
            return read()
        except (AttributeError, ImportError, NameError, TypeError):  # this code does not fit the installed torchcodec
            raise
        except Exception as error:  # torchcodec raises errors of FFmpeg as RuntimeError, IndexError, ValueError ...
            raise self.error(expected, f"{type(error).__name__}: {error}") from error


__all__ = ["DecoderSource"]
