"""Scenes as `datasets` objects, as files, and kept on disk."""

import json
import multiprocessing
import os
import wave
from dataclasses import replace

import av
import numpy as np
import pytest

from deepavfusion.training.data.scenes import cache as scenes_cache
from deepavfusion.training.data.scenes.dataset import (
    SceneCache,
    ScenesConfig,
    ScenesDataset,
    cache_scenes,
    generate_scene,
    main,
)
from deepavfusion.training.data.scenes.export import write_video

CONFIG = ScenesConfig(seconds=0.75, image_size=32)


def same(row: dict, expected: dict) -> None:
    assert row.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(np.asarray(row[name]), np.asarray(value)), name


def test_map_style_arrow_dataset_equals_the_scenes_and_is_found_again(tmp_path):
    scenes = ScenesDataset(CONFIG, "validation", 5)
    stored = scenes.as_dataset(cache_dir=tmp_path)
    assert len(stored) == 5
    for i in range(5):
        same(stored[i], scenes[i])
    files = {f["filename"] for f in stored.cache_files}
    assert files
    assert all(str(tmp_path) in f for f in files)
    stamps = {f: os.stat(f).st_mtime_ns for f in files}
    again = ScenesDataset(CONFIG, "validation", 5).to_hf(cache_dir=tmp_path)
    assert {f["filename"]: os.stat(f["filename"]).st_mtime_ns for f in again.cache_files} == stamps
    other = ScenesDataset(replace(CONFIG, seed=1), "validation", 5).as_dataset(cache_dir=tmp_path)
    assert not np.array_equal(other[0]["waveform"], stored[0]["waveform"])


def test_streaming_gives_every_scene_once_and_shards_by_node():
    from datasets.distributed import split_dataset_by_node

    scenes = ScenesDataset(CONFIG, "train", 7)
    stream = scenes.as_streaming(num_shards=4)
    assert stream.num_shards == 4
    rows = list(stream)
    assert [int(row["index"]) for row in rows] == list(range(7))
    same(rows[3], scenes[3])
    nodes = [{int(row["index"]) for row in split_dataset_by_node(stream, rank, 2)} for rank in range(2)]
    assert nodes[0] | nodes[1] == set(range(7))
    assert not nodes[0] & nodes[1]


def test_object_map_holds_the_masks():
    scenes = ScenesDataset(CONFIG, "train", 6)
    for i in range(6):
        item, scene = scenes[i], scenes.scene(i)
        for k, mask in enumerate(scene.masks):
            assert np.array_equal(item["object_map"] == k + 1, mask)
        assert item["object_map"].max() <= len(scene.masks)


def test_cache_round_trip(tmp_path):
    path = tmp_path / "cache"
    cache = cache_scenes(CONFIG, [4, 1, 1 << 40], path)
    assert len(cache) == 3
    for k, index in enumerate([4, 1, 1 << 40]):
        frames, waveform, labels = cache[k]
        scene = generate_scene(CONFIG, index)
        assert np.array_equal(frames, scene.frames)
        assert np.array_equal(waveform, scene.waveform)
        assert np.array_equal(labels, scene.labels)
    assert isinstance(cache.waveforms, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache[0][0][0] = 1
    stamp = (path / "frames.npy").stat().st_mtime_ns
    cache_scenes(CONFIG, [4, 1, 1 << 40], path)
    assert (path / "frames.npy").stat().st_mtime_ns == stamp
    assert os.listdir(tmp_path) == ["cache"]


def test_cache_of_other_scenes_or_settings_is_refused(tmp_path):
    path = tmp_path / "cache"
    with pytest.raises(FileNotFoundError, match="no cached scenes"):
        SceneCache(path)
    cache_scenes(CONFIG, range(2), path)
    with pytest.raises(ValueError, match="other scenes"):
        cache_scenes(CONFIG, range(3), path)
    with pytest.raises(ValueError, match="expected"):
        SceneCache(path, replace(CONFIG, difficulty="hard"))
    about = json.loads((path / "scenes.json").read_text())
    (path / "scenes.json").write_text(json.dumps({**about, "format": 0}))
    with pytest.raises(ValueError, match="layout"):
        SceneCache(path)


def test_a_cache_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    made = []

    def failing(config, index):
        if len(made) == 2:
            raise OSError("disk full")
        made.append(index)
        return scenes_cache_generate(config, index)

    scenes_cache_generate = scenes_cache.generate_clip
    monkeypatch.setattr(scenes_cache, "generate_clip", failing)
    with pytest.raises(OSError, match="disk full"):
        cache_scenes(CONFIG, range(4), tmp_path / "cache")
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    assert len(cache_scenes(CONFIG, range(4), tmp_path / "cache")) == 4


def _cache(path) -> None:
    cache_scenes(CONFIG, range(8), path)


def test_processes_that_cache_at_once_agree(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_cache, args=(tmp_path / "cache",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["cache"]
    assert np.array_equal(SceneCache(tmp_path / "cache")[7][1], generate_scene(CONFIG, 7).waveform)


def test_a_scene_as_files(tmp_path, capsys):
    main(["--index", "3", "--out", str(tmp_path), "--image-size", "64", "--seconds", "1"])
    scene = generate_scene(ScenesConfig(image_size=64, seconds=1.0), 3)
    written = {line.rsplit("/", 1)[1] for line in capsys.readouterr().out.split()}
    assert written == set(os.listdir(tmp_path))
    about = json.loads((tmp_path / "scene.json").read_text())
    assert [o["sounding"] for o in about["objects"]] == scene.sounding.tolist()
    assert [o["box"] for o in about["objects"]] == scene.boxes[:, 0].tolist()
    assert sum(name.startswith("mask_") for name in written) == len(scene.masks)
    sounds = {}
    for name in written:
        if name.endswith(".wav"):
            with wave.open(str(tmp_path / name)) as file:
                assert (file.getframerate(), file.getnchannels()) == (16000, 1)
                sounds[name] = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    mixture = sounds.pop("mixture.wav")
    assert np.abs(sum(sounds.values()) - mixture).max() < 1e-4  # rounding to 16 bits
    assert np.abs(mixture - scene.waveform).max() < 1e-4
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
        container.seek(0)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) >= 16000
    assert np.corrcoef(heard[: len(mixture)], mixture)[0, 1] > 0.9


def test_odd_sizes_can_be_written(tmp_path):
    write_video(tmp_path / "odd.mp4", np.zeros((3, 33, 47, 3), np.uint8), np.zeros(1000, np.float32), 16000)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert (container.streams.video[0].height, container.streams.video[0].width) == (32, 46)


def test_sheet(tmp_path):
    from PIL import Image

    main(["--index", "0", "1", "--sheet", str(tmp_path / "sheet.png"), "--image-size", "64"])
    with Image.open(tmp_path / "sheet.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert picture.width > 600
    assert len(np.unique(colours, axis=0)) > 100


def test_nothing_to_do_is_an_error():
    with pytest.raises(SystemExit):
        main([])
