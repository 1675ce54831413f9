"""DeepAVFusion: two towers and a fusion stream that runs beside them from the first layer on."""

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .card_deepavfusion import replace_placeholder
from .configuration_deepavfusion import DeepAVFusionConfig
from .earlier_card_deepavfusion import setting_card_aside
from .features_deepavfusion import DeepAVFusionFeatures
from .fusion_deepavfusion import DeepAVFusionFusionLayer, DeepAVFusionPairAttention
from .outputs_deepavfusion import STREAMS, DeepAVFusionModelOutput, Recorder, requested_fields
from .patches_deepavfusion import DeepAVFusionPatchEmbeddings, PatchGrid
from .presence_deepavfusion import blank_absent, check_present, keep_present, reads_values, require_any
from .unimodal_deepavfusion import load_unimodal
from .vit_deepavfusion import DeepAVFusionDividedLayer, DeepAVFusionLayer, DeepAVFusionTower
from .weights_deepavfusion import check_stored_types, check_weights

MARK_FILE = ".deepavfusion-run.json"  # in result folders of the package's commands
_MODULE_FILES = ("modules.json", "sentence_bert_config.json")  # of sentence-transformers


def apply_umask(files: Iterable[Path]) -> None:
    """Give files and folders the permissions of newly created ones; safetensors makes its files private to the user."""
    umask = os.umask(0o077)  # can only be read by setting it
    os.umask(umask)
    for file in files:
        file.chmod((0o777 if file.is_dir() else 0o666) & ~umask)


class DeepAVFusionPreTrainedModel(PreTrainedModel):
    """Initialization, loading and saving shared by the encoder and every model built on it."""

    config: DeepAVFusionConfig
    config_class = DeepAVFusionConfig
    base_model_prefix = "deepavfusion"
    main_input_name = "pixel_values"
    input_modalities = ("image", "audio")
    # How its inputs differ from the processor's defaults; `DeepAVFusionProcessor.from_model` reads it.
    processor_options: dict[str, float] = {}
    supports_gradient_checkpointing = True
    _no_split_modules = ["DeepAVFusionLayer", "DeepAVFusionDividedLayer", "DeepAVFusionFusionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Loading a pre-training checkpoint into any other model drops what only pre-training uses, as expected.
    _keys_to_ignore_on_load_unexpected = [r"^((image|audio)_decoder|alignment|joint_embedding)\."]
    _encoder_is_frozen = False
    accepts_loss_kwargs = False  # losses are plain means over the batch: the Trainer must scale them for accumulation
    # Set by auto_deepavfusion, which imports all models and must not be imported here: one writes references to the
    # code into the configuration, the other saves that code, and what else loads it, in a folder.
    _prepare_to_save: ClassVar[Callable[[PreTrainedModel], None]]
    _save_code: ClassVar[Callable[[PreTrainedModel, str | os.PathLike], None]]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """As the published code does: linear maps Xavier-uniform, norms 1 and 0, tokens N(0, initializer_range)."""
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
        """Adapt to this model the class attributes about unsplittable layers and about keys ignored in loading."""
        super().post_init()
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = {name for name in self._no_split_modules if name in present}
        # Unlike transformers, leave out the encoder's keys: a pre-training model must report mismatched decoders.
        self._keys_to_ignore_on_load_unexpected = set(type(self)._keys_to_ignore_on_load_unexpected)

    def freeze_encoder(self) -> None:
        """Freeze the encoder and keep it in eval mode, even under `train()`, for linear probes."""
        self.base_model.requires_grad_(False)
        self._encoder_is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True):
        """Set the training mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self._encoder_is_frozen:
            self.base_model.train(False) if self.base_model is not self else super().train(False)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Projection of the image's patches; those of all three streams are in `input_embeddings`."""
        return self.input_embeddings()[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the projection of the image's patches."""
        self.base_model.image.patch_embed.projection = value

    def input_embeddings(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Modules whose outputs the image, audio and fusion streams start from."""
        encoder = self.base_model
        return (encoder.image.patch_embed.projection, encoder.audio.patch_embed.projection, encoder.fusion_embed)

    def enable_input_require_grads(self) -> None:
        """Let the inputs of all streams require gradients, even with frozen weights.

        Adapters inside layers that are checkpointed with `use_reentrant=True` are trained only then.
        """

        def require_grads(module, args, output):
            return output.requires_grad_(True)

        self._require_grads_hooks = [module.register_forward_hook(require_grads) for module in self.input_embeddings()]
        self._require_grads_hook = self._require_grads_hooks[0]  # the name in earlier versions of transformers

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """One sample of zeros, on the model's device."""
        return {name: torch.zeros(1, *shape, device=self.device) for name, shape in self.config.input_shapes.items()}

    def _recorded(self, encoded: DeepAVFusionModelOutput, flags: dict) -> dict:
        """Hidden states and attention weights that were requested by the caller's `flags` or the configuration.

        A head may have made the encoder record more for its own use.
        """
        return {name: encoded[name] for name in requested_fields(self.config, flags) if encoded.get(name) is not None}

    def _streams(self, flags: dict, *read: str) -> tuple[str, ...]:
        """`output_streams` for a head that reads some streams: all of them if the caller's `flags` request records."""
        return STREAMS if requested_fields(self.config, flags) else read

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a model, as [`~PreTrainedModel.from_pretrained`].

        Raises:
            OSError: If there is no such model.
            ValueError: If stored weights are NaN or infinite, complex or integers.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if getattr(model, "hf_quantizer", None) is None:
            check_weights(model.state_dict(), str(pretrained_model_name_or_path or "The state dict"))
        return loaded

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        """Check the types of the stored weights, before they are converted to those of the model."""
        if load_config.hf_quantizer is None:  # quantized weights are stored as integers
            check_stored_types(checkpoint_files or [])
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    @classmethod
    def is_remote_code(cls) -> bool:
        """Return False, so that transformers leaves the copying of code and the `auto_map` to `save_pretrained`."""
        return False

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, *args, **kwargs):
        """Save weights, configuration and code.

        Without this package, the folder can be loaded by any Auto class and, if the processor is saved next to the
        model, by any pipeline. The card of a model that this one replaces is kept as README.earlier.md. The arguments
        are those of [`~PreTrainedModel.save_pretrained`].

        Raises:
            ValueError: The folder holds the model of a training run with its card, which would describe another model;
                or an encoder is quantized by torchao, which could not read it.
        """
        if all(os.path.exists(os.path.join(save_directory, name)) for name in (MARK_FILE, "README.md")):
            raise ValueError(
                f"{save_directory} holds the model of a training run, and its card does not describe the model to be "
                "saved: name another folder."
            )
        quantization = getattr(getattr(self, "hf_quantizer", None), "quantization_config", None)
        # torchao splits the names of weights at their last dot, which those of the root module lack.
        if getattr(quantization, "quant_method", None) == "torchao" and [*self.parameters(recurse=False)]:
            raise ValueError(
                f"torchao reads no file of a quantized {type(self).__name__}, which has weights outside of modules: "
                "save the model before it is quantized, and quantize it in loading."
            )
        self._prepare_to_save()  # ty: ignore[missing-argument]
        if not is_main_process:
            return super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        with setting_card_aside(save_directory, at_once=bool(kwargs.get("push_to_hub"))):
            self._save_code(save_directory)  # ty: ignore[missing-argument]
            saved = super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            apply_umask(Path(save_directory).glob("model*.safetensors"))
        return saved

    def _get_files_timestamps(self, working_dir: str | os.PathLike) -> dict[str, float]:
        """Omit what `_save_code` saves, so that `push_to_hub=True`, which uploads new and changed files, uploads it."""
        timestamps, saved = super()._get_files_timestamps(working_dir), ("_deepavfusion.py", *_MODULE_FILES)
        return {name: time for name, time in timestamps.items() if not name.endswith(saved)}

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args, **kwargs):
        """Upload with the card of the model where the repository has none."""
        replace_placeholder(self, working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)


