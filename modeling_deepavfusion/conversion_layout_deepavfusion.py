"""Layouts of published checkpoints: what each published tensor is made of.

A *layout* maps each published name to a grid of this package's tensors, joined along columns, then rows. Loading splits
tensors along it and exporting joins them, so both directions share one description.
"""

import torch

from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
from .modeling_deepavfusion import DeepAVFusionModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
from .separation_deepavfusion import DeepAVFusionForSourceSeparation


class Layout(dict):
    """Published name -> grid (rows of columns) of this package's names.

    Each method adds a module: `published` is its published name, `ours` its name here.
    """

    def one(self, published: str, ours: str, parts=("weight", "bias")) -> None:
        """Add a module with the same parts in both."""
        for part in parts:
            self[f"{published}.{part}"] = [[f"{ours}.{part}"]]

    def stacked(self, published: str, ours: list[str]) -> None:
        """Add a published linear map that stacks the outputs of several of ours."""
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
        """Two linear maps."""
        self.one(f"{published}.fc1", f"{ours}.fc1")
        self.one(f"{published}.fc2", f"{ours}.fc2")

    def double_conv(self, published: str, ours: str) -> None:
        """Two convolutions, each followed by a batch norm."""
        for index in (0, 3):
            self.one(f"{published}.double_conv.{index}", f"{ours}.{index}", ("weight",))
            self.batch_norm(f"{published}.double_conv.{index + 1}", f"{ours}.{index + 1}", ("weight", "bias"))

    def batch_norm(self, published: str, ours: str, affine=()) -> None:
        """Statistics, and the `affine` parameters if there are any."""
        self.one(published, ours, (*affine, "running_mean", "running_var", "num_batches_tracked"))


def published_layout(model) -> Layout:
    """The layout of a model's published form. Every tensor of its state dict occurs in it exactly once.

    Raises:
        TypeError: If the model has no published counterpart.
    """
    layout = Layout()
    if isinstance(model, DeepAVFusionModel):
        _encoder(layout, model, "", "")
        return layout
    for head_class, add_head in _HEADS.items():
        if isinstance(model, head_class):
            _encoder(layout, model.deepavfusion, "encoder.", "deepavfusion.")
            add_head(layout, model)
            return layout
    raise TypeError(
        f"{type(model).__name__} has no published form: expected a DeepAVFusionModel or one of "
        f"{', '.join(cls.__name__ for cls in _HEADS)}. The encoder of any model has one: model.deepavfusion."
    )


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
    """`attn_v` aggregates the image, `attn_a` the audio; the pair is [image ; audio], with separate keys and values."""
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
    config = model.config
    kinds = (config.image_decoder_type, config.audio_decoder_type)
    if config.pretraining_objective != "reconstruction" or "cross" in kinds:
        raise TypeError(
            f"Pre-training by {config.pretraining_objective} with {kinds[0]} and {kinds[1]} decoders has no published "
            "form: expected reconstruction with plain or swin decoders. The encoder, model.deepavfusion, has one."
        )
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


def _require_published(model, **settings) -> None:
    """Raise `TypeError` if a setting of the head is not the published one."""
    for name, value in settings.items():
        if getattr(model.config, name) != value:
            raise TypeError(
                f"{name} is {getattr(model.config, name)!r}, which has no published form: expected {value!r}. The "
                "encoder, model.deepavfusion, has one."
            )


def _separation(layout: Layout, model) -> None:
    """Published scales count down to the finest: cond5 and the top, then lat4, up4, cond4 ..."""
    _require_published(model, separation_condition="image", unet_norm="batch")
    if model.block > 1:
        _require_published(model, separation_scales=None)
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
    _require_published(model, unet_norm="batch", segmentation_width=128)
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
    DeepAVFusionForPreTraining: _pretraining,
    DeepAVFusionForAudioVisualClassification: _classification,
    DeepAVFusionForSourceSeparation: _separation,
    DeepAVFusionForSemanticSegmentation: _segmentation,
}


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


__all__ = ["Layout", "derived_tensors", "published_layout"]
