"""Model cards (README.md): what a model says about itself wherever it is pushed from.

A training run adds its results, data and recipe to these parts (`training/runs/card.py`), a `Trainer` its own
(`trainer_card_deepavfusion.py`). `push_to_hub` of a model writes them alone.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

_PAPER = "DeepAVFusion; Mo & Morgado, CVPR 2024, [arXiv 2312.01017](https://arxiv.org/abs/2312.01017)"
CITATION = """\
```bibtex
@inproceedings{mo2024deepavfusion,
  title = {Unveiling the Power of Audio-Visual Early Fusion Transformers with Dense Interactions through Masked
           Modeling},
  author = {Mo, Shentong and Morgado, Pedro},
  booktitle = {CVPR},
  year = {2024}
}
```"""
_PLACE = "  # this folder, or its name on the Hub"
_EXAMPLE = re.compile(rf'(\brepository = |\bmodel=)"(?:[^"\\\n]|\\.)*"(.*){re.escape(_PLACE)}$', re.MULTILINE)
# What `create_and_tag_model_card` of transformers writes where a repository has no card.
_PLACEHOLDER = "This model card has been automatically generated."


@dataclass(frozen=True)
class CardTask:
    """What a card says about the models of a task.

    Attributes:
        name: Name of the task.
        hub_task: Closest task of the Hub, for `pipeline_tag`.
        pipeline: Name of the task's pipeline; None for encoders.
        limit: What its models cannot do.
    """

    name: str
    hub_task: str
    pipeline: str | None
    limit: str


ENCODER = CardTask(
    "pretraining",
    "feature-extraction",
    None,
    "Pre-trained only: the streams are meant for fine-tuning, probing and retrieval; there is no classifier.",
)
# Class of the model -> task; all other models are encoders.
HEADS = {
    "DeepAVFusionForAudioVisualClassification": CardTask(
        "recognition",
        "video-classification",
        "audio-visual-classification",
        "The model always predicts one of the classes of its training data, whatever the clip.",
    ),
    "DeepAVFusionForSourceSeparation": CardTask(
        "separation",
        "audio-to-audio",
        "audio-visual-source-separation",
        "The model extracts the sound of what the frame shows; it cannot separate two sources in one frame.",
    ),
    "DeepAVFusionForSemanticSegmentation": CardTask(
        "segmentation",
        "image-segmentation",
        "audio-visual-segmentation",
        "The mask covers a single frame; sources outside it are not represented.",
    ),
    "DeepAVFusionForSoundLocalization": CardTask(
        "localization",
        "image-segmentation",
        "sound-source-localization",
        "The map has one value per patch of the frame, so small sources are localized coarsely.",
    ),
}
TASKS = {task.name: task for task in (ENCODER, *HEADS.values())}


def escape_markdown(text: str) -> str:
    """A line of text that stays text in Markdown, also in cells of tables."""
    return re.sub(r"([\\`|\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def card_tags(task: CardTask, objective: str) -> list[str]:
    """Tags of a card, for its metadata.

    Args:
        task: Task of the model.
        objective: `config.pretraining_objective`.
    """
    kind = "joint-embedding" if objective == "jepa" else "masked-autoencoder"
    own = [kind, "pre-training", "sentence-transformers"] if task.pipeline is None else [task.pipeline]
    return ["deepavfusion", "audio-visual", *own, "video", "audio", "custom_code"]


def introduction(task: CardTask, objective: str) -> str:
    """First paragraph of a card: what the model is. The arguments are those of `card_tags`."""
    if task.pipeline is not None:
        return f"An audio-visual transformer with early fusion ({_PAPER}), fine-tuned for {task.name}."
    if objective == "jepa":
        how = (
            "bringing together what it makes of a video frame, of its audio's spectrogram, and of both with most "
            "patches masked (joint embedding, LeJEPA, [arXiv 2511.08544](https://arxiv.org/abs/2511.08544))"
        )
    else:
        how = "masking most patches of a video frame and of its audio's spectrogram and reconstructing them"
        how += ", and by telling matching pairs of frame and audio from others" if objective == "align" else ""
    return (
        f"An audio-visual encoder with early fusion ({_PAPER}), pre-trained by {how}. It outputs three streams of "
        "tokens: fusion, image and audio."
    )


def usage(task: CardTask, objective: str, location: str) -> str:
    """Section "Use" of a card, without its heading.

    Args:
        task: Task of the model.
        objective: `config.pretraining_objective`.
        location: Folder or Hub id that the example loads.
    """
    place = json.dumps(location, ensure_ascii=False)
    if task.pipeline is None:
        example = (
            "import torch\n"
            "from transformers import AutoModel, AutoProcessor\n\n"
            f"repository = {place}{_PLACE}\n"
            "processor = AutoProcessor.from_pretrained(repository, trust_remote_code=True)\n"
            "model = AutoModel.from_pretrained(repository, trust_remote_code=True).eval()\n\n"
            'inputs = processor(videos="clip.mp4", return_tensors="pt")\n'
            "with torch.no_grad():\n"
            "    outputs = model(**inputs)\n"
            "print(outputs.last_hidden_state.shape, outputs.image_last_hidden_state.shape, "
            "outputs.audio_last_hidden_state.shape)"
        )
        head = "the projection head" if objective == "jepa" else "the decoders"
        more = f"`AutoModelForPreTraining` loads {head} as well."
    else:
        example = (
            "from transformers import pipeline\n\n"
            f'pipe = pipeline("{task.pipeline}", model={place}, trust_remote_code=True){_PLACE}\n'
            'print(pipe("clip.mp4"))'
        )
        more = (
            f"The Hub task of this repository, {task.hub_task}, is the closest available: its stock pipeline would "
            "feed the model frames or audio alone."
        )
    return (
        f"```python\n{example}\n```\n\nThe code is in this repository. Where the package is installed (`pip install .` "
        "in a checkout of it) and imported (`import deepavfusion`), `trust_remote_code` is unnecessary. " + more
    )


def at_location(card: str, location: str) -> str:
    """A card whose example loads another folder or Hub id.

    Args:
        card: Text of a card.
        location: The folder or Hub id.
    """
    return _EXAMPLE.sub(lambda found: f"{found[1]}{json.dumps(location)}{found[2]}", card)


def architecture(model: Any) -> dict[str, Any]:
    """Sizes of a model, as JSON values.

    Args:
        model: A model of this package.
    """
    config, encoder = model.config, getattr(model, "deepavfusion", model)
    frames = f"{config.num_frames} x " if config.num_frames > 1 else ""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "fusion_type": config.fusion_type,
        "fusion_layers": str(config.fusion_layers),
        "fusion_tokens": config.num_all_fusion_tokens,
        "frame": f"{frames}{config.frame_size[0]} x {config.frame_size[1]}",
        "spectrogram": f"{config.num_mel_bins} mels x {config.spectrogram_length} steps",
        "image_patches": config.num_patches[0],
        "audio_patches": config.num_patches[1],
        "norm_patch_loss": config.norm_patch_loss,
        "pretraining_objective": config.pretraining_objective,
    }


def architecture_rows(sizes: dict[str, Any]) -> list[list[str]]:
    """Rows of a card's table of details: name and value.

    Args:
        sizes: What `architecture` returns.
    """
    millions = [f"{sizes[key] / 1e6:.1f} M" for key in ("parameters", "encoder_parameters")]
    shape = [str(sizes[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")]
    return [
        ["parameters", f"{millions[0]}, of which encoder {millions[1]}"],
        ["width, depth, heads", ", ".join(shape)],
        ["fusion", f"{sizes['fusion_type']}, layers: {sizes['fusion_layers']}, tokens: {sizes['fusion_tokens']}"],
        ["frame", f"{sizes['frame']} pixels, {sizes['image_patches']} patches"],
        ["audio", f"log-mel, {sizes['spectrogram']}, {sizes['audio_patches']} patches"],
    ]


def model_card(
    model: Any,
    name: str,
    location: str,
    *,
    metadata: dict[str, Any] | None = None,
    details: Sequence[Sequence[str]] = (),
    limits: Sequence[str] = (),
    sections: Sequence[tuple[str, str]] = (),
) -> ModelCard:
    """Build the card of a model.

    Args:
        model: A model of this package.
        name: Name of the model.
        location: Folder or Hub id that the example loads.
        metadata: Fields of `ModelCardData` in addition to library, task and tags; tags are appended.
        details: Further rows of the table of details, name and value.
        limits: Further limits.
        sections: Title and text of each further section, which are placed between details and limits.
    """
    task, objective = HEADS.get(type(model).__name__, ENCODER), model.config.pretraining_objective
    given = dict(metadata or {})
    tags = list(dict.fromkeys([*card_tags(task, objective), *(given.pop("tags", None) or ())]))
    data = ModelCardData(library_name="transformers", pipeline_tag=task.hub_task, tags=tags, **given)
    rows = [*architecture_rows(architecture(model)), *details]
    parts = [
        f"# {escape_markdown(name)}",
        introduction(task, objective),
        f"## Use\n\n{usage(task, objective, location)}",
        "\n".join(
            ["## Details\n", "|  |  |", "|---|---|", *(f"| {' | '.join(map(escape_markdown, row))} |" for row in rows)]
        ),
        *(f"## {title}\n\n{text}" for title, text in sections),
        "\n".join(["## Limits\n", *(f"- {limit}" for limit in (task.limit, *limits))]),
        f"## Citation\n\n{CITATION}",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n", ignore_metadata_errors=True)


def replace_placeholder(model: Any, folder: Any, repo_id: str) -> None:
    """Replace the placeholder that transformers writes where a repository has no card by the card of the model.

    Args:
        model: The model that is pushed.
        folder: Folder that is pushed.
        repo_id: Hub id that it is pushed to.
    """
    path = Path(folder) / "README.md"
    if not path.is_file() or _PLACEHOLDER not in path.read_text(encoding="utf-8"):
        return
    tags = ModelCard.load(path).data.tags or []  # those of `add_model_tags`
    card = model_card(model, repo_id.split("/")[-1], repo_id, metadata={"tags": tags})
    path.write_text(str(card), encoding="utf-8")


__all__ = [
    "CITATION",
    "ENCODER",
    "HEADS",
    "TASKS",
    "CardTask",
    "architecture",
    "architecture_rows",
    "at_location",
    "card_tags",
    "escape_markdown",
    "introduction",
    "model_card",
    "replace_placeholder",
    "usage",
]