class DeepAVFusionModel(DeepAVFusionFeatures, DeepAVFusionPreTrainedModel):
    """The early-fusion encoder (paper, section 3.2).

    In each layer, image and audio patches attend to the patches of their own modality and to the fusion tokens, while
    the fusion tokens attend to both modalities; all three streams read the output of the previous layer.

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
        self.image = DeepAVFusionTower(config, PatchGrid.of_image(config), image_layer_class)
        self.audio = DeepAVFusionTower(config, PatchGrid.of_audio(config))
        self.fusion_tokens = nn.Parameter(torch.zeros(1, config.num_all_fusion_tokens, config.hidden_size))
        self.fusion_embed = nn.Identity()  # the fusion stream's input, as a module for hooks
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
        """Create an encoder with towers from unimodal masked autoencoders and randomly initialized fusion layers.

        Args:
            image: MAE file, or Hub id or folder of a `ViTMAEModel`; None initializes the image tower at random.
            audio: AudioMAE file, likewise.
            config: Configuration of the encoder; that of the base model by default.
            inflate: How 2-D patch filters are inflated for a video model, `"repeat"` (published) or `"mean"`.

        Raises:
            OSError: If a source does not exist.
            ValueError: If a tower and its source differ in names or shapes.
        """
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
        output_streams: Collection[str] = STREAMS,
        **kwargs: Unpack[TransformersKwargs],
    ) -> DeepAVFusionModelOutput:
        r"""Encode a batch.

        Args:
            pixel_values: Frames (B, 3, H, W), or video (B, T, 3, H, W) if `num_frames > 1`; normalized as the
                processor does. None if no sample has an image.
            input_features: Log10-mel spectrograms (B, 1, mels, time steps). None if no sample has audio.
            image_ids_keep: (B, kept) indices of the image patches to encode, row-major; the others are dropped.
            audio_ids_keep: (B, kept) the same for the spectrogram.
            image_present: (B,) bool, False if a sample has no image: its `pixel_values` are ignored.
            audio_present: (B,) bool, the same for audio.
            output_fusion_attentions: Whether to return the fusion stream's attention weights (`attentions`) alone; its
                layers then use eager attention in this call.
            output_streams: Which of `"fusion"`, `"image"` and `"audio"` to return. The others' last layers and norms,
                which nothing else depends on, are not computed, and their last hidden states are None.
            **kwargs: `output_hidden_states`, whether to return the hidden states of all layers; `output_attentions`,
                whether to return the attention weights of all streams; layers then use eager attention in this call,
                with a warning if that is not the model's own; `return_dict`.

        Returns:
            The same fields for every batch: those of a modality that is absent are zeros.

        Raises:
            ValueError: If a shape differs from the configured one, a sample has neither modality, or a name of
                `output_streams` is unknown.
            TypeError: If inputs are integers.
        """
        if unknown := set(output_streams).difference(STREAMS):
            raise ValueError(f"output_streams names {sorted(unknown)}: expected some of {', '.join(STREAMS)}.")
        record = Recorder(self.config, kwargs, output_fusion_attentions)
        image_present, audio_present = self._check(
            pixel_values, input_features, image_ids_keep, audio_ids_keep, image_present, audio_present
        )
        image = _embed(self.image, pixel_values, image_ids_keep, image_present)
        audio = _embed(self.audio, input_features, audio_ids_keep, audio_present)
        batch = (image if image is not None else audio).shape[0]
        fusion = self.fusion_embed(self.fusion_tokens.expand(batch, -1, -1))
        # What is returned for a modality that is absent; its tower does not run.
        no_image = None if image is not None else self.image.absent_tokens(fusion, image_ids_keep)
        no_audio = None if audio is not None else self.audio.absent_tokens(fusion, audio_ids_keep)
        record.states(fusion, image, audio)

        for index in range(self.config.num_hidden_layers):
            key, last = str(index), index == self.config.num_hidden_layers - 1
            computed = output_streams if last else STREAMS
            fusion_layer = self.fusion_layers[key] if key in self.fusion_layers else None  # noqa: SIM401
            context = fusion if fusion_layer is not None else None
            fusion_weights = image_weights = audio_weights = new_image = new_audio = None
            if image is not None and "image" in computed:
                new_image, image_weights = self.image.layers[index](
                    image, context, image_ids_keep, **record.tower_options
                )
            if audio is not None and "audio" in computed:
                new_audio, audio_weights = self.audio.layers[index](audio, context, **record.tower_options)
            if fusion_layer is not None and "fusion" in computed:
                fusion, fusion_weights = fusion_layer(
                    fusion, image, audio, image_present, audio_present, **record.fusion_options
                )
            image, audio = new_image, new_audio
            record.states(fusion if "fusion" in computed else None, image, audio)
            record.weights(fusion_weights, image_weights, audio_weights)

        return DeepAVFusionModelOutput(
            last_hidden_state=self.fusion_norm(fusion) if "fusion" in output_streams else None,
            image_last_hidden_state=_finish(self.image, image, no_image, image_present, "image" in output_streams),
            audio_last_hidden_state=_finish(self.audio, audio, no_audio, audio_present, "audio" in output_streams),
            **record.fields(no_image, no_audio),
        )

    def _check(self, pixel_values, input_features, image_ids_keep, audio_ids_keep, image_present, audio_present):
        """Check the inputs; return the presence masks, None for a modality that all samples have or none has."""
        require_any(pixel_values, input_features)
        if pixel_values is not None:
            self.image.patch_embed.patches.check(pixel_values, image_ids_keep)
        if input_features is not None:
            self.audio.patch_embed.patches.check(input_features, audio_ids_keep)
        both = pixel_values is not None and input_features is not None
        if both and pixel_values.shape[0] != input_features.shape[0]:
            raise ValueError(
                f"pixel_values has {pixel_values.shape[0]} samples and input_features {input_features.shape[0]}: "
                "expected the same number."
            )
        image_present = None if pixel_values is None else check_present("image", image_present, pixel_values)
        audio_present = None if input_features is None else check_present("audio", audio_present, input_features)
        if reads_values():
            sides = [(pixel_values, image_present), (input_features, audio_present)]
            present = [mask for values, mask in sides if values is not None]
            if all(mask is not None for mask in present) and not bool(torch.stack(present).any(0).all()):
                raise ValueError("A sample has neither image nor audio: expected at least one modality per sample.")
        return image_present, audio_present


def _finish(tower, tokens, absent, present, requested):
    """Normalized tokens of a tower, zeros where the modality is absent; None if they are not requested."""
    if not requested:
        return None
    return absent if tokens is None else keep_present(tower.norm(tokens), present)


def _embed(tower, values, ids_keep, present):
    """Patch tokens (B, n, D) of a modality, or None if it is absent."""
    return None if values is None else tower.patch_embed(blank_absent(values, present), ids_keep)


__all__ = ["DeepAVFusionModel", "DeepAVFusionPreTrainedModel"]
