"""Published checkpoints: into models of this package, and back to the published names."""

import re

import torch
from transformers.utils import logging

from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
from .conversion_config_deepavfusion import infer_config
from .conversion_layout_deepavfusion import derived_tensors, published_layout
from .modeling_deepavfusion import DeepAVFusionModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
from .separation_deepavfusion import DeepAVFusionForSourceSeparation
from .unimodal_deepavfusion import read_state_dict

logger = logging.get_logger(__name__)

TASK_CLASSES = {
    "encoder": DeepAVFusionModel,
    "pretraining": DeepAVFusionForPreTraining,
    "classification": DeepAVFusionForAudioVisualClassification,
    "separation": DeepAVFusionForSourceSeparation,
    "segmentation": DeepAVFusionForSemanticSegmentation,
}

# Prefixes of names that only files of that task have, tried in this order; an encoder's names have none of them.
TASK_PREFIXES = {
    "pretraining": ("image_decoder_", "audio_decoder_"),
    "classification": tuple(f"{x}_{part}" for x in ("image", "audio", "fusion") for part in ("head.", "norm.running_")),
    "separation": ("avss_decoder.",),
    "segmentation": ("predictor.", "top.", "lat.", "up.", "normv.", "norma.", "proja."),
}


def normalise_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published names without `module.`, and with `image.` instead of the `video.` of video encoders.

    Raises:
        ValueError: If two tensors would get the same name.
    """
    tensors = {}
    for key, tensor in state_dict.items():
        name = re.sub(r"^(encoder\.)?video\.", r"\1image.", key.removeprefix("module."))
        if name in tensors:
            raise ValueError(f"The checkpoint has {name!r} twice: {key!r} is another name of it.")
        tensors[name] = tensor
    return tensors


def load_original_checkpoint(path_or_state_dict, config=None, task: str | None = None):
    """Build the model of a published checkpoint, using every tensor of it once.

    Args:
        path_or_state_dict: Path of a .pth or .safetensors file, or a state dict.
        config (`DeepAVFusionConfig`, *optional*): By default inferred from names, shapes and position tables; see
            [`infer_config`] for what these leave open.
        task (`str`, *optional*): `"encoder"`, `"pretraining"`, `"classification"`, `"separation"` or `"segmentation"`;
            by default inferred from the names. `"encoder"` takes the encoder out of any file and drops the rest.

    Returns:
        The model, in eval mode.

    Raises:
        OSError: For a file that does not exist or cannot be read.
        ValueError: For unknown, missing or misshapen tensors, which are named, and for tables (positions, windows) that
            differ from those that the configuration fixes. If a configuration is given, the tables may be absent.
    """
    tensors = normalise_names(read_state_dict(path_or_state_dict))
    found = next((name for name, prefixes in TASK_PREFIXES.items() if _any_starts(tensors, prefixes)), "encoder")
    requested, task = task, task or found
    if task not in TASK_CLASSES:
        raise ValueError(f"Unknown task {task!r}: expected one of {_names(TASK_CLASSES)}.")
    if task not in (found, "encoder"):
        raise ValueError(f"The checkpoint holds a model for {found!r}: expected one for {task!r}, as requested.")
    if task == "encoder" and _any_starts(tensors, "encoder."):
        if requested == "encoder":
            kept = {key: tensor for key, tensor in tensors.items() if key.startswith("encoder.")}
            if len(kept) < len(tensors):
                logger.warning(
                    f"Taking the encoder alone: {len(tensors) - len(kept)} tensors of the {found} model are dropped."
                )
            tensors = kept
        tensors = {key.removeprefix("encoder."): tensor for key, tensor in tensors.items()}
    if config is None:
        config = infer_config(tensors, task)
    model = TASK_CLASSES[task](config)
    _load(model, tensors)
    return model.eval()


def _any_starts(names, prefixes: str | tuple[str, ...]) -> bool:
    return any(name.startswith(prefixes) for name in names)


def _load(model, tensors: dict[str, torch.Tensor]) -> None:
    layout, derived, own = published_layout(model), derived_tensors(model), model.state_dict()
    missing = [name for name in layout if name not in tensors]
    unknown = [name for name in tensors if name not in layout and name not in derived]
    if missing or unknown:
        raise ValueError(
            f"The checkpoint does not fit a {type(model).__name__} of this configuration. "
            f"Missing ({len(missing)}): {_names(missing)}. Unknown ({len(unknown)}): {_names(unknown)}."
        )
    wrong = []
    for name, grid in layout.items():
        rows = [sum(own[row[0]].shape[0] for row in grid)] if own[grid[0][0]].ndim else []
        columns = [sum(own[key].shape[1] for key in grid[0])] if own[grid[0][0]].ndim > 1 else []
        expected = (*rows, *columns, *own[grid[0][0]].shape[2:])
        if tuple(tensors[name].shape) != expected:
            wrong.append(f"{name} is {tuple(tensors[name].shape)}, expected {expected}")
    if wrong:
        raise ValueError(f"Tensors do not fit the configuration ({len(wrong)}): {_names(wrong, quoted=False)}.")
    _verify_derived(tensors, derived)
    with torch.no_grad():
        for name, grid in layout.items():
            for key, part in _split(tensors[name], grid, own):
                own[key].copy_(part)


def _verify_derived(tensors: dict, derived: dict) -> None:
    for name, expected in derived.items():
        if name not in tensors:
            continue
        given = tensors[name].float()
        if given.shape != expected.shape or not torch.allclose(given, expected.float(), atol=2e-3):
            raise ValueError(
                f"{name} of shape {tuple(given.shape)} is not the table that this configuration fixes (shape "
                f"{tuple(expected.shape)}): is the image, video or spectrogram of another size?"
            )


def _split(tensor: torch.Tensor, grid: list[list[str]], own: dict[str, torch.Tensor]):
    """Yield our name and its part of a published tensor for each cell of a grid."""
    if tensor.ndim == 0:
        yield grid[0][0], tensor
        return
    for row, strip in zip(grid, tensor.split([own[row[0]].shape[0] for row in grid]), strict=True):
        if len(row) == 1:
            yield row[0], strip
        else:
            yield from zip(row, strip.split([own[key].shape[1] for key in row], dim=1), strict=True)


def join(grid: list[list[str]], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Join a published tensor from the parts that its grid names."""
    if len(grid) == len(grid[0]) == 1:
        return tensors[grid[0][0]].clone()
    return torch.cat(
        [torch.cat([tensors[key] for key in row], dim=1) if len(row) > 1 else tensors[row[0]] for row in grid]
    )


def export_original_state_dict(model) -> dict[str, torch.Tensor]:
    """The state dict of a model under the published names, derived tables included, which the published code loads.

    Sound localization was never published: only its encoder can be exported, `model.deepavfusion`.

    Raises:
        TypeError: For a model without a published form.
    """
    own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    layout = published_layout(model)
    used = [key for grid in layout.values() for row in grid for key in row]
    if sorted(used) != sorted(own):
        raise RuntimeError(f"The layout does not cover {_names(set(own).symmetric_difference(used))}.")
    tensors = {name: join(grid, own) for name, grid in layout.items()}
    tensors |= {name: tensor.detach().clone() for name, tensor in derived_tensors(model).items()}
    if model.config.num_frames > 1:
        tensors = {re.sub(r"^(encoder\.)?image\.", r"\1video.", name): tensor for name, tensor in tensors.items()}
    return tensors


def _names(names, limit: int = 12, quoted: bool = True) -> str:
    names = sorted(names) if quoted else list(names)
    shown = ", ".join(repr(name) if quoted else name for name in names[:limit])
    return (shown or "none") + (f" and {len(names) - limit} more" if len(names) > limit else "")


__all__ = ["export_original_state_dict", "load_original_checkpoint"]
