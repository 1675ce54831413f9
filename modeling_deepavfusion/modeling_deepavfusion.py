"""DeepAVFusion: two towers and a fusion stream that runs beside them from the first layer on."""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_deepavfusion import DeepAVFusionConfig
from .fusion_deepavfusion import DeepAVFusionFusionLayer, DeepAVFusionPairAttention, keep_present
from .outputs_deepavfusion import DeepAVFusionModelOutput
from .vit_deepavfusion import (
    DeepAVFusionDividedLayer,
    DeepAVFusionLayer,
    DeepAVFusionPatchEmbeddings,
    DeepAVFusionTower,
    audio_patch_embeddings,
    image_patch_embeddings,
)


def auto_classes() -> dict[str, str]:
    """Auto class -> "module.class" of every model here, for the `auto_map` of saved configurations.

    The imports are what makes any saved checkpoint carry the code of all of them: files are copied along imports.
    """
    from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
    from .localization_deepavfusion import DeepAVFusionForSoundLocalization
    from .pretraining_deepavfusion import DeepAVFusionForPreTraining
    from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
    from .separation_deepavfusion import DeepAVFusionForSourceSeparation

    classes = {
        "AutoConfig": DeepAVFusionConfig,
        "AutoModel": DeepAVFusionModel,
        "AutoModelForPreTraining": DeepAVFusionForPreTraining,
        "AutoModelForVideoClassification": DeepAVFusionForAudioVisualClassification,
        "AutoModelForAudioClassification": DeepAVFusionForAudioVisualClassification,
        "AutoModelForAudioFrameClassification": DeepAVFusionForSourceSeparation,
        "AutoModelForSemanticSegmentation": DeepAVFusionForSemanticSegmentation,
        "AutoModelForMaskGeneration": DeepAVFusionForSoundLocalization,
    }
    return {auto: f"{cls.__module__.split('.')[-1]}.{cls.__name__}" for auto, cls in classes.items()}


_PIPELINES = {  # task: (model class, Auto class, module and class of the pipeline)
    "audio-visual-classification": (
        "DeepAVFusionForAudioVisualClassification",
        "AutoModelForVideoClassification",
        "pipelines_deepavfusion.AudioVisualClassificationPipeline",
    ),
    "audio-visual-source-separation": (
        "DeepAVFusionForSourceSeparation",
        "AutoModelForAudioFrameClassification",
        "separation_pipeline_deepavfusion.AudioVisualSourceSeparationPipeline",
    ),
    "audio-visual-segmentation": (
        "DeepAVFusionForSemanticSegmentation",
        "AutoModelForSemanticSegmentation",
        "pipelines_deepavfusion.AudioVisualSegmentationPipeline",
    ),
    "sound-source-localization": (
        "DeepAVFusionForSoundLocalization",
        "AutoModelForMaskGeneration",
        "pipelines_deepavfusion.SoundSourceLocalizationPipeline",
    ),
    "audio-visual-feature-extraction": (
        "DeepAVFusionModel",
        "AutoModel",
        "pipelines_deepavfusion.AudioVisualFeatureExtractionPipeline",
    ),
}


def custom_pipelines(model_name: str) -> dict[str, dict]:
    """`config.custom_pipelines` of a model class: its own task, if it has one, and feature extraction.

    The code that they name is saved with the processor.
    """
    return {
        task: {"impl": pipeline, "pt": [auto], "type": "multimodal"}
        for task, (model, auto, pipeline) in _PIPELINES.items()
        if model in (model_name, "DeepAVFusionModel")
    }


