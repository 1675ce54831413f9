"""`build_dataset` on the data sections of recipes."""

import logging
from pathlib import Path

import pytest
import torch

from deepavfusion.training.data import BrokenClip, build_dataset
from deepavfusion.training.data.balance import class_balanced_weights, label_frequencies

from .disk import MODEL, make_clips, put, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("sources"), 1)[0]


def make_vggsound(clip: Path, root: Path) -> None:
    """Ten training clips of five videos and four test clips, of two classes."""
    lines = []
    for i in range(10):
        name, label = f"train{i // 2:06d}", ("dog barking", "cat, meowing")[i % 2]
        lines.append(f'{name},{10 * i},"{label}",train')
        folder = root / "clips" / ("dog_barking", "cat__meowing")[i % 2]
        put(clip, folder / f"{name}_{10 * i:06d}_{10 * i + 10:06d}.mp4")
    for i in range(4):
        lines.append(f"test_{i:06d},{i},dog barking,test")
        put(clip, root / "clips" / "dog_barking" / f"test_{i:06d}_{i:06d}_{i + 10:06d}.mp4")
    write(root / "annotations" / "vggsound.csv", "\n".join(lines) + "\n")


def names(clips) -> list[str]:
    return [Path(path).stem.rpartition("_")[0] for path in clips.rows["path"]]


def test_validation_is_taken_out_of_train_by_video(clip, tmp_path):
    make_vggsound(clip, tmp_path)
    settings = {"name": "vggsound", "path": str(tmp_path)}
    everything = build_dataset(settings, MODEL, "train", False, 0)
    assert len(everything) == 10
    divided = settings | {"validation_fraction": 0.4}
    train, held = (build_dataset(divided, MODEL, split, False, 0) for split in ("train", "validation"))
    assert sorted(names(train) + names(held)) == sorted(names(everything))
    assert len(held) == 4
    assert not {name[:11] for name in names(train)} & {name[:11] for name in names(held)}
    assert len(build_dataset(divided, MODEL, "test", False, 0)) == 4
    assert train.label_names == held.label_names == ["cat, meowing", "dog barking"]


def test_lists_select_clips_and_overlaps_are_reported(clip, tmp_path, caplog):
    make_vggsound(clip, tmp_path)
    listed = write(tmp_path / "list.txt", "train000000_000000\r\ntrain000001_000030\r\ntest_000002_000002\r\nother\r\n")
    settings = {"name": "vggsound", "path": str(tmp_path), "train_list": str(listed)}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(settings, MODEL, "train", False, 0)
    assert names(clips) == ["train000000_000000", "train000001_000030", "test_000002_000002"]
    assert "of list.txt, 1 of 3 training clips are test clips, kept" in clips.card
    assert "data.drop_overlap=true leaves them out" in caplog.text
    dropped = build_dataset(settings | {"drop_overlap": True}, MODEL, "train", False, 0)
    assert names(dropped) == ["train000000_000000", "train000001_000030"]
    tests = write(tmp_path / "tests.csv", "train000001_000030\ntest_000001_000001\n")
    both = settings | {"drop_overlap": True, "test_list": str(tests)}
    assert names(build_dataset(both, MODEL, "train", False, 0)) == ["train000000_000000"]
    assert names(build_dataset(both, MODEL, "test", False, 0)) == ["train000001_000030", "test_000001_000001"]
    nothing = settings | {"train_list": str(write(tmp_path / "nothing.txt", "elsewhere\n"))}
    with pytest.raises(ValueError, match=r"nothing\.txt names 1 clip, none of which is among VGGSound's 14"):
        build_dataset(nothing, MODEL, "train", False, 0)


def test_vggsound_and_folders_support_separation(clip, tmp_path):
    make_vggsound(clip, tmp_path)
    settings = {"name": "vggsound", "path": str(tmp_path)}
    train = build_dataset(settings, MODEL, "train", True, 0, task="separation")
    for i in range(10):
        target, other = train.sources(i)
        assert names(train)[target][:11] != names(train)[other][:11]
    assert train[0]["labels"].shape == (1, 32, 64)
    test = build_dataset(settings, MODEL, "test", False, 0, task="separation")
    assert len(test) == 4
    assert "2 of them of one class" in test.card
    folder = {"name": "folder", "path": str(tmp_path / "clips"), "validation_fraction": 0.5}
    clips = build_dataset(folder, MODEL, "validation", False, 0, task="separation")
    assert len(clips) == 6
    assert clips[0]["waveforms"].shape == (2, 16000)
    flat = tmp_path / "flat"
    put(clip, *(flat / f"{i}.mp4" for i in range(6)))
    unlabeled = build_dataset({"name": "folder", "path": str(flat)}, MODEL, "train", True, 0, task="separation")
    assert unlabeled[1]["path"].count(str(flat)) == 2


def make_audioset(clip: Path, root: Path) -> None:
    write(root / "class_labels_indices.csv", "index,mid,display_name\n0,/m/a,A\n1,/m/b,B\n")
    for subset, count in (("balanced_train", 2), ("unbalanced_train", 4), ("eval", 1)):
        rows = [f'{subset[:3]}{i:08d},0.000,10.000,"/m/a,/m/b"' for i in range(count)]
        write(root / f"{subset}_segments.csv", "\n".join(rows) + "\n")
        put(clip, *(root / "clips" / subset[:2] / f"{subset[:3]}{i:08d}_000000_000010.mp4" for i in range(count)))


