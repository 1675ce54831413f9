"""Configuration of DeepAVFusion models."""

import math

import torch
from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

from .ranges_deepavfusion import Range, check_fields, number
from .sizes_deepavfusion import NAMED_SIZES, check_size


@strict
class DeepAVFusionConfig(PreTrainedConfig):
    r"""Sizes and variants of a [`DeepAVFusionModel`] and of every model built on it.

    The defaults are those of the base model that the authors pre-trained on VGGSound (Mo & Morgado, CVPR 2024).

    Args:
        hidden_size (`int`, *optional*, defaults to 768):
            Width D of both towers and of the fusion stream. Divisible by 4 (sin-cos positions) and by the head counts.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Depth of both towers.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Heads of the towers' attention.
        intermediate_size (`int`, *optional*, defaults to 3072):
            Hidden width of the towers' MLPs.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of every MLP.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the towers' layer norms.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout after attention projections and in MLPs.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout on attention weights. The fusion block's attention over pairs drops its two factors independently.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth rate of the last layer; it rises linearly from 0 in the first layer.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the fusion and mask tokens at initialization.
        image_size (`int` or pair of `int`, *optional*, defaults to 224):
            Height and width of a frame in pixels: one number for both, or `[height, width]`.
        patch_size (`int`, *optional*, defaults to 16):
            Side of an image patch in pixels.
        num_channels (`int`, *optional*, defaults to 3):
            Color channels of a frame.
        num_frames (`int`, *optional*, defaults to 1):
            Frames per clip. 1 gives the image model; more give the video model with 3-D patches.
        tubelet_size (`int`, *optional*, defaults to 2):
            Frames per 3-D patch, used when `num_frames > 1`.
        video_attention (`str`, *optional*, defaults to `"joint"`):
            `"joint"` space-time attention or `"divided"` (temporal, then spatial); used when `num_frames > 1`.
        num_mel_bins (`int`, *optional*, defaults to 128):
            Mel bins of the spectrogram.
        spectrogram_length (`int`, *optional*, defaults to 192):
            Time steps of the spectrogram (64 per second).
        audio_patch_size (`int`, *optional*, defaults to 16):
            Side of a spectrogram patch, in mel bins and in time steps.
        fusion_type (`str`, *optional*, defaults to `"factorized"`):
            How fusion tokens attend to image and audio: `"factorized"`, `"dense"` or `"token"` (paper, section 3.3).
        fusion_layers (`str` or list of `int`, *optional*, defaults to `"all"`):
            Layers with a fusion block: `"all"` (early fusion), `"none"`, or layer indices (mid, late fusion).
        num_fusion_tokens (`int`, *optional*, defaults to 16):
            Fusion tokens that attend to pairs of aggregation tokens.
        num_image_aggregation_tokens (`int`, *optional*, defaults to 8):
            Fusion tokens that aggregate the image.
        num_audio_aggregation_tokens (`int`, *optional*, defaults to 8):
            Fusion tokens that aggregate the audio. Token and dense fusion use the sum of the three counts.
        fusion_attention_ratio (`float`, *optional*, defaults to 0.25):
            Width of the queries and keys over pairs, relative to `hidden_size`.
        fusion_mlp_ratio (`float`, *optional*, defaults to 1.0):
            Hidden width of a fusion block's MLP, relative to `hidden_size`.
        num_fusion_attention_heads (`int`, *optional*, defaults to 12):
            Heads of the fusion blocks' attention.
        fusion_layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the layer norms in fusion blocks and of the final one on the fusion tokens.
        decoder_hidden_size (`int`, *optional*, defaults to 512):
            Width of the two pre-training decoders.
        decoder_num_hidden_layers (`int`, *optional*, defaults to 8):
            Number of layers of each decoder.
        decoder_num_attention_heads (`int`, *optional*, defaults to 16):
            Attention heads of each decoder layer.
        decoder_intermediate_size (`int`, *optional*, defaults to 2048):
            Hidden width of the decoders' MLPs.
        decoder_layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the decoders' layer norms.
        image_decoder_type (`str`, *optional*, defaults to `"plain"`):
            `"plain"` (global attention), `"swin"` (4 x 4 windows, shifted on odd layers) or `"cross"` (cross-attention
            to the visible patches alone; CrossMAE, arXiv 2401.14391).
        audio_decoder_type (`str`, *optional*, defaults to `"plain"`):
            The same for the spectrogram's decoder.
        decoder_prediction_fraction (`float`, *optional*, defaults to 1.0):
            Fraction of the hidden patches, drawn at random, that a cross decoder predicts in training.
        image_mask_ratio (`float`, *optional*, defaults to 0.75):
            Fraction of the image patches hidden in pre-training.
        audio_mask_ratio (`float`, *optional*, defaults to 0.8):
            Fraction of the spectrogram patches hidden in pre-training.
        norm_patch_loss (`bool` or `str`, *optional*, defaults to `True`):
            How reconstruction targets are standardized: each patch as a whole (`True` or `"patch"`, as published), each
            channel of each patch (`"channel"`), or not at all (`False` or `"none"`).
        pretraining_objective (`str`, *optional*, defaults to `"reconstruction"`):
            `"reconstruction"` of hidden patches, as published; `"align"`, which adds a contrastive loss between image
            and audio, each encoded alone; or `"jepa"`, which only pulls together what the fusion tokens make of both
            modalities and of each alone (LeJEPA, arXiv 2511.08544).
        pretraining_masked_views (`bool`, *optional*, defaults to `False`):
            Whether image and audio are masked when encoded alone by `"align"` and `"jepa"`, too: cheaper, but harder.
        alignment_weight (`float`, *optional*, defaults to 0.1):
            Weight of the contrastive loss of `"align"`.
        sigreg_weight (`float`, *optional*, defaults to 0.05):
            Weight of the regularization against collapse of `"jepa"`, below 1; the rest is that of the invariance.
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Fraction of the targets of classification, segmentation and localization that is spread evenly over the
            classes, below 1. `Trainer`'s own `label_smoothing_factor` fits classification alone, not maps.
        classifier_loss (`str`, *optional*, defaults to `"joint"`):
            Classification loss on the mean of the streams' logits (`"joint"`), or their mean loss (`"per_stream"`).
        classifier_input_norm (`bool`, *optional*, defaults to `False`):
            Whether a batch norm without affine parameters precedes each classifier (linear probes).
        separation_mask (`str`, *optional*, defaults to `"ideal_ratio"`):
            Training target of source separation: `"ideal_ratio"`, or the published `"ratio"` and `"binary"`.
        separation_weighted_loss (`bool`, *optional*, defaults to `False`):
            Whether time-frequency bins are weighted by the mixture's log magnitude.
        separation_condition (`str`, *optional*, defaults to `"image"`):
            What conditions the U-Net of source separation: the mean of the `"image"` tokens (published) or of the
            `"fusion"` tokens, or that of the fusion tokens of a second pass without audio (`"image_alone"`).
        separation_scales (`int`, *optional*):
            How often the U-Net of source separation doubles the resolution of the patch grid, before each position
            predicts a block of bins; by default up to single bins (published).
        unet_norm (`str`, *optional*, defaults to `"batch"`):
            Norm of the U-Nets of separation and segmentation: `"batch"` (published) or `"group"`, for small batches.
        segmentation_width (`int`, *optional*, defaults to 128):
            Channels of the head of segmentation, and fewest channels of a scale of its U-Net, at most `hidden_size`;
            128 as published.
        semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
            Label of pixels that the segmentation loss ignores.
        localization_map (`str`, *optional*, defaults to `"head"`):
            Map of sound localization: a trained `"head"` on each image patch, the `"similarity"` of image patches to
            the audio, or the fusion tokens' `"attention"` over image patches, which needs no training.
        localization_loss (`str`, *optional*, defaults to `"supervised"`):
            `"supervised"` (maps of where the sound comes from) or `"matching"` (whether frame and audio fit).
        localization_threshold (`float`, *optional*, defaults to 0.5):
            Probability, in (0, 1), above which a position is a sound source; recipes choose it on the selection split.

    Example:
    ```python
    >>> from deepavfusion import DeepAVFusionConfig

    >>> config = DeepAVFusionConfig.from_size("small", fusion_type="dense")
    >>> config.hidden_size, config.image_grid, config.audio_grid
    (384, (14, 14), (8, 12))
    ```
    """

    model_type = "deepavfusion"
    base_model_fsdp_plan = {
        "image.layers.*": "free_full_weight",
        "audio.layers.*": "free_full_weight",
        "fusion_layers.*": "free_full_weight",
    }
    # `Trainer` gathers what is left: `logits`, or the encoder's `last_hidden_state`. Its `ignore_keys` override these.
    keys_to_ignore_at_inference = [
        "image_loss",
        "audio_loss",
        "alignment_loss",
        "invariance_loss",
        "sigreg_loss",
        "image_logits",
        "audio_logits",
        "fusion_logits",
        "image_mask",
        "audio_mask",
        "image_ids_restore",
        "audio_ids_restore",
        "image_last_hidden_state",
        "audio_last_hidden_state",
        "hidden_states",
        "image_hidden_states",
        "audio_hidden_states",
        "attentions",
        "image_attentions",
        "audio_attentions",
    ]

    hidden_size: int = number(768, at_least=4, at_most=65536)
    num_hidden_layers: int = number(12, at_least=1, at_most=1000)
    num_attention_heads: int = number(12, at_least=1, at_most=4096)
    intermediate_size: int = number(3072, at_least=1, at_most=262144)
    hidden_act: str = "gelu"
    layer_norm_eps: float = number(1e-6, above=0, at_most=1)
    hidden_dropout_prob: float | int = number(0.0, at_least=0, below=1)
    attention_probs_dropout_prob: float | int = number(0.0, at_least=0, below=1)
    drop_path_rate: float | int = number(0.0, at_least=0, below=1)
    initializer_range: float = number(0.02, at_least=0, at_most=1)

    image_size: int | list[int] | tuple[int, ...] = number(224, at_least=1, at_most=16384)
    patch_size: int = number(16, at_least=1, at_most=1024)
    num_channels: int = number(3, at_least=1, at_most=256)
    num_frames: int = number(1, at_least=1, at_most=4096)
    tubelet_size: int = number(2, at_least=1, at_most=1024)
    video_attention: str = "joint"

    num_mel_bins: int = number(128, at_least=1, at_most=4096)
    spectrogram_length: int = number(192, at_least=1, at_most=1000000)
    audio_patch_size: int = number(16, at_least=1, at_most=1024)

    fusion_type: str = "factorized"
    fusion_layers: str | list[int] | tuple[int, ...] = "all"
    num_fusion_tokens: int = number(16, at_least=0, at_most=65536)
    num_image_aggregation_tokens: int = number(8, at_least=0, at_most=65536)
    num_audio_aggregation_tokens: int = number(8, at_least=0, at_most=65536)
    fusion_attention_ratio: float | int = number(0.25, above=0, at_most=64)
    fusion_mlp_ratio: float | int = number(1.0, above=0, at_most=64)
    num_fusion_attention_heads: int = number(12, at_least=1, at_most=4096)
    fusion_layer_norm_eps: float = number(1e-5, above=0, at_most=1)

    decoder_hidden_size: int = number(512, at_least=4, at_most=65536)
    decoder_num_hidden_layers: int = number(8, at_least=1, at_most=1000)
    decoder_num_attention_heads: int = number(16, at_least=1, at_most=4096)
    decoder_intermediate_size: int = number(2048, at_least=1, at_most=262144)
    decoder_layer_norm_eps: float = number(1e-5, above=0, at_most=1)
    image_decoder_type: str = "plain"
    audio_decoder_type: str = "plain"
    decoder_prediction_fraction: float | int = number(1.0, above=0, at_most=1)
    image_mask_ratio: float | int = number(0.75, at_least=0, below=1)
    audio_mask_ratio: float | int = number(0.8, at_least=0, below=1)
    norm_patch_loss: bool | str = True
    pretraining_objective: str = "reconstruction"
    pretraining_masked_views: bool = False
    alignment_weight: float | int = number(0.1, at_least=0, at_most=1000)
    sigreg_weight: float | int = number(0.05, at_least=0, below=1)

    label_smoothing: float | int = number(0.0, at_least=0, below=1)
    classifier_loss: str = "joint"
    classifier_input_norm: bool = False
    separation_mask: str = "ideal_ratio"
    separation_weighted_loss: bool = False
    separation_condition: str = "image"
    separation_scales: int | None = number(None, at_least=1, at_most=10)
    unet_norm: str = "batch"
    segmentation_width: int = number(128, at_least=4, at_most=65536)
    semantic_loss_ignore_index: int = number(255, at_least=-1000, at_most=65535)
    localization_map: str = "head"
    localization_loss: str = "supervised"
    localization_threshold: float = number(0.5, above=0, below=1)

    def __post_init__(self, **kwargs):
        """Raise `ValueError` for a model larger than allowed, or an unknown dtype, before weights are allocated."""
        check_size(self, kwargs.get("num_labels"))
        dtype = self.dtype or kwargs.get("torch_dtype")
        if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"dtype is {dtype!r}: expected a dtype of torch, such as 'float32' or 'bfloat16'.")
        super().__post_init__(**kwargs)

    @classmethod
    def from_size(cls, size: str, **overrides) -> "DeepAVFusionConfig":
        """Create the configuration of a named size, `"small"`, `"base"`, `"large"` or `"huge"`, updated by `overrides`.

        Raises:
            ValueError: If the name is unknown.
        """
        if size not in NAMED_SIZES:
            raise ValueError(f"Unknown size {size!r}: expected one of {', '.join(map(repr, NAMED_SIZES))}.")
        return cls(**{**NAMED_SIZES[size], **overrides})

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def image_grid(self) -> tuple[int, ...]:
        """Patches of the visual input along each axis: (rows, columns), or (time, rows, columns) for video."""
        height, width = self.frame_size
        grid = (height // self.patch_size, width // self.patch_size)
        return grid if self.num_frames == 1 else (self.num_frames // self.tubelet_size, *grid)

    @property
    def audio_grid(self) -> tuple[int, int]:
        """Patches of the spectrogram along each axis: (frequency, time)."""
        return (self.num_mel_bins // self.audio_patch_size, self.spectrogram_length // self.audio_patch_size)

    @property
    def num_patches(self) -> tuple[int, int]:
        """Number of patches of the visual input and of the spectrogram."""
        return math.prod(self.image_grid), math.prod(self.audio_grid)

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a sample: `pixel_values` (C, H, W) or (T, C, H, W), `input_features` (1, mels, time steps)."""
        frames = () if self.num_frames == 1 else (self.num_frames,)
        return {
            "pixel_values": (*frames, self.num_channels, *self.frame_size),
            "input_features": (1, self.num_mel_bins, self.spectrogram_length),
        }

    @property
    def fusion_layer_indices(self) -> tuple[int, ...]:
        """Sorted indices of the layers with a fusion block."""
        if self.fusion_layers == "all":
            return tuple(range(self.num_hidden_layers))
        return () if self.fusion_layers == "none" else tuple(sorted(self.fusion_layers))

    @property
    def num_all_fusion_tokens(self) -> int:
        """Length of the fusion stream: fusion plus both kinds of aggregation tokens."""
        return self.num_fusion_tokens + self.num_image_aggregation_tokens + self.num_audio_aggregation_tokens

    def validate_choices(self):
        """Raise `ValueError` if a named variant does not exist, or names of model classes are no names."""
        choices = {
            "hidden_act": tuple(ACT2FN),
            "problem_type": (None, "single_label_classification", "multi_label_classification"),
            "video_attention": ("joint", "divided"),
            "fusion_type": ("factorized", "dense", "token"),
            "image_decoder_type": ("plain", "swin", "cross"),
            "audio_decoder_type": ("plain", "swin", "cross"),
            "norm_patch_loss": (True, False, "patch", "channel", "none"),
            "pretraining_objective": ("reconstruction", "align", "jepa"),
            "classifier_loss": ("joint", "per_stream"),
            "separation_mask": ("ideal_ratio", "ratio", "binary"),
            "separation_condition": ("image", "fusion", "image_alone"),
            "unet_norm": ("batch", "group"),
            "localization_map": ("head", "similarity", "attention"),
            "localization_loss": ("supervised", "matching"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: expected one of {', '.join(map(repr, allowed))}.")
        names = self.architectures
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"architectures is {names!r}: expected a list of names of models.")

    def validate_input_sizes(self):
        """Raise `ValueError` if an input does not divide into whole patches."""
        if not isinstance(self.image_size, int) and len(self.image_size) != 2:
            raise ValueError(f"image_size is {self.image_size!r}: expected one int or a [height, width] pair.")
        height, width = self.frame_size
        checks = [
            ("image height", height, "patch_size", self.patch_size),
            ("image width", width, "patch_size", self.patch_size),
            ("num_mel_bins", self.num_mel_bins, "audio_patch_size", self.audio_patch_size),
            ("spectrogram_length", self.spectrogram_length, "audio_patch_size", self.audio_patch_size),
        ]
        if self.num_frames > 1:
            checks.append(("num_frames", self.num_frames, "tubelet_size", self.tubelet_size))
        for name, value, patch_name, patch in checks:
            if patch < 1 or value < patch or value % patch:
                raise ValueError(f"{name} is {value}: expected a positive multiple of {patch_name} ({patch}).")

    def validate_widths(self):
        """Raise `ValueError` if a width is not divisible by its number of heads, or positions do not fit."""
        pair_width = int(self.hidden_size * self.fusion_attention_ratio)
        fusion_heads = ("num_fusion_attention_heads", self.num_fusion_attention_heads)
        checks = [
            ("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads),
            ("hidden_size", self.hidden_size, *fusion_heads),
            ("fusion_attention_ratio * hidden_size", pair_width, *fusion_heads),
            (
                "decoder_hidden_size",
                self.decoder_hidden_size,
                "decoder_num_attention_heads",
                self.decoder_num_attention_heads,
            ),
            ("hidden_size", self.hidden_size, "4 (sin-cos positions)", 4),
            ("decoder_hidden_size", self.decoder_hidden_size, "4 (sin-cos positions)", 4),
        ]
        for name, width, divisor_name, divisor in checks:
            if divisor < 1 or width < divisor or width % divisor:
                raise ValueError(f"{name} is {width}: expected a positive multiple of {divisor_name} ({divisor}).")

    def validate_fusion(self):
        """Raise `ValueError` if fusion layers or tokens cannot be built."""
        if isinstance(self.fusion_layers, str):
            if self.fusion_layers not in ("all", "none"):
                raise ValueError(f'fusion_layers is {self.fusion_layers!r}: expected "all", "none" or layer indices.')
        else:
            indices = list(self.fusion_layers)
            if len(set(indices)) < len(indices) or any(not 0 <= i < self.num_hidden_layers for i in indices):
                raise ValueError(
                    f"fusion_layers is {indices}: expected distinct indices from 0 to {self.num_hidden_layers - 1}."
                )
        counts = (self.num_fusion_tokens, self.num_image_aggregation_tokens, self.num_audio_aggregation_tokens)
        if self.fusion_type == "factorized" and min(counts) < 1:
            raise ValueError(f"Factorized fusion needs at least one token of each kind, but got counts {counts}.")
        if min(counts) < 0 or sum(counts) < 1:
            raise ValueError(f"The fusion stream needs at least one token, but got counts {counts}.")
        if self.pretraining_objective == "jepa" and not self.fusion_layer_indices:
            raise ValueError('pretraining_objective is "jepa", but there are no fusion layers: expected at least one.')

    def validate_ranges(self):
        """Raise `ValueError` if a number is not within the range that its field states."""
        check_fields(self)
        Range(at_least=1, at_most=1_000_000).check("num_labels", self.num_labels)


DeepAVFusionConfig.register_for_auto_class()

__all__ = ["DeepAVFusionConfig"]
