"""Published checkpoints: into models of this package, and back to the published names.

A *layout* says what each published tensor is made of: a grid of this package's tensors, joined along columns, then
rows. Reading splits along it, writing joins along it, so both directions come from one description.
"""

import argparse
import os
import re

import torch
from transformers.utils import logging

from .conversion_config_deepavfusion import infer_config
from .modeling_deepavfusion import DeepAVFusionModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining

logger = logging.get_logger(__name__)

# What names start with that only files of that task have, in the order of asking; an encoder's have none of them.
TASK_PREFIXES = {
    "pretraining": ("image_decoder_", "audio_decoder_"),
    "classification": tuple(f"{x}_{part}" for x in ("image", "audio", "fusion") for part in ("head.", "norm.running_")),
    "separation": ("avss_decoder.",),
    "segmentation": ("predictor.", "top.", "lat.", "up.", "normv.", "norma.", "proja."),
}


def task_classes() -> dict:
    """Task -> model class."""
    from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
    from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
    from .separation_deepavfusion import DeepAVFusionForSourceSeparation

    return {
        "encoder": DeepAVFusionModel,
        "pretraining": DeepAVFusionForPreTraining,
        "classification": DeepAVFusionForAudioVisualClassification,
        "separation": DeepAVFusionForSourceSeparation,
        "segmentation": DeepAVFusionForSemanticSegmentation,
    }


class Layout(dict):
    """Published name -> grid (rows of columns) of this package's names."""

    def one(self, published: str, ours: str, parts=("weight", "bias")) -> None:
        """A module that both have alike."""
        for part in parts:
            self[f"{published}.{part}"] = [[f"{ours}.{part}"]]

    def stacked(self, published: str, ours: list[str]) -> None:
        """One published linear map that gives the outputs of several of ours."""
        for part in ("weight", "bias"):
            self[f"{published}.{part}"] = [[f"{name}.{part}"] for name in ours]

    def linear_attention(self, published: str, ours: str) -> None:
        """Query, fused keys and values, projection."""
        self.one(f"{published}.q", f"{ours}.q_proj")
        self.stacked(f"{published}.kv", [f"{ours}.k_proj", f"{ours}.v_proj"])
        self.one(f"{published}.proj", f"{ours}.o_proj")

    def block(self, published: str, ours: str) -> None:
        """A transformer block with fused query, key and value."""
        self.one(f"{published}.norm1", f"{ours}.layernorm_before")
        self.stacked(f"{published}.attn.qkv", [f"{ours}.attention.{x}_proj" for x in "qkv"])
        self.one(f"{published}.attn.proj", f"{ours}.attention.o_proj")
        self.one(f"{published}.norm2", f"{ours}.layernorm_after")
        self.mlp(f"{published}.mlp", f"{ours}.mlp")

    def mlp(self, published: str, ours: str) -> None:
        self.one(f"{published}.fc1", f"{ours}.fc1")
        self.one(f"{published}.fc2", f"{ours}.fc2")

    def double_conv(self, published: str, ours: str) -> None:
        for index in (0, 3):
            self.one(f"{published}.double_conv.{index}", f"{ours}.{index}", ("weight",))
            self.batch_norm(f"{published}.double_conv.{index + 1}", f"{ours}.{index + 1}", ("weight", "bias"))

    def batch_norm(self, published: str, ours: str, affine=()) -> None:
        self.one(published, ours, (*affine, "running_mean", "running_var", "num_batches_tracked"))


def published_layout(model) -> Layout:
    """The layout of a model's published form. Every tensor of its state dict stands in it exactly once."""
    layout = Layout()
    if isinstance(model, DeepAVFusionModel):
        _encoder(layout, model, "", "")
    else:
        _encoder(layout, model.deepavfusion, "encoder.", "deepavfusion.")
        _HEADS[_task_of(model)](layout, model)
    return layout


