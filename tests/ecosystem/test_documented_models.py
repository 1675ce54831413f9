"""The examples of docs/ecosystem.md on models run, and do what the page says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForAudioVisualClassification, DeepAVFusionForPreTraining, DeepAVFusionProcessor
from deepavfusion.training.data.scenes import ScenesConfig, write_scene
from tests.modeling_deepavfusion.cases import make_model

pytestmark = pytest.mark.ecosystem

PAGE = (Path(__file__).parents[2] / "docs" / "ecosystem.md").read_text(encoding="utf-8")
MODELS = re.search(r"^## Models\n.*?(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group()
ADAPTERS, INPUTS, SESSION = re.findall(r"```python\n(.*?)```", MODELS, re.DOTALL)
LABELS = {0: "cello", 1: "flute", 2: "drums"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the models and files that the page names."""
    monkeypatch.chdir(tmp_path)
    classifier = make_model(
        DeepAVFusionForAudioVisualClassification,
        num_labels=3,
        id2label=LABELS,
        label2id={v: k for k, v in LABELS.items()},
    )
    for name, model in (("scenes_recognition", classifier), ("quickstart", make_model(DeepAVFusionForPreTraining))):
        model.save_pretrained(Path("runs", name))
        DeepAVFusionProcessor.from_model(model).save_pretrained(Path("runs", name))
    for index, name in enumerate(("clip.mp4", "duet.mp4")):
        write_scene(ScenesConfig(image_size=64), index=index, folder=tmp_path / str(index))
        Path(str(index), "clip.mp4").rename(name)
    return tmp_path


def test_an_adapter_is_trained_and_loaded(here):
    trained = {}
    exec(ADAPTERS.replace('model.save_pretrained("runs/my_adapter")', 'model.save_pretrained("runs/my_adapter")\n'
                          'trained = model.eval()'), trained)  # fmt: skip
    assert not (here / "runs" / "my_adapter" / "model.safetensors").exists()
    with torch.no_grad():
        expected, found = (trained[name].eval()(**trained["inputs"]).logits for name in ("trained", "model"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad(), trained["model"].disable_adapter():
        assert not torch.allclose(trained["model"](**trained["inputs"]).logits, expected, atol=1e-3)


def test_onnxruntime_alone_gives_the_labels(here):
    (command,) = re.findall(r"^deepavfusion (export .*)$", MODELS, re.MULTILINE)
    assert cli.main(command.split()) == 0
    names = {}
    exec(INPUTS, names)
    hidden = "import sys\nfor name in ('torch', 'transformers', 'deepavfusion'):\n    sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + SESSION], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    model = DeepAVFusionForAudioVisualClassification.from_pretrained("runs/scenes_recognition")
    with torch.no_grad():
        expected = model(**names["inputs"]).logits.argmax(dim=1).tolist()
    assert done.stdout.strip() == str([LABELS[index] for index in expected])
