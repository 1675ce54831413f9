"""Separate the sources that frames or images show from the audio of media files, with a saved model.

deepavfusion separate --model runs/separation duet.mp4 --out separated
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame 1.5 8.0
deepavfusion separate --model runs/separation duet.mp4 --out separated --frame cello.png flute.png --consistency
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion.processors import MediaError, load_clip
from deepavfusion.processors.recording_separation_deepavfusion import RecordingSeparation
from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .common import load_pipeline, run
from .drawing import stft_spectrograms
from .files import check_absent, size_text
from .films.encoding import video_encoder
from .films.sources import write_source_films
from .jobs.inputs import DRAFT_SUFFIX, numbered
from .jobs.progress import Progress, duration
from .jobs.recording_drafts import RecordingDraft
from .jobs.records import (
    make_record,
    model_identity,
    replacing,
    say_complete,
    say_written,
)
from .jobs.works import determining, is_complete, record_of
from .media import encode_png

_MAX_SPECTROGRAM_SECONDS = 30  # longer recordings would be unreadable at the width of the image


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
                raise MediaError(f"--frame {item}: {expected}; {error}") from error


def output_suffixes(frames: list[float | str] | None) -> list[str]:
    """Suffixes of the names of the wav files, one for each of `frames`."""
    if frames is None:
        return ["separated"]
    return numbered(Path(item).stem or "file" if isinstance(item, str) else f"at_{item:.2f}s" for item in frames)


def separate_into(draft: RecordingDraft, separation: RecordingSeparation, name: str, titles: Sequence[str]) -> None:
    """Separate a recording, or what an earlier process has left of it, into a draft.

    Args:
        draft: Draft of the recording, entered.
        separation: The recording.
        name: Name for the progress.
        titles: Names of the sources in the image of the spectrograms.
    """
    seconds, head = separation.recording.seconds, []
    done = draft.samples / draft.rate if draft.rate else 0.0
    drawn = draft.has_extra
    if done:
        text = f"{name}: {duration(done)} of {duration(seconds)} are separated already; the rest follows"
        say(text, stream=sys.stderr)
    with Progress(f"separate {name}", seconds, "s", done=done) as progress:
        for part in separation.parts(draft.parts):
            if part.index == 0:
                warn_of_space(draft, seconds * separation.rate * len(part.sources))
            draft.add(part.sources, separation.rate)
            if not drawn:
                head.append(np.concatenate([part.mixture[None], part.sources]))
                drawn = draw(draft, head, separation.rate, titles, _MAX_SPECTROGRAM_SECONDS)
            progress.reach(draft.samples / separation.rate)
    if not drawn:
        draw(draft, head, separation.rate, titles, 0)
    draft.finish()


def warn_of_space(draft: RecordingDraft, samples: float) -> None:
    """Say if a draft of that many samples, and the files that are made of it, would fill the disk."""
    needed, free = samples * draft.SAMPLE_BYTES, shutil.disk_usage(draft.folder).free
    if needed > free:
        sizes = f"about {size_text(round(needed))}, and {size_text(free)} are free"
        say(f"{draft.folder}: the separated recording needs {sizes}", stream=sys.stderr)


def draw(draft: RecordingDraft, head: list[np.ndarray], rate: int, titles: Sequence[str], seconds: float) -> bool:
    """Draw the spectrograms of the beginning of a recording into its draft, once there are that many seconds of it."""
    if sum(part.shape[1] for part in head) < seconds * rate:
        return False
    waveforms = np.concatenate(head, axis=1)[:, : round(_MAX_SPECTROGRAM_SECONDS * rate)]
    panels = dict(zip(("mixture", *titles), waveforms, strict=True))
    draft.add_extra(encode_png(stft_spectrograms(panels, rate, max_frequency=8000)))
    return True


def describe(
    draft: RecordingDraft,
    separation: RecordingSeparation,
    films: Sequence[str],
    frames: Sequence[float | str] | None,
) -> dict[str, Any]:
    """What is to be known of a separated recording, as JSON.

    Args:
        draft: Its draft, in which all is separated.
        separation: The recording.
        films: Names of the films, if there are any.
        frames: Frames of the sources, as given: timestamps in seconds, or images; None for those of the windows.
    """
    start, named = separation.recording.start, films or [None] * len(draft.waveforms)
    sources = [
        {"frame": frame, "audio": path.name, "film": film}
        for frame, path, film in zip(frames or [None], draft.waveforms, named, strict=True)
    ]
    return {
        "sources": sources,
        "spectrograms": draft.extra.name,
        "start": start,
        "end": start + draft.samples / draft.rate,
        "sampling_rate": draft.rate,
        "attenuation": draft.attenuation,
    }


@command("deepavfusion separate")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("separate", argv)

    def load():
        check(arguments)
        if arguments.film:
            video_encoder()
        return load_pipeline("audio-visual-source-separation", arguments.model, arguments.device, fit=arguments.fit)

    def separate(pipeline, file: str, name: str) -> None:
        out, suffixes = arguments.out, output_suffixes(arguments.frame)
        options = {"frames": arguments.frame, "overlap": arguments.overlap, "consistency": arguments.consistency}
        separation = pipeline.stream(file, **options, batch_size=arguments.batch_size)
        about = determining("separate", arguments, file, model_identity(pipeline, arguments.model))
        paths = [out / f"{name}_{suffix}.wav" for suffix in suffixes]
        spectrograms, record = out / f"{name}_spectrograms.png", record_of(out, name, "separate")
        films = [path.with_name(f"{path.stem}.mp4") for path in paths]
        films = films if arguments.film and separation.recording.moves else []
        if not arguments.overwrite and is_complete(record, about):
            say_complete(name, record)
            return
        draft = RecordingDraft(out / f"{name}{DRAFT_SUFFIX}", paths, spectrograms, about, [*films, record])
        if not draft.publishing:
            check_absent(draft.outputs, arguments.overwrite)
        with draft:
            if not draft.publishing:  # again: another process may have finished them meanwhile
                check_absent(draft.outputs, arguments.overwrite)
            if not draft.separated:
                separate_into(draft, separation, name, suffixes)
            if not draft.publishing:
                write_source_films(draft, file, name, [path.name for path in films])
                found = describe(draft, separation, [path.name for path in films], arguments.frame)
                files = draft.outputs[:-1]
                draft.add_file(record, make_record("separate", file, arguments.model, about, files, found))
            with (
                Progress(f"write {name}", draft.samples * len(paths), "sample") as progress,
                replacing(record, draft.outputs),
            ):
                draft.publish(progress.update)
        factor = draft.attenuation
        note = f", attenuated by a factor of {factor:.2f} to avoid clipping" if factor > 1 else ""
        say_written([*(f"{path}{note}" for path in paths), spectrograms, *films])

    return run("separate", arguments, load, separate, counted=False)


if __name__ == "__main__":
    sys.exit(main())
