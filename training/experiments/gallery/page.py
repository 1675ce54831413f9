"""The page of the gallery, in Markdown, with its images and audio beside it."""

import html
import re
from pathlib import Path

import numpy as np

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.films.encoding import compressed_audio
from deepavfusion.inference.folder import FolderError
from deepavfusion.inference.media import as_waveform, png, webp
from deepavfusion.inference.publishing.tables import markdown_text, markup_table

from ...report.report import Example, ExampleImage
from ...report.style import figure_png
from ...wording import count, metric_title, percent
from .choice import PERCENTILES, Case
from .figures import distribution
from .sources import Source

PAGE = "index.md"
MEDIA = "media"
MARK = "<!-- written by deepavfusion.training.experiments.gallery -->"
_NUMBER = r"-?\d+(?:\.\d+)?"
_OWN_FILE = re.compile(r"[a-z0-9_-]+\.(webp|png|m4a)")
_QUALITY = 80  # of WebP
_PRIMARY = ("top1", "ciou_50", "si_sdri", "miou", "audio_to_image_r10", "image_saved_few", "audio_saved_few")
_TITLES = {"pretraining": "Reconstruction"}
_SHOWN = {
    "pretraining": "What is visible of a frame and of a spectrogram, what the model makes of it, and the original.",
    "recognition": "The most likely classes of a clip, and the true one.",
    "localization": "Where the model finds the source of the audio; the outline is the true box.",
    "separation": "A mixture of two sounds, and what is separated by the frame of one of them.",
    "segmentation": "The mask of what sounds, beside the true one.",
    "retrieval": "The three frames most similar to the audio, marked as the clip's own (✓) or not (✗). Masked "
    "reconstruction alone does not put images and sounds into one space: the scores are those of chance. The "
    "objectives `align` and `jepa` do.",
}


class Gallery:
    """Collects evaluations and writes their page.

    Args:
        folder: Folder of the page; its files of an earlier gallery are replaced.

    Raises:
        FolderError: If the folder holds a page that is not a gallery.
    """

    def __init__(self, folder: Path):
        page, holds_files = folder / PAGE, folder.is_dir() and any(folder.iterdir())
        if holds_files and not (page.is_file() and page.read_text(encoding="utf-8").startswith(MARK)):
            raise FolderError(f"{folder} holds files and no gallery: name another --out.")
        self.folder = folder
        self._parts: list[str] = []
        self._media: dict[str, bytes] = {}

    def add_text(self, *paragraphs: str) -> None:
        """Add Markdown."""
        self._parts += paragraphs

    def add(self, name: str, source: Source) -> None:
        """Add a section with the cases of an evaluation; `name`, of lower-case letters, is unique."""
        cases, kind = source.cases(), source.kind
        chart = distribution(source.measure.scores(source.rows), cases, source.measure)
        self.add_text(f"### {_title(name, kind)}", f"{_SHOWN[kind]} {_provenance(source)}")
        alt = f"Distribution of {source.measure.name}, with the cases below"
        self.add_text(self._image(f"{name}-scores", ExampleImage(chart, alt)))
        for case, example in zip(cases, source.examples(cases), strict=True):
            self._add_case(f"{name}-{case.name.lower()}", case, example, source.measure.text(case.score))

    def _add_case(self, name: str, case: Case, example: Example, score: str) -> None:
        heads, frames, charts = [], [], []
        for number, image in enumerate(example.images):
            shown = self._image(f"{name}-{number}", image)
            if isinstance(image.image, np.ndarray):
                heads.append({True: "✓ ", False: "✗ ", None: ""}[image.correct] + markdown_text(image.caption))
                frames.append(shown)
            else:
                charts.append(shown)
        about = markdown_text(with_score(example.text, score))
        self.add_text(f"**{case.name}** ({markdown_text(example.title)}): {about}")
        self.add_text(markup_table(heads, frames), *charts)
        self.add_text(" ".join(self._player(f"{name}-{title}", title, *sound) for title, *sound in example.audio))

    def _image(self, name: str, image: ExampleImage) -> str:
        if isinstance(image.image, np.ndarray):
            # Frames as small as their models see them are enlarged by the page, and stay sharp.
            content, suffix = png(image.image), "png"
            if max(image.image.shape) > 128:
                content, suffix = webp(content, quality=_QUALITY), "webp"
        else:
            content, suffix = webp(figure_png(image.image), quality=_QUALITY), "webp"
        return f"![{markdown_text(image.alt or image.caption)}]({self._keep(name, suffix, content)})"

    def _player(self, name: str, title: str, waveform, rate: int) -> str:
        waveform = as_waveform(waveform)
        peak = max(1.0, float(np.abs(waveform).max()))
        path = self._keep(name, "m4a", compressed_audio(waveform / np.float32(peak), rate))
        # Where audio elements are not allowed, the link remains.
        player = f'<audio controls preload="metadata" src="{path}">[listen]({path})</audio>'
        return f'<span class="player">{html.escape(title)}: {player}</span>'

    def _keep(self, name: str, suffix: str, content: bytes) -> str:
        path = f"{MEDIA}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.{suffix}"
        if path in self._media:
            raise ValueError(f"Expected a name of its own for each file of the gallery, got {path} twice.")
        self._media[path] = content
        return path

    def write(self) -> tuple[Path, int]:
        """Write the media, then the page; media of an earlier gallery are removed last.

        Returns:
            Path of the page, and the size of all files in bytes.
        """
        (self.folder / MEDIA).mkdir(parents=True, exist_ok=True)
        for path, content in self._media.items():
            write_atomically(self.folder / path, content)
        text = "\n\n".join([MARK, *self._parts]) + "\n"
        write_atomically(self.folder / PAGE, text)
        for old in sorted((self.folder / MEDIA).iterdir()):
            if _OWN_FILE.fullmatch(old.name) and f"{MEDIA}/{old.name}" not in self._media:
                old.unlink()
        return self.folder / PAGE, len(text.encode()) + sum(map(len, self._media.values()))


