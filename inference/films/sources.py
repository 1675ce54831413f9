"""Films of separated recordings: the frames of a video with the audio of each separated source."""

from collections.abc import Sequence

from ..jobs.progress import Progress
from ..jobs.recording_drafts import RecordingDraft
from .parts import FilmParts


def write_source_films(draft: RecordingDraft, file: str, name: str, targets: Sequence[str]) -> None:
    """Write the films of a separated recording into its draft; the frames are encoded once for all.

    Args:
        draft: The draft, entered, in which all is separated.
        file: Path of the video.
        name: Name for the progress.
        targets: Names of the films, one for each source.
    """
    missing = [index for index, target in enumerate(targets) if not (draft.folder / target).exists()]
    if not missing:
        return
    film = FilmParts(draft.folder, file)
    with Progress(f"film {name}", film.seconds, "s", done=film.seconds_done) as progress:
        film.write(advance=progress.update)
    with Progress(f"join {name}", film.seconds * len(missing), "s") as progress:
        for index in missing:
            film.join(draft.folder / targets[index], draft.source(index), progress.update)


__all__ = ["write_source_films"]
