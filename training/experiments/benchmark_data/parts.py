"""Parts of reading: windows decoded together, JPEG files decoded at half their size, spectrograms in batches."""

import io
import time
from operator import truediv
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from PIL import Image

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.processors.pixels_deepavfusion import resize

from ...data.augmentation import draw_crop
from ...data.files import FileClips
from ...data.frames import FileReader
from ...data.sets.folder import read_folder
from ...data.shards.video import encode_frame
from ..measurement import describe_machine
from .throughput import ENCODINGS

_BATCHES = (1, 8, 32)  # spectrograms that are computed at once


def measure_windows(videos: str, num_windows: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of a clip's windows, decoded together and one by one in turns; an error if they differ by a bit."""
    rows, seconds = read_folder(videos), 3.0
    found: dict[str, list[float]] = {"together": [], "one_by_one": []}
    for row in [row for row in rows for _ in range(repeats)]:
        times = [time.process_time()]
        clips = list(FileReader().load_windows(row, num_windows, 1, seconds))
        times.append(time.process_time())
        others = [FileReader().load(row, clip.timestamp, 1, seconds) for clip in clips]
        for values, after, before in zip(found.values(), [times[1], time.process_time()], times, strict=True):
            values.append(after - before)
        for clip, other in zip(clips, others, strict=True):
            if not (np.array_equal(clip.frames, other.frames) and np.array_equal(clip.waveform, other.waveform)):
                raise RuntimeError(f"{row['path']}: expected the same windows, decoded together and one by one.")
    ratios = sorted(map(truediv, found["one_by_one"], found["together"]))
    return {
        "clips": len(rows),
        "windows": num_windows,
        "seconds_per_clip": {name: round(mean(values), 3) for name, values in found.items()},
        "ratio": {"lowest": round(ratios[0], 2), "median": round(median(ratios), 2), "highest": round(ratios[-1], 2)},
        **describe_machine("cpu", 1),
    }


def measure_reduction(videos: str, sizes: tuple[int, ...], crops: int) -> dict[str, Any]:
    """Mean change in levels of 255 of crops, at even pixels, of frames decoded at half their size, if they suffice."""
    draws = torch.Generator().manual_seed(0)
    files, images, milliseconds, found = [], {}, {}, {}
    for row in read_folder(videos):
        clips = FileReader().load_windows(row, 4, 1, 3.0)
        files += [encode_frame(clip.frames[0], ENCODINGS["flac"]) for clip in clips]
    for half in (False, True):
        start = time.process_time()
        images[half] = [_decode(file, half) for file in files]
        milliseconds[("whole", "half")[half]] = round(1000 * (time.process_time() - start) / len(files), 2)
    for size in sizes:
        levels = []
        for whole, half in zip(images[False], images[True], strict=True):
            for _ in range(crops):
                part = draw_crop(*whole.shape[1:], (size, size), (0.5, 1.0), (3 / 4, 4 / 3), draws)
                top, left, height, width = (value // 2 for value in part)
                if min(height, width) >= size:
                    small = half[:, top : top + height, left : left + width]
                    large = whole[:, 2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
                    pair = [resize(image, (size, size), exact=False).float() for image in (small, large)]
                    levels.append(float((pair[0] - pair[1]).abs().mean()))
        about = {"levels": round(mean(levels), 2), "most": round(max(levels), 2)} if levels else {}
        found[str(size)] = {"fraction_of_crops": round(len(levels) / len(files) / crops, 2), **about}
    return {"frames": len(files), "decoding_milliseconds": milliseconds, "sizes": found, **describe_machine("cpu", 1)}


def _decode(file: bytes, half: bool) -> torch.Tensor:
    with Image.open(io.BytesIO(file)) as image:
        image.draft("RGB", (image.width // 2, image.height // 2) if half else image.size)
        return torch.from_numpy(np.array(image)).movedim(-1, 0)


def measure_spectrograms(videos: str, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of a log-mel spectrogram, computed for one window or for a batch of them, in turns."""
    clips = FileClips(read_folder(videos), DeepAVFusionProcessor.from_config(DeepAVFusionConfig()), True, 0)
    decoded = (clips.load(row, i, 0) for i, row in enumerate(clips.rows))
    windows = [clips.waveform(clip.waveform, clip.sampling_rate) for clip in decoded]
    waveforms = torch.stack([windows[k % len(windows)] for k in range(max(_BATCHES))])
    found: dict[int, list[float]] = {size: [] for size in _BATCHES}
    for turn in range(repeats + 1):
        for size, values in found.items():
            parts = waveforms if size == 1 else waveforms.split(size)
            start = time.process_time()
            for part in parts:
                clips.processor.feature_extractor.log_mel(part)
            values += [time.process_time() - start] if turn else []  # the first turn warms up
    return {
        "turns": repeats,
        "windows": len(waveforms),
        "milliseconds": {str(size): round(1000 * median(found[size]) / len(waveforms), 3) for size in _BATCHES},
        "times_single": {
            str(size): round(median(map(truediv, found[size], found[1])), 2) for size in _BATCHES if size > 1
        },
        **describe_machine("cpu", 1),
    }


__all__ = ["measure_reduction", "measure_spectrograms", "measure_windows"]
