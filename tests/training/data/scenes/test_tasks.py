"""Scenes with the ground truth of separation, segmentation and localization."""

import re

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.scenes import CLASS_NAMES, CLASS_SHAPE, CLASS_TIMBRE, COMPATIBLE_SHAPES, generate_scene
from deepavfusion.training.data.scenes.tasks import boxes_of
from deepavfusion.training.tasks.segmentation import coverage

MODEL = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64)


def build(task, train=False, split="test", semantic=False, **settings):
    data = {"name": "scenes", "train_size": 40, "eval_size": 40, "max_sounding": 1, **settings}
    return build_dataset(data, MODEL, split, train, 0, task, semantic)


def scenes_in(path):
    return [int(number) for number in re.findall(r"scene \w+/(\d+)", path)]


def timbres(scene):
    return [CLASS_TIMBRE[c] for c in scene.class_ids[scene.sounding]]


def compatible_shapes(scene):
    """Shapes that could make the audio of a scene."""
    return frozenset().union(*(COMPATIBLE_SHAPES[CLASS_TIMBRE[c]] for c in scene.class_ids[scene.sounding]))


@pytest.mark.parametrize("train", [False, True])
def test_the_frame_determines_the_target_source(train):
    clips = build("separation", train, "train" if train else "test", max_objects=2)
    for sample in clips.__getitems__(range(12)):
        target, other = (generate_scene(clips.config, clips.scene_index(i)) for i in scenes_in(sample["path"]))
        assert compatible_shapes(target) & set(target.shape_ids.tolist())
        assert not compatible_shapes(other) & set(target.shape_ids.tolist())
        assert not compatible_shapes(target) & set(other.shape_ids.tolist())


def test_mixtures_are_sums_of_their_sources():
    clips = build("separation")
    extractor = DeepAVFusionProcessor.from_config(MODEL).feature_extractor
    first, second = clips.__getitems__([4, 5])
    assert scenes_in(first["path"]) == scenes_in(second["path"])[::-1]
    assert torch.equal(first["waveforms"], second["waveforms"].flip(0))
    assert torch.equal(first["input_features"], second["input_features"])
    scene = generate_scene(clips.config, clips.scene_index(scenes_in(first["path"])[0]))
    assert np.abs(first["waveforms"][0].numpy() - scene.waveform).max() < 1 / 32767
    assert torch.equal(first["labels"][0], extractor.log_mel(first["waveforms"][0]))
    assert torch.equal(first["input_features"][0], extractor.log_mel(first["waveforms"].sum(0)))
    assert not torch.equal(first["pixel_values"], second["pixel_values"])


def test_partners_change_with_the_epoch_in_training_only():
    training, evaluation = build("separation", True, "train"), build("separation")
    for clips, fixed in ((training, False), (evaluation, True)):
        before = [sample["path"] for sample in clips.__getitems__(range(20))]
        clips.set_epoch(1)
        after = [sample["path"] for sample in clips.__getitems__(range(20))]
        assert (before == after) == fixed
    targets = {scenes_in(evaluation[2 * k]["path"])[0] for k in range(20)}
    partners = {scenes_in(evaluation[2 * k]["path"])[1] for k in range(20)}
    assert not targets & partners


def test_masks_cover_sounding_objects_only():
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
    assert classes.label_names == ["background", *CLASS_NAMES]


