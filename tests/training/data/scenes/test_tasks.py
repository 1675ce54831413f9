"""Scenes with the ground truth of separation, segmentation and localization."""

import re

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.scenes.config import COMPATIBLE_SHAPES
from deepavfusion.training.data.scenes.dataset import CLASS_SHAPE, CLASS_TIMBRE, generate_scene
from deepavfusion.training.data.scenes.tasks import boxes_of
from deepavfusion.training.tasks.segmentation import coverage

MODEL = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64)


def build(task, train=False, split="test", semantic=False, **settings):
    data = {"name": "scenes", "train_size": 40, "eval_size": 40, "max_sounding": 1, **settings}
    return build_dataset(data, MODEL, split, train, 0, task, semantic)


def scenes_named(path):
    return [int(number) for number in re.findall(r"scene \w+/(\d+)", path)]


def timbres(scene):
    return [CLASS_TIMBRE[c] for c in scene.class_ids[scene.sounding]]


def heard_shapes(scene):
    """Shapes that could make what is heard in a scene."""
    return frozenset().union(*(COMPATIBLE_SHAPES[CLASS_TIMBRE[c]] for c in scene.class_ids[scene.sounding]))


@pytest.mark.parametrize("train", [False, True])
def test_a_frame_tells_which_of_two_sounds_is_meant(train):
    clips = build("separation", train, "train" if train else "test", max_objects=2)
    for sample in clips.__getitems__(range(12)):
        wanted, other = (generate_scene(clips.config, clips.scene_index(i)) for i in scenes_named(sample["path"]))
        assert heard_shapes(wanted) & set(wanted.shape_ids.tolist())
        assert not heard_shapes(other) & set(wanted.shape_ids.tolist())
        assert not heard_shapes(wanted) & set(other.shape_ids.tolist())


def test_mixtures_are_sums_of_their_sources():
    clips = build("separation")
    extractor = DeepAVFusionProcessor.from_config(MODEL).feature_extractor
    first, second = clips.__getitems__([4, 5])
    assert scenes_named(first["path"]) == scenes_named(second["path"])[::-1]
    assert torch.equal(first["waveforms"], second["waveforms"].flip(0))
    assert torch.equal(first["input_features"], second["input_features"])
    scene = generate_scene(clips.config, clips.scene_index(scenes_named(first["path"])[0]))
    assert np.abs(first["waveforms"][0].numpy() - scene.waveform).max() < 1 / 32767
    assert torch.equal(first["labels"][0], extractor.log_mel(first["waveforms"][0]))
    assert torch.equal(first["input_features"][0], extractor.log_mel(first["waveforms"].sum(0)))
    assert not torch.equal(first["pixel_values"], second["pixel_values"])


def test_partners_are_drawn_anew_in_training_alone():
    training, evaluation = build("separation", True, "train"), build("separation")
    for clips, fixed in ((training, False), (evaluation, True)):
        before = [sample["path"] for sample in clips.__getitems__(range(20))]
        clips.set_epoch(1)
        after = [sample["path"] for sample in clips.__getitems__(range(20))]
        assert (before == after) == fixed
    wanted = {scenes_named(evaluation[2 * k]["path"])[0] for k in range(20)}
    partners = {scenes_named(evaluation[2 * k]["path"])[1] for k in range(20)}
    assert not wanted & partners


def test_masks_hold_what_sounds_and_nothing_else():
    clips = build("segmentation", min_objects=2, max_objects=3)
    classes = build("segmentation", min_objects=2, max_objects=3, semantic=True)
    for i in range(6):
        scene = generate_scene(clips.config, clips.scene_index(i))
        (source,) = scene.masks[scene.sounding]
        assert torch.equal(clips[i]["labels"], torch.from_numpy(source[0]).float())
        silent = torch.from_numpy(scene.masks[~scene.sounding, 0]).any(0)
        assert torch.equal(clips[i]["silent_objects"], silent & ~torch.from_numpy(source[0]))
        assert silent.any()
        assert set(classes[i]["labels"].unique().tolist()) == {0, scene.label + 1}
    assert classes.label_names is not None


