"""Encoders that give a vector for each image, sound or pair, as sentence-transformers loads them, but without it."""

import json
from pathlib import Path

import transformers
from transformers.utils import cached_file

from deepavfusion.auto_deepavfusion import sentence_transformers_files
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.sentence_transformers_deepavfusion import DeepAVFusionEmbedder

from ..common import load_model, reading_model


def load_embedder(origin: str, revision: str | None = None, pooling: str | None = None) -> DeepAVFusionEmbedder:
    """Load a saved encoder.

    Args:
        origin: Folder or Hub id of the model.
        revision: Revision on the Hub.
        pooling: See `DeepAVFusionEmbedder`; by default as saved, else what fits the encoder's pre-training.

    Raises:
        OSError: If there is no such model.
        ValueError: If it is no model of this package.
    """
    options = {} if revision is None else {"revision": revision}
    model = load_model(transformers.AutoModel, origin, **options)
    with reading_model(origin):
        processor = DeepAVFusionProcessor.from_pretrained(origin, **options)
        file = cached_file(
            origin, DeepAVFusionEmbedder.config_file_name, _raise_exceptions_for_missing_entries=False, **options
        )
        stored = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    default = sentence_transformers_files(model.config)[DeepAVFusionEmbedder.config_file_name]["pooling"]
    return DeepAVFusionEmbedder(model, processor, pooling or stored.get("pooling", default))


__all__ = ["load_embedder"]
