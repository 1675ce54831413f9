"""What the README, and the page on recognition that it refers to, show runs, and what they name exists."""

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from deepavfusion import DeepAVFusionConfig
from deepavfusion_cli import COMMANDS

from .test_notebooks import model_folder  # noqa: F401  (a fixture)
from .warm import warm_python

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECOGNITION = (ROOT / "docs" / "tasks" / "recognition.md").read_text()


def test_the_snippet_runs(model_folder, tmp_path):  # noqa: F811
    from deepavfusion.training.data.scenes import ScenesConfig, write_scene

    write_scene(ScenesConfig(image_size=64), index=0, folder=model_folder / "scene")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(model_folder)
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "AutoProcessor" in block)
    done = subprocess.run([warm_python(), "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = DeepAVFusionConfig.from_pretrained(model_folder)
    fusion, image, audio = (
        torch.Size([1, tokens, config.hidden_size]) for tokens in (config.num_all_fusion_tokens, *config.num_patches)
    )
    assert done.stdout.splitlines() == [str(fusion), f"{image} {audio}"]


def test_the_plain_trainer_snippet_fine_tunes_a_folder_of_videos(model_folder, tmp_path):  # noqa: F811
    from deepavfusion.training.data.scenes import CLASS_NAMES, ScenesConfig, generate_scene, write_scene

    config = ScenesConfig(image_size=64, max_objects=1, max_sounding=1)
    for index in range(6):
        folder = tmp_path / "videos" / CLASS_NAMES[generate_scene(config, index).label]
        write_scene(config, index=index, folder=folder / "made")
        (folder / "made" / "clip.mp4").rename(folder / f"{index}.mp4")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(model_folder)
    (snippet,) = re.findall(r"```python\n(.*?)```", RECOGNITION, re.DOTALL)
    assert "docs/tasks/recognition.md#with-the-plain-trainer" in README
    code = snippet + "\nprint('steps', trainer.state.global_step, arguments.gradient_accumulation_steps)"
    done = subprocess.run([warm_python(), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "steps 10 8"
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    config = DeepAVFusionConfig.from_pretrained(tmp_path / "runs" / "my_trainer")
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
    classify = pipeline("audio-visual-classification", model=str(tmp_path / "runs" / "my_trainer"))
    (clip,) = (tmp_path / "videos").glob("*/0.mp4")
    assert sorted(answer["label"] for answer in classify(str(clip), top_k=None)) == names


def test_it_is_short():
    assert len(README.splitlines()) <= 180


@pytest.mark.parametrize("word", sorted(COMMANDS))
def test_commands_exist(word):
    assert f"deepavfusion {word}" in README
    assert word in COMMANDS


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_what_the_shown_commands_write_is_ignored_by_git():
    """Placeholders, in capitals, stand for places that a user chooses."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    modules = [*(ROOT / "inference").rglob("*.py"), *(ROOT / "training" / "cli").rglob("*.py")]
    shown = "\n".join(path.read_text(encoding="utf-8") for path in (*pages, *modules))
    lines = [line for line in shown.splitlines() if re.search(r"\bdeepavfusion[ .]", line)]
    option = re.compile(r" (?:--out|--output|--report|--export-space|>) ([a-z][\w./]*)")
    written = [path for line in lines for path in option.findall(line)]
    written += re.findall(r"deepavfusion (?:convert|export onnx) \S+ ([a-z][\w./]*)", shown)
    written += re.findall(r"deepavfusion convert ([a-z]\S+)", shown)
    assert {"streams/", "scene/", "converted/", "recognition.onnx", "vggsound.json", "labels.jsonl"} <= {*written}
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    for path in written:
        assert any(fnmatch.fnmatchcase(path.split("/")[0], pattern) for pattern in ignored), path
