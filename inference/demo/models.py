"""The models of the demo, and what each of them can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining
from deepavfusion.sentence_transformers_deepavfusion import DeepAVFusionEmbedder
from deepavfusion.tasks_deepavfusion import HEADS
from deepavfusion_cli.early.models import PRETRAINED, class_fault, stored_class, type_fault
from deepavfusion_cli.early.models import TASKS as COMMANDS
from deepavfusion_cli.paths import missing_model, unusable
from deepavfusion_cli.terminal import printable

from ..benchmarks.embedders import load_embedder
from ..common import load_model, load_pipeline, mixed_precision, reading_model
from ..files import UnreadableError
from ..jobs.inputs import numbered

_ABILITIES = {task: command for command, task in COMMANDS.items()}  # task of a model -> what the demo offers with it


@dataclass(frozen=True)
class DemoModel:
    """A model of the demo.

    Attributes:
        name: Name that is shown, unique among the models.
        abilities: Any of "localize", "segment", "separate", "classify", "reconstruct" and "search".
        pipeline: Pipeline of its task; None for encoders.
        pretrained: Model with decoders, of those that can reconstruct.
        embedder: Encoder of images and sounds, of those that can search.
    """

    name: str
    abilities: tuple[str, ...]
    pipeline: Any = None
    pretrained: DeepAVFusionForPreTraining | None = None
    embedder: DeepAVFusionEmbedder | None = None

    @property
    def processor(self) -> Any:
        """Its processor."""
        return self.embedder.processor if self.pipeline is None else self.pipeline.processor

    @property
    def across(self) -> bool:
        """Whether its pre-training put images and sounds into one space, so that one can be searched by the other."""
        return self.embedder is not None and self.embedder.model.config.pretraining_objective in ("align", "jepa")


def abilities_of(origin: str) -> tuple[str, ...]:
    """What the demo offers with a saved model, by the class that it was saved from.

    Args:
        origin: Folder or Hub id of the model.

    Raises:
        OSError: If there is no such model.
        UnreadableError: If it is no model of this package.
    """
    if reason := missing_model(origin):
        raise OSError(unusable(origin, reason))
    with reading_model(origin):
        config = DeepAVFusionConfig.get_config_dict(origin)[0]
        name = stored_class(config)
        if fault := type_fault(origin, config.get("model_type")) or class_fault(origin, name):
            raise UnreadableError(fault)
    if name in HEADS:
        return (_ABILITIES[HEADS[name].name],)
    if name == PRETRAINED and config.get("pretraining_objective") != "jepa":
        return ("reconstruct", "search")
    return ("search",)


def load_models(
    origins: Sequence[str], device: str | None = None, fit: str | None = None, precision: str = "auto"
) -> list[DemoModel]:
    """Load models for the demo.

    Args:
        origins: Folders or Hub ids.
        device: Device such as "cpu" or "cuda:1"; by default the first accelerator if there is one, else the CPU.
        fit: How frames are fitted to the models' inputs; by default as saved.
        precision: As of the commands: "auto", "float32" or "bfloat16".

    Raises:
        OSError: If there is no such model, or no processor beside it.
        ValueError: If a model cannot be used.
    """
    names = numbered(printable(origin.rstrip("/").rpartition("/")[2] or origin) for origin in origins)
    able = [abilities_of(origin) for origin in origins]  # all, before the first is loaded
    return [_load(*entry, device, fit, precision) for entry in zip(origins, names, able, strict=True)]


def _load(
    origin: str, name: str, abilities: tuple[str, ...], device: str | None, fit: str | None, precision: str
) -> DemoModel:
    for task in HEADS.values():
        if task.pipeline is not None and _ABILITIES[task.name] in abilities:
            pipeline = load_pipeline(task.pipeline, origin, device, fit=fit)
            pipeline.mixed_precision = mixed_precision(precision, pipeline.device)
            return DemoModel(name, abilities, pipeline)
    place = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    embedder, pretrained = load_embedder(origin), None
    embedder.processor = embedder.processor.with_fit(fit)
    if "reconstruct" in abilities:
        pretrained = load_model(DeepAVFusionForPreTraining, origin).to(place).eval()
        embedder.model = pretrained.deepavfusion  # the same weights, held once
    embedder.to(place).eval()
    return DemoModel(name, abilities, None, pretrained, embedder)


def able_to(models: Sequence[DemoModel], ability: str) -> dict[str, DemoModel]:
    """The models with an ability, by name."""
    return {model.name: model for model in models if ability in model.abilities}


__all__ = ["DemoModel", "able_to", "abilities_of", "load_models"]
