"""README.md of a pre-trained model's folder, which is a ready-to-push Hub repository."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from deepavfusion.inference.files import write_atomically

from ..tasks.pretraining import METRICS, Pretraining, nested_scores
from .logging import duration

_PACKAGES = ("deepavfusion", "torch", "torchaudio", "transformers", "accelerate", "safetensors", "numpy", "av")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def score_table(results: dict[str, Any]) -> list[list[str]]:
    """Rows of the nearest-neighbour table, header first: stream, before training, after, chance; in percent."""
    before, after = results["before"]["probe"], results["after"]["probe"]
    if after is None:
        return []
    first = "untrained" if results["initial_weights"] == "random" else "before training"
    rows = [["stream", "metric", first, "trained", "chance"]]
    for stream, scores in after.items():
        for metric, value in scores.items():
            rows.append(
                [
                    stream,
                    METRICS[metric],
                    f"{100 * before[stream][metric]:.1f} %",
                    f"{100 * value:.1f} %",
                    f"{100 * results['chance'][metric]:.1f} %",
                ]
            )
    return rows


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _results(record: dict[str, Any]) -> dict[str, Any]:
    """What the card shows, from the content of evaluation.json."""
    ends = {"before": record["before"], "after": record["metrics"]}
    scores = {end: nested_scores(metrics) for end, metrics in ends.items()}
    random = [found.pop("chance") for found in scores.values() if found]
    training, grids = record["training"], record["architecture"]
    return {
        **record,
        **{end: {**metrics, "probe": scores[end]} for end, metrics in ends.items()},
        "chance": random[-1] if random else None,
        "initial_weights": training["initial_weights"],
        "run": {**training, "skipped": training["skipped_clips"]},
        "data": {**record["data"], "eval_clips": record["num_clips"], "eval_split": record["split"]},
        "model": grids,
    }


def write_pretraining_card(
    folder: Path, name: str, record: dict[str, Any], recipe_yaml: str, license_name: str
) -> None:
    """Writes README.md of the model `name` from the content of evaluation.json and the recipe."""
    results = _results(record)
    evaluations = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Leave-one-out nearest neighbour",
            dataset_type=results["data"]["name"],
            dataset_name=results["data"]["description"],
            dataset_split=results["data"]["eval_split"],
            metric_type=metric,
            metric_name=f"{METRICS[metric]}, {stream} stream",
            metric_value=round(value, 4),
        )
        for stream, scores in (results["after"]["probe"] or {}).items()
        for metric, value in scores.items()
    ]
    metadata = ModelCardData(
        model_name=name if evaluations else None,
        license=license_name,
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=["deepavfusion", "audio-visual", "masked-autoencoder", "pre-training", "video", "audio", "custom_code"],
        metrics=sorted({evaluation.metric_type for evaluation in evaluations}) or None,
        eval_results=evaluations or None,
    )
    text = f"---\n{metadata.to_yaml()}\n---\n\n" + _body(name, results, recipe_yaml, bool(evaluations))
    write_atomically(folder / "README.md", text)


def _body(name: str, results: dict[str, Any], recipe_yaml: str, probed: bool) -> str:
    model, data, run = results["model"], results["data"], results["run"]
    details = [
        ["", ""],
        [
            "parameters",
            f"{model['parameters'] / 1e6:.1f} M, of which encoder {model['encoder_parameters'] / 1e6:.1f} M",
        ],
        [
            "width, depth, heads",
            f"{model['hidden_size']}, {model['num_hidden_layers']}, {model['num_attention_heads']}",
        ],
        ["fusion", f"{model['fusion_type']}, layers: {model['fusion_layers']}, tokens: {model['fusion_tokens']}"],
        ["frame", f"{model['frame']} pixels, {model['image_patches']} patches"],
        ["sound", f"log-mel, {model['spectrogram']}, {model['audio_patches']} patches"],
        ["initial weights", results["initial_weights"]],
        ["trained on", data["description"]],
        ["clips seen", f"{run['clips_seen']:,} in {run['steps']:,} steps of {run['effective_batch']}"],
        ["time", f"{duration(run['seconds'])} ({run['samples_per_second']:.3g} clips a second), {run['device']}"],
        ["precision", run["mixed_precision"] if run["mixed_precision"] != "no" else "float32"],
    ]
    losses = [["", "before training", "after"]] + [
        [label, f"{results['before'][key]:.4f}", f"{results['after'][key]:.4f}"]
        for key, label in (("loss", "sum"), ("image_loss", "image"), ("audio_loss", "audio"))
    ]
    skipped = len(run["skipped"])
    parts = [
        f"# {name}",
        "An audio-visual encoder with early fusion (DeepAVFusion; Mo & Morgado, CVPR 2024, "
        "[arXiv 2312.01017](https://arxiv.org/abs/2312.01017)), pre-trained by hiding most patches of a video frame "
        "and of "
        "its sound and reconstructing them. It gives three streams of tokens: fusion, image, audio.",
        "## Use",
        "```python\nimport torch\nfrom transformers import AutoModel, AutoProcessor\n\n"
        f'repository = "{name}"  # this folder, or its name on the Hub\n'
        "processor = AutoProcessor.from_pretrained(repository, trust_remote_code=True)\n"
        "model = AutoModel.from_pretrained(repository, trust_remote_code=True).eval()\n\n"
        'inputs = processor(videos="clip.mp4", return_tensors="pt")\n'
        "with torch.no_grad():\n    outputs = model(**inputs)\n"
        "print(outputs.last_hidden_state.shape, outputs.image_last_hidden_state.shape, "
        "outputs.audio_last_hidden_state.shape)\n```\n\n"
        "`AutoModelForPreTraining` loads the decoders as well. The code is in this repository.",
        "## Details",
        _markdown(details),
        "## Results",
        f"{data['eval_clips']:,} clips of the {data['eval_split']} split. {Pretraining.PROTOCOL}",
        _markdown(losses),
    ]
    if probed:
        parts += [_markdown(score_table(results)), _ceilings(results)]
    else:
        parts.append("The clips have no labels that would allow a nearest-neighbour score.")
    parts += [
        "![Training curves](training_curves.png)",
        "Masked, reconstructed (hidden patches predicted, visible ones as they are) and original, held-out clips. "
        + (
            "The model predicts patches up to their mean and contrast, which the picture takes from the original."
            if model["norm_patch_loss"]
            else ""
        ),
        "![Reconstructions](reconstructions.png)",
        "Made by `deepavfusion pretrain` on "
        f"{results['date']}; all numbers are in `evaluation.json`, every logged step is in `metrics.jsonl`.",
        "## Limits",
        _limits(results, skipped),
        "## Recipe",
        f"```yaml\n{recipe_yaml.rstrip()}\n```",
        "Versions: " + ", ".join(f"{package} {version}" for package, version in results["versions"].items()) + ".",
        "## Citation",
        "```bibtex\n@inproceedings{mo2024deepavfusion,\n"
        "  title = {Unveiling the Power of Audio-Visual Early Fusion Transformers with Dense Interactions through "
        "Masked "
        "Modeling},\n  author = {Mo, Shentong and Morgado, Pedro},\n  booktitle = {CVPR},\n  year = {2024}\n}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ceilings(results: dict[str, Any]) -> str:
    """What the built-in data allow at best to one who only hears or only sees."""
    if not results.get("ceilings"):
        return ""
    metrics = list(next(iter(results["ceilings"].values())))
    rows = [["best possible from", *metrics]]
    rows += [[sense, *(f"{100 * s[m]:.1f} %" for m in metrics)] for sense, s in results["ceilings"].items()]
    return "Classes pair a shape with a timbre, so one sense alone leaves them ambiguous:\n\n" + _markdown(rows)


def _limits(results: dict[str, Any], skipped: int) -> str:
    lines = [
        "- Pre-trained only: the streams are for fine-tuning, probing and retrieval; there is no classifier in here.",
        "- Both modalities were always present in training.",
        f"- Trained on {results['run']['clips_seen']:,} clips of: {results['data']['description']}. Expect little "
        f"beyond "
        "what resembles them.",
    ]
    if results["data"]["name"] == "scenes":
        lines.append("- The data are synthetic scenes, made to try the method; this is no model of real videos.")
    if skipped:
        lines.append(f"- {skipped} clips could not be read and were skipped; `evaluation.json` names them.")
    return "\n".join(lines)


__all__ = ["package_versions", "score_table", "write_pretraining_card"]
