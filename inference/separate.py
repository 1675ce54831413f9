"""Separates what a picture shows from the sound of media files, with a saved model.

deepavfusion separate --model runs/separation duet.mp4 --out separated
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame 1.5 8.0
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame cello.png flute.png --consistency
"""

import argparse
import sys
from pathlib import Path

import torch

from deepavfusion.processors import load_clip

from .common import command_parser, load_pipeline, run, share, unique_names, write_picture
from .drawing import stft_spectrograms
from .files import write_atomically
from .media import wav

_SHOWN = 30  # s of a recording that its picture shows: more would be a blur


def frame(text: str) -> float | str:
    """A moment in seconds, or the path of a picture."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a moment in seconds or a picture, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    result = command_parser(
        "separate",
        "Write what the picture shows of the sound of media files: mono wav files as long as the recordings,\n"
        "whatever their length, and a picture of their spectrograms.",
        "Without --frame each window of the sound goes with the frame of its middle.",
        moments=False,
    )
    result.add_argument("--out", required=True, type=Path, help="folder to write to")
    result.add_argument(
        "--frame",
        type=frame,
        nargs="+",
        metavar="SECONDS|PICTURE",
        help="what shows the wanted source: moments of the file, or pictures; each gives a wav file",
    )
    result.add_argument(
        "--consistency", action="store_true", help="divide the masks of several frames by their sum (two or more)"
    )
    result.add_argument("--overlap", type=share, default=0.5, help="of the windows, 0 to less than 1 (0.5)")
    return result


def check(arguments: argparse.Namespace) -> None:
    """Raises `ValueError` or `MediaError` for options that no file could be separated with."""
    frames = arguments.frame or []
    if arguments.consistency and len(frames) < 2:
        raise ValueError(f"--consistency balances several sources: expected at least 2 of --frame, got {len(frames)}.")
    for item in frames:
        if isinstance(item, str):
            load_clip(item, require="image")


def ends_of(frames: list[float | str] | None) -> list[str]:
    """How the sounds separated from a file are called, beside its name."""
    if frames is None:
        return ["separated"]
    return unique_names([f"{Path(item).stem if isinstance(item, str) else f'at_{item:.2f}s'}.wav" for item in frames])


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 with a message where a file or the model cannot be read."""
    arguments = parser().parse_args(argv)

    def load():
        check(arguments)
        return load_pipeline("audio-visual-source-separation", arguments.model, arguments.device)

    def separate(pipeline, file: str, name: str) -> None:
        options = {"consistency": arguments.consistency, "overlap": arguments.overlap}
        if arguments.frame is not None:
            options["frames"] = arguments.frame
        found = pipeline(file, batch_size=arguments.batch_size, **options)
        found = found if isinstance(found, list) else [found]
        mixture, rate, _ = pipeline.recording(file)
        sounds = dict(zip(ends_of(arguments.frame), (entry["audio"] for entry in found), strict=True))
        # All by one factor, so that the files of a recording stay comparable.
        peak = max(1.0, *(float(abs(sound).max()) for sound in sounds.values()))
        for end, sound in sounds.items():
            path = arguments.out / f"{name}_{end}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, wav(sound / peak, rate))
            print(f"written to {path}" + (f", {peak:.2f} times softer to fit full scale" if peak > 1 else ""))
        shown = {"mixture": torch.from_numpy(mixture).mean(0).numpy(), **sounds}
        panels = {title: sound[: _SHOWN * rate] for title, sound in shown.items()}
        path = arguments.out / f"{name}_spectrograms.png"
        write_picture(path, stft_spectrograms(panels, rate, max_frequency=8000))
        print(f"written to {path}", flush=True)

    return run("separate", arguments, load, separate)


if __name__ == "__main__":
    sys.exit(main())
