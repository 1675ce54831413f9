"""Conversion of published checkpoints to models of this package, with inferred sizes, and back."""

import math
import re

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
from .configuration_deepavfusion import DeepAVFusionConfig
from .conversion_layout_deepavfusion import derived_tensors, published_layout
from .modeling_deepavfusion import DeepAVFusionModel
from .patches_deepavfusion import sincos_positions
from .pretraining_deepavfusion import DeepAVFusionForPreTraining
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
from .separation_deepavfusion import DeepAVFusionForSourceSeparation
from .unimodal_deepavfusion import read_state_dict
from .weights_deepavfusion import check_weights

logger = logging.get_logger(__name__)

TASK_CLASSES = {
    "encoder": DeepAVFusionModel,
    "pretraining": DeepAVFusionForPreTraining,
    "classification": DeepAVFusionForAudioVisualClassification,
    "separation": DeepAVFusionForSourceSeparation,
    "segmentation": DeepAVFusionForSemanticSegmentation,
}

# Name prefixes found only in files of that task, tried in this order; encoder names have none of them.
TASK_PREFIXES = {
    "pretraining": ("image_decoder_", "audio_decoder_"),
    "classification": tuple(f"{x}_{part}" for x in ("image", "audio", "fusion") for part in ("head.", "norm.running_")),
    "separation": ("avss_decoder.",),
    "segmentation": ("predictor.", "top.", "lat.", "up.", "normv.", "norma.", "proja."),
}


class UndeterminedError(ValueError):
    """Raised for what a file does not determine, so that a configuration is needed.

    Args:
        reason: What that is: a sentence without its end.
    """

    def __init__(self, reason: str):
        super().__init__(f"{reason}; pass `config`.")
        self.reason = reason


def normalize_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove `module.` from published names, and rename `video.` (video encoders) to `image.`.

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


class _Tensors(dict):
    """Tensors by name, without a common prefix. Errors report the full name of a missing tensor."""

    def __init__(self, tensors: dict[str, torch.Tensor], prefix: str = ""):
        super().__init__((key.removeprefix(prefix), value) for key, value in tensors.items() if key.startswith(prefix))
        self.prefix = prefix

    def __missing__(self, key: str):
        raise ValueError(
            f"The checkpoint has no {self.prefix + key!r}, from which a size is inferred: expected a published one."
        )

    def count(self, name: str) -> int:
        """Number of modules in the list `name`, all of which the checkpoint must hold."""
        matches = (re.match(rf"{re.escape(name)}\.(0|[1-9]\d{{0,9}})\.", key) for key in self)
        found = {int(match[1]) for match in matches if match}
        missing = next((index for index in range(len(found)) if index not in found), None)
        if missing is not None:
            raise ValueError(
                f"The checkpoint has {self.prefix}{name}.{max(found)} but not {self.prefix}{name}.{missing}: expected "
                "modules that are numbered from 0 without a gap."
            )
        return len(found) or self[f"{name}.0"]


def infer_config(tensors: dict[str, torch.Tensor], task: str) -> DeepAVFusionConfig:
    """Infer the configuration of a published checkpoint.

    The file does not determine the following, which is therefore assumed:

    - heads of the encoder: those of the named sizes; for other widths, one per 64 channels, with a warning;
    - heads of plain decoders: 16, as in both releases; with a warning if the width is not 512 as in the releases. The
      heads of swin decoders follow from their bias tables;
    - tokens of factorized fusion: 16 + 8 + 8 if there are 32; dense and token fusion use only the sum;
    - mask ratios, loss variants, activations and epsilons: the defaults.

    Args:
        tensors: Published names (without `module.`) -> tensors. The grids follow from the position tables.
        task: Task of the model; encoder names are bare for `"encoder"` and start with `encoder.` otherwise.

    Raises:
        UndeterminedError: If a value can neither be inferred nor assumed.
        ValueError: If the checkpoint is incomplete, or has sizes that no model can have.
    """
    tensors, encoder = _Tensors(tensors), _Tensors(tensors, "" if task == "encoder" else "encoder.")
    dim = encoder["fusion_tokens"].shape[-1]
    values = {
        "hidden_size": dim,
        "num_hidden_layers": encoder.count("audio.blocks"),
        "intermediate_size": encoder["audio.blocks.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": _heads(dim),
        "num_fusion_attention_heads": _heads(dim),
    }
    values |= _image_sizes(encoder) | _audio_sizes(encoder) | _fusion(encoder, dim)
    if task == "pretraining":
        values |= _decoders(tensors)
    if task == "classification":
        values["num_labels"] = tensors["image_head.weight"].shape[0]
        values["classifier_input_norm"] = any("_norm.running_" in key for key in tensors)
    if task == "segmentation":
        values["num_labels"] = tensors["predictor.2.weight"].shape[0]
    try:
        config = DeepAVFusionConfig(**values)
    except StrictDataclassError as error:
        raise ValueError(f"The checkpoint has sizes that no model can have: {error.__cause__ or error}") from error
    stored = sum(tensor.numel() for tensor in tensors.values())
    towers = 2 * config.num_hidden_layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size)
    if towers > 2 * stored:  # the file's names and tables alone must not decide what is allocated
        raise ValueError(
            f"The checkpoint holds {stored} numbers, but its names and sizes are those of a model with {towers}: it is "
            "incomplete."
        )
    return config