def test_audiosets_subsets(clip, tmp_path):
    make_audioset(clip, tmp_path)
    settings = {"name": "audioset", "path": str(tmp_path)}
    sizes = {
        subset: len(build_dataset(settings | {"subset": subset}, MODEL, "train", True, 0))
        for subset in ("balanced", "unbalanced", "all", None)
    }
    assert sizes == {"balanced": 2, "unbalanced": 4, "all": 6, None: 6}
    assert len(build_dataset(settings | {"subset": "balanced"}, MODEL, "test", True, 0)) == 1
    held_out = settings | {"subset": "unbalanced", "validation_fraction": 0.25}
    held = build_dataset(held_out, MODEL, "validation", False, 0)
    assert len(held) == 1
    assert Path(held.describe(0)).name.startswith("unb")
    with pytest.raises(ValueError, match="must be one of balanced, unbalanced, all, got 'eval'"):
        build_dataset(settings | {"subset": "eval"}, MODEL, "train", True, 0)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"name": "vgg"}, "recognition", "one of scenes, folder, vggsound, audioset, music, .*, got 'vgg'"),
        ({}, "recognition", "got None"),
        ({"name": "folder"}, "recognition", "data.path is missing"),
        ({"name": "folder", "path": "x", "subset": "s4"}, "recognition", r"option data\.subset for dataset 'folder'"),
        ({"name": "scenes", "path": "x"}, "recognition", r"Unknown option data\.path for dataset 'scenes'"),
        (
            {"name": "vggsound", "path": "x"},
            "segmentation",
            "not 'segmentation'. Datasets for segmentation: scenes, shards, avsbench",
        ),
        ({"name": "vggss", "path": "x"}, "recognition", "supports localization, not 'recognition'"),
        ({"name": "scenes"}, "retrieval", "not 'retrieval'.$"),
    ],
)
def test_invalid_options_raise(settings, task, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(settings, MODEL, "train", True, 0, task=task)


def test_missing_splits_raise(clip, tmp_path):
    make_vggsound(clip, tmp_path)
    settings = {"name": "vggsound", "path": str(tmp_path)}
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
        build_dataset(settings, MODEL, "dev", True, 0)
    with pytest.raises(ValueError, match=r"'vggsound' has no validation split.*data\.validation_fraction"):
        build_dataset(settings, MODEL, "validation", True, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        build_dataset(settings | {"validation_fraction": 1.0}, MODEL, "validation", True, 0)
    listed = str(write(tmp_path / "one.txt", "train000000_000000\n"))
    one = settings | {"train_list": listed, "validation_fraction": 0.5}
    with pytest.raises(ValueError, match=r"at least two recordings, got one \(train000000\)"):
        build_dataset(one, MODEL, "train", True, 0)


@pytest.mark.parametrize("task", ["recognition", "separation", "segmentation", "localization"])
def test_scenes_support_every_task(task):
    config = {"name": "scenes", "eval_size": 40}
    clips = build_dataset(config, MODEL, "validation", False, 0, task=task)
    batch = clips.collate(clips.__getitems__([0, 1]))
    expected = {"separation": {"waveforms"}, "localization": {"sounding"}}.get(task, set())
    assert {"pixel_values", "input_features", "labels", "index", "path", "broken"} | expected <= batch.keys()


# Class frequencies


def test_balanced_weights_of_one_label(clip, tmp_path):
    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    put(clip, *(tmp_path / "train" / label / f"{i}.mp4" for i, label in enumerate(labels)))
    clips = build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "train", True, 0)
    weights, drawn = class_balanced_weights(clips), torch.tensor([label for (label,) in clips.classes()])
    assert weights.shape == (10,)
    for label in range(3):  # every class is drawn equally often
        assert weights[drawn == label].sum().item() == pytest.approx(1.0)
        assert len(weights[drawn == label].unique()) == 1
    assert label_frequencies(clips).tolist() == pytest.approx([0.6, 0.3, 0.1])


def test_balanced_weights_of_multiple_labels(clip, tmp_path):
    rows = [["a"], ["a"], ["a", "b"], ["b", "c"], []]
    put(clip, *(tmp_path / f"{i}.mp4" for i in range(5)))
    lines = [
        f'{{"file": "{i}.mp4", "label": {labels}, "split": "train"}}'.replace("'", '"') for i, labels in enumerate(rows)
    ]
    write(tmp_path / "list.jsonl", "\n".join(lines))
    clips = build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "train", True, 0)
    assert clips.multi_label
    assert class_balanced_weights(clips).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3 + 1 / 2, 1 / 2 + 1, 1 / 3])
    assert label_frequencies(clips).tolist() == pytest.approx([0.6, 0.4, 0.2])


def test_balanced_weights_of_scenes_and_of_unlabeled_clips(clip, tmp_path):
    scenes = build_dataset({"name": "scenes", "train_size": 20, "max_sounding": 1}, MODEL, "train", True, 0)
    weights = class_balanced_weights(scenes)
    labels = [scenes[i]["label"] for i in range(20)]
    assert weights.tolist() == pytest.approx([1 / labels.count(label) for label in labels])
    put(clip, tmp_path / "0.mp4", tmp_path / "1.mp4")
    flat = build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "train", True, 0)
    with pytest.raises(ValueError, match="Expected clips with labels"):
        class_balanced_weights(flat)
    with pytest.raises(ValueError, match="Expected clips with labels"):
        label_frequencies(flat)


def test_unreadable_clips_are_reported_for_every_task(tmp_path):
    for name in "abc":
        write(tmp_path / "train" / f"{name}.mp4", "no video")
    settings = {"name": "folder", "path": str(tmp_path)}
    for task in ("recognition", "separation"):
        samples = build_dataset(settings, MODEL, "train", True, 0, task=task).__getitems__(range(3))
        assert all(isinstance(sample, BrokenClip) for sample in samples)
        assert [sample.index for sample in samples] == [0, 1, 2]
