"""Exported predictions in VGGSounder's own benchmark."""

import csv
import importlib.util
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionForAudioVisualClassification, DeepAVFusionProcessor
from deepavfusion.inference.benchmarks.vggsounder import class_order
from deepavfusion.inference.benchmarks.vggsounder_scores import read_labels, score
from deepavfusion_cli import main
from tests.media_factory import write_media
from tests.tiny import tiny_config

from .processes import DOCS, run, snippets

pytestmark = pytest.mark.ecosystem


def test_the_page_evaluates_with_the_benchmark(tmp_path, monkeypatch):
    data = Path(importlib.util.find_spec("vggsounder").origin).parent / "data"
    with open(data / "vggsounder+background-music.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["background_music"] == "False"]
    # Some of every modality: the benchmark cannot score a subset without clips.
    of_kind = {kind: [row["video_id"] for row in rows if row["modality"] == kind] for kind in ("A", "V", "AV")}
    ids = list(dict.fromkeys(name for names in of_kind.values() for name in names[:2]))
    names = class_order()
    torch.manual_seed(0)
    labels = dict(enumerate(sorted(names)))  # as the data set of this package orders them
    model = DeepAVFusionForAudioVisualClassification(tiny_config(id2label=labels))
    for part in (model, DeepAVFusionProcessor.from_model(model)):
        part.save_pretrained(tmp_path / "runs" / "vggsound_finetune")
    for name in ids:
        path = tmp_path / "CLIPS" / f"{name}_{int(name[-6:]) + 10:06d}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_media(path)
    monkeypatch.chdir(tmp_path)
    line, _ = re.findall(r"^deepavfusion (export vggsounder .*)$", (DOCS / "benchmarks.md").read_text(), re.MULTILINE)
    assert main([*line.split(), "--device", "cpu"]) == 0
    stored = pickle.loads((tmp_path / "predictions" / "deepavfusion.pkl").read_bytes())
    assert set(stored) == set(ids)
    (_, snippet) = snippets("benchmarks.md")
    printed = run(snippet, tmp_path)
    assert "DeepAVFusion" in printed
    # The same hit rate from the labels, computed here.
    found = run(
        """
import json, pickle
from vggsounder import VGGSounder
data, stored = VGGSounder(background_music=None), pickle.load(open("predictions/deepavfusion.pkl", "rb"))
names = data.get_all_labels()
print(json.dumps([names, {key: data[key].labels for key in stored}]))
""",
        tmp_path,
    )
    assert found[0] == names
    assert all(set(labels) <= set(names) for labels in found[1].values())
    assert json.dumps(stored)  # plain lists


def test_scores_are_those_of_the_benchmark(tmp_path):
    """Of random logits with all labels of the package, and of clips that lack some."""
    data = Path(importlib.util.find_spec("vggsounder").origin).parent / "data" / "vggsounder+background-music.csv"
    names, random = class_order(), np.random.default_rng(0)
    labels = read_labels(data, names)
    predictions = {}
    for clip, own in list(labels.items())[:400]:
        logits = {name: random.normal(size=len(names)) for name in ("a", "v", "av")}
        for values in logits.values():  # so that some hit
            values[np.flatnonzero(np.any(list(own.values()), axis=0))] += 2
        predictions[clip] = {name: values.tolist() for name, values in logits.items()}
    (tmp_path / "models").mkdir()
    stored = {clip: {"logits": own} for clip, own in predictions.items()}
    (tmp_path / "models" / "model.pkl").write_bytes(pickle.dumps(stored))
    printed = run(
        """
import json
from vggsounder.benchmark import compute_all_results
found = compute_all_results("models", verbose=False)["model"]
print(json.dumps({m: {key: float(value) for key, value in own.items()} for m, own in found.items()}))
""",
        tmp_path,
    )
    expected, found = printed, score(predictions, labels)
    for modality in ("a", "v", "av", "a only", "v only"):
        for key, value in found[modality].items():
            if key != "clips":
                assert value == pytest.approx(expected[modality][key], abs=1e-9), (modality, key)
    for modality in ("a", "v", "av"):
        assert found["mu"][modality] == pytest.approx(expected[modality]["mu"], abs=1e-9)
    assert found["mu"]["av"] > 0