def test_localization_labels_are_tight_boxes():
    clips = build("localization")
    scene = generate_scene(clips.config, clips.scene_index(3))
    (box,) = scene.boxes[scene.sounding, 0]
    expected = torch.zeros(64, 64)
    expected[box[1] : box[3], box[0] : box[2]] = 1
    assert torch.equal(clips[6]["labels"], expected)
    assert clips[6]["sounding"] == 1
    visible = torch.zeros(4, 5)
    visible[1, 1] = visible[2, 3] = 7
    visible[0, 4] = 2
    assert boxes_of(visible).tolist() == [[0, 0, 0, 0, 1], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_negatives_have_audio_of_no_visible_object():
    clips = build("localization", min_objects=2, max_objects=3)
    for k in range(8):
        own, foreign = clips.__getitems__([2 * k, 2 * k + 1])
        assert torch.equal(own["pixel_values"], foreign["pixel_values"])
        assert not torch.equal(own["input_features"], foreign["input_features"])
        assert (foreign["sounding"], float(foreign["labels"].sum())) == (0, 0.0)
        here, *there = scenes_in(foreign["path"])
        scene = generate_scene(clips.config, clips.scene_index(here))
        for other in there:  # none: background noise alone
            foreign_scene = generate_scene(clips.config, clips.scene_index(other))
            assert not compatible_shapes(foreign_scene) & set(scene.shape_ids.tolist())


@pytest.mark.parametrize("task", ["segmentation", "localization"])
def test_training_frames_come_with_own_and_foreign_audio(task):
    """The labels mark the object that makes the audio, own or foreign, so the frame alone does not determine them."""
    clips = build(task, True, "train", train_size=100, min_objects=1, max_objects=3)
    samples = clips.__getitems__(range(100))
    swapped, silent = 0, 0
    for own, foreign in zip(samples[::2], samples[1::2], strict=True):
        assert torch.equal(own["pixel_values"], foreign["pixel_values"])
        assert not torch.equal(own["input_features"], foreign["input_features"])
        (image,) = scenes_in(own["path"])
        same_image, *audio = scenes_in(foreign["path"])
        assert image == same_image
        here = generate_scene(clips.config, clips.scene_index(image))
        shapes = here.shape_ids.tolist()
        makers = []
        for number in audio:
            there = generate_scene(clips.config, clips.scene_index(number))
            makers = [k for k, shape in enumerate(shapes) if shape in compatible_shapes(there)]
        assert len(makers) <= 1
        assert not any(here.sounding[k] for k in makers)
        if makers:
            swapped += 1
            # The object may lie outside of the crop; its label does not overlap that of the own audio.
            if task == "segmentation":
                assert float((own["labels"] * foreign["labels"]).sum()) == 0
        else:
            silent += 1
            assert float(foreign["labels"].sum()) == 0
    assert swapped > 10
    assert silent > 10
    labeled = sum(float(sample["labels"].sum()) > 0 for sample in samples[1::2])
    assert labeled > swapped / 2
    clips.set_epoch(1)
    assert [sample["path"] for sample in clips.__getitems__(range(100))] != [sample["path"] for sample in samples]


def test_foreign_audio_marks_the_compatible_object():
    clips = build("segmentation", True, "train", min_objects=2, max_objects=2, semantic=True)
    image, audio = 3, None
    here = generate_scene(clips.config, clips.scene_index(image))
    (silent,) = np.flatnonzero(~here.sounding)
    for number in range(40):
        there = generate_scene(clips.config, clips.scene_index(number))
        if compatible_shapes(there) & {here.shape_ids[silent]} and not compatible_shapes(there) & set(
            here.shape_ids[here.sounding]
        ):
            audio = number
            break
    shapes = clips._media([image])["shapes_seen"][0]
    marked = clips._sounding(shapes, audio)
    assert np.array_equal(marked > 0, here.masks[silent, 0])
    (label,) = set(np.unique(marked)) - {0}
    assert CLASS_SHAPE[label - 1] == here.shape_ids[silent]
    assert CLASS_TIMBRE[label - 1] in timbres(there)
    assert not clips._sounding(shapes, None).any()


def test_without_foreign_sounds_every_frame_has_its_own_audio():
    data = {"name": "scenes", "train_size": 20, "max_sounding": 1}
    clips = build_dataset(data, MODEL, "train", True, 0, "localization", foreign_sounds=False)
    assert not clips.in_pairs
    assert [sample["path"] for sample in clips.__getitems__(range(20))] == [f"scene train/{i}" for i in range(20)]


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("separation", {"eval_size": 1}, "at least 2"),
        ("separation", {"eval_size": 2, "max_objects": 4, "min_objects": 4}, "Found no scene to mix"),
    ],
)
def test_scenes_that_cannot_be_paired_raise(task, settings, words):
    with pytest.raises(ValueError, match=words):
        build(task, **settings).__getitems__([0])


def test_coverage_of_objects():
    found = np.array([[True, True, False], [False, False, False]])
    objects = np.array([[False, True, True], [True, True, False]])
    assert coverage(found, objects) == 0.25
    assert coverage(found, ~found & objects) == 0
    assert np.isnan(coverage(found, np.zeros((2, 3), bool)))
