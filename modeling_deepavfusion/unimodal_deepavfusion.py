"""Initialization of the towers from unimodal masked autoencoders: MAE (image) and AudioMAE (spectrogram)."""

import argparse
import os
import pickle
import re
import zipfile

import torch
from transformers.utils import logging

from .formats_deepavfusion import checkpoint_fault
from .weights_deepavfusion import check_weights

# Names in autoencoder files that the towers do not use.
_DROPPED = re.compile(r"^(cls_token|pos_embed|mask_token|decoder)|^(fc_norm|head)\.")
_MAX_EXPANSION = 16  # times the size of a compressed checkpoint


def read_state_dict(source) -> dict[str, torch.Tensor]:
    """Read the tensors of a published file (.pth with `weights_only=True`, or .safetensors) or of a state dict.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If the file does not contain a state dict, or contains more than tensors and plain data, or complex
            numbers.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if fault := checkpoint_fault(path):
            raise ValueError(f"{path} cannot be read as a checkpoint of plain tensors: {fault}")
        try:
            if path.endswith(".safetensors"):
                from safetensors.torch import load_file

                source = load_file(path)
            else:
                _check_archive(path)
                # Training scripts store their command line next to the weights, in a class that holds data and no code.
                with torch.serialization.safe_globals([argparse.Namespace]):
                    source = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, pickle.UnpicklingError) or re.search("weights[_ ]only", reason, re.IGNORECASE):
                # torch's own text advises to load the file without that protection.
                reason = "it holds Python objects, which may run code when they are read, or is damaged"
            raise ValueError(f"{path} cannot be read as a checkpoint of plain tensors: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(source, dict) and isinstance(source.get(key), dict):
            source = source[key]
            break
    if not isinstance(source, dict) or not source or not all(isinstance(v, torch.Tensor) for v in source.values()):
        raise ValueError("Expected a state dict of tensors, or a dict with one under 'state_dict' or 'model'.")
    claimed = [name for name, value in source.items() if _claims_too_much(value)]
    if claimed:
        raise ValueError(f"The checkpoint has tensors with fewer numbers than their shape claims: {claimed[0]!r}.")
    if numbers := sorted(name for name, tensor in source.items() if tensor.is_complex()):
        raise ValueError(f"The checkpoint holds complex numbers: {', '.join(numbers[:4])}.")
    return source


def _check_archive(path: str) -> None:
    """Raise `ValueError` for a compressed archive that would expand to many times its size; torch compresses none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MAX_EXPANSION * os.path.getsize(path):
        raise ValueError(f"it is a compressed archive that would expand to {size} bytes")


def _claims_too_much(tensor: torch.Tensor) -> bool:
    """Whether a tensor is not stored as a whole: one number can claim any shape."""
    if tensor.layout != torch.strided:
        return True
    return tensor.device.type != "meta" and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def unimodal_state_dict(source) -> dict[str, torch.Tensor]:
    """Load the tensors of an encoder under the names of a tower.

    Args:
        source: Path of an MAE or AudioMAE file (a dict with the tensors under `model`, or the tensors themselves; .pth
            is read with `weights_only=True`), such a dict, or a Hub id or folder of a `ViTMAEModel` or
            `ViTMAEForPreTraining`.

    Raises:
        OSError: If the file, folder or Hub id does not exist.
        ValueError: If a tensor neither belongs to the encoder nor is known to be unused.
    """
    if isinstance(source, (str, os.PathLike)) and not os.path.isfile(source):
        if os.path.splitext(source)[1] in (".pth", ".pt", ".bin", ".safetensors"):
            raise FileNotFoundError(f"There is no file {os.fspath(source)}.")
        return _from_vit_mae(os.fspath(source))
    tensors, unknown = {}, []
    for key, value in read_state_dict(source).items():
        key = key.removeprefix("module.")
        if _DROPPED.match(key):
            continue
        match = re.match(r"^blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)$", key)
        if key.startswith("patch_embed.proj."):
            tensors[key.replace("proj", "projection")] = value
        elif key in ("norm.weight", "norm.bias"):
            tensors[key] = value
        elif match and match[2] == "attn.qkv":
            for name, part in zip("qkv", value.chunk(3), strict=True):
                tensors[f"layers.{match[1]}.attention.{name}_proj.{match[3]}"] = part
        elif match:
            tensors[f"layers.{match[1]}.{_BLOCK[match[2]]}.{match[3]}"] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"Not a masked autoencoder's encoder: unknown tensors {', '.join(sorted(unknown)[:8])}.")
    return tensors


