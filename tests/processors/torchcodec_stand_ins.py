"""Decoders with the attributes of torchcodec 0.17, whose wheel needs an FFmpeg that is not part of it."""

from types import SimpleNamespace

import numpy as np
import torch

from deepavfusion.processors.recordings_deepavfusion import Recording


class VideoDecoder:
    """Frames of a file, as uint8 tensors (3, H, W), at `fps` frames per second."""

    stream_index = 0

    def __init__(self, frames: np.ndarray, fps: float = 8, begin: float = 0.0, dimension_order: str = "NCHW"):
        images = torch.from_numpy(np.ascontiguousarray(frames))
        self._frames = images.movedim(-1, 1) if dimension_order == "NCHW" else images
        self._fps, self._begin, self._end = fps, begin, begin + len(frames) / fps
        self.metadata = SimpleNamespace(
            begin_stream_seconds=begin,
            end_stream_seconds=self._end,
            duration_seconds=len(frames) / fps,
            num_frames=len(frames),
            average_fps=fps,
        )

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, index):
        return self._frames[index]

    def get_frames_played_at(self, seconds):
        """Return a batch of frames with `data` (N, 3, H, W)."""
        if any(not self._begin <= second < self._end for second in seconds):
            raise RuntimeError(f"Invalid pts in seconds: {seconds}. It must be in [{self._begin}, {self._end}).")
        data = self._frames[[int((second - self._begin) * self._fps) for second in seconds]]
        return SimpleNamespace(data=data, pts_seconds=torch.tensor(seconds), duration_seconds=1 / self._fps)


class AudioDecoder:
    """Audio of a file; `datasets` adds the items `array` and `sampling_rate`."""

    stream_index = 1

    def __init__(self, path: str):
        rates, parts = zip(*Recording(path).audio(), strict=True)
        self._samples, self._rate = torch.from_numpy(np.concatenate(parts, axis=1)), rates[0]
        self.metadata = SimpleNamespace(
            begin_stream_seconds=0.0,
            duration_seconds=self._samples.shape[1] / self._rate,
            sample_rate=self._rate,
            num_channels=len(self._samples),
        )

    def get_all_samples(self):
        """Return samples with `data` (channels, N) and `sample_rate`."""
        return SimpleNamespace(data=self._samples, sample_rate=self._rate, pts_seconds=0.0)

    def get_samples_played_in_range(self, start_seconds=0.0, stop_seconds=None):
        """Return the samples of a part of the file."""
        stop = None if stop_seconds is None else round(stop_seconds * self._rate)
        data = self._samples[:, round(start_seconds * self._rate) : stop]
        return SimpleNamespace(data=data, sample_rate=self._rate, pts_seconds=start_seconds)

    def __getitem__(self, key):
        return {"array": self._samples.mean(0).numpy(), "sampling_rate": self._rate}[key]


def as_datasets_returns(decoder, path=None, content=None):
    """Add what `datasets` 5.2 adds to a decoder: the file that it decodes."""
    decoder._hf_encoded = {"path": path, "bytes": content}
    decoder.metadata.path = path
    return decoder
