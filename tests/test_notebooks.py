"""The notebooks run from top to bottom."""

import json
import math
import os
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from torch.nn.functional import cross_entropy

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionProcessor,
)

from .hub_server import HubServer
from .isolated import hub_environment
from .tiny import tiny_config

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def small_config(hidden_size: int) -> DeepAVFusionConfig:
    return tiny_config(
        hidden_size=hidden_size, image_size=64, num_mel_bins=64, spectrogram_length=192, audio_patch_size=16
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small pre-training model, as the quickstart saves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = small_config(hidden_size=64)
    DeepAVFusionForPreTraining(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task_folders(tmp_path_factory):
    """Small models of the tasks that find sources, as `make results` saves them."""
    folders, config = {}, small_config(hidden_size=128)
    config.id2label = {0: "sounding"}
    torch.manual_seed(0)
    for name, model_class in (
        ("SEPARATION", DeepAVFusionForSourceSeparation),
        ("LOCALIZATION", DeepAVFusionForSoundLocalization),
        ("SEGMENTATION", DeepAVFusionForSemanticSegmentation),
    ):
        folders[name] = tmp_path_factory.mktemp(name.lower())
        model_class(config).save_pretrained(folders[name])
        DeepAVFusionProcessor.from_config(config).save_pretrained(folders[name])
    return folders


def execute(path, monkeypatch, folder, probe=None):
    """Runs a notebook; returns the last expression of `probe`, a cell put after its last one, read as JSON."""
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"), (
        "commit it without outputs"
    )
    if probe is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({probe}))"))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute(env=dict(os.environ))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    return outputs, None if probe is None else json.loads(outputs[-1]["text"])


def test_all_notebooks_are_run_here():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


def code_cells(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", [NOTEBOOKS[0], NOTEBOOKS[2]], ids=lambda path: path.stem)
def test_a_missing_model_is_told_in_a_line(path, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("DEEPAVFUSION_MODEL", raising=False)
    with pytest.raises(SystemExit, match=r"^No model in \.\./runs/quickstart: run `make quickstart`, or set DEEP.*\.$"):
        exec(code_cells(path)[0], {})


def split_of(folder, model_folder, monkeypatch):
    """The names of a notebook after it has divided a folder of videos, which are not decoded."""
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    monkeypatch.setenv("DEEPAVFUSION_VIDEOS", str(folder))
    names = {}
    for source in code_cells(NOTEBOOKS[2])[:3]:
        exec(source.partition("\n\n\ndef collate")[0], names)
    return names


def test_classes_of_one_video_are_only_trained_on(model_folder, tmp_path, monkeypatch, capsys):
    for name in ("cat/1.mp4", "cat/2.mp4", "dog/1.mp4", *(f"owl/{index}.mp4" for index in range(9))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = split_of(tmp_path, model_folder, monkeypatch)
    assert "only trained on, as there is a single video of it: dog" in capsys.readouterr().out
    test, train = ([names["labels"][label] for label in names["parts"][part]["label"][:]] for part in ("test", "train"))
    assert sorted(test) == ["cat", "owl", "owl"]
    assert sorted(train) == ["cat", "dog", *["owl"] * 7]


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "No videos in subfolders of "), (("cat/1.mp4", "dog/1.mp4"), "No class in .* has two vi")],
)
def test_a_folder_that_cannot_be_divided_is_told(files, message, model_folder, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=message):
        split_of(tmp_path, model_folder, monkeypatch)


def test_embed_and_reconstruct(model_folder, monkeypatch):
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    _, losses = execute(NOTEBOOKS[0], monkeypatch, model_folder, "[reconstruction.loss.item(), len(images[-1])]")
    assert losses[0] > 0
    assert losses[1] == 6


SOURCES = """{
    "untrained": untrained,
    "lengths": [len(mixture), *(len(result["audio"]) for result in separated)],
    "rates": [rate, *(result["sampling_rate"] for result in separated)],
    "apart": float(np.abs(separated[0]["audio"] - separated[1]["audio"]).max()),
    "improvements": [float(value) for value in improvements],
    "shown": [
        [float(np.abs(deepavfusion.load_clip(duet, timestamp).frames[0].astype(float) - source.frames[0]).mean())
         for source in sources] for timestamp in timestamps
    ],
    "sounding": int(scene.sounding.sum()), "objects": len(scene.masks), "target": int(target.sum()),
    "frame": float(np.abs(segmented["frame"].astype(float) - scene.frames[0]).mean()),
    "shapes": [located["heat_map"].shape, mask.shape, target.shape],
    "heat": [float(located["heat_map"].min()), float(located["heat_map"].max())],
    "score": located["score"],
    "iou": float(iou),
    "expected_iou": float((mask * target).sum() / np.maximum(mask, target).sum()),
}"""