def _encoder(layout: Layout, encoder: DeepAVFusionModel, published: str, ours: str) -> None:
    config = encoder.config
    for tower in ("image", "audio"):
        layout.one(f"{published}{tower}.patch_embed.proj", f"{ours}{tower}.patch_embed.projection")
        for index in range(config.num_hidden_layers):
            name, own = f"{published}{tower}.blocks.{index}", f"{ours}{tower}.layers.{index}"
            layout.block(name, own)
            if tower == "image" and config.num_frames > 1 and config.video_attention == "divided":
                layout.one(f"{name}.temporal_norm1", f"{own}.temporal_layernorm")
                layout.stacked(f"{name}.temporal_attn.qkv", [f"{own}.temporal_attention.{x}_proj" for x in "qkv"])
                layout.one(f"{name}.temporal_attn.proj", f"{own}.temporal_attention.o_proj")
                layout.one(f"{name}.temporal_fc", f"{own}.temporal_dense")
        layout.one(f"{published}{tower}.norm", f"{ours}{tower}.norm")
    layout[f"{published}fusion_tokens"] = [[f"{ours}fusion_tokens"]]
    layout.one(f"{published}fusion_norm", f"{ours}fusion_norm")
    # The published names of token fusion's two norms are swapped: norm1_aud is applied to the image.
    image_norm, audio_norm = ("norm1_aud", "norm1_img") if config.fusion_type == "token" else ("norm1_img", "norm1_aud")
    for index in config.fusion_layer_indices:
        name, own = f"{published}fusion_blocks.{index}", f"{ours}fusion_layers.{index}"
        layout.one(f"{name}.norm1_mm", f"{own}.fusion_layernorm")
        layout.one(f"{name}.{image_norm}", f"{own}.image_layernorm")
        layout.one(f"{name}.{audio_norm}", f"{own}.audio_layernorm")
        _FUSION[config.fusion_type](layout, f"{name}.attn", f"{own}.attention")
        layout.one(f"{name}.norm2", f"{own}.layernorm_after")
        layout.mlp(f"{name}.mlp", f"{own}.mlp")


def _dense_fusion(layout: Layout, name: str, own: str) -> None:
    """The published pair is [audio ; image]; keys come before values."""
    layout.one(f"{name}.q", f"{own}.q_proj")
    layout[f"{name}.kv.weight"] = [
        [f"{own}.audio_k_proj.weight", f"{own}.image_k_proj.weight"],
        [f"{own}.audio_v_proj.weight", f"{own}.image_v_proj.weight"],
    ]
    layout[f"{name}.kv.bias"] = [[f"{own}.image_k_proj.bias"], [f"{own}.v_bias"]]
    layout.one(f"{name}.proj", f"{own}.o_proj")


def _factorized_fusion(layout: Layout, name: str, own: str) -> None:
    """`attn_v` aggregates the image, `attn_a` the audio; the pair is [image ; audio], with keys and values apart."""
    layout.linear_attention(f"{name}.attn_v", f"{own}.image_attention")
    layout.linear_attention(f"{name}.attn_a", f"{own}.audio_attention")
    own = f"{own}.pair_attention"
    layout.one(f"{name}.q", f"{own}.q_proj")
    for x in "kv":
        layout[f"{name}.{x}.weight"] = [[f"{own}.image_{x}_proj.weight", f"{own}.audio_{x}_proj.weight"]]
    layout[f"{name}.k.bias"] = [[f"{own}.image_k_proj.bias"]]
    layout[f"{name}.v.bias"] = [[f"{own}.v_bias"]]
    layout.one(f"{name}.proj", f"{own}.o_proj")


_FUSION = {"dense": _dense_fusion, "factorized": _factorized_fusion, "token": Layout.linear_attention}


def _pretraining(layout: Layout, model) -> None:
    for modality in ("image", "audio"):
        name, own = f"{modality}_decoder", f"{modality}_decoder"
        layout.one(f"{name}_embed", f"{own}.embed")
        layout[f"{name}_mask_token"] = [[f"{own}.mask_token"]]
        layout[f"{name}_pos_embed"] = [[f"{own}.position_embeddings"]]
        for index in range(model.config.decoder_num_hidden_layers):
            block, layer = f"{name}_blocks.{index}", f"{own}.layers.{index}"
            layout.block(block, layer)
            if getattr(model.config, f"{modality}_decoder_type") == "swin":
                table = "relative_position_bias_table"
                layout[f"{block}.attn.{table}"] = [[f"{layer}.{table}"]]
        layout.one(f"{name}_norm", f"{own}.norm")
        layout.one(f"{name}_pred", f"{own}.predictor")


