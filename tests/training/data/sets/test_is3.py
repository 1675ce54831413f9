"""IS3, its interactive scores, and localization with negative audio."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sets.boxes.is3 import read_is3
from deepavfusion.training.data.stills import BoxClips, Still
from deepavfusion.training.metrics.localization import interactive_ciou, silent_auc
from deepavfusion.training.tasks import TASKS
from tests.training.data.copies import Clips, flickr_soundnet, is3, vggss
from tests.training.data.disk import MODEL, write
from tests.training.tasks.test_tasks import Answers, confident

SCENES = {"cat_banjo_10438": ("cat", "banjo"), "fox_train_10439": ("fox", "train")}
PROCESSOR = DeepAVFusionProcessor.from_config(MODEL, crop_pct=1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return is3(Clips(tmp_path_factory.mktemp("originals")), tmp_path_factory.mktemp("is3")).path


@pytest.fixture(scope="module")
def clips(root):
    return build_dataset({"name": "is3", "path": str(root)}, MODEL, "test", False, 0, task="localization")


def test_frames_boxes_and_audio_belong_together(root, caplog):
    with caplog.at_level(logging.WARNING):
        clips = build_dataset({"name": "is3", "path": str(root)}, MODEL, "test", False, 0, task="localization")
    assert "IS3: 1 of 5 annotated clips are missing, first: bus_owl_10440_owl.jpg" in caplog.text
    names = [f"{scene}_{end}" for scene, ends in SCENES.items() for end in ends]
    assert [Path(row.image).stem for row in clips.rows] == [Path(row.audio).stem for row in clips.rows] == names
    assert [row.visible for row in clips.rows] == [("cat", "banjo")] * 2 + [("fox", "train")] * 2
    batch = clips.collate(clips.__getitems__(range(4)))
    assert batch["scene"] == ["cat_banjo_10438"] * 2 + ["fox_train_10439"] * 2
    assert batch["sounding"].tolist() == [1, 1, 1, 1]
    left, top, right, bottom = json.loads((root / "IS3_annotation.json").read_text())[0]["gt_box"]
    area = (right - left) * (bottom - top) / 224**2
    assert batch["labels"][0].mean().item() == pytest.approx(area * 64 / 48, rel=0.35)  # of the central square


@pytest.mark.parametrize("content", ['{"image": "a"}', '[{"image": "a.jpg", "audio": "a.wav"}]', "[1]"])
def test_other_annotations_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match='expected a list of objects with "image", "audio" and "gt_box"'):
        read_is3(write(tmp_path / "IS3_annotation.json", content))


@pytest.mark.parametrize("box", ["7", "[1, 2, 3]", '[1, 2, 3, "x"]'])
def test_boxes_are_four_numbers(tmp_path, box):
    path = write(tmp_path / "a.json", f'[{{"image": "a.jpg", "audio": "a.wav", "gt_box": {box}}}]')
    with pytest.raises(ValueError, match=r"a\.json, a\.jpg: expected a box"):
        read_is3(path)


def test_missing_files_are_told(root, tmp_path):
    source = {"name": "is3", "path": str(tmp_path)}
    with pytest.raises(FileNotFoundError, match=r"IS3's annotations at .*IS3_annotation\.json; found no json"):
        build_dataset(source, MODEL, "test", False, 0, task="localization")
    write(tmp_path / "synthetic3240_bbox.json", (root / "IS3_annotation.json").read_text())
    with pytest.raises(FileNotFoundError, match="None of IS3's 5 frames is in .*images/cat_banjo_10438_cat.jpg"):
        build_dataset(source, MODEL, "test", False, 0, task="localization")
    with pytest.raises(ValueError, match="test frames only, no split 'train'"):
        build_dataset(source, MODEL, "train", True, 0, task="localization")


def test_off_screen_audio_is_of_nothing_visible(clips, tmp_path):
    for i in range(len(clips)):
        assert clips.rows[clips.offscreen(i)].source not in clips.rows[i].visible
    copy = flickr_soundnet(Clips(tmp_path), tmp_path)
    source = {"name": "flickr_soundnet", "path": str(copy.path), "test_list": copy.options["test_list"]}
    flickr = build_dataset(source, MODEL, "test", False, 0, task="localization")
    assert isinstance(flickr, BoxClips)
    assert all(flickr.offscreen(i) not in (None, i) for i in range(len(flickr)))


def test_off_screen_audio_is_of_another_class(tmp_path):
    copy = vggss(Clips(tmp_path), tmp_path)
    source = {"name": "vggss", "path": str(copy.path)}
    clips = build_dataset(source, MODEL, "test", False, 0, task="localization")
    assert isinstance(clips, BoxClips)
    classes = [row.source for row in clips.rows]
    assert set(classes) == {"x", "y"}
    for i in range(len(clips)):
        other = clips.offscreen(i)
        assert other is not None
        assert classes[other] != classes[i]


def test_without_classes_there_is_no_off_screen_audio():
    unknown = BoxClips([Still("a.jpg", "a.wav", boxes=()), Still("b.jpg", "b.wav", boxes=())], PROCESSOR, False, 0)
    assert unknown.offscreen(0) is None


def maps_of(samples):
    return [confident(sample["labels"]) for sample in samples]


def evaluated(clips, model):
    recipe = load_recipe("evaluate", "is3_localization", ["data.num_workers=0", "data.path=x", "run.num_examples=0"])
    task = TASKS["localization"](clips, PROCESSOR, recipe)
    return task, task.evaluate(model, Accelerator(cpu=True), full=True)


def test_scores_with_negative_audio(clips):
    samples = clips.__getitems__(range(4))
    task, found = evaluated(clips, Answers(samples, maps_of(samples)))
    for kind in ("silence", "noise", "offscreen"):
        scores = [found.metrics[f"{kind}_{name}"] for name in ("area", "auc_n", "ap", "max_f1")]
        assert scores == pytest.approx([0, 0.975, 1, 1])
    assert found.metrics["own_area"] > 0.01
    assert [row[0] for row in found.tables[1].rows] == ["silence", "white noise", "off-screen audio"]
    derived, _ = task.rederive({"clips": found.predictions["clips"]}, {})
    assert derived == pytest.approx(found.metrics)
    rows = [row | task.rescore(row) for row in found.predictions["clips"]]
    assert task.rederive({"clips": rows}, {})[0] == pytest.approx(found.metrics)
    _, deaf = evaluated(clips, Answers(samples, maps_of(samples), deaf=True))
    for kind in ("silence", "noise", "offscreen"):
        assert deaf.metrics[f"{kind}_area"] == pytest.approx(deaf.metrics["own_area"])
        assert deaf.metrics[f"{kind}_ap"] <= 0.5


def test_interactive_scores_need_all_sources_of_an_image(clips):
    samples = clips.__getitems__(range(4))
    whole = evaluated(clips, Answers(samples, maps_of(samples)))[1].metrics
    assert whole["iiou_50"] == whole["iauc"] == whole["ciou_50"] == 1
    maps = maps_of(samples)
    maps[1] = torch.full_like(maps[1], -9.0)
    one = evaluated(clips, Answers(samples, maps))[1]
    assert (one.metrics["ciou_50"], one.metrics["iiou_50"]) == (0.75, 0.5)
    assert "2 images of several sources: IIoU@0.5 50.0 %" in one.tables[0].note


def test_metrics():
    assert interactive_ciou([0.9, 0.2, 0.7, 0.6, 1.0], ["a", "a", "b", "b", "c"]).tolist() == [0.2, 0.6]
    assert len(interactive_ciou([], [])) == 0
    assert silent_auc(np.zeros(3)) == pytest.approx(0.975)
    assert silent_auc(np.ones(3)) == 0
    assert silent_auc(np.array([0.0, 1.0])) == pytest.approx(0.975 / 2)
    for wrong in ([], [np.nan], [1.5], [[0.1]]):
        with pytest.raises(ValueError, match="Expected predicted areas"):
            silent_auc(np.array(wrong))
