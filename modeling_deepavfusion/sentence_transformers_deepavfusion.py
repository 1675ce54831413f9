"""A saved encoder as a sentence-transformers model: a vector for each image, sound, video or pair of image and sound.

Saved encoders name this file in their modules.json, and it is saved with them, so that
`SentenceTransformer(FOLDER, trust_remote_code=True)` also works where this package is not installed.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

# Imported from its module: `transformers` exports a placeholder without torchvision or PIL.
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, AutoProcessor

try:
    import sentence_transformers.base.modules as modules
except ImportError:  # the class can be used without it, but not loaded by `load`
    modules = None

InputModule: Any = torch.nn.Module if modules is None else modules.InputModule

_INPUTS = {"pixel_values": "image_present", "input_features": "audio_present"}
_PARTS = ("image", "audio", "video")
_POOLING = ("own", "fusion")


class DeepAVFusionEmbedder(InputModule):
    """Encoder and processor as the only module of a `SentenceTransformer`.

    An input is a media file (a path, its bytes, a file object, or `{"path", "bytes"}`), of which all streams are used;
    an image (PIL, or an array of 3 axes); a sound (`{"array", "sampling_rate"}`, or an array of 1 or 2 axes); a video
    without sound (an array of 4 axes, or a list of frames); a decoder of torchcodec; or a mapping with any of `image`,
    `audio` and `video`, each one of these, where of a file only the named stream is used. Inputs of a batch may differ
    in what they are. Files and videos longer than the model's window are represented by their middle.

    The vector of an image or a sound alone is what retrieval is evaluated with: the mean of its own tokens, or with
    `pooling="fusion"` that of the fusion tokens. The vector of both together is the mean of the fusion tokens, the
    stream `fusion` of the feature-extraction pipeline.

    Args:
        model: A `DeepAVFusionModel`.
        processor: Its `DeepAVFusionProcessor`.
        pooling: `"own"` or `"fusion"`. Encoders pre-trained by joint embedding compare their fusion tokens, those
            pre-trained by alignment each modality's own tokens.

    Raises:
        ValueError: For another `pooling`.
    """

    # mteb reads the modalities from a file of this name.
    config_file_name = "sentence_bert_config.json"
    config_keys = ["pooling", "modality_config"]
    save_in_root = True

    def __init__(self, model, processor, pooling: str = "own"):
        super().__init__()
        if pooling not in _POOLING:
            raise ValueError(f"Expected pooling as one of {', '.join(map(repr, _POOLING))}, got {pooling!r}.")
        self.model, self.processor, self.pooling = model, processor, pooling

    @property
    def modalities(self) -> list:
        """What can be encoded. `"message"` stands for batches of several kinds, and for messages without text."""
        return [*_PARTS, ("audio", "image"), ("audio", "video"), "message"]

    @property
    def modality_config(self) -> dict[str, dict[str, str]]:
        """The modalities as other modules of sentence-transformers store them."""
        return {name: {"method": "forward", "method_output_name": "sentence_embedding"} for name in _PARTS}

    @property
    def tokenizer(self):
        """The processor, which is saved with checkpoints."""
        return self.processor

    @property
    def max_seq_length(self) -> None:
        """None: there is no text."""
        return None

    def get_embedding_dimension(self) -> int:
        """Length of the vectors."""
        return self.model.config.hidden_size

    def preprocess(self, inputs: Sequence, prompt: str | None = None, **kwargs) -> dict[str, torch.Tensor]:
        """Prepare a batch.

        Args:
            inputs: Inputs, see the class.
            prompt: Must be empty: there is no text.
            **kwargs: Ignored, such as the `task` of `encode_query`.

        Returns:
            Inputs of `forward`: `pixel_values` and `input_features`, without those that all inputs lack;
            `image_present` and `audio_present`, if only some inputs lack a modality; and `num_rows` (B,), if an input
            has several rows, as with the processor's `fit="tiles"`.

        Raises:
            MediaError: If a file cannot be read.
            TypeError: If an input has an unsupported type.
            ValueError: If there is no input, an input has an invalid value, or for a prompt.
        """
        if prompt:
            raise ValueError(f"Expected no prompt, as the model reads no text, got {prompt!r}.")
        samples = [self._sample(value) for value in inputs]
        if not samples:
            raise ValueError("Expected at least one input, got none.")
        counts = [max(len(values) for values in sample.values()) for sample in samples]
        features = {}
        for name, mask in _INPUTS.items():
            shape = next((sample[name].shape[1:] for sample in samples if name in sample), None)
            if shape is None:
                continue
            rows = [
                sample[name].expand(count, *shape) if name in sample else torch.zeros(count, *shape)
                for sample, count in zip(samples, counts, strict=True)
            ]
            features[name] = torch.cat(rows)
            if not all(name in sample for sample in samples):
                present = torch.tensor([name in sample for sample in samples])
                features[mask] = present.repeat_interleave(torch.tensor(counts))
        if max(counts) > 1:
            features["num_rows"] = torch.tensor(counts)
        return features

    def _sample(self, value: Any) -> dict[str, torch.Tensor]:
        """Inputs of the model for one input, with a first axis: that of its tiles."""
        if is_file(value):
            return dict(self.processor(videos=[file_of(value)], return_tensors="pt"))
        found: dict[str, torch.Tensor] = {}
        for kind, part in parts_of(value):
            audible = kind == "audio"
            name = "input_features" if audible else "pixel_values"
            if name in found:
                raise ValueError(f"Expected one image, video or sound of a kind in an input, got a second one: {kind}.")
            if is_file(part):
                inputs = self.processor(videos=[file_of(part)], return_tensors="pt")
                if name not in inputs:
                    raise ValueError(f"Expected {'a sound' if audible else 'an image'} in {_named(part)}, got none.")
            elif audible:
                samples, rate = waveform_of(part)
                inputs = self.processor(audio=[samples], sampling_rate=rate, return_tensors="pt")
            elif kind == "video":
                inputs = self.processor(videos=[self._frames(part)], return_tensors="pt")
            else:
                inputs = self.processor(images=[part], return_tensors="pt")
            found[name] = inputs[name]
        return found

    def _frames(self, video: Any) -> Any:
        """Frames of a video; of a decoder only those that the processor would choose."""
        if isinstance(video, Mapping):
            video = video["array"]
        if not hasattr(video, "get_frames_at"):
            return video
        total, count = len(video), self.processor.num_frames
        places = [min(int((index + 0.5) * total / count), total - 1) for index in range(count)]
        return video.get_frames_at(places).data

    def forward(self, features: dict[str, torch.Tensor], **kwargs) -> dict[str, torch.Tensor]:
        """Encode a batch of `preprocess`.

        Args:
            features: The batch.
            **kwargs: Ignored.

        Returns:
            `features` with `sentence_embedding` (B, hidden size).
        """
        inputs = {name: features[name] for pair in _INPUTS.items() for name in pair if name in features}
        for name in _INPUTS.keys() & inputs.keys():
            inputs[name] = inputs[name].to(self.model.dtype)
        outputs = self.model(**inputs, return_dict=True)
        vectors = outputs.last_hidden_state.mean(dim=1)
        if self.pooling == "own":
            streams = {
                "pixel_values": outputs.image_last_hidden_state,
                "input_features": outputs.audio_last_hidden_state,
            }
            for name, other in (tuple(_INPUTS), tuple(reversed(_INPUTS))):
                mask = _INPUTS[other]
                if name in inputs and other not in inputs:
                    vectors = streams[name].mean(dim=1)
                elif mask in inputs:
                    vectors = torch.where(inputs[mask][:, None], vectors, streams[name].mean(dim=1))
        if "num_rows" in features:
            parts = vectors.split(features["num_rows"].tolist())
            vectors = torch.stack([part.mean(dim=0) for part in parts])
        return {**features, "sentence_embedding": vectors}

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Save model and processor with their code, and the settings of this module.

        Args:
            output_path: Folder.
            *args: Ignored.
            safe_serialization: Ignored: weights are always saved as safetensors.
            **kwargs: Arguments of the model's `save_pretrained`.
        """
        self.model.save_pretrained(output_path, **kwargs)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> "DeepAVFusionEmbedder":
        """Load a saved encoder; called by `SentenceTransformer`.

        Args:
            model_name_or_path: Folder or Hub id.
            subfolder: Must be empty.
            token: See `from_pretrained`, as the following.
            cache_folder: Folder for downloads.
            revision: Revision on the Hub.
            local_files_only: Whether to download nothing.
            trust_remote_code: Whether to run the code beside the checkpoint.
            model_kwargs: Arguments of `AutoModel.from_pretrained`, such as `dtype`.
            processor_kwargs: Arguments of `AutoProcessor.from_pretrained`, such as `fit`.
            config_kwargs: Overrides of the configuration, and `pooling`.
            **kwargs: Ignored.

        Raises:
            ImportError: If sentence-transformers is not installed, or older than version 6.
            OSError: If there is no such model, or neither a processor beside it nor this package.
        """
        if InputModule is torch.nn.Module:
            raise ImportError("DeepAVFusionEmbedder.load needs sentence-transformers>=6: install or upgrade it.")
        hub = {"token": token, "revision": revision, "local_files_only": local_files_only}
        stored = cls.load_config(model_name_or_path, cache_folder=cache_folder, **hub)
        hub |= {"cache_dir": cache_folder, "trust_remote_code": trust_remote_code}
        given = dict(config_kwargs or {})
        pooling = given.pop("pooling", stored.get("pooling", "own"))
        config = AutoConfig.from_pretrained(model_name_or_path, **hub, **given)
        model = AutoModel.from_pretrained(model_name_or_path, config=config, **hub, **(model_kwargs or {}))
        try:
            processor = AutoProcessor.from_pretrained(model_name_or_path, **hub, **(processor_kwargs or {}))
        except (OSError, ValueError) as error:
            if type(config) not in PROCESSOR_MAPPING:
                raise OSError(
                    f"Expected a processor beside the model in {model_name_or_path}, got none: save it there, "
                    "processor.save_pretrained(FOLDER)."
                ) from error
            processor_class: Any = PROCESSOR_MAPPING[type(config)]
            processor = processor_class.from_model(model)
        return cls(model, processor, pooling)