class DeepAVFusionPreTrainedModel(PreTrainedModel):
    """Initialisation, loading and saving shared by the encoder and every model built on it."""

    config: DeepAVFusionConfig
    config_class = DeepAVFusionConfig
    base_model_prefix = "deepavfusion"
    main_input_name = "pixel_values"
    input_modalities = ("image", "audio")
    supports_gradient_checkpointing = True
    _no_split_modules = ["DeepAVFusionLayer", "DeepAVFusionDividedLayer", "DeepAVFusionFusionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # A pre-training checkpoint loaded for anything else leaves its decoders behind, which is no news.
    _keys_to_ignore_on_load_unexpected = [r"^(image|audio)_decoder\."]
    _encoder_is_frozen = False
    accepts_loss_kwargs = False  # losses are plain means over the batch: the Trainer must scale them for accumulation

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """As the published code does: linear maps xavier-uniform, norms 1 and 0, tokens N(0, initializer_range)."""
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, DeepAVFusionPatchEmbeddings):
            module.init_weights()
        elif isinstance(module, DeepAVFusionPairAttention):
            init.zeros_(module.v_bias)
        elif isinstance(module, DeepAVFusionModel):
            init.normal_(module.fusion_tokens, std=self.config.initializer_range)

    def post_init(self):
        super().post_init()
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = {name for name in self._no_split_modules if name in present}
        # Not the encoder's too, as the library has it: a pre-training model must tell of decoders that do not fit.
        self._keys_to_ignore_on_load_unexpected = set(type(self)._keys_to_ignore_on_load_unexpected)

    def freeze_encoder(self) -> None:
        """Stops training the encoder and keeps it in eval mode, under `train()` too: for linear probes."""
        self.base_model.requires_grad_(False)
        self._encoder_is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True):
        super().train(mode)
        if self._encoder_is_frozen:
            self.base_model.train(False) if self.base_model is not self else super().train(False)
        return self

    def _recorded(self, encoded: DeepAVFusionModelOutput, flags: dict) -> dict:
        """Hidden states and attention weights that a caller asked for by `flags` or by the configuration.

        A head may have made the encoder record more than that, for its own use.
        """
        wants = _wanted_records(self.config, flags)
        return {
            prefix + name.removeprefix("output_"): encoded[prefix + name.removeprefix("output_")]
            for name, wanted in wants.items()
            for prefix in _STREAMS
            if wanted and encoded.get(prefix + name.removeprefix("output_")) is not None
        }

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves weights, configuration and code: any Auto class loads the folder where this package is absent, and with
        the processor saved beside them any pipeline does."""
        self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), **auto_classes()}
        self.config.custom_pipelines = custom_pipelines(type(self).__name__)
        return super().save_pretrained(save_directory, *args, **kwargs)


class DeepAVFusionModel(DeepAVFusionPreTrainedModel):
    """
    The early-fusion encoder (paper, section 3.2): at each layer the image's and the audio's patches attend to the
    fusion tokens beside themselves, while the fusion tokens attend to both; all three read what the layer before left.

    Example:

    ```python
    >>> import torch
    >>> from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel

    >>> model = DeepAVFusionModel(DeepAVFusionConfig.from_size("small")).eval()
    >>> with torch.no_grad():
    ...     outputs = model(pixel_values=torch.randn(1, 3, 224, 224), input_features=torch.randn(1, 1, 128, 192))
    >>> outputs.last_hidden_state.shape, outputs.image_last_hidden_state.shape, outputs.audio_last_hidden_state.shape
    (torch.Size([1, 32, 384]), torch.Size([1, 196, 384]), torch.Size([1, 96, 384]))
    ```
    """

    def __init__(self, config: DeepAVFusionConfig):
        super().__init__(config)
        divided = config.num_frames > 1 and config.video_attention == "divided"
        image_layer_class = DeepAVFusionDividedLayer if divided else DeepAVFusionLayer
        self.image = DeepAVFusionTower(config, image_patch_embeddings(config), image_layer_class)
        self.audio = DeepAVFusionTower(config, audio_patch_embeddings(config))
        self.fusion_tokens = nn.Parameter(torch.zeros(1, config.num_all_fusion_tokens, config.hidden_size))
        depth = config.num_hidden_layers
        self.fusion_layers = nn.ModuleDict(
            {
                str(index): DeepAVFusionFusionLayer(config, config.drop_path_rate * index / max(depth - 1, 1))
                for index in config.fusion_layer_indices
            }
        )
        self.fusion_norm = nn.LayerNorm(config.hidden_size, eps=config.fusion_layer_norm_eps)
        self.post_init()

    @classmethod
    def from_unimodal_pretrained(
        cls, image=None, audio=None, config: DeepAVFusionConfig | None = None, inflate: str = "repeat"
    ) -> "DeepAVFusionModel":
        """
        A new encoder whose towers start from unimodal masked autoencoders; its fusion layers start at random.

        Args:
            image: MAE file, or Hub id or folder of a `ViTMAEModel`; None leaves the image tower at random.
            audio: AudioMAE file, likewise.
            config: the base model's by default.
            inflate: how 2-D patch filters become a video model's, `"repeat"` (published) or `"mean"`.

        Raises:
            ValueError: where a tower and its source differ in names or shapes.
        """
        from .unimodal_deepavfusion import load_unimodal

        return load_unimodal(cls(config or DeepAVFusionConfig()), image, audio, inflate)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        image_ids_keep: torch.LongTensor | None = None,
        audio_ids_keep: torch.LongTensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        output_fusion_attentions: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionModelOutput:
        r"""
        Args:
            pixel_values: frames (B, 3, H, W), or video (B, T, 3, H, W) where `num_frames > 1`; normalised as the
                processor does. None where no sample has an image.
            input_features: log10-mel spectrograms (B, 1, mels, time steps). None where no sample has audio.
            image_ids_keep: (B, kept) indices of the image patches to see, row-major; the others are dropped unseen.
            audio_ids_keep: (B, kept) the same for the spectrogram.
            image_present: (B,) bool, False where a sample has no image: what its `pixel_values` hold is ignored.
            audio_present: (B,) bool, the same for audio.
            output_fusion_attentions: whether to return the fusion stream's attention weights (`attentions`) whatever
                the attention implementation: its layers then attend eagerly in this call.
            output_hidden_states: whether to return the hidden states of all layers.
            output_attentions: whether to return attention weights; needs `attn_implementation="eager"`.

        Raises:
            ValueError: for a shape other than the configured one, or a sample with neither modality.
            TypeError: for integer inputs.
        """
        record = _Recorder(self.config, kwargs, output_fusion_attentions)
        image_present, audio_present = self._check(
            pixel_values, input_features, image_ids_keep, audio_ids_keep, image_present, audio_present
        )
        image = _embed(self.image, pixel_values, image_ids_keep, image_present)
        audio = _embed(self.audio, input_features, audio_ids_keep, audio_present)
        batch = (image if image is not None else audio).shape[0]
        fusion = self.fusion_tokens.expand(batch, -1, -1)
        record.states(fusion, image, audio)
        fusion_options = {"need_weights": True} if output_fusion_attentions else {}

        for index in range(self.config.num_hidden_layers):
            key = str(index)
            fusion_layer = self.fusion_layers[key] if key in self.fusion_layers else None  # noqa: SIM401
            context = fusion if fusion_layer is not None else None
            fusion_weights = image_weights = audio_weights = None
            new_image, new_audio = image, audio
            if image is not None:
                new_image, image_weights = self.image.layers[index](image, context, image_ids_keep)
            if audio is not None:
                new_audio, audio_weights = self.audio.layers[index](audio, context)
            if fusion_layer is not None:
                fusion, fusion_weights = fusion_layer(
                    fusion, image, audio, image_present, audio_present, **fusion_options
                )
            image, audio = new_image, new_audio
            record.states(fusion, image, audio)
            record.weights(fusion_weights, image_weights, audio_weights)

        return DeepAVFusionModelOutput(
            last_hidden_state=self.fusion_norm(fusion),
            image_last_hidden_state=None if image is None else keep_present(self.image.norm(image), image_present),
            audio_last_hidden_state=None if audio is None else keep_present(self.audio.norm(audio), audio_present),
            **record.fields(),
        )

    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        image_present: torch.BoolTensor | None = None,
        normalize: bool = False,
    ) -> torch.FloatTensor:
        r"""
        The image stream alone, for retrieval: the mean of its tokens, the sound being absent.

        Args:
            pixel_values: frames (B, 3, H, W), or video (B, T, 3, H, W).
            image_present: (B,) bool; the features of samples without an image are zeros.
            normalize: whether each sample's features are scaled to length 1, for cosine similarities.

        Returns:
            (B, hidden_size).
        """
        present = _check_present("image", image_present, pixel_values)
        outputs = self(pixel_values=_blank(pixel_values, present), return_dict=True)
        return _pool(keep_present(outputs.image_last_hidden_state, present), normalize)

    def get_audio_features(
        self,
        input_features: torch.FloatTensor,
        audio_present: torch.BoolTensor | None = None,
        normalize: bool = False,
    ) -> torch.FloatTensor:
        r"""
        The audio stream alone, for retrieval: the mean of its tokens, the image being absent.

        Args:
            input_features: log10-mel spectrograms (B, 1, mels, time steps).
            audio_present: (B,) bool; the features of samples without sound are zeros.
            normalize: whether each sample's features are scaled to length 1, for cosine similarities.

        Returns:
            (B, hidden_size).
        """
        present = _check_present("audio", audio_present, input_features)
        outputs = self(input_features=_blank(input_features, present), return_dict=True)
        return _pool(keep_present(outputs.audio_last_hidden_state, present), normalize)

    def get_fusion_features(
        self,
        pixel_values: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        image_present: torch.BoolTensor | None = None,
        audio_present: torch.BoolTensor | None = None,
        normalize: bool = False,
    ) -> torch.FloatTensor:
        r"""
        The fusion stream, the mean of its tokens: of both modalities, or of the one that is given.

        Features of an image alone and of a sound alone lie in one space, that of the fusion tokens.

        Args:
            pixel_values: as in `forward`.
            input_features: as in `forward`.
            image_present: as in `forward`.
            audio_present: as in `forward`.
            normalize: whether each sample's features are scaled to length 1, for cosine similarities.

        Returns:
            (B, hidden_size).
        """
        outputs = self(
            pixel_values, input_features, image_present=image_present, audio_present=audio_present, return_dict=True
        )
        return _pool(outputs.last_hidden_state, normalize)

    def _check(self, pixel_values, input_features, image_ids_keep, audio_ids_keep, image_present, audio_present):
        """Validates the inputs; gives the presence masks, None for a modality that is wholly there or wholly absent."""
        if pixel_values is None and input_features is None:
            raise ValueError("Neither pixel_values nor input_features was given: expected at least one of them.")
        given = [x for x in (pixel_values, input_features) if x is not None]
        if pixel_values is not None:
            self.image.patch_embed.check(pixel_values, image_ids_keep)
        if input_features is not None:
            self.audio.patch_embed.check(input_features, audio_ids_keep)
        if len({x.shape[0] for x in given}) > 1:
            raise ValueError(
                f"pixel_values has {pixel_values.shape[0]} samples and input_features {input_features.shape[0]}: "
                "expected the same number."
            )
        image_present = None if pixel_values is None else _check_present("image", image_present, pixel_values)
        audio_present = None if input_features is None else _check_present("audio", audio_present, input_features)
        if not torch.compiler.is_compiling():
            sides = [(pixel_values, image_present), (input_features, audio_present)]
            present = [mask for values, mask in sides if values is not None]
            if all(mask is not None for mask in present) and not bool(torch.stack(present).any(0).all()):
                raise ValueError("A sample has neither image nor audio: expected at least one modality per sample.")
        return image_present, audio_present


def require_modality(needs: str, name: str, values: torch.Tensor | None, present: torch.Tensor | None) -> None:
    """Raises `ValueError` where any sample lacks the modality that a task is about.

    Args:
        needs: what needs what, for the message: "Segmentation needs the frame".
        name: "image" or "audio".
        values: pixel_values or input_features, or None.
        present: (B,) bool, or None where all samples have it.
    """
    everywhere = values is not None
    if everywhere and present is not None:
        present = _check_present(name, present, values)
        everywhere = torch.compiler.is_compiling() or bool(present.all())
    if not everywhere:
        field = {"image": "pixel_values", "audio": "input_features"}[name]
        raise ValueError(f"{needs}: expected {field} for every sample.")


def _check_present(name: str, present: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor | None:
    if present is None:
        return None
    if present.dtype != torch.bool or tuple(present.shape) != (values.shape[0],):
        raise ValueError(
            f"{name}_present is {present.dtype} of shape {tuple(present.shape)}: expected torch.bool of shape "
            f"({values.shape[0]},)."
        )
    return present.to(values.device)


def _embed(tower, values, ids_keep, present):
    """Patch tokens (B, n, D) of a modality, or None; what an absent sample holds never enters, not even as NaN."""
    if values is None:
        return None
    return tower.patch_embed(_blank(values, present), ids_keep)


def _blank(values, present):
    """Zeroes what absent samples hold."""
    return values if present is None else values.masked_fill(~present.view(-1, *(1,) * (values.ndim - 1)), 0.0)


def _pool(tokens, normalize):
    """Mean over tokens (B, n, D) -> (B, D), scaled to length 1 where asked for; zeros stay zeros."""
    features = tokens.mean(dim=1)
    return nn.functional.normalize(features, dim=-1) if normalize else features


_STREAMS = ("", "image_", "audio_")  # prefixes of output fields: the fusion stream's have none


def _wanted_records(config, flags: dict) -> dict[str, bool]:
    return {
        name: flags[name] if flags.get(name) is not None else getattr(config, name)
        for name in ("output_hidden_states", "output_attentions")
    }


class _Recorder:
    """Collects hidden states and attention weights of the three streams where they were asked for."""

    def __init__(self, config, flags: dict, fusion_attentions: bool = False):
        wants = _wanted_records(config, flags)
        if wants["output_attentions"] and config._attn_implementation != "eager":
            raise ValueError(
                f"output_attentions=True needs attention weights, which {config._attn_implementation!r} attention does "
                'not compute: load the model with attn_implementation="eager".'
            )
        self.hidden_states = ([], [], []) if wants["output_hidden_states"] else None
        self.attentions = ([], [], []) if wants["output_attentions"] or fusion_attentions else None
        self.all_attentions = wants["output_attentions"]

    def states(self, *streams):
        if self.hidden_states is not None:
            for recorded, state in zip(self.hidden_states, streams, strict=True):
                recorded.append(state)

    def weights(self, *streams):
        if self.attentions is not None:
            for recorded, weights in zip(self.attentions, streams[: 3 if self.all_attentions else 1]):
                recorded.append(weights)

    def fields(self) -> dict:
        """Output fields: a tuple a stream, without the layers that had nothing; None for an absent modality."""
        fields = {}
        for suffix, recorded in (("hidden_states", self.hidden_states), ("attentions", self.attentions)):
            for name, stream in zip(_STREAMS, recorded or ([], [], []), strict=True):
                fields[name + suffix] = tuple(x for x in stream if x is not None) or None
        return fields


DeepAVFusionConfig.register_for_auto_class()
DeepAVFusionModel.register_for_auto_class("AutoModel")

__all__ = ["DeepAVFusionModel", "DeepAVFusionPreTrainedModel", "require_modality"]