def _classification(layout: Layout, model) -> None:
    for stream in ("image", "audio", "fusion"):
        layout.one(f"{stream}_head", f"{stream}_classifier.dense")
        if model.config.classifier_input_norm:
            layout.batch_norm(f"{stream}_norm", f"{stream}_classifier.norm")


def _separation(layout: Layout, model) -> None:
    """Published scales count down to the finest: cond5 and the top, then lat4, up4, cond4 ..."""
    scales = len(model.tap_layers)
    layout.one("avss_decoder.xv_norm", "condition_norm")
    layout.double_conv("avss_decoder.top", "unet.top")
    for index in range(scales):
        layout.one(f"avss_decoder.xa_norm.{index}", f"tap_norms.{index}")
        layout.one(f"avss_decoder.cond{scales - index}", f"condition_projections.{index}")
    for index in range(scales - 1):
        for kind, own in (("lat", "laterals"), ("up", "ups")):
            name = f"avss_decoder.{kind}{scales - 1 - index}"
            layout.one(f"{name}.up", f"unet.{own}.{index}.upsample")
            layout.double_conv(f"{name}.conv", f"unet.{own}.{index}.conv")
    layout.one("avss_decoder.pred", "predictor")


def _segmentation(layout: Layout, model) -> None:
    scales = len(model.tap_layers)
    layout.double_conv("top", "unet.top")
    for index in range(scales):
        layout.one(f"normv.{index}", f"tap_norms.{index}")
        layout.one(f"proja.{index}", f"condition_projections.{index}")
        layout.one(f"norma.{index}", f"condition_norms.{index}")
    for index in range(scales - 1):
        for kind, own in (("lat", "laterals"), ("up", "ups")):
            layout.one(f"{kind}.{index}.up", f"unet.{own}.{index}.upsample")
            layout.double_conv(f"{kind}.{index}.conv", f"unet.{own}.{index}.conv")
    layout.one("predictor.0", "head")
    layout.one("predictor.2", "predictor")


_HEADS = {
    "pretraining": _pretraining,
    "classification": _classification,
    "separation": _separation,
    "segmentation": _segmentation,
}


def _task_of(model) -> str:
    for task, cls in task_classes().items():
        if isinstance(model, cls):
            return task
    raise TypeError(
        f"{type(model).__name__} has no published form: expected a model for one of {_names(task_classes())}. The "
        "encoder that such a model is built on has one: model.deepavfusion."
    )


def derived_tensors(model) -> dict[str, torch.Tensor]:
    """Published name -> tensors of the published files that follow from the configuration: positions, window tables."""
    encoder, prefix = (model, "") if isinstance(model, DeepAVFusionModel) else (model.deepavfusion, "encoder.")
    tensors = {
        f"{prefix}{tower}.pos_embed": getattr(encoder, tower).patch_embed.position_embeddings[None]
        for tower in ("image", "audio")
    }
    if isinstance(model, DeepAVFusionForPreTraining):
        for modality in ("image", "audio"):
            decoder = getattr(model, f"{modality}_decoder")
            if getattr(model.config, f"{modality}_decoder_type") == "swin":
                for index, layer in enumerate(decoder.layers):
                    tables = _window_tables(layer)
                    tensors |= {f"{modality}_decoder_blocks.{index}.{name}": table for name, table in tables.items()}
    return tensors


def _window_tables(layer) -> dict[str, torch.Tensor]:
    """The published swin block's buffers: index into the bias table, and the mask (0 or -100) of shifted windows."""
    tables = {"attn.relative_position_index": layer.relative_position_index("cpu")}
    if layer.shift:
        regions = layer.window_regions("cpu")
        tables["attn_mask"] = (regions[:, :, None] != regions[:, None, :]).float() * -100.0
    return tables