_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}

# The names in transformers' ViTMAEModel: the current ones, and those of releases before its attention was rewritten.
_VIT_MAE = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda match: f".attention.{match[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def _from_vit_mae(source: str) -> dict[str, torch.Tensor]:
    from transformers import ViTMAEModel

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the decoder, which is left out on purpose
    try:
        model, info = ViTMAEModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(f"{source} is not a whole ViTMAEModel: {len(missing)} missing, {', '.join(missing[:4])} ...")
    tensors = {}
    for key, value in model.state_dict().items():
        if key not in ("embeddings.cls_token", "embeddings.position_embeddings"):
            for pattern, replacement in _VIT_MAE:
                key = re.sub(pattern, replacement, key)
            tensors[key] = value
    return tensors


def load_unimodal(model, image=None, audio=None, inflate: str = "repeat"):
    """Load the towers of a model from unimodal autoencoders, in place.

    Weights that the autoencoders lack (temporal attention of divided video towers) stay unchanged.

    Args:
        model: A `DeepAVFusionModel`, or any model built on one.
        image: Source of the image tower (see [`unimodal_state_dict`]); None leaves it unchanged.
        audio: Source of the audio tower, with one input channel.
        inflate: How 2-D patch filters are inflated for a video model: `"repeat"` over the frames of a patch, as
            published, or `"mean"`, which also divides by their number and so preserves the response to a still image.

    Returns:
        The model.

    Raises:
        OSError: If a source does not exist.
        ValueError: If a tower and its source differ in names or shapes, or weights are NaN, infinite, complex or
            integers.
    """
    if inflate not in ("repeat", "mean"):
        raise ValueError(f"inflate is {inflate!r}: expected 'repeat' or 'mean'.")
    encoder = model.base_model
    for name, source in (("image", image), ("audio", audio)):
        if source is None:
            continue
        tower, tensors = getattr(encoder, name), unimodal_state_dict(source)
        own, key = tower.state_dict(), "patch_embed.projection.weight"
        if key in tensors and tensors[key].ndim == 4 and own[key].ndim == 5:
            frames = own[key].shape[2]
            tensors[key] = tensors[key].unsqueeze(2).repeat(1, 1, frames, 1, 1)
            if inflate == "mean":
                tensors[key] = tensors[key] / frames
        origin = str(source) if isinstance(source, (str, os.PathLike)) else "The source"
        check_weights(tensors, origin)
        wrong = [
            f"{k} is {tuple(tensors[k].shape)}, expected {tuple(v.shape)}"
            for k, v in own.items()
            if k in tensors and tensors[k].shape != v.shape
        ]
        missing = sorted(key for key in own.keys() - tensors.keys() if ".temporal_" not in key)
        unknown = sorted(tensors.keys() - own.keys())
        if wrong or missing or unknown:
            raise ValueError(
                f"{origin} does not fit the {name} tower. "
                f"Misshapen: {'; '.join(wrong[:4]) or 'none'}. Missing: {', '.join(missing[:4]) or 'none'}. "
                f"Unknown: {', '.join(unknown[:4]) or 'none'}."
            )
        tower.load_state_dict(tensors, strict=False)  # the keys were checked above
        check_weights(tower.state_dict(), origin)  # once more: numbers may have become too large for the tower's type
    return model


__all__ = ["load_unimodal", "read_state_dict", "unimodal_state_dict"]
