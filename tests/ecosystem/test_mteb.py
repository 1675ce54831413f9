"""The encoder for mteb, with mteb's own mock tasks: all of images, audio and video without text."""

import pytest
import torch

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionProcessor
from tests.tiny import tiny_config

from .processes import ffmpeg_libraries, run, snippets

pytestmark = pytest.mark.ecosystem

# All mock tasks whose modalities the encoder has.
TASKS = """
import inspect
from mteb.abstasks import AbsTask
from mteb.mocks import mock_tasks
from deepavfusion.inference.benchmarks.mteb import MODALITIES, MTEBEncoder

found = [cls() for name, cls in inspect.getmembers(mock_tasks, inspect.isclass) if issubclass(cls, AbsTask)]
tasks = [task for task in found if set(task.metadata.modalities) <= set(MODALITIES)]
"""
EVALUATE = """
import json, sys
import mteb
scores = {}
encoder = MTEBEncoder(sys.argv[1], device="cpu")
for task in tasks:
    (result,) = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False, raise_error=True)
    scores[task.metadata.name] = [task.metadata.modalities, result.get_score()]
print(json.dumps(scores))
"""
# The page's benchmarks, with mock tasks in place of those that download gigabytes.
STAND_IN = """
import mteb
from types import SimpleNamespace
kinds = {"MAEB": "audio", "MVEB": "video"}
for name, kind in kinds.items():
    assert any(kind in task.metadata.modalities for task in mteb.get_benchmark(name).tasks)
mteb.get_benchmark = lambda name: SimpleNamespace(tasks=[
    t for t in found if kinds[name] in t.metadata.modalities and "Classification" in t.metadata.name
])
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mteb")
    torch.manual_seed(0)
    config = tiny_config(spectrogram_length=64)
    DeepAVFusionForPreTraining(config).save_pretrained(folder / "runs" / "quickstart")
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder / "runs" / "quickstart")
    return folder


@pytest.fixture(scope="module")
def libraries(workplace):
    """mteb's mock tasks encode their data with torchcodec."""
    return ffmpeg_libraries(workplace / "libraries")


def test_all_mock_tasks_without_text_pass(workplace, libraries):
    scores = run(TASKS + EVALUATE, workplace, "runs/quickstart", libraries=libraries)
    assert len(scores) >= 27
    assert {kind for kinds, _ in scores.values() for kind in kinds} == {"image", "audio", "video"}
    kinds = [set(kinds) for kinds, _ in scores.values()]
    assert {"image"} in kinds
    assert {"audio"} in kinds
    assert {"video"} in kinds
    assert {"audio", "video"} in kinds
    assert scores["MockAudioClassification"][1] == 1.0  # of two sounds that differ


def test_the_page_runs(workplace, libraries):
    (snippet, _) = snippets("benchmarks.md")
    printed = run(TASKS + STAND_IN + snippet, workplace, libraries=libraries)
    assert "'MockAudioClassification': 1.0" in printed
    assert "'MockVideoClassification': 1.0" in printed


def test_modalities_are_read_from_the_hub_files(workplace):
    """mteb reads them from sentence_bert_config.json, which is saved with encoders."""
    found = run(
        """
import json
from mteb.models import ModelMeta
settings = json.load(open("runs/quickstart/sentence_bert_config.json"))
print(json.dumps(sorted(ModelMeta._detect_modalities_from_sbert_config(settings))))
""",
        workplace,
    )
    assert found == ["audio", "image", "video"]
