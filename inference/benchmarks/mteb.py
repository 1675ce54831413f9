"""Saved encoders as models of `mteb`, for its tasks of images, sounds and videos without text (MIEB, MAEB, MVEB).

    import mteb
    from deepavfusion.inference.benchmarks.mteb import MTEBEncoder

    results = mteb.evaluate(MTEBEncoder("runs/quickstart"), mteb.get_tasks(tasks=["ESC50"]))

The vectors are those of sentence-transformers, see `DeepAVFusionEmbedder`. Media are decoded by this package, not by
torchcodec: of each sound and video, the window in the middle.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from deepavfusion.inference.common import check_device
from deepavfusion.inference.jobs.progress import with_progress
from deepavfusion.sentence_transformers_deepavfusion import DeepAVFusionEmbedder

from .embedders import load_embedder

MODALITIES = ("image", "audio", "video")


class MTEBEncoder:
    """Encoder with the interface of `mteb`'s `EncoderProtocol`.

    Args:
        model_name: Folder or Hub id of a saved encoder, or a `DeepAVFusionEmbedder`.
        revision: Revision on the Hub.
        device: Device such as "cuda:1"; by default the first accelerator if there is one, else the CPU.
        pooling: See `DeepAVFusionEmbedder`; by default what fits the encoder's pre-training.
        name: Name in the results, ORG/NAME; by default the Hub id, or the last two parts of the folder's path.

    Raises:
        OSError: If there is no such model, or no processor beside it.
        ValueError: If it is no encoder of this package, the device is not available, or another argument is invalid.
    """

    def __init__(
        self,
        model_name: str | DeepAVFusionEmbedder,
        revision: str | None = None,
        *,
        device: str | None = None,
        pooling: str | None = None,
        name: str | None = None,
    ):
        check_device(device)
        if isinstance(model_name, DeepAVFusionEmbedder):
            self.embedder, default = model_name, "deepavfusion/encoder"
        else:
            self.embedder, default = load_embedder(str(model_name), revision, pooling), _name(str(model_name))
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        self.device = torch.device(device or accelerator or "cpu")
        self.embedder.eval().to(self.device)
        self.name, self.revision = name or default, revision

    @property
    def mteb_model_meta(self):
        """What `mteb` records of the model, its `ModelMeta`."""
        from mteb.models import ModelMeta  # here: the other methods work without it

        return ModelMeta.create_empty(
            overwrites={
                "name": self.name,
                "revision": self.revision or "no_revision_available",
                "loader": type(self),
                "modalities": list(MODALITIES),
                "embed_dim": self.embedder.get_embedding_dimension(),
                "n_parameters": sum(parameter.numel() for parameter in self.embedder.parameters()),
                "similarity_fn_name": "cosine",
                "framework": ["PyTorch", "Transformers"],
            }
        )

    @torch.inference_mode()
    def encode(
        self, inputs, *, batch_size: int | None = None, show_progress_bar: bool = True, **kwargs
    ) -> torch.Tensor:
        """Encode the images, sounds and videos of a data set; those of one row together.

        Args:
            inputs: Data loader of `mteb`, of which only the data set is used: columns `image`, `audio` and `video` as
                `datasets` stores them.
            batch_size: Rows per forward pass; by default that of the loader.
            show_progress_bar: Whether to show progress.
            **kwargs: Ignored: task, split, subset and prompt.

        Returns:
            (N, hidden size) float32 on the CPU.

        Raises:
            MediaError: If a file cannot be read.
            ValueError: If the data set has none of these columns, or a row has no value in any.
        """
        data = undecoded(inputs.dataset)
        columns = [name for name in MODALITIES if name in data.column_names]
        if not columns:
            raise ValueError(f"Expected a data set with any of {', '.join(MODALITIES)}, got {data.column_names}.")
        size = batch_size or inputs.batch_size or 32
        batches = list(range(0, len(data), size))
        vectors = []
        for start in with_progress(batches, "encoding", "batch", plural="batches") if show_progress_bar else batches:
            features = self.embedder.preprocess(list(rows(data[start : start + size], columns)))
            features = {name: values.to(self.device) for name, values in features.items()}
            vectors.append(self.embedder(features)["sentence_embedding"].float().cpu())
        return torch.cat(vectors)

    def similarity(self, embeddings1, embeddings2) -> torch.Tensor:
        """Cosine similarities (N, M) of embeddings (N, D) and (M, D), arrays or tensors."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1, embeddings2) -> torch.Tensor:
        """Cosine similarities (N,) of pairs of embeddings (N, D), arrays or tensors."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def undecoded(data):
    """The data set with sounds and videos as `{"path", "bytes"}`, so that `datasets` does not decode them."""
    from datasets import Audio, Video

    for name, feature in data.features.items():
        if isinstance(feature, (Audio, Video)) and feature.decode:
            data = data.cast_column(name, type(feature)(decode=False))
    return data


def rows(batch: dict[str, list], columns: list[str]) -> Iterator[dict[str, Any]]:
    """Inputs of `DeepAVFusionEmbedder` for each row of a batch, without values that are None.

    Raises:
        ValueError: If a row has none.
    """
    for values in zip(*(batch[name] for name in columns), strict=True):
        row = {name: value for name, value in zip(columns, values, strict=True) if value is not None}
        if not row:
            raise ValueError(f"Expected a value in {' or '.join(columns)} in every row, got none in one of them.")
        yield row


def _name(origin: str) -> str:
    path = Path(origin)
    return "/".join(path.resolve().parts[-2:]) if path.is_dir() else origin


def _unit(embeddings) -> torch.Tensor:
    return normalize(torch.atleast_2d(torch.as_tensor(embeddings).float()), dim=-1)


__all__ = ["MODALITIES", "MTEBEncoder"]
