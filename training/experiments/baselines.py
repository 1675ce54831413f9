"""Simple baselines on the built-in scenes, with chance and the upper bounds of single modalities.

    python -m deepavfusion.training.experiments.baselines
    python -m deepavfusion.training.experiments.baselines --model untrained --model runs/scenes_tiny --networks standard

Protocol: clips with one object; 1-nearest-neighbor (cosine) and logistic regression on standardized features of
training scenes, evaluated on test scenes for shape (8 classes), timbre (8) and class (16). `--networks` also trains two
small convolutional networks, which learn the families that the baselines cannot separate. Needs scikit-learn.
"""

import json
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..data import collate_clips
from ..data.scenes import CLASS_SHAPE, CLASS_TIMBRE, DIFFICULTIES, SceneClips, ScenesConfig, modality_ceilings

TARGETS = {"shape": 8, "timbre": 8, "class": 16}
DEFAULT_OUT = Path(__file__).parent / "results" / "scenes_baselines.json"


def tiny_config(image_size: int = 64, num_mel_bins: int = 64, spectrogram_length: int = 96):
    """Configuration of a small model for frames of 64 pixels and 1.5 s of audio."""
    from deepavfusion import DeepAVFusionConfig

    return DeepAVFusionConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=image_size,
        patch_size=8, num_mel_bins=num_mel_bins, spectrogram_length=spectrogram_length, num_fusion_tokens=8,
        num_image_aggregation_tokens=4, num_audio_aggregation_tokens=4, num_fusion_attention_heads=4,
    )  # fmt: skip


def read_scenes(config: ScenesConfig, model_config, split: str, size: int) -> dict[str, np.ndarray]:
    """Load frames (n, 3, H, W), log-mels (n, mels, frames) and targets of single-object scenes."""
    from deepavfusion import DeepAVFusionModel, DeepAVFusionProcessor

    processor = DeepAVFusionProcessor.from_model(DeepAVFusionModel, model_config)
    clips = SceneClips(config, processor, split, size, train=False, seed=0)
    parts = [collate_clips(clips.__getitems__(range(i, min(i + 64, size)))) for i in range(0, size, 64)]
    classes = torch.cat([part["labels"] for part in parts]).numpy()
    return {
        "pixels": torch.cat([part["pixel_values"] for part in parts]).numpy(),
        "log_mel": torch.cat([part["input_features"] for part in parts])[:, 0].numpy(),
        "class": classes,
        "shape": np.array(CLASS_SHAPE)[classes],
        "timbre": np.array(CLASS_TIMBRE)[classes],
    }