def test_places_are_tight_boxes():
    clips = build("localization")
    scene = generate_scene(clips.config, clips.scene_index(3))
    (box,) = scene.boxes[scene.sounding, 0]
    expected = torch.zeros(64, 64)
    expected[box[1] : box[3], box[0] : box[2]] = 1
    assert torch.equal(clips[6]["labels"], expected)
    assert clips[6]["sounding"] == 1
    seen = torch.zeros(4, 5)
    seen[1, 1] = seen[2, 3] = 7
    seen[0, 4] = 2
    assert boxes_of(seen).tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_negatives_have_a_sound_that_nothing_in_sight_makes():
    clips = build("localization", min_objects=2, max_objects=3)
    for k in range(8):
        own, foreign = clips.__getitems__([2 * k, 2 * k + 1])
        assert torch.equal(own["pixel_values"], foreign["pixel_values"])
        assert not torch.equal(own["input_features"], foreign["input_features"])
        assert (foreign["sounding"], float(foreign["labels"].sum())) == (0, 0.0)
        here, *there = scenes_named(foreign["path"])
        scene = generate_scene(clips.config, clips.scene_index(here))
        for other in there:  # none: background noise alone
            sound = generate_scene(clips.config, clips.scene_index(other))
            assert not heard_shapes(sound) & set(scene.shape_ids.tolist())


@pytest.mark.parametrize("task", ["segmentation", "localization"])
def test_training_shows_each_frame_with_its_own_and_with_a_foreign_sound(task):
    """What is painted is what makes the sound, own or foreign, so the frame alone never tells."""
    clips = build(task, True, "train", train_size=100, min_objects=1, max_objects=3)
    samples = clips.__getitems__(range(100))
    swapped, silent = 0, 0
    for own, foreign in zip(samples[::2], samples[1::2], strict=True):
        assert torch.equal(own["pixel_values"], foreign["pixel_values"])
        assert not torch.equal(own["input_features"], foreign["input_features"])
        (seen,) = scenes_named(own["path"])
        seen_again, *heard = scenes_named(foreign["path"])
        assert seen == seen_again
        here = generate_scene(clips.config, clips.scene_index(seen))
        shapes = here.shape_ids.tolist()
        makers = []
        for number in heard:
            there = generate_scene(clips.config, clips.scene_index(number))
            makers = [k for k, shape in enumerate(shapes) if shape in heard_shapes(there)]
        assert len(makers) <= 1
        assert not any(here.sounding[k] for k in makers)
        if makers:
            swapped += 1
            # Of a cropped frame the object may lie outside; what is painted was no part of the own answer.
            if task == "segmentation":
                assert float((own["labels"] * foreign["labels"]).sum()) == 0
        else:
            silent += 1
            assert float(foreign["labels"].sum()) == 0
    assert swapped > 10
    assert silent > 10
    painted = sum(float(sample["labels"].sum()) > 0 for sample in samples[1::2])
    assert painted > swapped / 2
    clips.set_epoch(1)
    assert [sample["path"] for sample in clips.__getitems__(range(100))] != [sample["path"] for sample in samples]


def test_a_foreign_sound_paints_the_object_that_could_make_it():
    clips = build("segmentation", True, "train", min_objects=2, max_objects=2, semantic=True)
    seen, heard = 3, None
    here = generate_scene(clips.config, clips.scene_index(seen))
    (silent,) = np.flatnonzero(~here.sounding)
    for number in range(40):
        there = generate_scene(clips.config, clips.scene_index(number))
        if heard_shapes(there) & {here.shape_ids[silent]} and not heard_shapes(there) & set(
            here.shape_ids[here.sounding]
        ):
            heard = number
            break
    shapes = clips._media([seen])["shapes_seen"][0]
    painted = clips._sounding(shapes, heard)
    assert np.array_equal(painted > 0, here.masks[silent, 0])
    (label,) = set(np.unique(painted)) - {0}
    assert CLASS_SHAPE[label - 1] == here.shape_ids[silent]
    assert CLASS_TIMBRE[label - 1] in timbres(there)
    assert not clips._sounding(shapes, None).any()


def test_without_foreign_sounds_every_frame_comes_with_its_own():
    data = {"name": "scenes", "train_size": 20, "max_sounding": 1}
    clips = build_dataset(data, MODEL, "train", True, 0, "localization", foreign_sounds=False)
    assert not clips.in_pairs
    assert [sample["path"] for sample in clips.__getitems__(range(20))] == [f"scene train/{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("separation", {"eval_size": 1}, "at least 2"),
        ("separation", {"eval_size": 2, "max_objects": 4, "min_objects": 4}, "no sound fits"),
    ],
)
def test_what_cannot_be_paired_is_told(task, settings, words):
    with pytest.raises(ValueError, match=words):
        build(task, **settings).__getitems__([0])


def test_coverage_of_objects():
    found = np.array([[True, True, False], [False, False, False]])
    objects = np.array([[False, True, True], [True, True, False]])
    assert coverage(found, objects) == 0.25
    assert coverage(found, ~found & objects) == 0
    assert np.isnan(coverage(found, np.zeros((2, 3), bool)))
