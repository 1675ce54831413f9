"""Separate the sources that frames or images show from the audio of media files, with a saved model.

deepavfusion separate --model runs/separation duet.mp4 --out separated
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame 1.5 8.0
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame cello.png flute.png --consistency
"""

import argparse
import sys
from pathlib import Path

import torch

from deepavfusion.processors import MediaError, load_clip

from .common import command_parser, fraction, load_pipeline, run, unique_names
from .drawing import stft_spectrograms
from .files import check_absent, write_files
from .media import png, wav

_MAX_SPECTROGRAM_SECONDS = 30  # longer recordings would be unreadable at the width of the image


def frame(text: str) -> float | str:
    """Parse a timestamp in seconds or the path of an image."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a timestamp in seconds or an image, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = command_parser(
        "separate",
        "Separate the audio of media files by what a frame shows: write mono wav files of the full length of each\n"
        "recording, and an image of their spectrograms.",
        "Without --frame, each window of the audio is separated by the frame in its middle.",
        timestamps=False,
    )
    result.add_argument("--out", required=True, type=Path, help="output folder")
    result.add_argument(
        "--frame",
        type=frame,
        nargs="+",
        metavar="SECONDS|IMAGE",
        help="frames that show the target sources: timestamps of the file, or images; one wav file each",
    )
    result.add_argument(
        "--consistency", action="store_true", help="normalize the masks of two or more frames by their sum"
    )
    result.add_argument("--overlap", type=fraction, default=0.5, help="overlap of consecutive windows, in [0, 1) (0.5)")
    return result


def check(arguments: argparse.Namespace) -> None:
    """Raise `ValueError` or `MediaError` for options that would fail for every file."""
    frames = arguments.frame or []
    if arguments.consistency and len(frames) < 2:
        raise ValueError(
            f"--consistency needs several sources: expected at least 2 values of --frame, got {len(frames)}."
        )
    for item in frames:
        if isinstance(item, str):
            try:
                load_clip(item, require="image")
            except MediaError as error:
                expected = "expected a timestamp in seconds, an image or a video"
                if not Path(item).exists():
                    raise MediaError(f"--frame {item}: {expected}, but there is no such file.") from error
                raise MediaError(f"--frame {item}: {expected}; {error}") from error


def output_suffixes(frames: list[float | str] | None) -> list[str]:
    """Suffixes of the names of the wav files, one for each of `frames`."""
    if frames is None:
        return ["separated"]
    return unique_names([f"{Path(item).stem if isinstance(item, str) else f'at_{item:.2f}s'}.wav" for item in frames])


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 with a message if a file or the model cannot be read."""
    arguments = parser().parse_args(argv)

    def load():
        check(arguments)
        return load_pipeline("audio-visual-source-separation", arguments.model, arguments.device)

    def separate(pipeline, file: str, name: str) -> None:
        suffixes = output_suffixes(arguments.frame)
        paths = [arguments.out / f"{name}_{suffix}.wav" for suffix in suffixes]
        spectrograms = arguments.out / f"{name}_spectrograms.png"
        check_absent([*paths, spectrograms], arguments.overwrite)
        options = {"consistency": arguments.consistency, "overlap": arguments.overlap}
        if arguments.frame is not None:
            options["frames"] = arguments.frame
        found = pipeline(file, batch_size=arguments.batch_size, **options)
        found = found if isinstance(found, list) else [found]
        mixture, rate, _ = pipeline.recording(file)
        separated = dict(zip(suffixes, (entry["audio"] for entry in found), strict=True))
        # One factor for all sources, so that their levels stay comparable.
        peak = max(1.0, *(float(abs(waveform).max()) for waveform in separated.values()))
        note = f", attenuated by a factor of {peak:.2f} to avoid clipping" if peak > 1 else ""
        for path, waveform in zip(paths, separated.values(), strict=True):
            write_files({path: wav(waveform / peak, rate)}, arguments.overwrite)
            print(f"written to {path}{note}")
        waveforms = {"mixture": torch.from_numpy(mixture).mean(0).numpy(), **separated}
        panels = {title: waveform[: _MAX_SPECTROGRAM_SECONDS * rate] for title, waveform in waveforms.items()}
        write_files({spectrograms: png(stft_spectrograms(panels, rate, max_frequency=8000))}, arguments.overwrite)
        print(f"written to {spectrograms}", flush=True)

    return run("separate", arguments, load, separate)


if __name__ == "__main__":
    sys.exit(main())
