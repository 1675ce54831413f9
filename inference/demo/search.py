"""Search of a folder of clips by an image or by a sound, with the vectors of an encoder."""

import filecmp
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn.functional import normalize

from deepavfusion.processors import MediaError, load_clip
from deepavfusion.processors.pipeline_base_deepavfusion import as_frame

from ..films.encoding import reduced
from ..jobs.inputs import VIDEO_SUFFIXES, find_files
from .actions import Advance
from .models import DemoModel

KINDS = ("image", "audio")
_THUMBNAIL = 180  # pixels of the short side


@dataclass(frozen=True)
class Hit:
    """A clip that was found.

    Attributes:
        path: The clip.
        name: Its path in the folder, without suffix.
        similarity: Cosine similarity to what was searched for.
    """

    path: str
    name: str
    similarity: float


class ClipSearch:
    """Clips of a folder, whose images and sounds an encoder makes vectors of when they are first searched.

    Args:
        files: Pairs of a clip and its name.
    """

    def __init__(self, files: Sequence[tuple[str, str]]):
        self.files = list(files)
        self._vectors: dict[tuple[str, str], tuple[list[tuple[str, str]], torch.Tensor]] = {}

    @classmethod
    def of_folder(cls, folder: str) -> "ClipSearch":
        """The videos in a folder and below.

        Raises:
            InputError: If there are none.
        """
        files, errors, _ = find_files([folder], VIDEO_SUFFIXES)
        if errors:
            raise errors[0]
        return cls(files)

    def search(
        self, model: DemoModel, query: str, kind: str, among: str, advance: Advance, count: int = 6
    ) -> list[Hit]:
        """Find the clips whose images or sounds are most similar to a file; the file itself is no answer.

        Args:
            model: Model that can search.
            query: The file, of which the middle is used.
            kind: What of the file is searched for, "image" or "audio".
            among: What of the clips is compared, "image" or "audio".
            advance: Called with the progress.
            count: Number of clips, at most.

        Raises:
            MediaError: If the file cannot be read, or no clip of the folder can.
            ValueError: If the file lacks what is searched for.
        """
        sought = _vector(model, query, kind)
        files, vectors = self._compared(model, among, advance)
        similarities = vectors @ sought
        best = similarities.argsort(descending=True).tolist()
        # Of sounds found by an image, and of images found by a sound, the file's own is an answer.
        others = (k for k in best if kind != among or not filecmp.cmp(query, files[k][0], shallow=False))
        return [Hit(*files[k], float(similarities[k])) for k in itertools.islice(others, count)]

    def _compared(self, model: DemoModel, kind: str, advance: Advance) -> tuple[list[tuple[str, str]], torch.Tensor]:
        """The clips that have images, or sounds, and their vectors."""
        if (model.name, kind) not in self._vectors:
            found, rows, reason = [], [], None
            for number, (path, name) in enumerate(self.files):
                advance(number / len(self.files), "Reading the clips")
                try:
                    rows.append(_vector(model, path, kind))
                    found.append((path, name))
                except (MediaError, ValueError) as error:  # clips that lack it, or cannot be read, are left out
                    reason = error
            if not found:
                raise MediaError(f"No clip of the folder can be searched: {reason}") from reason
            self._vectors[model.name, kind] = found, torch.stack(rows)
        return self._vectors[model.name, kind]


@torch.inference_mode()
def _vector(model: DemoModel, path: str, kind: str) -> torch.Tensor:
    """Vector (D,) of length 1 of the image or the sound in the middle of a file."""
    embedder = model.embedder
    features = embedder.preprocess([{kind: path}])
    device = embedder.model.device
    features = {name: values.to(device) for name, values in features.items()}
    return normalize(embedder(features)["sentence_embedding"][0].float().cpu(), dim=-1)


def thumbnail(path: str) -> Image.Image:
    """The frame in the middle of a clip, reduced; a gray one if it has no images or they cannot be read."""
    try:
        return reduced(as_frame(load_clip(path, require="image").frames), _THUMBNAIL)
    except MediaError:
        return Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "gray")


__all__ = ["KINDS", "ClipSearch", "Hit", "thumbnail"]
