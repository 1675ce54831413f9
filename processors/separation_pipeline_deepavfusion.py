"""Pipeline of source separation: recordings of any length, by the frames of their own file or by any picture."""

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import torch

from .image_processing_deepavfusion import as_list
from .media_deepavfusion import load_clip, probe_clip
from .pipelines_deepavfusion import DeepAVFusionPipeline, check_file, read_arrays, read_picture


class AudioVisualSourceSeparationPipeline(DeepAVFusionPipeline):
    """
    From the sound of a file, what the picture shows; or for each of several pictures what it shows.

    ```python
    pipe = pipeline("audio-visual-source-separation", model="FOLDER")
    pipe("duet.mp4")  # {"audio": (N,) float32, "sampling_rate": 44100}: what the frames show
    pipe("duet.mp4", frames=["cello.png", "flute.png"], consistency=True)  # one such result for each
    ```

    The sound is mono, at the file's rate and exactly as long as the file's. A recording longer than what the model
    hears is cut into windows, whose masks are cross-faded.

    Parameters: `frames`, what says which source is wanted: None (each window goes with the frame of its middle), a
    moment of the file in seconds, a picture (PIL, numpy, torch, or a path), or a list of such, which gives a list of
    results. `consistency` (False): whether the masks of several frames are divided by their sum, so that the sources
    add up to the mixture, but for what no mel filter lets through. `overlap` (0.5): share of a window that it has in
    common with the next.

    In a mapping with `image` and `audio` the picture stands for `frames` and may be a list.
    """

    model_name = "DeepAVFusionForSourceSeparation"
    auto_class = "AutoModelForAudioFrameClassification"
    require = "audio"

    def _sanitize_parameters(self, **kwargs):
        preprocess = {name: kwargs.pop(name) for name in ("frames", "overlap") if name in kwargs}
        postprocess = {name: kwargs.pop(name) for name in ("consistency",) if name in kwargs}
        if kwargs:
            raise TypeError(
                f"Unexpected parameters: {', '.join(kwargs)}. {type(self).__name__} knows frames, consistency, overlap."
            )
        return preprocess, {}, postprocess

    def preprocess(self, inputs, frames=None, overlap: float = 0.5) -> Iterator[dict[str, Any]]:
        sound, rate, start = self.recording(inputs)
        if frames is None and isinstance(inputs, Mapping):
            frames = inputs.get("image")
            if frames is None:
                raise ValueError(
                    "Expected the picture of what to keep, as image in the mapping or as frames, got none."
                )
        several = isinstance(frames, (list, tuple))
        wanted = [self._picture(inputs, frame) for frame in (as_list(frames, 3) if several else [frames])]
        windows = self.processor.separation_windows([sound], rate, overlap)
        for index, (features, time) in enumerate(zip(windows.input_features, windows.times, strict=True)):
            for position, pixels in enumerate(wanted):
                if pixels is None:
                    pixels = self._picture(inputs, start + time)
                row = self._complete({"pixel_values": pixels, "input_features": features[None]})
                last = index == len(windows.starts) - 1 and position == len(wanted) - 1
                about = {"several": several, "count": len(wanted)}
                if last:
                    about |= {"sound": sound, "rate": rate, "starts": windows.starts}
                yield {"is_last": last, **row, "about": about}

    def recording(self, inputs) -> tuple[Any, int | None, float]:
        """All of the sound of an input, its rate in Hz, and when it starts in the file (s).

        Raises:
            MediaError: for a file without sound.
        """
        if isinstance(inputs, Mapping):
            _, sound, rate = read_arrays({**inputs, "image": None}, "audio")
            return sound, rate, 0.0
        check_file(inputs)
        info = probe_clip(inputs)
        # A second more than the headers promise: what is there beyond is kept, what is not is not made up.
        clip = load_clip(inputs, seconds=info.end - info.start + 1.0, require="audio")
        return clip.waveform, clip.sampling_rate, info.audio_span[0]

    def _picture(self, inputs, frame) -> torch.Tensor | None:
        """`pixel_values` of a moment of the file or of a picture; None for None."""
        if frame is None:
            return None
        if isinstance(frame, Real):
            if isinstance(inputs, Mapping):
                raise ValueError(f"A moment ({frame} s) was asked for: expected a file, or a picture as frames.")
            extractor = self.processor.feature_extractor
            clip = load_clip(inputs, float(frame), self.processor.num_frames, extractor.seconds, "image")
            return self.processor(videos=[clip.frames]).pixel_values
        return self.processor(images=[read_picture(frame)]).pixel_values

    def postprocess(self, outputs, consistency: bool = False):
        about = outputs[-1]["about"]
        logits = torch.cat([output["logits"] for output in outputs]).float()
        logits = logits.unflatten(0, (-1, about["count"])).transpose(0, 1)  # (sources, windows, 1, mels, time steps)
        if consistency:
            logits = self.processor.consistent_masks(logits)
        rate = self.processor.feature_extractor.sampling_rate if about["rate"] is None else int(about["rate"])
        results = []
        for masks in logits:
            source = self.processor.post_process_source_separation(
                {"logits": masks}, [about["sound"]], about["rate"], [about["starts"]]
            )[0]
            results.append({"audio": source.numpy(), "sampling_rate": rate})
        return results if about["several"] else results[0]


__all__ = ["AudioVisualSourceSeparationPipeline"]
