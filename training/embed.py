"""Embeds a video file: the three streams of a saved model, written to a safetensors file.

deepavfusion embed CLIP.mp4 --model runs/scenes_tiny
deepavfusion embed CLIP.mp4 --model ORG/NAME --num-clips 10 --output clip.safetensors
"""

import argparse
import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from transformers import AutoModel, AutoProcessor

import deepavfusion
import deepavfusion.processors  # noqa: F401

from .checkpointing import write_atomically
from .probing import STREAMS
from .tracking import quiet_library


def load(folder: str, device: str | torch.device = "cpu"):
    """Encoder in eval mode and processor of a saved model, by the Auto classes.

    Raises:
        ValueError: for a folder whose weights are not all the encoder's needs; the message names the missing ones.
    """
    with quiet_library():
        model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"{folder} lacks weights of the encoder: {', '.join(sorted(info['missing_keys']))}.")
    return model.to(device).eval(), AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def embed(clip: str, model, processor, num_clips: int | None = None) -> dict[str, torch.Tensor]:
    """Streams of a video file.

    Args:
        clip: path of the file.
        model, processor: from `load`.
        num_clips: windows spread evenly over the file; None is one, at its middle.

    Returns:
        "fusion", "image", "audio" -> (windows, tokens, hidden size) float32. A stream that the file lacks is absent.
    """
    inputs = processor(videos=clip, num_clips=num_clips, return_tensors="pt")
    outputs = model(**inputs.to(model.device))
    states = (outputs.last_hidden_state, outputs.image_last_hidden_state, outputs.audio_last_hidden_state)
    present = (None, inputs.get("image_present"), inputs.get("audio_present"))
    streams = {}
    for name, state, there in zip(STREAMS, states, present, strict=True):
        if state is not None and (there is None or bool(there.any())):
            streams[name] = state.float().cpu().contiguous()
    return streams


def save(streams: dict[str, torch.Tensor], path: str | Path, clip: str, model: str) -> None:
    """Writes the streams, whole or not at all; metadata say which clip and model they are of."""
    metadata = {
        "clip": Path(clip).name,
        "model": model,
        "shapes": json.dumps({k: list(v.shape) for k, v in streams.items()}),
    }
    write_atomically(path, safetensors.torch.save(streams, metadata=metadata))


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="deepavfusion embed", description="Embed a video file with a saved model.")
    result.add_argument("clip", help="video file, with pictures, sound or both")
    result.add_argument("--model", required=True, help="folder or Hub name of a saved model")
    result.add_argument("--output", help="safetensors file to write; beside the clip's name in this folder by default")
    result.add_argument("--num-clips", type=int, help="windows spread over the file; one at its middle by default")
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 1 with a message where the file or the model cannot be read."""
    from deepavfusion.processors import MediaError

    arguments = parser().parse_args(argv)
    output = Path(arguments.output or f"{Path(arguments.clip).stem}.safetensors")
    try:
        model, processor = load(arguments.model)
        streams = embed(arguments.clip, model, processor, arguments.num_clips)
    except (MediaError, OSError, ValueError) as error:
        print(f"deepavfusion embed: {error}", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    save(streams, output, arguments.clip, arguments.model)
    for name in STREAMS:
        print(f"{name:<7} {tuple(streams[name].shape) if name in streams else 'not in the file'}")
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
