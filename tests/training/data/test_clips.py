"""Clips as `datasets` objects, and dense windows of clips."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.processors import DeepAVFusionProcessor, MediaError, load_clip
from deepavfusion.training.data import BrokenClip, FileClips, build_dataset
from deepavfusion.training.data.files import DenseClips
from deepavfusion.training.data.mixtures import MixtureClips
from deepavfusion.training.data.sets.folder import make_rows
from deepavfusion.training.data.stills import BoxClips, Still
from tests.media_factory import tone, write_media

from .disk import MODEL, RATE, VIDEO, make_clips, write

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL)


def same(row: dict, sample: dict) -> bool:
    return all(
        torch.equal(row[name], value) if isinstance(value, torch.Tensor) else row[name] == value
        for name, value in sample.items()
    )


def scenes(task="recognition", train=True, size=12):
    settings = {"name": "scenes", "train_size": size, "eval_size": size, "max_sounding": 1}
    return build_dataset(settings, MODEL, "train" if train else "test", train, 3, task)


def files(folder, train=True):
    paths = make_clips(folder, 3)
    rows = [{"path": path, "label": ["a", "b"][: 1 + i % 2], "start": 0.5} for i, path in enumerate(paths)]
    return FileClips(make_rows(rows), PROCESSOR, train=train, seed=0)


@pytest.mark.parametrize("task", ["recognition", "separation", "segmentation", "localization"])
@pytest.mark.parametrize("train", [True, False])
def test_rows_of_scenes_hold_their_samples(task, train):
    clips = scenes(task, train, size=40)
    rows = clips.as_dataset()
    assert len(rows) == len(clips)
    for k, sample in enumerate(clips.__getitems__([5, 2])):
        assert same(rows[[5, 2][k]], sample)
    batch = clips.collate(rows.__getitems__([5, 2]))
    expected = clips.collate(clips.__getitems__([5, 2]))
    assert torch.equal(batch["labels"], expected["labels"])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    clips.set_epoch(1)
    assert torch.equal(rows[5]["pixel_values"], clips[5]["pixel_values"])


def test_the_media_of_a_file_are_whole(tmp_path):
    clips, seconds = files(tmp_path, train=False), PROCESSOR.feature_extractor.seconds
    found = clips.media(1)
    own = load_clip(clips.describe(1), 0.5 + seconds / 2, seconds=seconds)
    np.testing.assert_array_equal(found.frame, own.frames[0])
    inputs = PROCESSOR(audio=found.waveform, sampling_rate=found.sampling_rate)
    torch.testing.assert_close(inputs["input_features"][0], clips[1]["input_features"])


def test_annotations_of_scenes_need_no_media(monkeypatch):
    clips = scenes()
    labels = [clips[i]["label"] for i in range(12)]
    monkeypatch.setattr(clips, "__getitems__", None)
    rows = clips.as_dataset().with_format(None)
    assert rows["label"][:] == labels
    assert clips.classes() == [[label] for label in labels]
    assert rows.features["label"].names == clips.label_names
    assert rows[3]["path"] == "scene train/3"


def test_rows_of_files_are_decoded_lazily(tmp_path):
    clips = files(tmp_path)
    rows = clips.as_dataset()
    sample = clips[1]
    assert same(rows[1], sample)
    assert rows[1]["label"].tolist() == [1.0, 1.0]
    assert rows[1]["start"] == 0.5
    write(tmp_path / "clip2.mp4", "no video")
    assert same(rows.select([2, 0])[1], clips[0])
    with pytest.raises(MediaError, match=r"clip2\.mp4"):
        rows[2]


def test_rows_of_stills_and_mixtures(tmp_path):
    paths = [str(path) for path in make_clips(tmp_path, 4)]
    boxes = [(), ((0.25, 0.25, 0.75, 0.75),)]
    stills = BoxClips([Still(p, p, 1.0, boxes=boxes[i % 2]) for i, p in enumerate(paths)], PROCESSOR, False, 0)
    rows = stills.as_dataset()
    assert same(rows[1], stills[1])
    assert rows.with_format(None)["boxes"][:2] == [[], [[0.25, 0.25, 0.75, 0.75]]]
    for train in (True, False):
        mixtures = MixtureClips(make_rows([{"path": p} for p in paths]), PROCESSOR, train, 0)
        rows = mixtures.as_dataset()
        assert len(rows) == len(mixtures) == 4
        assert same(rows[1], mixtures[1])
        assert mixtures.annotations()["path"][1] == paths[mixtures.sources(1)[0]]


def test_the_documented_example_runs(capsys):
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(example, {})
    assert re.fullmatch(r"\w+ \w+ torch.Size\(\[3, 64, 64\]\)\n", capsys.readouterr().out)


def test_streams_shard_by_node(tmp_path):
    from datasets.distributed import split_dataset_by_node

    for clips in (scenes(size=7), files(tmp_path)):
        stream = clips.as_dataset(num_shards=2)
        assert stream.num_shards == 2
        parts = [list(split_dataset_by_node(stream, rank, 2)) for rank in range(2)]
        assert sorted(row["index"] for part in parts for row in part) == list(range(len(clips)))
        assert all(parts)
        first = parts[1][0]
        assert same(first, clips[first["index"]])


def test_the_plain_trainer_reads_the_rows(tmp_path):
    from transformers import Trainer, TrainingArguments

    from deepavfusion import DeepAVFusionForAudioVisualClassification
    from tests.modeling_deepavfusion.cases import make_model

    clips = scenes()
    model = make_model(
        DeepAVFusionForAudioVisualClassification, image_size=32, num_mel_bins=32, spectrogram_length=64, num_labels=16
    )
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
    )
    before = [p.detach().clone() for p in model.parameters()]
    result = Trainer(model, arguments, train_dataset=clips.as_dataset(), data_collator=keep_inputs).train()
    assert np.isfinite(result.training_loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def keep_inputs(rows):
    batch = FileClips.collate(rows)
    return {name: batch[name] for name in ("pixel_values", "input_features", "labels")}


@pytest.fixture(scope="module")
def rising(tmp_path_factory):
    """4 s in which gray encodes the time of a frame, and each second has its own pitch."""
    path = tmp_path_factory.mktemp("dense") / "clip.mp4"
    pitches = [tone(RATE, 1.0, frequency=250.0 * (second + 1)) for second in range(4)]
    return write_media(path, seconds=4.0, audio=torch.cat([torch.from_numpy(p) for p in pitches], 1).numpy())


@pytest.mark.parametrize("model", [MODEL, VIDEO])
def test_dense_windows_match_the_processor(rising, model):
    processor = DeepAVFusionProcessor.from_config(model)
    rows = make_rows([{"path": rising, "label": "a"}, {"path": rising, "label": "b", "start": 1.0, "end": 3.0}])
    clips = DenseClips(FileClips(rows, processor, train=False, seed=0), 4)
    whole, part = clips.__getitems__([0, 1])
    inputs = processor(videos=str(rising), num_clips=4)
    assert torch.equal(whole["pixel_values"], inputs["pixel_values"])
    assert torch.equal(whole["input_features"], inputs["input_features"])
    inputs = processor(videos=str(rising), timestamps=[1.5, 1.5 + 1 / 3, 1.5 + 2 / 3, 2.5])
    assert torch.equal(part["pixel_values"], inputs["pixel_values"])
    assert torch.equal(part["input_features"], inputs["input_features"])
    batch = clips.collate([whole, part])
    assert batch["pixel_values"].shape == (2, *inputs["pixel_values"].shape)
    assert batch["labels"].tolist() == [0, 1]
    assert clips.classes() == [[0], [1]]
    assert "4 windows each" in clips.card


def test_dense_windows_of_short_and_broken_clips(tmp_path):
    short = write_media(tmp_path / "short.mp4", seconds=0.6)
    broken = write(tmp_path / "broken.mp4", "no video")
    rows = make_rows([{"path": short, "label": ["a", "b"]}, {"path": broken, "label": ["b"]}])
    clips = DenseClips(FileClips(rows, DeepAVFusionProcessor.from_config(MODEL), train=False, seed=0), 3)
    sample = clips[0]
    assert sample["label"].tolist() == [1.0, 1.0]
    assert torch.equal(sample["pixel_values"][0], sample["pixel_values"][2])
    assert isinstance(clips[1], BrokenClip)
    with pytest.raises(ValueError, match="at least 1"):
        DenseClips(clips.clips, 0)
