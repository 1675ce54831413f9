"""The sizes of the models that tests build: small enough to run in milliseconds, with every part of a full one."""

from deepavfusion import DeepAVFusionConfig

# Patches of 8, three layers, windows of 0.75 s.
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_fusion_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_mel_bins": 32,
    "spectrogram_length": 48,
    "audio_patch_size": 8,
    "num_fusion_tokens": 4,
    "num_image_aggregation_tokens": 3,
    "num_audio_aggregation_tokens": 2,
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "decoder_num_hidden_layers": 2,
}

# Wide enough for segmentation, whose U-Net is nowhere narrower than 128.
WIDE = {**TINY, "hidden_size": 128, "num_hidden_layers": 2}

# For runs of the commands: windows of 1 s, patches of 16 as in published autoencoders.
RUN = {
    **TINY,
    "num_hidden_layers": 2,
    "num_fusion_attention_heads": 2,
    "image_size": 48,
    "patch_size": 16,
    "num_mel_bins": 48,
    "spectrogram_length": 64,
    "audio_patch_size": 16,
    "num_fusion_tokens": 2,
    "num_image_aggregation_tokens": 2,
    "num_audio_aggregation_tokens": 2,
    "decoder_hidden_size": 32,
    "decoder_intermediate_size": 64,
    "decoder_num_hidden_layers": 1,
}

# What a published file leaves open has the value that is assumed: a head per 64 channels, 16 + 8 + 8 fusion tokens.
INFERABLE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 128,
    "num_fusion_attention_heads": 1,
    "image_size": [32, 48],
    "num_mel_bins": 32,
    "spectrogram_length": 80,
}
INFERABLE_DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 64,
    "decoder_num_hidden_layers": 2,
}


def tiny_config(**overrides) -> DeepAVFusionConfig:
    """`TINY` with `overrides` on top."""
    return DeepAVFusionConfig(**{**TINY, **overrides})
