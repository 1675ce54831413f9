"""What a model makes of a clip that may be published, as files beside it and Markdown for its card."""

import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.card_deepavfusion import escape_markdown
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from deepavfusion.tasks_deepavfusion import HEADS

from ..drawing import class_colors, heat_overlay, mask_overlay
from ..films.maps import seen_by
from ..media import png, wav
from ..pages.reconstructions import KINDS, reconstruct

FOLDER = "example"
_SHOWN_LABELS = 3


def write_clip_example(folder: Path, model: Any, processor: DeepAVFusionProcessor, clip: Path) -> str:
    """Copy a clip into the folder `example` of a model, and write what the model makes of its middle beside it.

    Args:
        folder: Folder of the model.
        model: The model.
        processor: Its processor.
        clip: The clip, MP4 or WebM.

    Returns:
        Markdown that shows them by paths relative to the folder.

    Raises:
        MediaError: If the clip cannot be read, or lacks images or audio.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    name = f"{FOLDER}/clip{clip.suffix.lower()}"
    shutil.copyfile(clip, folder / name)
    parts = [f'<video src="{name}" width="256" controls></video>']
    for title, file, content in _results(model.eval(), processor, str(clip)):
        if content is None:
            parts.append(escape_markdown(title))
            continue
        path = f"{FOLDER}/{file}"
        (folder / path).write_bytes(content)
        parts += (
            [player(path, title)] if path.endswith(".wav") else [f"{html.escape(title)}:", shown_image(path, title)]
        )
    return "\n\n".join(parts)


def shown_image(path: str, caption: str) -> str:
    """An image in a card, by its path and what it shows."""
    text = html.escape(caption)
    return f'<img src="{path}" height="160" alt="{text}" title="{text}">'


def player(path: str, name: str) -> str:
    """A player of audio in a card, behind the name of the audio."""
    return f'{html.escape(name)}: <audio src="{path}" controls></audio>'


def _results(model: Any, processor: DeepAVFusionProcessor, clip: str) -> Iterator[tuple[str, str, bytes | None]]:
    """Title, name and content of each file; of what is text alone, the text, and no content."""
    if isinstance(model, DeepAVFusionForPreTraining) and model.config.pretraining_objective != "jepa":
        found = reconstruct(model, processor, clip)
        kinds = " | ".join(KINDS)
        for name, images, visible, total in zip(("frame", "spectrogram"), found[:2], found.visible, found.total):
            title = f"The {name} with {visible} of {total} patches visible: {kinds}"
            title += ", with mean and contrast of the true patches" if found.restored else ""
            yield title, f"{name}.png", png(np.concatenate([_framed(image) for image in images], axis=1))
        return
    head = HEADS.get(type(model).__name__)
    if head is None:
        return
    result: Any = pipelines()[head.pipeline](model, processor, task=head.pipeline)(clip)
    if head.name == "recognition":
        best = ", ".join(f"{entry['label']} ({entry['score']:.2f})" for entry in result[:_SHOWN_LABELS])
        yield f"Its label, and how probable it is: {best}", "", None
    elif head.name == "separation":
        yield (
            "What belongs to its frames, separated from its sound",
            "separated.wav",
            wav(result["audio"], result["sampling_rate"]),
        )
    elif head.name == "segmentation":
        count = model.config.num_labels
        colors = None if count == 1 else class_colors(count)
        yield "What sounds in its middle frame", "mask.png", png(mask_overlay(result["frame"], result["mask"], colors))
    else:
        title = f"What sounds in its middle frame (score {result['score']:.2f})"
        frame, heat = result["frame"], result["heat_map"]
        yield title, "heat.png", png(heat_overlay(frame, heat, seen=seen_by(processor, *heat.shape)))


def _framed(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) with a white margin."""
    return np.pad(image, ((4, 4), (4, 4), (0, 0)), constant_values=255)


__all__ = ["FOLDER", "player", "shown_image", "write_clip_example"]
