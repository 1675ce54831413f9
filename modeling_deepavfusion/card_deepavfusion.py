"""Model cards (README.md): what a model says about itself wherever it is pushed from.

A training run adds its results, data and recipe to these parts (`training/runs/card.py`), a `Trainer` its own
(`trainer_card_deepavfusion.py`). `push_to_hub` of a model writes them alone.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch.utils.flop_counter import FlopCounterMode

from .tasks_deepavfusion import ENCODER, HEADS, CardTask

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
_SHOWN_LABELS = 20
# What `create_and_tag_model_card` of transformers writes where a repository has no card.
_PLACEHOLDER = "This model card has been automatically generated."


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


def usage(task: CardTask, objective: str | None, location: str) -> str:
    """Section "Use" of a card, without its heading.

    Args:
        task: Task of the model.
        objective: `config.pretraining_objective` of a model for pre-training; None for others, an encoder alone among
            them.
        location: Folder or Hub id that the example loads.
    """
    place = json.dumps(location, ensure_ascii=False)
    by_class = (
        "import torch\n"
        f"from transformers import {task.auto_class}, AutoProcessor\n\n"
        f"repository = {place}{_PLACE}\n"
        "processor = AutoProcessor.from_pretrained(repository, trust_remote_code=True)\n"
        f"model = {task.auto_class}.from_pretrained(repository, trust_remote_code=True).eval()\n\n"
        'inputs = processor(videos="clip.mp4", return_tensors="pt")\n'
        "with torch.no_grad():\n"
        "    outputs = model(**inputs)\n"
        f"print({task.result})"
    )
    pipeline = task.pipeline or "audio-visual-feature-extraction"
    by_pipeline = (
        "from transformers import pipeline\n\n"
        f'pipe = pipeline("{pipeline}", model={place}, trust_remote_code=True){_PLACE}\n'
        'print(pipe("clip.mp4"))'
    )
    examples = [by_class, by_pipeline] if task.pipeline is None else [by_pipeline, by_class]
    code = "\n\n".join(f"```python\n{example}\n```" for example in examples)
    more = (
        f"The Hub task of this repository, {task.hub_task}, is the closest available. The pipeline of that name, which "
        f"the Hub's own snippet shows, feeds models frames or audio alone: use `{pipeline}`, as above."
    )
    if objective is not None:
        head = "the projection head" if objective == "jepa" else "the decoders"
        more += f" `AutoModelForPreTraining` loads {head} as well."
    return (
        f"{code}\n\nThe code is in this repository; it needs torch, torchaudio, transformers 5, av and pillow. Where "
        "the package is installed (`pip install .` in a clone of it) and imported (`import deepavfusion`), "
        f"`trust_remote_code` is unnecessary. {more}"
    )


def intended_use(task: CardTask) -> str:
    """Section "Intended use" of a card, without its heading."""
    return (
        f"{task.purpose} Not intended for recognizing or watching people, nor for decisions that affect them, without "
        "an evaluation on data of that use."
    )


def license_text(license: str | None, data: str | None = None) -> str:
    """Section "License" of a card, without its heading.

    Args:
        license: Identifier of the license of the weights; None if it is not known.
        data: A sentence on the license of the training data.
    """
    data = data or "The data that a model was trained on have terms of their own."
    return f"{_weights_license(license)} The code in this repository: apache-2.0. {data}"


def _weights_license(license: str | None) -> str:
    return f"Weights: {license}." if license else "No license is stated for the weights."


def with_license(card: ModelCard, license: str) -> ModelCard:
    """A card that states no license, with one.

    Args:
        card: The card.
        license: Identifier of the license of the weights.
    """
    text = str(card).replace(_weights_license(None), _weights_license(license))
    result = ModelCard(text, ignore_metadata_errors=True)
    result.data["license"] = license
    return result


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
    names = [str(name) for name in config.id2label.values()]
    frames = f"{config.num_frames} x " if config.num_frames > 1 else ""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
        "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "multiply_accumulates": multiply_accumulates(model),
        "labels": [] if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names,
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


def multiply_accumulates(model: Any) -> int:
    """Multiply-accumulate operations for one clip without masks, counted on meta tensors: nothing is computed.

    Args:
        model: A model of this package; of one for pre-training, those of its encoder are counted.
    """
    part = getattr(model, "deepavfusion", model) if hasattr(model, "image_decoder") else model
    with torch.device("meta"):
        copy = type(part)(part.config).to("meta").eval().requires_grad_(False)
        inputs = {name: torch.empty(1, *shape) for name, shape in part.config.input_shapes.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy(**inputs)
    return counter.get_total_flops() // 2


def architecture_rows(sizes: dict[str, Any]) -> list[list[str]]:
    """Rows of a card's table of details: name and value.

    Args:
        sizes: What `architecture` returns.
    """
    millions = [f"{sizes[key] / 1e6:.1f} M" for key in ("parameters", "encoder_parameters")]
    shape = [str(sizes[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")]
    labels = [*sizes["labels"][:_SHOWN_LABELS]]
    number = sizes["multiply_accumulates"]
    operations = f"{number / 1e9:.3g} GMACs" if number >= 1e8 else f"{number / 1e6:.3g} MMACs"
    if len(sizes["labels"]) > _SHOWN_LABELS:
        labels.append(f"and {len(sizes['labels']) - _SHOWN_LABELS} more (`id2label` in config.json)")
    return [
        ["parameters", f"{millions[0]}, of which encoder {millions[1]}"],
        ["memory of the weights", f"{sizes['weight_bytes'] / 1e6:,.0f} MB"],
        ["compute", f"{operations} (multiply-accumulates) a clip, without masks"],
        ["width, depth, heads", ", ".join(shape)],
        ["fusion", f"{sizes['fusion_type']}, layers: {sizes['fusion_layers']}, tokens: {sizes['fusion_tokens']}"],
        ["frame", f"{sizes['frame']} pixels, {sizes['image_patches']} patches"],
        ["audio", f"log-mel, {sizes['spectrogram']}, {sizes['audio_patches']} patches"],
        *([["labels", ", ".join(labels)]] if labels else []),
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
    data_license: str | None = None,
) -> ModelCard:
    """Build the card of a model.

    Args:
        model: A model of this package.
        name: Name of the model.
        location: Folder or Hub id that the example loads.
        metadata: Fields of `ModelCardData` in addition to library, task and tags; tags are appended.
        details: Further rows of the table of details, name and value.
        limits: Further limits.
        sections: Title and text of each further section, which are placed between details and intended use.
        data_license: A sentence on the license of the training data.
    """
    task, objective = HEADS.get(type(model).__name__, ENCODER), model.config.pretraining_objective
    pretrained = type(model).__name__ == "DeepAVFusionForPreTraining"
    given = dict(metadata or {})
    tags = list(dict.fromkeys([*card_tags(task, objective), *(given.pop("tags", None) or ())]))
    data = ModelCardData(library_name="transformers", pipeline_tag=task.hub_task, tags=tags, **given)
    rows = [*architecture_rows(architecture(model)), *details]
    parts = [
        f"# {escape_markdown(name)}",
        introduction(task, objective),
        f"## Use\n\n{usage(task, objective if pretrained else None, location)}",
        "\n".join(
            ["## Details\n", "|  |  |", "|---|---|", *(f"| {' | '.join(map(escape_markdown, row))} |" for row in rows)]
        ),
        *(f"## {title}\n\n{text}" for title, text in sections),
        f"## Intended use\n\n{intended_use(task)}",
        "\n".join(["## Limits\n", *(f"- {limit}" for limit in (task.limit, *limits))]),
        f"## License\n\n{license_text(data.get('license'), data_license)}",
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
    "architecture",
    "architecture_rows",
    "at_location",
    "card_tags",
    "escape_markdown",
    "intended_use",
    "introduction",
    "license_text",
    "model_card",
    "multiply_accumulates",
    "replace_placeholder",
    "usage",
    "with_license",
]