def with_score(text: str, score: str) -> str:
    """The text of an example with the stored score: in place of the one that was computed anew for it, or before it.

    Args:
        text: Text of the example; what is computed anew may differ in the last digit.
        score: The score with its name or unit.
    """
    statement = _NUMBER.join(map(re.escape, re.split(_NUMBER, score)))
    replaced, found = re.subn(statement, lambda _: score, text, count=1)
    return replaced if found else "; ".join(filter(None, [score, text]))


def rule() -> str:
    """The rule by which cases are chosen, as text."""
    parts = [f"*{name.lower()}* the {part}th" for name, part in PERCENTILES.items() if part]
    return (
        f"No case is chosen by hand. Of the scores of all clips of an evaluation, {', '.join(parts)} percentile is "
        "shown, and *worst* the lowest score; where lower is better, the order is reversed."
    )


def _title(name: str, kind: str) -> str:
    title = _TITLES.get(kind, kind.capitalize())
    return f"{title} on things" if name.startswith("things") else title


def _provenance(source: Source) -> str:
    """From which run the cases are, as Markdown."""
    record, training = source.record, source.record.get("training")
    parts = [f"recipe `{record['recipe']}`"]
    if not training:
        parts.append(f"model `{record['model']}`")
    else:
        start = training["initial_weights"]
        start = "random weights" if start == "random" else f"`{Path(start).name}`"
        parts += [f"seed {source.recipe.run.seed}", f"{count(training['clips_seen'], 'clip')} seen, from {start}"]
    found = {name: record["metrics"][name] for name in _PRIMARY if name in record["metrics"]}
    scores = [f"{metric_title(name)} {_value(name, value)}" for name, value in found.items()]
    if (chance := record["metrics"].get("chance_r10")) is not None:
        scores.append(f"by chance {percent(chance)}")
    number = f"{count(record['num_clips'], 'clip')} of the {record['split']} split"
    about = "; ".join([", ".join(parts), ", ".join([number, *scores])])
    return f"From `evaluation.json` and `predictions/` of a run: {about}; {record['date']}."


def _value(name: str, value: float) -> str:
    return f"{value:.2f} dB" if name == "si_sdri" else percent(value)


__all__ = ["MARK", "Gallery", "rule"]