def is_file(value: Any) -> bool:
    """Whether an input is a media file: a path, bytes, a file object or `{"path", "bytes"}`."""
    if isinstance(value, Mapping):
        return bool(value) and set(value) <= {"path", "bytes"}
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(value, "read")


def file_of(value: Any) -> Any:
    """The file as processors take it."""
    if not isinstance(value, Mapping):
        return value
    return value["bytes"] if value.get("bytes") is not None else value["path"]


def _named(value: Any) -> str:
    return str(value) if isinstance(value, (str, os.PathLike)) else f"the {type(value).__name__}"


def parts_of(value: Any) -> list[tuple[str, Any]]:
    """Kinds ("image", "audio" or "video") and values of what an input, which is no file, consists of.

    Raises:
        TypeError: If it has an unsupported type.
        ValueError: If it is empty, or has parts of other kinds, such as text.
    """
    if isinstance(value, Mapping):
        if "array" in value:
            return [("audio" if "sampling_rate" in value else "video", value)]
        if "content" in value:
            return parts_of_messages([value])
        parts = {name: part for name, part in value.items() if part is not None and name != "sampling_rate"}
        if not parts or not set(parts) <= set(_PARTS):
            raise ValueError(f"Expected an input with any of {', '.join(_PARTS)}, got {', '.join(map(str, value))}.")
        if "sampling_rate" in value and "audio" in parts:
            parts["audio"] = {"array": parts["audio"], "sampling_rate": value["sampling_rate"]}
        return list(parts.items())
    if isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, Mapping) and "content" in item for item in value):
            return parts_of_messages(value)
        kinds = [parts_of(item) if not is_file(item) else [("file", item)] for item in value]
        if all([kind for kind, _ in parts] == ["image"] for parts in kinds):
            return [("video", list(value))]
        if len(value) == 2 and sorted(kind for parts in kinds for kind, _ in parts) == ["audio", "image"]:
            return [part for parts in kinds for part in parts]
        raise ValueError("Expected a list of frames, or a pair of an image and a sound, got other values in a list.")
    if hasattr(value, "get_all_samples"):
        return [("audio", value)]
    if hasattr(value, "get_frames_at"):
        return [("video", value)]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        if 1 <= value.ndim <= 4:
            return [(("audio", "audio", "image", "video")[value.ndim - 1], value)]
        raise ValueError(f"Expected an array of 1 or 2 axes (sound), 3 (image) or 4 (video), got {value.ndim}.")
    if hasattr(value, "convert") and hasattr(value, "size"):  # of PIL, which may not be installed
        return [("image", value)]
    raise TypeError(
        f"Expected a media file, an image, a sound, a video or a mapping of them, got {type(value).__name__}."
    )


def parts_of_messages(messages: Sequence[Mapping]) -> list[tuple[str, Any]]:
    """Parts of chat messages, whose content is a list of `{"type", TYPE}`.

    Raises:
        ValueError: If they hold text or anything else.
    """
    parts: list[tuple[str, Any]] = []
    for message in messages:
        content = message["content"]
        for item in content if isinstance(content, (list, tuple)) else [content]:
            kind = item.get("type") if isinstance(item, Mapping) else "text"
            if kind not in _PARTS:
                raise ValueError(f"Expected messages of {', '.join(_PARTS)}, as the model reads no text, got {kind}.")
            parts.append((kind, item[kind]))
    return parts


def waveform_of(audio: Any) -> tuple[Any, int | None]:
    """Samples and sampling rate in Hz, None if unknown, of a sound that is no file."""
    if isinstance(audio, Mapping):
        return audio["array"], audio["sampling_rate"]
    if hasattr(audio, "get_all_samples"):
        samples = audio.get_all_samples()
        return samples.data, samples.sample_rate
    return audio, None


__all__ = ["DeepAVFusionEmbedder"]