def representations(scenes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Simple features: pixels at half size, log-mel averaged over time, log-mel with pairs of frames averaged."""
    pixels, log_mel = scenes["pixels"], scenes["log_mel"]
    count, _, height, width = pixels.shape
    small = pixels.reshape(count, 3, height // 2, 2, width // 2, 2).mean((3, 5))
    return {
        "raw pixels": small.reshape(count, -1),
        "mean log-mel": log_mel.mean(-1),
        "log-mel": log_mel.reshape(*log_mel.shape[:2], -1, 2).mean(-1).reshape(count, -1),
    }


@torch.inference_mode()
def embeddings(model, scenes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean over tokens of a model's three streams, L2-normalized, and their concatenation ("all")."""
    pieces: dict[str, list] = {"fusion": [], "image": [], "audio": []}
    for i in range(0, len(scenes["pixels"]), 100):
        output = model(
            pixel_values=torch.from_numpy(scenes["pixels"][i : i + 100]),
            input_features=torch.from_numpy(scenes["log_mel"][i : i + 100, None]),
        )
        for name, prefix in (("fusion", ""), ("image", "image_"), ("audio", "audio_")):
            pieces[name].append(F.normalize(output[f"{prefix}last_hidden_state"].float().mean(1), dim=-1))
    streams = {name: torch.cat(parts).numpy() for name, parts in pieces.items()}
    return streams | {"all": np.concatenate(list(streams.values()), axis=1)}


def score(train: np.ndarray, test: np.ndarray, train_targets: np.ndarray, test_targets: np.ndarray) -> dict[str, float]:
    """Accuracies of 1-nearest-neighbor (cosine of standardized features) and logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test, train)]
    nearest = train_targets[(unit[0] @ unit[1].T).argmax(1)]
    # Stronger regularization for more features, which would otherwise overfit the training scenes.
    linear = LogisticRegression(C=min(1.0, 10 / train.shape[1]), max_iter=200)
    with warnings.catch_warnings():
        # The protocol is 200 iterations: held-out accuracy has converged by then, even if the weights have not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(train, train_targets)
    return {
        "nearest_neighbour": float((nearest == test_targets).mean()),
        "linear": float((linear.predict(test) == test_targets).mean()),
    }


def train_network(train: np.ndarray, test: np.ndarray, targets: tuple[np.ndarray, np.ndarray], epochs: int) -> float:
    """Train four convolutions with batch norm from a fixed seed; returns the test accuracy (8 classes)."""
    torch.manual_seed(0)
    widths = (train.shape[1], 24, 48, 64, 96)
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:]):
        convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 8))
    batch = 64
    steps = epochs * (len(train) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    mean, deviation = float(train.mean()), float(train.std())
    inputs, labels = torch.from_numpy(train), torch.from_numpy(targets[0])
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch)[: len(inputs) // batch]:
            loss = F.cross_entropy(network((inputs[rows] - mean) / deviation), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        parts = torch.from_numpy(test).split(250)
        predicted = torch.cat([network((part - mean) / deviation).argmax(1) for part in parts])
    return float((predicted.numpy() == targets[1]).mean())


def run(
    difficulty: str, train_size: int, test_size: int, models: Iterable[str], network_size: int = 0, epochs: int = 5
) -> dict:
    """Compute all scores at one difficulty."""
    model_config = tiny_config()
    seconds = model_config.spectrogram_length / 64
    config = ScenesConfig(
        image_size=model_config.image_size, seconds=seconds, difficulty=difficulty, max_objects=1, max_sounding=1
    )
    train = read_scenes(config, model_config, "train", train_size)
    test = read_scenes(config, model_config, "test", test_size)
    result: dict = {
        "ceilings": {modality: c["single_object_accuracy"] for modality, c in modality_ceilings(config).items()},
        "chance": {target: 1 / count for target, count in TARGETS.items()},
        "baselines": {},
    }
    tables = {name: (x, representations(test)[name]) for name, x in representations(train).items()}
    for name in models:
        model, label = load_model(name, model_config)
        streams = embeddings(model, test)
        tables |= {f"{label}: {key}": (x, streams[key]) for key, x in embeddings(model, train).items()}
    for name, (a, b) in tables.items():
        result["baselines"][name] = {target: score(a, b, train[target], test[target]) for target in TARGETS}
    if network_size:
        many = read_scenes(config, model_config, "train", network_size)
        result["networks"] = {"training_scenes": network_size, "epochs": epochs}
        for target, key in (("shape", "pixels"), ("timbre", "log_mel")):
            start = time.monotonic()
            inputs = [x[key] if key == "pixels" else x[key][:, None] for x in (many, test)]
            accuracy = train_network(*inputs, (many[target], test[target]), epochs)
            result["networks"][target] = {"accuracy": accuracy, "seconds": round(time.monotonic() - start)}
    return result


def load_model(name: str, model_config):
    """Load (model, label) from a folder, or build an untrained model (seed 0) if `name` is "untrained"."""
    from deepavfusion import DeepAVFusionModel

    if name == "untrained":
        torch.manual_seed(0)
        return DeepAVFusionModel(model_config).eval(), name
    model = DeepAVFusionModel.from_pretrained(name).eval()
    for size in ("image_size", "num_mel_bins", "spectrogram_length", "num_frames"):
        found, expected = getattr(model.config, size), getattr(model_config, size)
        if found != expected:
            raise ValueError(
                f"{name}: expected {size}={expected}, as the scenes of the baselines have it, got {found}."
            )
    return model, Path(name).name


def table(difficulty: str, result: dict) -> str:
    """Format the scores at one difficulty, in percent."""
    lines = [f"{difficulty:26s}" + "".join(f"{target:>18s}" for target in TARGETS)]
    lines.append(f"{'':26s}" + f"{'1-NN':>10s}{'linear':>8s}" * len(TARGETS))
    for name, scores in result["baselines"].items():
        cells = (f"{100 * s['nearest_neighbour']:10.1f}{100 * s['linear']:8.1f}" for s in scores.values())
        lines.append(f"  {name:24s}" + "".join(cells))
    for target, network in ((t, n) for t, n in result.get("networks", {}).items() if t in TARGETS):
        lines.append(f"  {'network: ' + target:24s}" + " " * 18 * list(TARGETS).index(target)
                     + f"{100 * network['accuracy']:18.1f}")  # fmt: skip
    lines.append(f"  {'chance':24s}" + "".join(f"{100 * c:18.1f}" for c in result["chance"].values()))
    ceilings = ", ".join(f"{name} {100 * c:.1f}" for name, c in result["ceilings"].items() if name != "chance")
    return "\n".join([*lines, f"  upper bounds for the class: {ceilings}"])


def main(arguments: list[str] | None = None) -> None:
    """Print the baselines of every difficulty and write them to a JSON file."""
    parser = CommandParser(prog="python -m deepavfusion.training.experiments.baselines", description=__doc__)
    parser.add_argument(
        "--difficulty", choices=DIFFICULTIES, action="append", help="difficulty to evaluate; repeatable (default: all)"
    )
    parser.add_argument("--train-size", type=positive, default=2000, help="number of training scenes (2000)")
    parser.add_argument("--test-size", type=positive, default=1000, help="number of test scenes (1000)")
    parser.add_argument("--model", action="append", default=[], help='"untrained" or a folder; repeatable')
    parser.add_argument(
        "--networks",
        choices=DIFFICULTIES,
        nargs="*",
        default=[],
        help="difficulties to train the two networks at",
    )
    parser.add_argument(
        "--network-size", type=positive, default=8000, help="number of training scenes of the networks (8000)"
    )
    parser.add_argument("--epochs", type=positive, default=5, help="training epochs of the networks (5)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="JSON file of the results")
    options = parser.parse_args(arguments)
    report = {"protocol": " ".join(__doc__.split("Protocol: ")[1].split("Needs")[0].split())}
    report |= {"train_scenes": options.train_size, "test_scenes": options.test_size, "difficulties": {}}
    for difficulty in options.difficulty or DIFFICULTIES:
        size = options.network_size if difficulty in options.networks else 0
        result = run(difficulty, options.train_size, options.test_size, options.model, size, options.epochs)
        report["difficulties"][difficulty] = result
        print(table(difficulty, result), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    run_module(main)
