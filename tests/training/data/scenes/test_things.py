"""Scenes of things."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForAudioVisualClassification
from deepavfusion.training import finetune
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.scenes import (
    ScenesConfig,
    generate_clip,
    generate_scene,
    modality_ceilings,
    regenerate_clip,
)
from deepavfusion.training.data.scenes.__main__ import main
from tests.training.data.scenes.thing_factory import NAMES, write_image, write_sound, write_things

MODEL = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64)
SORTED = sorted(NAMES)
TONES = {name: 300.0 * (NAMES.index(name) + 1) for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_things(tmp_path_factory.mktemp("things"))


@pytest.fixture(scope="module")
def config(folder):
    return ScenesConfig(things=folder, seconds=1.0, max_sounding=3)


def build(folder, task, train=False, **settings):
    data = {"name": "scenes", "things": str(folder), "train_size": 40, "eval_size": 40, "max_sounding": 1, **settings}
    semantic = data.pop("semantic", False)
    return build_dataset(data, MODEL, "train" if train else "test", train, 0, task, semantic)


def members(clips, path):
    """Names of the things that sound, and of all things, of the scenes that a path names."""
    names = np.array(SORTED)
    scenes = [generate_scene(clips.config, clips.scene_index(int(i))) for i in re.findall(r"scene \w+/(\d+)", path)]
    return [(set(names[s.class_ids[s.sounding]]), set(names[s.shape_ids])) for s in scenes]


def test_ground_truth(config):
    counts = set()
    for index in range(120):
        scene = generate_scene(config, index)
        objects, sources = len(scene.shape_ids), int(scene.sounding.sum())
        counts.add((objects, sources))
        assert len(set(scene.shape_ids.tolist())) == objects  # all distinct
        assert np.array_equal(scene.class_ids, np.where(scene.sounding, scene.shape_ids, -1))
        assert np.array_equal(scene.timbre_ids, scene.class_ids)
        assert np.array_equal(np.flatnonzero(scene.labels), np.sort(scene.shape_ids[scene.sounding]))
        assert len(scene.labels) == len(NAMES)
        # Audio: stems and background add up exactly; each stem is the tone of its thing.
        assert np.array_equal(scene.stems.sum(0) + scene.background, scene.waveform)
        assert np.abs(scene.waveform).max() < 1
        for stem, thing in zip(scene.stems, scene.shape_ids[scene.sounding], strict=True):
            peak = np.abs(np.fft.rfft(stem)).argmax() * 16000 / len(stem)
            assert peak == pytest.approx(TONES[SORTED[thing]], abs=5)
        # Image: masks are disjoint, boxes tight, and every thing is visible.
        assert scene.masks.sum(0).max() == 1
        assert (scene.masks.sum((1, 2, 3)) >= 10).all()
        for mask, (x1, y1, x2, y2) in zip(scene.masks[:, 0], scene.boxes[:, 0], strict=True):
            rows, columns = np.nonzero(mask)
            assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert counts == {(n, m) for n in range(1, 5) for m in range(1, min(n, 3) + 1)}


def test_masks_are_where_the_thing_is(tmp_path):
    """A mask covers the pixels that change with the colors of its thing."""
    scenes = []
    for name, color in (("a", (255, 0, 0)), ("b", (0, 255, 0))):
        write_things(tmp_path / name, ["cat", "dog"])
        write_image(tmp_path / name / "cat.png", color=color)
        scenes.append([generate_scene(ScenesConfig(things=tmp_path / name, min_objects=2), i) for i in range(10)])
    for a, b in zip(*scenes, strict=True):
        assert np.array_equal(a.masks, b.masks)
        (cat,) = np.flatnonzero(a.shape_ids == 0)
        changed = np.abs(a.frames[0].astype(int) - b.frames[0]).max(-1)
        assert (changed[a.masks[cat, 0]] > 30).all()
        assert np.mean(changed[~a.masks[cat, 0]] > 0) < 0.1  # blended edges


def test_thin_things_are_drawn_as_large_as_they_must_be(tmp_path):
    write_things(tmp_path, ["cat", "flute"])
    write_image(tmp_path / "more" / "flute.png", size=(200, 14))
    config = ScenesConfig(things=tmp_path, min_objects=2, difficulty="hard")
    sizes = [s.masks[s.shape_ids == 1].sum() for s in (generate_scene(config, i) for i in range(100))]
    assert min(sizes) >= 10


def test_scenes_are_functions_of_seed_index_and_contents(config, folder, tmp_path):
    scene = generate_scene(config, 5)
    again = generate_scene(
        ScenesConfig(things=shutil.copytree(folder, tmp_path / "copy"), seconds=1.0, max_sounding=3), 5
    )
    for name in ("frames", "waveform", "stems", "masks", "shape_ids"):
        assert np.array_equal(getattr(scene, name), getattr(again, name))
    for other in (generate_scene(config, 6), generate_scene(replace(config, seed=1), 5)):
        assert not np.array_equal(scene.frames, other.frames)
        assert not np.array_equal(scene.waveform, other.waveform)
    frames, waveform, classes = generate_clip(config, 5)
    assert np.array_equal(frames, scene.frames)
    assert np.array_equal(waveform, scene.waveform)
    assert np.array_equal(classes, scene.class_ids[scene.sounding])


def test_images_and_sounds_are_drawn_anew_from_the_same_thing(config):
    single = replace(config, max_objects=1)
    frames, waveform, classes = generate_clip(single, 2)
    for modality, same, other in (("audio", 0, 1), ("image", 1, 0)):
        drawn = regenerate_clip(single, 2, 9, modality)
        assert np.array_equal(drawn[same], (frames, waveform)[same])
        assert not np.array_equal(drawn[other], (frames, waveform)[other])
        assert np.array_equal(drawn[2], classes)


def test_motion(config):
    moving = generate_scene(replace(config, num_frames=4, motion=True), 5)
    assert not (moving.masks == moving.masks[:, :1]).all()
    assert np.array_equal(moving.waveform, generate_scene(config, 5).waveform)


def test_two_things_are_enough(tmp_path):
    write_things(tmp_path, ["cat", "dog"])
    counts = {len(generate_scene(ScenesConfig(things=tmp_path), i).shape_ids) for i in range(20)}
    assert counts == {1, 2}


def test_settings_that_need_generated_scenes(folder, config):
    with pytest.raises(ValueError, match="coupling does not apply"):
        ScenesConfig(things=folder, coupling=0.5)
    with pytest.raises(ValueError, match="ceilings of things"):
        modality_ceilings(config)


def test_recipes_of_linked_scenes_take_things(folder):
    assert build(folder, "recognition", coupling=0.97).config == build(folder, "recognition").config


@pytest.mark.parametrize("max_sounding", [1, 2])
def test_recognition(folder, max_sounding):
    clips = build(folder, "recognition", max_sounding=max_sounding)
    assert clips.label_names == SORTED
    assert clips.ceilings is None
    assert "6 things" in clips.card
    assert clips.multi_label == (max_sounding > 1)
    sample = clips[3]
    assert not {"shape_label", "timbre_label"} & sample.keys()
    ((sounding, _),) = members(clips, sample["path"])
    found = [sample["label"]] if max_sounding == 1 else torch.as_tensor(sample["label"]).nonzero().flatten().tolist()
    assert {SORTED[c] for c in found} == sounding
    labels = clips.annotations()[3]["label"]
    assert labels == (sample["label"] if max_sounding == 1 else found)


@pytest.mark.parametrize("train", [False, True])
def test_separation(folder, train):
    clips = build(folder, "separation", train, max_objects=2)
    for sample in clips.__getitems__(range(12)):
        (target, seen), (other, others) = members(clips, sample["path"])
        assert target <= seen
        assert not target & others
        assert not other & seen


@pytest.mark.parametrize("task", ["segmentation", "localization"])
def test_foreign_sounds_in_training(folder, task):
    """A foreign sound marks the silent thing that it belongs to, if there is one, else nothing."""
    clips = build(folder, task, train=True, min_objects=2, max_objects=3, augment=False)
    swapped = 0
    for own, foreign in zip(*(iter(clips.__getitems__(range(40))),) * 2):
        assert torch.equal(own["pixel_values"], foreign["pixel_values"])
        assert own["labels"].any()
        (sounding, seen), *audio = members(clips, foreign["path"])
        makers = (audio[0][0] if audio else set()) & seen
        assert not makers & sounding
        swapped += bool(makers)
        assert foreign["labels"].any() == bool(makers)
    assert swapped > 8


def test_segmentation(folder):
    clips = build(folder, "segmentation", min_objects=2, semantic=True)
    plain = build(folder, "segmentation", min_objects=2)
    for i in range(6):
        scene = generate_scene(clips.config, clips.scene_index(i))
        (source,) = scene.masks[scene.sounding, 0]
        assert np.array_equal(clips[i]["labels"].numpy(), np.where(source, scene.label + 1, 0))
        assert np.array_equal(plain[i]["labels"].numpy(), source)
        silent = scene.masks[~scene.sounding, 0].any(0)
        assert np.array_equal(plain[i]["silent_objects"].numpy(), silent)


def test_localization(folder):
    clips = build(folder, "localization", min_objects=2)
    scene = generate_scene(clips.config, clips.scene_index(3))
    (box,) = scene.boxes[scene.sounding, 0]
    expected = torch.zeros(64, 64)
    expected[box[1] : box[3], box[0] : box[2]] = 1
    assert torch.equal(clips[6]["labels"], expected)
    assert not clips[7]["labels"].any()
    (_, seen), *audio = members(clips, clips[7]["path"])
    assert not any(sounding & seen for sounding, _ in audio)


def test_many_things(tmp_path):
    """Class indices beyond 255 survive the cache and the label maps."""
    write_things(tmp_path / "things", [f"thing-{k:03d}" for k in range(300)])
    settings = {"min_objects": 4, "cache_dir": str(tmp_path / "cache")}
    segmentation = build(tmp_path / "things", "segmentation", semantic=True, **settings)
    recognition = build(tmp_path / "things", "recognition", **settings)
    high = 0
    for i in range(40):
        scene = generate_scene(segmentation.config, segmentation.scene_index(i))
        high += scene.label > 254
        assert int(segmentation[i]["labels"].max()) == scene.label + 1
        assert recognition[i]["label"] == recognition[i]["label"] == scene.label
    assert high


def test_another_folder_is_another_cache(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "things")
    cache = tmp_path / "cache"

    def pixels(things):
        return build(things, "recognition", cache_dir=str(cache))[2]["pixel_values"]

    first = pixels(folder)
    assert torch.equal(pixels(copy), first)
    assert len(list(cache.iterdir())) == 1
    for path in copy.rglob("*.png"):
        write_image(path, color=(9, 9, 9))
    assert not torch.equal(pixels(copy), first)
    assert len(list(cache.iterdir())) == 2
    assert build(copy, "recognition", cache_dir=str(cache), things=None)[2]
    assert len(list(cache.iterdir())) == 3


def test_faulty_files_are_reported_when_the_data_set_is_built(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "things")
    write_sound(copy / "cat.wav", level=0)
    with pytest.raises(ValueError, match=r"cat\.wav.*silent"):
        build(copy, "recognition")


def test_command(folder, tmp_path, capsys):
    arguments = ["--things", str(folder), "--index", "3", "--image-size", "64", "--seconds", "1"]
    main([*arguments, "--out", str(tmp_path / "scene")])
    about = json.loads((tmp_path / "scene" / "scene.json").read_text())
    scene = generate_scene(ScenesConfig(things=folder, seconds=1.0), 3)
    assert [entry["thing"] for entry in about["objects"]] == [SORTED[k] for k in scene.shape_ids]
    assert about["config"]["things"] == ScenesConfig(things=folder).things.digest
    sounding = [SORTED[k] for k in scene.shape_ids[scene.sounding]]
    assert [(tmp_path / "scene" / f"stem_{k}_{name}.wav").is_file() for k, name in enumerate(sounding)]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--things", str(tmp_path / "nowhere"), "--out", str(tmp_path / "other")])
    assert "nowhere: expected a folder" in capsys.readouterr().err


def test_a_recipe_trains_on_things(folder, tmp_path, capsys):
    options = [
        *(f"data.things={folder}", "data.train_size=8", "data.eval_size=8", "data.selection_size=4"),
        *("data.cache_dir=null", "data.num_workers=0", "optim.batch_size=8", "optim.epochs=1", "optim.warmup_epochs=0"),
        *("model.init_from=null", "model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2"),
        *("model.intermediate_size=32", "model.num_fusion_attention_heads=2", "model.spectrogram_length=64"),
        *("run.cpu=true", "run.num_examples=2", f"run.output_dir={tmp_path / 'run'}", "optim.mixed_precision=no"),
    ]
    assert finetune.main(["scenes_recognition", *options]) == 0, capsys.readouterr().err
    model = DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path / "run")
    assert list(model.config.id2label.values()) == SORTED
    card = (tmp_path / "run" / "README.md").read_text()
    assert "6 things" in card
    assert str(folder) not in card


def test_a_faulty_folder_ends_a_command_with_one_message(tmp_path, capsys):
    write_things(tmp_path / "things", ["cat", "dog"])
    (tmp_path / "things" / "fox.png").touch()
    options = [f"data.things={tmp_path / 'things'}", "model.init_from=null", f"run.output_dir={tmp_path / 'run'}"]
    assert finetune.main(["scenes_recognition", *options, "run.cpu=true"]) == 2
    assert "fox.png (without sound)" in capsys.readouterr().err