def read_state_dict(source) -> dict[str, torch.Tensor]:
    """Tensors of a published file (.pth, read with `weights_only=True`, or .safetensors), or of a state dict.

    Raises:
        OSError: for a file that is not there or may not be read.
        ValueError: for a file that does not hold a state dict, or not only tensors and plain data.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            if path.endswith(".safetensors"):
                from safetensors.torch import load_file

                source = load_file(path)
            else:
                # Training scripts store their command line beside the weights: a class that holds data and no code.
                with torch.serialization.safe_globals([argparse.Namespace]):
                    source = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"{path} cannot be read as a checkpoint of plain tensors: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(source, dict) and isinstance(source.get(key), dict):
            source = source[key]
            break
    if not isinstance(source, dict) or not source or not all(isinstance(v, torch.Tensor) for v in source.values()):
        raise ValueError("Expected a state dict of tensors, or a dict with one under 'state_dict' or 'model'.")
    return source


def normalise_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published names without `module.`, and with `image.` where video encoders say `video.`.

    Raises:
        ValueError: where two tensors would get one name.
    """
    tensors = {}
    for key, tensor in state_dict.items():
        name = re.sub(r"^(encoder\.)?video\.", r"\1image.", key.removeprefix("module."))
        if name in tensors:
            raise ValueError(f"The checkpoint has {name!r} twice: {key!r} is another name of it.")
        tensors[name] = tensor
    return tensors


def load_original_checkpoint(path_or_state_dict, config=None, task: str | None = None):
    """
    Builds the model that a published checkpoint holds, with every tensor of it used once.

    Args:
        path_or_state_dict: path of a .pth or .safetensors file, or a state dict.
        config (`DeepAVFusionConfig`, *optional*): by default inferred from names, shapes and position tables; see
            [`infer_config`] for what these do not tell.
        task (`str`, *optional*): `"encoder"`, `"pretraining"`, `"classification"`, `"separation"` or `"segmentation"`;
            by default inferred from the names. `"encoder"` takes the encoder out of any file and drops the rest.

    Returns:
        The model, in eval mode.

    Raises:
        OSError: for a file that is not there or may not be read.
        ValueError: for unknown, missing or misshapen tensors, which are named, and for tables (positions, windows) that
            are not those that the configuration fixes. Where a configuration is given, the tables may be absent.
    """
    tensors = normalise_names(read_state_dict(path_or_state_dict))
    found = next((name for name, prefixes in TASK_PREFIXES.items() if _any_starts(tensors, prefixes)), "encoder")
    classes, asked, task = task_classes(), task, task or found
    if task not in classes:
        raise ValueError(f"Unknown task {task!r}: expected one of {_names(classes)}.")
    if task not in (found, "encoder"):
        raise ValueError(f"The checkpoint holds a model for {found!r}: expected one for {task!r}, as was asked for.")
    if task == "encoder" and _any_starts(tensors, "encoder."):
        if asked == "encoder":
            kept = {key: tensor for key, tensor in tensors.items() if key.startswith("encoder.")}
            if len(kept) < len(tensors):
                logger.warning(
                    f"Taking the encoder alone: {len(tensors) - len(kept)} tensors of the {found} model are dropped."
                )
            tensors = kept
        tensors = {key.removeprefix("encoder."): tensor for key, tensor in tensors.items()}
    if config is None:
        config = infer_config(tensors, task)
    model = classes[task](config)
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
    """(our name, its part of a published tensor) for each cell of a grid."""
    if tensor.ndim == 0:
        yield grid[0][0], tensor
        return
    for row, strip in zip(grid, tensor.split([own[row[0]].shape[0] for row in grid]), strict=True):
        if len(row) == 1:
            yield row[0], strip
        else:
            yield from zip(row, strip.split([own[key].shape[1] for key in row], dim=1), strict=True)


def join(grid: list[list[str]], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """A published tensor from the parts that its grid names."""
    if len(grid) == len(grid[0]) == 1:
        return tensors[grid[0][0]].clone()
    return torch.cat(
        [torch.cat([tensors[key] for key in row], dim=1) if len(row) > 1 else tensors[row[0]] for row in grid]
    )


def export_original_state_dict(model) -> dict[str, torch.Tensor]:
    """
    The state dict of a model under the published names, derived tables included, so that the published code loads it.

    Sound localization was never published: its encoder alone can be exported, `model.deepavfusion`.

    Raises:
        TypeError: for a model without a published form.
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