def _heads(dim: int) -> int:
    if dim == 1280:  # only the huge ViT has heads of 80 channels
        return 16
    if dim % 64:
        raise UndeterminedError(
            f"Cannot infer the number of attention heads from hidden_size={dim} (not a multiple of 64)"
        )
    if dim not in (384, 768, 1024):
        logger.warning(
            f"Assuming {dim // 64} attention heads for hidden_size={dim}; pass a configuration if it differs."
        )
    return dim // 64


def _ratio(width: int, dim: int) -> float:
    """Find the ratio that gives `width` when multiplied by `dim` and rounded down."""
    ratio = width / dim
    return ratio if int(ratio * dim) == width else math.nextafter(ratio, math.inf)


def _grid(encoder: _Tensors, tower: str, axes: int) -> tuple[int, ...]:
    """Find the grid whose sin-cos table is the one stored for a tower."""
    key = f"{tower}.pos_embed"
    if key not in encoder:
        raise UndeterminedError(
            f"The checkpoint has no {encoder.prefix + key!r}, from which the input's size is inferred"
        )
    table = encoder[key][0].float()
    for grid in _factorizations(table.shape[0], axes):
        if torch.allclose(sincos_positions(grid, table.shape[1]), table, atol=2e-3):
            return grid
    name, shape = encoder.prefix + key, tuple(encoder[key].shape)
    raise ValueError(f"{name} of shape {shape} is the sin-cos table of no {axes}-D grid.")


