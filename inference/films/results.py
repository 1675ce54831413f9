"""What localize and segment write of a media file: images at timestamps, a film, and a record of what was found."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deepavfusion.processors.pipeline_base_deepavfusion import DeepAVFusionPipeline
from deepavfusion.processors.recordings_deepavfusion import Recording
from deepavfusion_cli.terminal import say

from ..common import timestamp_options
from ..files import check_absent
from ..jobs.drafts import Draft
from ..jobs.inputs import DRAFT_SUFFIX, timestamp_names, timestamp_note
from ..jobs.progress import Progress
from ..jobs.records import (
    NO_AUDIO,
    OUTSIDE,
    make_record,
    model_identity,
    replacing,
    say_complete,
    say_written,
)
from ..jobs.works import determining, is_complete, record_of
from .maps import Overlay, seen_by, write_map_film


class MapResults:
    """Writes the results of a command that maps the frames of media files.

    Args:
        pipeline: Pipeline of the command.
        command: Name of the command.
        arguments: Arguments from `deepavfusion_cli.preflight.parse`.
        film: Ending of the names of films, without suffix.
        draw_images: Function of a result and of the text chunks of its images that returns PNG files by the ending of
            their names.
        line: Function of a result that returns what is printed of it.
        overlay: How results are drawn in films.
    """

    def __init__(
        self,
        pipeline: DeepAVFusionPipeline,
        command: str,
        arguments: argparse.Namespace,
        film: str,
        draw_images: Callable[[dict[str, Any], dict[str, str]], dict[str, bytes]],
        line: Callable[[dict[str, Any]], str],
        overlay: Overlay,
    ):
        self.pipeline, self.command, self.arguments, self.film = pipeline, command, arguments, film
        self.draw_images, self.line, self.overlay = draw_images, line, overlay
        self._said = False  # that something is outside of the model's view

    def write(self, file: str, name: str) -> None:
        """Write the results of a file, unless they are there.

        What an interrupted process has left of the film is continued.

        Args:
            file: The file.
            name: Prefix of the names of its results.

        Raises:
            FileExistsError: If other files have these names, unless they may be replaced.
        """
        pipeline, given, out = self.pipeline, self.arguments, self.arguments.out
        record, draft_folder = record_of(out, name, self.command), out / f"{name}_{self.film}{DRAFT_SUFFIX}"
        about = determining(self.command, given, file, model_identity(pipeline, given.model))
        if not given.overwrite and is_complete(record, about):
            say_complete(name, record)
            return
        if not draft_folder.exists():
            check_absent([record], given.overwrite)
        entries, titles = self._entries(file, name)
        audio = Recording(file, require="any").info.has_audio
        images: dict[Path, bytes] = {}
        shown = []
        for entry, title in zip(entries, titles, strict=True):
            drawn = self.draw_images(entry, timestamp_note(entry["timestamp"]))
            files = {kind: out / f"{title}_{kind}.png" for kind in drawn}
            images |= {files[kind]: content for kind, content in drawn.items()}
            names = {kind: path.name for kind, path in files.items()}
            height, width = entry["frame"].shape[:2]
            unseen = 1 - float(seen_by(pipeline.processor, height, width).mean())
            about_image = {"timestamp": entry["timestamp"], "width": width, "height": height, "unseen": unseen}
            shown.append({**about_image, **names, **self.overlay.describe(entry)})
        film = out / f"{name}_{self.film}.mp4" if given.film and entries[0]["timestamp"] is not None else None
        outputs = [*images, *([] if film is None else [film])]
        draft = Draft(draft_folder, [*outputs, record], about)
        if not draft.publishing:
            check_absent(draft.outputs, given.overwrite)
        with draft:
            if not draft.publishing:
                check_absent(draft.outputs, given.overwrite)  # again: another process may have finished them meanwhile
                content = {"images": shown, "film": None, "audio": audio}
                if film is not None:
                    size, rate = given.batch_size, given.maps_per_second
                    content["film"] = write_map_film(
                        pipeline, file, name, draft.folder, film.name, self.overlay, rate, size
                    )
                for path, image in images.items():
                    draft.add_file(path, image)
                draft.add_file(record, make_record(self.command, file, given.model, about, outputs, content))
            with replacing(record, outputs):
                draft.publish()
        for entry, title in zip(entries, titles, strict=True):
            say(f"{title}: {self.line(entry)}{'' if audio else f'; {NO_AUDIO}'}")
        say_written(outputs)
        if not self._said and any(image["unseen"] for image in shown):
            self._said = True
            say(f"deepavfusion {self.command}: {OUTSIDE}", stream=sys.stderr)

    def _entries(self, file: str, name: str) -> tuple[list[dict[str, Any]], Sequence[str]]:
        """Results of the pipeline at the timestamps of the images, and the beginnings of the names of these."""
        pipeline = self.pipeline
        windows = self.arguments.num_clips or len(self.arguments.at or [None])
        with Progress(f"{self.command} {name}", windows, "window") as progress:
            pipeline.progress = progress.update
            options = {"batch_size": self.arguments.batch_size, **self.overlay.options}
            entries = pipeline(file, **options, **timestamp_options(self.arguments))
            pipeline.progress = None
        return entries, timestamp_names(name, [entry["timestamp"] for entry in entries])


__all__ = ["MapResults"]
