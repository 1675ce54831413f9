"""Retrieval as a module of `evaluate`: which frame belongs to a sound, and which sound to a frame."""

import datasets
import evaluate

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.retrieval import cosine_similarity, median_rank, recall_at

_DESCRIPTION = """\
Recall at k and median rank among all samples, from sounds to frames and back, by cosine similarity of embeddings.
Sample i's sound belongs to sample i's frame; ties count against it. Beside it: what a random order reaches.
"""
_INPUTS = """
Args:
    predictions: embeddings (features,) of every sample's sound, encoded alone.
    references: embeddings (features,) of its frame, encoded alone.
    cuts: for `compute`: the k, (1, 5, 10) by default.
Returns:
    audio_to_image_r1, ..., image_to_audio_r1, ..., chance_r1, ...: in 0..1.
    audio_to_image_median_rank, image_to_audio_median_rank: 1 is best.
    num_samples.
"""


class AudioVisualRetrieval(evaluate.Metric):
    def _info(self):
        embedding = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": embedding, "references": embedding}),
        )

    def _compute(self, predictions, references, cuts=(1, 5, 10)):
        similarity = cosine_similarity(rectangle(predictions, "Predictions"), rectangle(references, "References"))
        result = {}
        for name, values in (("audio_to_image", similarity), ("image_to_audio", similarity.T)):
            result |= {f"{name}_r{k}": share for k, share in recall_at(values, cuts).items()}
            result[f"{name}_median_rank"] = median_rank(values)
        result |= {f"chance_r{k}": min(1.0, k / len(similarity)) for k in cuts}
        return result | {"num_samples": len(similarity)}