def _factorizations(number: int, axes: int):
    """All tuples of `axes` positive integers whose product is `number`."""
    if axes == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _factorizations(number // first, axes - 1):
                yield (first, *rest)


def _image_sizes(encoder: _Tensors) -> dict:
    _, channels, *patch = encoder["image.patch_embed.proj.weight"].shape
    grid = _grid(encoder, "image", len(patch))
    height, width = grid[-2] * patch[-2], grid[-1] * patch[-1]
    values = {
        "num_channels": channels,
        "patch_size": patch[-1],
        "image_size": height if height == width else [height, width],
    }
    if len(patch) == 3:
        divided = any(".temporal_" in key for key in encoder)
        values |= {
            "tubelet_size": patch[0],
            "num_frames": grid[0] * patch[0],
            "video_attention": "divided" if divided else "joint",
        }
    return values


def _audio_sizes(encoder: _Tensors) -> dict:
    patch = encoder["audio.patch_embed.proj.weight"].shape[-1]
    mels, steps = _grid(encoder, "audio", 2)
    return {"audio_patch_size": patch, "num_mel_bins": mels * patch, "spectrogram_length": steps * patch}


def _fusion(encoder: _Tensors, dim: int) -> dict:
    indices = sorted({int(key.split(".")[1]) for key in encoder if key.startswith("fusion_blocks.")})
    depth, total = encoder.count("audio.blocks"), encoder["fusion_tokens"].shape[1]
    counts = (16, 8, 8) if total == 32 else (total, 0, 0)
    values = {"fusion_layers": "all" if indices == list(range(depth)) else indices or "none"}
    kind = "token" if indices or total != 32 else "factorized"  # without blocks, the type has no effect
    if indices:
        block = f"fusion_blocks.{indices[0]}."
        if any(key.startswith(block + "attn.attn_") for key in encoder):
            kind = "factorized"
        elif encoder[block + "attn.kv.weight"].shape[1] == 2 * dim:
            kind = "dense"
        values["fusion_attention_ratio"] = _ratio(encoder[block + "attn.q.weight"].shape[0], dim)
        values["fusion_mlp_ratio"] = _ratio(encoder[block + "mlp.fc1.weight"].shape[0], dim)
    if kind == "factorized" and total != 32:
        raise UndeterminedError(f"How {total} fusion tokens divide into the three kinds is not in the file")
    names = ("num_fusion_tokens", "num_image_aggregation_tokens", "num_audio_aggregation_tokens")
    return values | {"fusion_type": kind} | dict(zip(names, counts, strict=True))


def _decoders(tensors: _Tensors) -> dict:
    dim = tensors["image_decoder_embed.weight"].shape[0]
    swin = {
        modality: any(key.startswith(f"{modality}_decoder_") and ".attn.relative_" in key for key in tensors)
        for modality in ("image", "audio")
    }
    return {
        "decoder_hidden_size": dim,
        "decoder_num_hidden_layers": tensors.count("image_decoder_blocks"),
        "decoder_num_attention_heads": _decoder_heads(tensors, dim, swin),
        "decoder_intermediate_size": tensors["image_decoder_blocks.0.mlp.fc1.weight"].shape[0],
        "image_decoder_type": "swin" if swin["image"] else "plain",
        "audio_decoder_type": "swin" if swin["audio"] else "plain",
    }


def _decoder_heads(tensors: _Tensors, dim: int, swin: dict[str, bool]) -> int:
    for modality in ("image", "audio"):
        if swin[modality]:
            return tensors[f"{modality}_decoder_blocks.0.attn.relative_position_bias_table"].shape[1]
    if dim % 16:
        raise UndeterminedError(
            f"Cannot infer the number of attention heads from decoder_hidden_size={dim} (not a multiple of 16)"
        )
    if dim != 512:
        logger.warning(
            f"Assuming 16 attention heads for decoder_hidden_size={dim}; pass a configuration if it differs."
        )
    return 16


def load_original_checkpoint(path_or_state_dict, config=None, task: str | None = None):
    """Load a published checkpoint into a model of this package, using each of its tensors once.

    Args:
        path_or_state_dict: Path of a .pth or .safetensors file, or a state dict.
        config (`DeepAVFusionConfig`, *optional*): By default inferred from names, shapes and position tables; see
            [`infer_config`] for what these do not determine.
        task (`str`, *optional*): `"encoder"`, `"pretraining"`, `"classification"`, `"separation"` or `"segmentation"`;
            by default inferred from the names. `"encoder"` extracts the encoder from any file and drops the rest.

    Returns:
        The model, in eval mode.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If tensors are unknown, missing or have the wrong shape (the message lists them), or if tables
            (positions, windows) differ from those of the configuration, or weights are NaN, infinite, complex or
            integers. If a configuration is given, the tables may be absent.
    """
    tensors = normalize_names(read_state_dict(path_or_state_dict))
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
        try:
            config = infer_config(tensors, task)
        except (ArithmeticError, LookupError, TypeError, RuntimeError, StrictDataclassError) as error:
            reason = " ".join(str(error).split())
            raise UndeterminedError(f"The checkpoint has tensors of impossible sizes ({reason})") from error
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
    check_weights({name: tensors[name] for name in layout}, "The checkpoint")
    _verify_derived(tensors, derived)
    with torch.no_grad():
        for name, grid in layout.items():
            for key, part in _split(tensors[name], grid, own):
                own[key].copy_(part)
    check_weights(own, "The checkpoint")  # once more: numbers may have become too large for the model's type


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
    """Export a model's state dict with the names of the published code, which can load it; includes derived tables.

    No sound localization model was published: only its encoder, `model.deepavfusion`, can be exported.

    Raises:
        TypeError: If the model has no published counterpart.
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


__all__ = ["UndeterminedError", "export_original_state_dict", "infer_config", "load_original_checkpoint"]
