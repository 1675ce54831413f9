"""Several windows of each clip, for evaluations that average over them."""

import torch

from .clips import Clips, FileClips


class DenseClips(Clips):
    """
    The clips of a data set of files, each as windows spread evenly over it: over the row's part, or the part of the
    file that both streams cover. Of a clip that is shorter than a window all windows are the same.

    Samples hold `pixel_values` (K, 3, H, W), or (K, T, 3, H, W) of videos, and `input_features` (K, 1, mels, frames),
    as they are evaluated, and `label`, `index` and `path` once.

    Args:
        clips: Whose rows, processor and labels these are.
        num_windows: K; 10 is the published number, for clips of 10 s.
    """

    def __init__(self, clips: FileClips, num_windows: int = 10):
        if num_windows < 1:
            raise ValueError(f"num_windows is {num_windows}: expected at least 1")
        super().__init__(clips.seed)
        self.clips, self.num_windows = clips, num_windows
        self.label_names, self.multi_label = clips.label_names, clips.multi_label
        self.card = f"{clips.card}, {num_windows} windows each"

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self, i: int) -> str:
        return self.clips.describe(i)

    def classes(self) -> list[list[int]]:
        return self.clips.classes()

    def read(self, i: int) -> dict:
        from deepavfusion.processors import dense_timestamps, load_clip, probe_clip

        row, processor = self.clips.rows[i], self.clips.processor
        extractor = processor.feature_extractor
        start, end = probe_clip(row["path"]).span
        start = max(start, row.get("start") or start)
        end = min(end, row.get("end") or end)
        pixels, features = [], []
        for time in dense_timestamps(start, max(start, end), self.num_windows, extractor.seconds):
            clip = load_clip(row["path"], time, processor.num_frames, extractor.seconds, require="both")
            pixels.append(self.clips.pictures(clip, None))
            features.append(extractor(clip.waveform, sampling_rate=clip.sampling_rate)["input_features"][0])
        sample = {"pixel_values": torch.stack(pixels), "input_features": torch.stack(features)}
        return sample | self.clips.labels_of(row)
