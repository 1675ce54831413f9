"""Embeds media files: the three streams of a saved model, a safetensors file for each.

deepavfusion embed --model runs/quickstart clip.mp4
deepavfusion embed --model ORG/NAME --num-clips 10 --out streams *.mp4
"""

import argparse
import json
import sys
from pathlib import Path

import safetensors.torch
import torch

from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline

from .common import STREAMS, check_absent, command_parser, load_pipeline, moments_of, run
from .files import write_atomically


def load(folder: str, device: str | None = None) -> DeepAVFusionPipeline:
    """The feature extraction of a saved model; see `load_pipeline`."""
    return load_pipeline("audio-visual-feature-extraction", folder, device)


def embed(pipeline: DeepAVFusionPipeline, clip: str, batch_size: int = 8, **moments) -> dict[str, torch.Tensor]:
    """Streams of a media file.

    Args:
        pipeline: from `load`.
        clip: path of the file.
        batch_size: windows that the model sees at once.
        moments: `num_clips`, or a list of `timestamps` (s); one window, in the middle, by default.

    Returns:
        "fusion", "image", "audio" -> (windows, tokens, hidden size) float32. A stream that the file lacks is absent.
    """
    streams = pipeline(clip, tokens=True, batch_size=batch_size, **(moments or {"timestamps": [None]}))
    return {name: stream.float().cpu().contiguous() for name, stream in streams.items()}


def save(streams: dict[str, torch.Tensor], path: str | Path, clip: str, model: str) -> None:
    """Writes the streams, whole or not at all; metadata say which clip and model they are of."""
    metadata = {
        "clip": Path(clip).name,
        "model": model,
        "shapes": json.dumps({k: list(v.shape) for k, v in streams.items()}),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, safetensors.torch.save(streams, metadata=metadata))


def parser() -> argparse.ArgumentParser:
    result = command_parser(
        "embed",
        "Write the tokens of the fusion, image and audio streams of media files, NAME.safetensors for each: tensors\n"
        "(windows, tokens, hidden size). Files with pictures or sound alone have two of the streams.",
        "Any saved model of the package will do; what stands on its encoder is left aside.",
    )
    place = result.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, default=Path(), help="folder to write to (this one)")
    place.add_argument("--output", type=Path, metavar="FILE", help="what to write instead, of a single file")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 with a message where a file or the model cannot be read."""
    arguments = parser().parse_args(argv)
    if arguments.output is not None and len(arguments.files) > 1:
        print(f"deepavfusion embed: --output is for one file, got {len(arguments.files)}: use --out.", file=sys.stderr)
        return 2

    def work(pipeline, file: str, name: str) -> None:
        output = arguments.output or arguments.out / f"{name}.safetensors"
        check_absent([output], arguments.overwrite)
        streams = embed(pipeline, file, arguments.batch_size, **moments_of(arguments))
        save(streams, output, file, arguments.model)
        for stream in STREAMS:
            print(f"{stream:<7} {tuple(streams[stream].shape) if stream in streams else 'not in the file'}")
        print(f"written to {output}", flush=True)

    return run("embed", arguments, lambda: load(arguments.model, arguments.device), work)


if __name__ == "__main__":
    sys.exit(main())
