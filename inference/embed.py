"""Embed media files: write the three streams of a saved model, one safetensors file per media file.

deepavfusion embed --model runs/quickstart clip.mp4 --out streams
deepavfusion embed --model ORG/NAME --num-clips 10 videos/ --out streams
"""

import json
import os
import sys
from pathlib import Path

import safetensors.torch
import torch

from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion_cli.boundary import command
from deepavfusion_cli.early.outputs import tokens_file
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .common import STREAMS, load_pipeline, run, timestamp_options
from .files import check_absent, write_atomically
from .jobs.records import say_written


def load(folder: str, device: str | None = None, fit: str | None = None) -> DeepAVFusionPipeline:
    """Load the feature-extraction pipeline of a saved model; see `load_pipeline`."""
    return load_pipeline("audio-visual-feature-extraction", folder, device, fit=fit)


def embed(pipeline: DeepAVFusionPipeline, clip: str, batch_size: int = 8, **options) -> dict[str, torch.Tensor]:
    """Embed a media file.

    Args:
        pipeline: Pipeline from `load`.
        clip: Path of the file.
        batch_size: Windows per forward pass.
        options: `num_clips`, or a list of `timestamps` (s); by default one window in the middle.

    Returns:
        Tokens (windows, tokens, hidden size) float32 by stream: "fusion", "image", "audio"; and "timestamps" (windows,)
        float64, the middle of each window in seconds, absent for an image file. Streams of a missing modality are
        absent.
    """
    options = options or {"timestamps": [None]}
    return pipeline(clip, tokens=True, return_timestamps=True, batch_size=batch_size, **options)


def save(streams: dict[str, torch.Tensor], path: str | Path, clip: str, model: str) -> None:
    """Write the streams and their timestamps atomically, with the names of clip and model as metadata."""
    # Names of files may be any bytes, text in safetensors is UTF-8.
    names = {"clip": Path(clip).name, "model": model}
    metadata = {key: os.fsencode(name).decode("utf-8", "replace") for key, name in names.items()}
    metadata["shapes"] = json.dumps({k: list(v.shape) for k, v in streams.items()})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, safetensors.torch.save(streams, metadata=metadata))


@command("deepavfusion embed")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("embed", argv)

    def work(pipeline, file: str, name: str) -> None:
        output = tokens_file(arguments, name)
        check_absent([output], arguments.overwrite)
        streams = embed(pipeline, file, arguments.batch_size, **timestamp_options(arguments))
        save(streams, output, file, arguments.model)
        for stream in STREAMS:
            say(f"{stream:<7} {tuple(streams[stream].shape) if stream in streams else 'not in the file'}")
        say_written([output])

    return run("embed", arguments, lambda: load(arguments.model, arguments.device, arguments.fit), work)


if __name__ == "__main__":
    sys.exit(main())