@pytest.mark.parametrize("trained", [True, False], ids=["fine-tuned models", "no models"])
def test_separate_localize_segment(trained, model_folder, task_folders, tmp_path, monkeypatch):
    for name in task_folders:
        monkeypatch.delenv(f"DEEPAVFUSION_{name}", raising=False)
    monkeypatch.setenv("DEEPAVFUSION_RUNS", str(tmp_path))
    (tmp_path / "results").mkdir()
    if trained:  # by a recipe, by `make results`, and elsewhere
        (tmp_path / "scenes_separation").symlink_to(task_folders["SEPARATION"])
        (tmp_path / "results" / "localization-pretrained-0").symlink_to(task_folders["LOCALIZATION"])
        monkeypatch.setenv("DEEPAVFUSION_SEGMENTATION", str(task_folders["SEGMENTATION"]))
    else:  # an interrupted training leaves no model
        (tmp_path / "scenes_separation" / "checkpoints").mkdir(parents=True)
    outputs, found = execute(NOTEBOOKS[1], monkeypatch, model_folder, SOURCES)

    printed = "".join(output.get("text", "") for output in outputs)
    tasks = ["separation", "localization", "segmentation"]
    assert found["untrained"] == ([] if trained else tasks)
    assert [f"UNTRAINED {task}" in printed for task in tasks] == [not trained] * 3

    length, *lengths = found["lengths"]
    assert all(length <= separated < length + 1024 for separated in lengths)  # AAC's blocks
    assert found["rates"] == [16000] * 3
    assert found["apart"] > 0  # the output depends on the frame
    assert len(found["improvements"]) == 2
    assert all(math.isfinite(value) for value in found["improvements"])
    (first, other), (another, second) = found["shown"]
    assert max(first, second) < 8 < min(other, another)  # each timestamp shows its own source

    assert (found["sounding"], found["objects"]) == (1, 2)
    assert found["target"] > 0
    assert found["frame"] < 8  # the mask belongs to the frame shown
    assert found["shapes"] == [[64, 64]] * 3
    assert found["heat"] == pytest.approx([0, 1])
    assert 0 < found["score"] < 1
    assert found["iou"] == pytest.approx(found["expected_iou"])
    assert sum("text/html" in output.get("data", {}) for output in outputs) == 3  # audio players


def test_finetune_on_your_videos(model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    monkeypatch.setenv("DEEPAVFUSION_HUB", "tester/mine")
    monkeypatch.delenv("DEEPAVFUSION_EPOCHS", raising=False)
    monkeypatch.delenv("DEEPAVFUSION_VIDEOS", raising=False)
    probe = """{
        "files": len(files),
        "parts": [len(parts["train"]), len(parts["test"])],
        "steps": trainer.state.global_step,
        "losses": [loss for _, loss in history],
        "labels": labels,
        "names": [model.config.id2label, model.config.label2id],
        "before": before, "after": after, "truth": parts["test"]["label"][:],
        "predictions": predictions,
        "logits": torch.cat([model.eval()(**collate([row])).logits for row in parts["test"]]).tolist(),
        "saved": sorted(path.name for path in (out / "model").iterdir()),
    }"""
    with HubServer() as hub:
        for name, value in hub_environment(tmp_path, hub.endpoint).items():
            monkeypatch.setenv(name, value)
        _, found = execute(NOTEBOOKS[2], monkeypatch, model_folder, probe)
        published = set(hub.repositories["tester/mine"].files)

    assert (found["files"], found["parts"]) == (24, [18, 6])
    assert found["steps"] == 16  # five batches of up to four are two steps an epoch
    assert len(found["losses"]) == 16
    assert sum(found["losses"][-3:]) < 0.8 * sum(found["losses"][:3])
    labels = ["hiss zigzag", "rising triangle"]
    assert found["labels"] == labels
    assert found["names"] == [{"0": labels[0], "1": labels[1]}, {labels[0]: 0, labels[1]: 1}]

    # With untrained towers and six clips, held-out scores need not improve, but must be correct.
    logits, truth, after = torch.tensor(found["logits"]), torch.tensor(found["truth"]), found["after"]
    assert after["eval_num_samples"] == 6
    assert after["eval_loss"] == pytest.approx(cross_entropy(logits, truth).item(), abs=1e-3)
    assert after["eval_top1"] == pytest.approx((logits.argmax(-1) == truth).float().mean().item())
    assert {"eval_map", "eval_auc"} <= set(after)
    assert after["eval_loss"] != found["before"]["eval_loss"]
    # The pipeline has read the saved model.
    scores = {entry["label"]: entry["score"] for entry in found["predictions"]}
    assert scores == pytest.approx(dict(zip(labels, logits[0].softmax(-1).tolist(), strict=True)), abs=1e-3)
    complete = {"config.json", "model.safetensors", "processor_config.json", "classification_deepavfusion.py"}
    assert complete <= set(found["saved"])
    assert complete <= published
