"""Prepared data sets: what is stored, that it is read as the files are, and that nothing depends on interruptions."""

import io
import json
import os
import pickle
import shutil
import tarfile
import tracemalloc
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from PIL import Image

from deepavfusion.inference.jobs import progress
from deepavfusion.processors import DeepAVFusionProcessor, MediaError, load_clip
from deepavfusion.processors.pixels_deepavfusion import resize
from deepavfusion.processors.recordings_deepavfusion import FrameReader
from deepavfusion.training.data import BrokenClip, build_dataset
from deepavfusion.training.data.files import DenseClips
from deepavfusion.training.data.loading import ClipOrder, evaluation_loader, training_loader
from deepavfusion.training.data.sets.folder import read_folder
from deepavfusion.training.data.shards import (
    Encoding,
    FolderTakenError,
    Preparation,
    ShardReader,
    estimate_bytes,
    finish,
    pending_shards,
    prepare,
)
from deepavfusion.training.data.shards import encoding as encoding_files
from deepavfusion.training.data.shards import members as member_files
from deepavfusion.training.data.shards import writing as shard_writing
from deepavfusion.training.data.shards.audio import AUDIO_FORMATS, BLOCK, read_flac
from deepavfusion.training.data.shards.downloads import local_copy
from deepavfusion.training.data.shards.encoding import EncodedClip, encode_clip, row_array
from deepavfusion.training.data.shards.index import _NAMES, _PLACES, read_shards
from deepavfusion.training.data.shards.members import Place, ShardFiles, TarWriter
from deepavfusion_cli.errors import BAD_INPUT, outcome
from tests.media_factory import tone, write_media

from ..disk import MODEL, RATE, VIDEO, make_clips, write
from ..test_windows import make_clip, ramp

VIDEO_ENCODING = Encoding(short_side=48, video="h264")
ENCODING = Encoding(fps=10, short_side=48, quality=95)


def gray_image(time: float, size: tuple[int, int]) -> np.ndarray:
    """(*size, 3): a gray that tells the time."""
    return np.full((*size, 3), 20 + round(40 * time), np.uint8)


def folder_of_clips(root: Path, count: int = 7) -> Path:
    """Clips of two classes; one cannot be read."""
    for k, path in enumerate(make_clips(root / "made", count, 3.0)):
        target = root / "videos" / "ab"[k % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    write(root / "videos" / "a" / "broken.mp4", "no video")
    return root / "videos"


ABOUT = {"data": "folder", "kind": "videos", "tasks": ["recognition", "separation"], "options": {}}


def preparation_of(videos: Path, **options) -> Preparation:
    return Preparation({None: read_folder(videos)}, str(videos), ABOUT, ENCODING, **options)


def content(file) -> bytes:
    """All of a temporary file."""
    file.seek(0)
    return file.read()


def stored_audio(clip: EncodedClip, start: float, seconds: float, audio: str = "flac") -> np.ndarray:
    """Samples of a part of a clip, read by their places."""
    places, stored = clip.audio_places, content(clip.audio)

    def read(place: int, size: int) -> bytes:
        return stored[places.offset + place : places.offset + place + size]

    first, last = round(start * RATE), round((start + seconds) * RATE)
    return AUDIO_FORMATS[audio].read(read, np.array(places.ends), max(first, 0), min(last, places.samples), RATE)


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> content of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of videos, and what was prepared from it, with three clips per shard."""
    root = tmp_path_factory.mktemp("prepared")
    videos = folder_of_clips(root)
    preparation = preparation_of(videos, clips_per_shard=3)
    assert sum(prepare(preparation, root / "out")) == 8
    outcome = finish(preparation, root / "out")
    assert outcome.clips == 7
    assert [path for path, _ in outcome.broken] == ["videos/a/broken.mp4"]
    return videos, root / "out"


def test_a_clip_is_stored_as_jpeg_and_flac(tmp_path):
    path = make_clip(tmp_path / "clip.mov", 3.0)
    clip = encode_clip(str(path), ENCODING)
    assert clip.image_span == pytest.approx((0, 3), abs=0.01)
    places, video = clip.video_places, content(clip.video)
    assert places.times == pytest.approx([k / 10 for k in range(30)])
    bounds = [places.offset + end for end in (0, *places.ends)]
    source = load_clip(path, lambda info: (1.5, 1.2)).frames[0]
    shown = np.asarray(Image.open(io.BytesIO(video[bounds[12] : bounds[13]])))
    assert shown.shape == source.shape == (48, 64, 3)
    assert np.abs(shown.astype(int) - source).max() <= 3
    with av.open(io.BytesIO(video)) as container:  # any player shows the frames at their times
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(places.times, abs=1e-4)
    assert np.array_equal(frames[12].to_ndarray(format="rgb24"), shown) or np.allclose(
        frames[12].to_ndarray(format="rgb24"), shown, atol=3
    )
    waveform = load_clip(clip.audio, seconds=3.0).waveform
    assert waveform.shape == (1, 3 * RATE)
    assert np.abs(waveform - ramp(3.0)).max() < 1e-4
    again = encode_clip(str(path), ENCODING)
    assert (content(again.video), content(again.audio)) == (video, content(clip.audio))
    assert clip.size == len(video) + len(content(clip.audio))


def test_frames_are_reduced_to_the_short_side_and_audio_is_resampled(tmp_path):
    path = tmp_path / "clip.mp4"
    stereo = np.concatenate([tone(44100, 2.0, 500.0), np.zeros((1, 88200), np.float32)])
    write_media(path, seconds=2.0, size=(128, 96), audio=stereo, rate=44100, audio_codec="aac")
    clip = encode_clip(str(path), Encoding(fps=2, short_side=24))
    first = Image.open(io.BytesIO(content(clip.video)[clip.video_places.offset :]))
    assert first.size == (32, 24)
    assert len(clip.video_places.times) == 4
    found = load_clip(clip.audio, seconds=2.0)
    assert found.sampling_rate == 16000
    spectrum = np.abs(np.fft.rfft(found.waveform[0, :16000]))
    assert spectrum.argmax() == 500
    assert found.waveform[0, 4000:12000].max() == pytest.approx(0.25, abs=0.02)  # the mean of the channels


def test_annotated_parts_alone_are_stored(tmp_path):
    path = make_clip(tmp_path / "clip.mov", 6.0)
    clip = encode_clip(str(path), ENCODING, 2.0, 4.0)
    assert clip.image_span == clip.audio_span == (2.0, 4.0)
    assert clip.video_places.times[0] == 2.0
    assert len(clip.video_places.times) == 20
    waveform = load_clip(clip.audio, seconds=9.0).waveform
    assert waveform.shape == (1, 2 * RATE)
    assert waveform[0, 0] * 20 == pytest.approx(2.0, abs=0.01)
    with pytest.raises(MediaError, match=r"clip\.mov: expected images and audio from 8.00 s to 9.00 s"):
        encode_clip(str(path), ENCODING, 8.0, 9.0)


def test_long_members_are_kept_out_of_memory(tmp_path, monkeypatch):
    path, encoding = make_clip(tmp_path / "clip.mov", 30.0), Encoding(fps=2, short_side=48, audio="pcm")
    expected = encode_clip(str(path), encoding)
    stored = content(expected.video), content(expected.audio)
    assert not expected.audio._rolled
    monkeypatch.setattr(encoding_files, "_IN_MEMORY", 10_000)
    tracemalloc.start()
    try:
        clip = encode_clip(str(path), encoding, folder=str(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clip.audio._rolled
    assert clip.video._rolled
    assert (content(clip.video), content(clip.audio)) == stored
    assert len(stored[1]) > 950_000
    assert peak < 800_000
    clip.close()


def test_videos_are_stored_with_frequent_key_frames(tmp_path):
    path = tmp_path / "clip.mp4"
    write_media(path, seconds=5.0, fps=12, size=(130, 98), paint=lambda time: gray_image(time, (98, 130)))
    clip = encode_clip(str(path), VIDEO_ENCODING)
    with av.open(io.BytesIO(content(clip.video))) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert (stream.width, stream.height, stream.codec_context.name) == (64, 48, "h264")
        assert [k for k, packet in enumerate(packets) if packet.is_keyframe] == [0, 16, 32, 48]
    assert len(packets) == 60
    times = [0.04 + k / 12 for k in range(60)]
    with closing(FrameReader.of(clip.video)) as reader:
        found = [reader.at(time).mean() for time in times]
    with closing(FrameReader.of(path)) as reader:
        assert found == pytest.approx([reader.at(time).mean() for time in times], abs=2)
    fast = tmp_path / "fast.mp4"
    write_media(fast, seconds=1.0, fps=60)
    with av.open(io.BytesIO(content(encode_clip(str(fast), VIDEO_ENCODING).video))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


@pytest.mark.parametrize("audio", ["flac", "pcm"])
def test_parts_of_audio_are_exact(tmp_path, audio):
    path = make_clip(tmp_path / "clip.mov", 10.0)
    clip = encode_clip(str(path), Encoding(fps=1, short_side=48, audio=audio))
    whole = load_clip(clip.audio, seconds=10.0).waveform[0]
    assert clip.audio_places.samples == len(whole) == 10 * RATE
    assert len(clip.audio_places.ends) == (-(-len(whole) // BLOCK) if audio == "flac" else 0)
    for start in (-0.5, 0.0, 0.7, BLOCK / RATE, 7.25, 9.5):
        first, last = round(start * RATE), round((start + 1.5) * RATE)
        assert np.array_equal(stored_audio(clip, start, 1.5, audio), whole[max(first, 0) : max(last, 0)])


def test_only_the_blocks_of_a_window_are_read_and_their_damage_is_found(tmp_path):
    path = make_clip(tmp_path / "clip.mov", 10.0)
    clip = encode_clip(str(path), Encoding(fps=1, short_side=48))
    places, stored, asked = clip.audio_places, bytearray(content(clip.audio)), []

    def read(place: int, size: int) -> bytes:
        asked.append(size)
        return bytes(stored[places.offset + place : places.offset + place + size])

    assert len(read_flac(read, np.array(places.ends), 3 * BLOCK, 5 * BLOCK, RATE)) == 2 * BLOCK
    assert asked == [places.ends[4] - places.ends[2]]
    stored[places.offset + (places.ends[3] + places.ends[4]) // 2] ^= 1
    with pytest.raises(av.FFmpegError):
        read_flac(read, np.array(places.ends), 4 * BLOCK, 5 * BLOCK, RATE)
    assert len(read_flac(read, np.array(places.ends), 3 * BLOCK, 6 * BLOCK, RATE)) == BLOCK
    assert len(read_flac(read, np.array(places.ends), BLOCK, 4 * BLOCK, RATE)) == 3 * BLOCK


def test_members_lie_where_their_places_say(tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        tar = TarWriter(file)
        places = {name: tar.add(name, content) for name, content in [("x.bin", b"abc"), ("y.bin", b"d" * 700)]}
        tar.close()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {member.name: (member.offset_data, member.size) for member in tar} == places
        assert all(member.mtime == 0 and not member.uname for member in tar)
    (tmp_path / "shards").mkdir()
    shutil.move(tmp_path / "a.tar", tmp_path / "shards")
    files = pickle.loads(pickle.dumps(ShardFiles(str(tmp_path))))
    assert files.read("a.tar", places["y.bin"]) == b"d" * 700
    with pytest.raises(MediaError, match=r"shards/b\.tar: No such file"):
        files.read("b.tar", places["x.bin"])
    with pytest.raises(MediaError, match=r"expected at least 1,000,700 bytes, as the index says"):
        files.read("a.tar", Place(1_000_000, 700))


def test_large_members_are_read_in_parts(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mov", 6.0)
    stored = content(encode_clip(str(path), ENCODING).audio)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(b"before" + stored + b"after")
    files, place = ShardFiles(str(tmp_path)), Place(6, len(stored))
    expected = load_clip(files.open("a.tar", place), 2.0, seconds=2.0).waveform
    monkeypatch.setattr(member_files, "_WHOLE", 0)
    file = files.open("a.tar", place)
    assert file.read() == stored
    assert file.read() == b""
    assert file.seek(-4, io.SEEK_END) == len(stored) - 4
    assert file.read(9) == stored[-4:]
    assert np.array_equal(load_clip(files.open("a.tar", place), 2.0, seconds=2.0).waveform, expected)


def test_files_stay_open_up_to_a_limit(tmp_path, monkeypatch):
    (tmp_path / "shards").mkdir()
    for k in range(4):
        (tmp_path / "shards" / f"{k}.tar").write_bytes(b"%d" % k)
    monkeypatch.setattr(member_files, "_OPEN_FILES", 2)
    files = ShardFiles(str(tmp_path))
    assert [files.read(f"{k % 4}.tar", Place(0, 1)) for k in range(8)] == [b"%d" % (k % 4) for k in range(8)]
    assert len(files._open) == 2


@pytest.mark.parametrize("config", [MODEL, VIDEO])
def test_prepared_clips_equal_those_of_files(prepared, config):
    videos, out = prepared
    rows = read_folder(videos)
    whole = build_dataset({"name": "folder", "path": str(videos), "validation_fraction": 1.0}, config, "test", False, 0)
    stored = build_dataset({"name": "shards", "path": str(out), "validation_fraction": 1.0}, config, "test", False, 0)
    assert stored.label_names == whole.label_names == ["a", "b"]
    assert len(stored) == 7
    assert len(whole) == len(rows) == 8
    found = {sample["path"]: sample for sample in stored.__getitems__(range(7))}
    for i in range(8):
        name = str(Path(whole.describe(i)).relative_to(videos.parent))
        if name == "videos/a/broken.mp4":
            continue
        sample, expected = found[name], whole[i]
        assert sample["label"] == expected["label"]
        assert (sample["pixel_values"] - expected["pixel_values"]).abs().mean() < 0.05
        loud = expected["input_features"] > 0
        assert loud.any()
        assert (sample["input_features"] - expected["input_features"])[loud].abs().max() < 0.05


@pytest.mark.parametrize(
    "encoding", [Encoding(short_side=48, audio="pcm", video="h264"), Encoding(10, 48, audio="pcm")]
)
@pytest.mark.parametrize("config", [MODEL, VIDEO])
def test_other_encodings_equal_files_too(prepared, tmp_path, encoding, config):
    videos, _ = prepared
    rows = read_folder(videos)
    rows = rows.select([k for k in range(len(rows)) if rows[k]["path"].endswith(("clip1.mp4", "clip2.mp4"))])
    preparation = Preparation({None: rows}, str(videos), ABOUT, encoding)
    list(prepare(preparation, tmp_path))
    finish(preparation, tmp_path)
    stored = build_dataset(
        {"name": "shards", "path": str(tmp_path), "validation_fraction": 1.0}, config, "test", False, 0
    )
    whole = build_dataset({"name": "folder", "path": str(videos), "validation_fraction": 1.0}, config, "test", False, 0)
    expected = {Path(whole.describe(i)).name: i for i in range(len(whole))}
    for sample in stored.__getitems__(range(2)):
        given = whole[expected[Path(sample["path"]).name]]
        assert (sample["pixel_values"] - given["pixel_values"]).abs().mean() < 0.1
        loud = given["input_features"] > 0
        assert (sample["input_features"] - given["input_features"])[loud].abs().max() < 0.05
    shard = tmp_path / "shards" / "clips-000000.tar"
    with tarfile.open(shard) as tar:
        suffixes = {member.name.rpartition(".")[2] for member in tar}
    assert suffixes == {"json", "wav", "mp4" if encoding.video == "h264" else "mov"}
    shard.write_bytes(bytes(shard.stat().st_size))
    expected = "an MP4 file" if encoding.video == "h264" else "a JPEG file"
    assert f"expected {expected} in {tmp_path}/shards/clips-000000.tar, but" in stored.__getitems__([0])[0].reason


def test_windows_are_drawn_as_from_files(prepared, monkeypatch):
    videos, out = prepared
    files = build_dataset({"name": "folder", "path": str(videos), "validation_fraction": 0.3}, MODEL, "train", True, 5)
    shards = build_dataset({"name": "shards", "path": str(out), "validation_fraction": 0.3}, MODEL, "train", True, 5)
    reader, seen = ShardReader(str(out)), []
    monkeypatch.setattr(
        shards.reader,
        "load",
        lambda row, window, *rest: seen.append(window(reader.info(row))) or reader.load(row, window, *rest),
    )
    for epoch in range(6):
        shards.set_epoch(epoch)
        shards[0]
    middles = np.array([middle for middle, _ in seen])
    assert np.ptp(middles) > 0.5
    assert ((middles >= 0.5) & (middles <= 2.5)).all()
    assert files.rows.column_names != shards.rows.column_names


def test_dense_windows_and_mixtures_of_shards(prepared):
    _, out = prepared
    options = {"name": "shards", "path": str(out), "validation_fraction": 1.0}
    dense = DenseClips(build_dataset(options, MODEL, "test", False, 0), 3)
    assert dense[0]["pixel_values"].shape == (3, 3, 32, 32)
    options["validation_fraction"] = 0.3
    mixtures = build_dataset(options, MODEL, "train", True, 0, "separation")
    sample = mixtures[0]
    assert sample["path"].count(".mp4") == 2
    assert not torch.equal(sample["input_features"], sample["labels"])
    held = build_dataset(options, MODEL, "test", False, 0, "separation")
    assert held[0]["waveforms"].shape == (2, RATE)
    names = {row["path"] for row in mixtures.rows}
    assert not names & {row["path"] for row in held.rows}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupted_preparation_ends_with_the_same_bytes(prepared, tmp_path, num_workers):
    videos, expected = prepared
    preparation = preparation_of(videos, clips_per_shard=3)
    with closing(prepare(preparation, tmp_path / "out", num_workers=1)) as written:
        assert [next(written) for _ in range(5)] == [1] * 5  # the fifth is of the second shard
    assert not (tmp_path / "out" / "index.arrow").exists()
    with pytest.raises(FileNotFoundError, match="its preparation is not finished: wait for it, or run the same"):
        build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
    (shard,) = [path for path in (tmp_path / "out" / "shards").iterdir() if path.suffix == ".tar"]
    kept = shard.stat().st_mtime_ns
    pending = pending_shards(preparation, tmp_path / "out")
    assert [shard.name for shard in pending] == ["clips-000001", "clips-000002"]
    assert sum(prepare(preparation, tmp_path / "out", num_workers)) == 5
    assert pending_shards(preparation, tmp_path / "out") == []
    finish(preparation, tmp_path / "out")
    assert shard.stat().st_mtime_ns == kept
    assert contents(tmp_path / "out") == contents(expected)


@pytest.mark.parametrize(("number", "size"), [(1, 1), (100, 1), (101, 2), (9_000, 90), (26_000, 256), (10**6, 256)])
def test_small_data_sets_have_small_shards(number, size):
    """A preparation that is killed loses what its processes were writing: a hundredth of the clips each, at most."""
    preparation = Preparation({"train": range(number)}, "set", ABOUT)
    assert preparation.shard_size == preparation.settings()["clips_per_shard"] == size
    shards = preparation.shards()
    assert [k for shard in shards for k in shard.rows] == list(range(number))
    assert max(len(shard.rows) for shard in shards) == size
    assert Preparation({"train": range(number)}, "set", ABOUT, clips_per_shard=7).shard_size == 7


def test_columns_of_the_index_have_a_fixed_order(prepared):
    """They would not in another process if a set had been gone through."""
    names = Dataset.from_file(str(prepared[1] / "index.arrow")).column_names
    assert names[:3] == ["label", "start", "end"]
    assert names[3:] == [*_PLACES, *_NAMES]


def test_damaged_shards_are_written_again(prepared, tmp_path):
    videos, expected = prepared
    shutil.copytree(expected, tmp_path / "out")
    damaged = tmp_path / "out" / "shards" / "clips-000001.tar"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    preparation = preparation_of(videos, clips_per_shard=3)
    assert sum(prepare(preparation, tmp_path / "out")) == 3
    finish(preparation, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(expected)


def test_folders_that_hold_something_else_are_left_alone(prepared, tmp_path):
    videos, expected = prepared
    write(tmp_path / "taken" / "notes.txt", "mine")
    with pytest.raises(FolderTakenError, match="is not a preparation; choose a new or empty folder"):
        next(prepare(preparation_of(videos), tmp_path / "taken"))
    assert contents(tmp_path / "taken") == {"notes.txt": b"mine"}
    before = contents(expected)
    with pytest.raises(FolderTakenError, match="with clips_per_shard=3, now 4; choose another folder"):
        next(prepare(preparation_of(videos, clips_per_shard=4), expected))
    other = Preparation({None: read_folder(videos).select([0, 1])}, str(videos), ABOUT, ENCODING, 3)
    with pytest.raises(FolderTakenError, match="of other clips"):
        next(prepare(other, expected))
    assert contents(expected) == before


def test_the_size_is_estimated(prepared):
    videos, out = prepared
    size = sum(path.stat().st_size for path in (out / "shards").iterdir())
    assert 0.5 < estimate_bytes(preparation_of(videos)) / size < 1.5


@pytest.mark.parametrize("encoding", [ENCODING, VIDEO_ENCODING])
def test_the_beginning_of_a_long_clip_tells_its_size(prepared, monkeypatch, capsys, encoding):
    """One second of three; the progress is shown."""
    preparation = Preparation({None: read_folder(prepared[0])}, str(prepared[0]), ABOUT, encoding)
    whole, encoded, ends = estimate_bytes(preparation), [], []
    encode, stream = Preparation.encode, encoding_files.encode_audio

    def encode_audio(path, recording, encoding, span, folder=None):
        ends.append(span[1] - span[0])
        return stream(path, recording, encoding, span, folder)

    def seen(*args, **options):
        encoded.append(encode(*args, **options))
        return encoded[-1]

    monkeypatch.setattr(encoding_files, "encode_audio", encode_audio)
    monkeypatch.setattr(Preparation, "encode", seen)
    monkeypatch.setattr(shard_writing, "_SAMPLE_SECONDS", 1.0)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    assert 0.7 < estimate_bytes(preparation) / whole < 1.8  # headers of so short files count three times
    assert ends == pytest.approx([1.0] * 7, abs=0.01)
    assert all(clip.fractions == pytest.approx((1 / 3, 1 / 3), abs=0.01) for clip in encoded)
    assert "size estimated: 8 of 8 clips (100 %)" in capsys.readouterr().err


def test_datasets_parses_shards_as_webdataset(prepared):
    """With the parser of `load_dataset("webdataset")`, which itself needs torchcodec for any audio."""
    from datasets import DownloadManager
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    _, out = prepared
    rows = []
    for shard in sorted((out / "shards").iterdir()):
        rows += WebDataset._get_pipeline_from_tar(str(shard), DownloadManager().iter_archive(str(shard)))
    assert len(rows) == 7
    assert {tuple(sorted(row)) for row in rows} == {("__key__", "__url__", "flac", "json", "mov")}  # all must be alike
    assert rows[0]["__key__"] == "clips-00000001"
    assert rows[0]["json"]["label"] == "a"
    assert rows[0]["json"]["source"].startswith("videos/a/clip")
    assert len(load_clip(io.BytesIO(rows[0]["flac"]), seconds=3.0).waveform[0]) == 3 * RATE
    assert load_clip(io.BytesIO(rows[0]["mov"]), num_frames=4).frames.shape == (4, 48, 64, 3)


def test_damaged_members_are_reported_by_clip_and_shard(prepared, tmp_path):
    _, expected = prepared
    out = tmp_path / "out"
    shutil.copytree(expected, out)
    clips = build_dataset({"name": "shards", "path": str(out), "validation_fraction": 1.0}, MODEL, "test", False, 0)
    row = clips.rows[0]
    shard = out / "shards" / row["shard"]
    content = bytearray(shard.read_bytes())
    content[row["audio_offset"] : row["audio_offset"] + row_array(row, "audio_ends")[-1]] = bytes(
        row_array(row, "audio_ends")[-1]
    )
    shard.write_bytes(content)
    (broken,) = clips.__getitems__([0])
    assert isinstance(broken, BrokenClip)
    assert row["path"] in broken.reason
    assert row["shard"] in broken.reason
    content[row["video_offset"] : row["video_offset"] + row_array(row, "frame_ends")[-1]] = bytes(
        row_array(row, "frame_ends")[-1]
    )
    shard.write_bytes(content)
    assert "expected a JPEG file in" in clips.__getitems__([0])[0].reason


def test_nodes_read_clips_of_their_own(prepared):
    _, out = prepared
    options = {"name": "shards", "path": str(out), "validation_fraction": 0.3}
    clips = build_dataset(options, MODEL, "train", True, 0)
    count = len(clips)
    for rows in (clips.as_dataset(), clips.as_dataset(num_shards=3)):
        parts = [[row["index"] for row in split_dataset_by_node(rows, rank, 3)] for rank in range(3)]
        assert sorted(sum(parts, [])) == list(range(count))
    for processes in (1, 2):  # as in training, with clips from the shards themselves
        read: list[str] = []
        for process in range(processes):
            order = ClipOrder(count, 2 // processes, 1, processes, process, 7, 0, count // 2)
            for batch in training_loader(clips, order, num_workers=processes - 1):
                assert not batch["broken"]
                read += batch["path"]
        assert len(read) == len(set(read)) == count // 2 * 2
    tested = build_dataset(options, MODEL, "test", False, 0)
    parts = [sum((b["path"] for b in evaluation_loader(tested, 1, 2, rank, 0)), []) for rank in range(2)]
    assert sorted(set(parts[0] + parts[1])) == sorted(tested.rows["path"])


def test_versions_and_missing_folders_are_answered(prepared, tmp_path):
    _, expected = prepared
    with pytest.raises(FileNotFoundError, match="`deepavfusion data prepare` makes one"):
        build_dataset({"name": "shards", "path": str(tmp_path)}, MODEL, "train", True, 0)
    shutil.copytree(expected, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    write(tmp_path / "out" / "dataset.json", json.dumps(about | {"version": 1}))
    with pytest.raises(ValueError, match="of version 2, got version 1"):
        build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
    for text, message in {
        "{": "expected a JSON object, but it is not valid JSON",
        "[]": "expected a JSON object with version, got a list",
        '{"version": 2}': "expected a JSON object with data, kind, .*, but it has no data",
        json.dumps(about | {"tasks": None}): "but tasks is null",
        json.dumps(about | {"kind": []}): r"but kind is \[\]",
        json.dumps(about | {"kind": "boxes"}): "but it has no required_boxes",
        json.dumps(about | {"audio": "mp3"}): 'expected audio "flac" or "pcm", got "mp3"',
    }.items():
        write(tmp_path / "out" / "dataset.json", text)
        with pytest.raises(ValueError, match=rf"out/dataset\.json: .*{message}.*prepare the data set again") as caught:
            build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
        assert outcome(caught.value)[0] == BAD_INPUT


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"bytes": 3}'])
def test_damaged_parts_are_named(prepared, tmp_path, text):
    shutil.copytree(prepared[1], tmp_path / "out")
    preparation = preparation_of(prepared[0], clips_per_shard=3)
    write(tmp_path / "out" / "parts" / "clips-000001.json", text)
    for action in (lambda: list(prepare(preparation, tmp_path / "out")), lambda: finish(preparation, tmp_path / "out")):
        with pytest.raises(
            ValueError, match=r"parts/clips-000001\.json: expected a JSON object.*; delete it, and"
        ) as caught:
            action()
        assert outcome(caught.value)[0] == BAD_INPUT
    write(tmp_path / "out" / "parts" / "preparation.json", text)
    with pytest.raises(ValueError, match=r"parts/preparation\.json: expected a JSON object.*; choose another folder"):
        list(prepare(preparation, tmp_path / "out"))


def test_shards_are_read_from_addresses_through_a_cache(prepared, tmp_path):
    import fsspec

    _, out = prepared
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/prepared", recursive=True)
    try:
        options = {"name": "shards", "path": "memory://prepared", "cache_dir": str(tmp_path / "cache")}
        remote = build_dataset(options | {"validation_fraction": 1.0}, MODEL, "test", False, 0)
        local = build_dataset({"name": "shards", "path": str(out), "validation_fraction": 1.0}, MODEL, "test", False, 0)
        assert torch.equal(remote[3]["input_features"], local[3]["input_features"])
        memory.rm("/prepared", recursive=True)
        assert torch.equal(remote[3]["pixel_values"], local[3]["pixel_values"])  # each file is downloaded once
    finally:
        if memory.exists("/prepared"):
            memory.rm("/prepared", recursive=True)


def test_files_that_changed_at_their_address_are_downloaded_again(tmp_path, caplog):
    import fsspec

    memory, address, cache = fsspec.filesystem("memory"), "memory://changing/index.arrow", str(tmp_path)
    try:
        memory.pipe("/changing/index.arrow", b"first")
        path = Path(local_copy(address, cache))
        before = path.stat().st_ino
        assert Path(local_copy(address, cache)).stat().st_ino == before  # downloaded once
        memory.pipe("/changing/index.arrow", b"again")
        with open(path, "rb") as opened:
            assert Path(local_copy(address, cache)).read_bytes() == b"again"
            assert opened.read() == b"first"  # what is open stays
        assert not caplog.text
        memory.rm("/changing", recursive=True)
        assert Path(local_copy(address, cache)).read_bytes() == b"again"
        assert "memory://changing/index.arrow cannot be reached" in caplog.text
        with pytest.raises(FileNotFoundError):
            local_copy("memory://changing/other", cache)
    finally:
        if memory.exists("/changing"):
            memory.rm("/changing", recursive=True)


def test_an_address_that_cannot_be_reached_is_not_an_absent_data_set(tmp_path):
    with pytest.raises(ConnectionError, match=r"^http://127.0.0.1:9/set/dataset.json cannot be reached: "):
        read_shards("http://127.0.0.1:9/set", str(tmp_path))


def test_files_of_unknown_size_are_downloaded(tmp_path, monkeypatch):
    """As by servers that tell no length."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/unknown/shards/0.tar", b"content")
    try:
        monkeypatch.setattr(type(memory), "size", lambda self, path: None)
        for _ in range(2):
            copy = local_copy("memory://unknown/shards/0.tar", str(tmp_path), 1e-3)
            assert Path(copy).read_bytes() == b"content"
    finally:
        memory.rm("/unknown", recursive=True)


def test_downloads_are_removed_to_make_room(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for k in range(4):
        memory.pipe(f"/many/shards/{k}.tar", bytes([k]) * 1000)
    memory.pipe("/many/index.arrow", b"index")
    cache, root = tmp_path / "cache", "memory://many"

    def kept():
        return sorted(path.name for path in cache.glob("*/*") if path.suffix not in (".lock", ".version"))

    try:
        local_copy(f"{root}/index.arrow", str(cache))
        files = ShardFiles(root, str(cache), limit=2500e-9)
        assert [files.read(f"{k}.tar", Place(0, 1)) for k in (0, 1)] == [b"\0", b"\1"]
        for k, name in enumerate(["0.tar", "1.tar"]):  # as if opened one after the other
            (path,) = cache.glob(f"*/{name}")
            os.utime(path, (k, k))
        local_copy(f"{root}/shards/0.tar", str(cache))  # opened again, so that 1.tar is the oldest
        assert files.read("2.tar", Place(0, 1)) == b"\2"
        assert kept() == ["0.tar", "2.tar", "index.arrow"]
        assert set(files._open) == {"0.tar", "2.tar"}
        assert files.read("1.tar", Place(999, 1)) == b"\1"  # downloaded again
        assert kept() == ["1.tar", "2.tar", "index.arrow"]
        one = ShardFiles(root, str(cache), limit=1e-9)
        assert one.read("0.tar", Place(0, 1)) == b"\0"  # a file that is larger than the limit is alone
        assert kept() == ["0.tar", "index.arrow"]
        with pytest.raises(MediaError, match=r"memory://many/shards/9\.tar"):
            files.read("9.tar", Place(0, 1))
    finally:
        memory.rm("/many", recursive=True)


def test_splits_labels_and_recordings_travel(tmp_path):
    paths = make_clips(tmp_path / "videos", 4, 2.0)
    lines = ["file,label,start,end,split,recording"]
    lines += [
        f"{path.name},{label},0,1.5,{split},{rec}"
        for path, label, split, rec in zip(
            paths, ["10", "9", "10", "9"], ["train", "train", "train", "test"], "xxyz", strict=True
        )
    ]
    write(tmp_path / "videos" / "list.csv", "\n".join(lines) + "\n")
    rows = read_folder(tmp_path / "videos")
    by_split = {split: rows.filter(lambda row, split=split: row["split"] == split) for split in ("train", "test")}
    preparation = Preparation(by_split, str(tmp_path / "videos"), ABOUT, ENCODING)
    list(prepare(preparation, tmp_path / "out"))
    finish(preparation, tmp_path / "out")
    options = {"name": "shards", "path": str(tmp_path / "out")}
    train = build_dataset(options, MODEL, "train", True, 0)
    test = build_dataset(options, MODEL, "test", False, 0)
    assert train.label_names == ["9", "10"]
    assert train.classes() == [[1], [0], [1]]
    assert [row["path"] for row in test.rows] == [f"videos/{paths[3].name}"]
    assert test.rows[0]["image_end"] == 1.5
    with pytest.raises(ValueError, match="has no validation split"):
        build_dataset(options, MODEL, "validation", False, 0)
    held = build_dataset(options | {"validation_fraction": 0.5}, MODEL, "validation", False, 0)
    rest = build_dataset(options | {"validation_fraction": 0.5}, MODEL, "train", True, 0)
    recordings = [{row["recording"] for row in part.rows} for part in (held, rest)]
    assert recordings[0] ^ recordings[1] == {"x", "y"}
    moved = rest.with_classes(["z", "10"], {"10": 1})
    assert {tuple(row) for row in moved.classes()} == {(1,)}
    assert moved[0]["label"] == 1
    assert DeepAVFusionProcessor.from_config(MODEL).num_frames == 1


def copy_of(out, tmp_path) -> Path:
    """A copy of a prepared data set that a test may damage."""
    return Path(shutil.copytree(out, tmp_path / "copy"))


def refusal(root, **options) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        build_dataset({"name": "shards", "path": str(root), **options}, MODEL, "train", True, 0)
    assert outcome(caught.value)[0] == BAD_INPUT
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.6, 0.97])
def test_a_truncated_index_is_named(prepared, tmp_path, fraction):
    root = copy_of(prepared[1], tmp_path)
    content = (root / "index.arrow").read_bytes()
    (root / "index.arrow").write_bytes(content[: int(len(content) * fraction)])
    told = refusal(root)
    assert told.startswith(f"{root}/index.arrow is damaged or incomplete; copy it again from where it was prepared, or")


def test_an_index_of_other_bytes_clips_or_columns_is_named(prepared, tmp_path):
    import pyarrow as pa

    root = copy_of(prepared[1], tmp_path)
    path = root / "index.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()

    def write_index(table):
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for part in (table.slice(0, 1), table.slice(0, 0), table.slice(1)):
            writer.write_batch(pa.RecordBatch.from_pylist(part.to_pylist(), table.schema))
    assert len(read_shards(str(root))) == len(table)  # the same clips in other batches, one of them empty
    path.write_bytes(b"no index at all")
    assert f"{path} is damaged or incomplete; " in refusal(root)
    write_index(table.slice(0, len(table) - 1))
    assert f"{path} has {len(table) - 1} clips, expected {len(table)}, as dataset.json says" in refusal(root)
    write_index(pa.concat_tables([table.slice(0, len(table) - 1), table.slice(1, 1)]))
    assert f"{path} names the clip {table['path'][1]} twice; " in refusal(root)
    write_index(table.drop_columns(["shard"]))
    assert "is not the index of a prepared data set: it has no column 'shard'" in refusal(root)
    path.unlink()
    assert f"Expected the index of a prepared data set at {path}, found none" in refusal(root)


def test_missing_shards_are_named_at_the_start(prepared, tmp_path):
    root = copy_of(prepared[1], tmp_path)
    shards = sorted((root / "shards").iterdir())
    shards[-1].unlink()
    told = refusal(root)
    assert f"1 of {len(shards)} shards are missing in {root}/shards, first: {shards[-1].name}; copy them again" in told


def test_a_broken_shard_names_its_clips(prepared, tmp_path):
    root = copy_of(prepared[1], tmp_path)
    clips = build_dataset({"name": "shards", "path": str(root)}, MODEL, "train", True, 0)
    shard = root / "shards" / clips.rows[0]["shard"]
    content = shard.read_bytes()
    shard.write_bytes(content[:1000])
    assert f"{shard}: expected at least " in clips[0].reason
    shard.write_bytes(bytes(len(content)))
    assert clips[0].path == clips.rows[0]["path"]
    assert f" in {root}/shards/{shard.name}, but " in clips[0].reason


def test_a_damaged_copy_of_a_remote_index_is_replaced(prepared, tmp_path):
    """Of another size, by downloading it again; of the same size, it is named with what to do."""
    import fsspec

    memory, cache = fsspec.filesystem("memory"), tmp_path / "cache"
    memory.put(str(prepared[1]), "/damaged", recursive=True)
    try:
        read_shards("memory://damaged", str(cache))
        (copy,) = cache.glob("*/index.arrow")
        whole = copy.read_bytes()
        copy.write_bytes(whole[:-100])
        read_shards("memory://damaged", str(cache))
        assert copy.read_bytes() == whole
        copy.write_bytes(bytes(len(whole)))
        told = refusal("memory://damaged", cache_dir=str(cache))
        assert told.startswith("memory://damaged/index.arrow is damaged or incomplete; delete its copy ")
        assert f"delete its copy {copy}, and it is downloaded again" in told
    finally:
        memory.rm("/damaged", recursive=True)


@pytest.mark.parametrize(
    ("size", "shape", "reduced"),
    [
        ((64, 64), (256, 256), (128, 128)),
        ((66, 66), (256, 256), (256, 256)),
        ((80, 80), (256, 456), (128, 228)),
        ((96, 96), (256, 456), (256, 456)),
        ((30, 30), (256, 256), (64, 64)),
        ((64, 64), (256, 4000), (128, 2000)),
        (None, (256, 256), (256, 256)),
    ],
)
def test_frames_are_reduced_where_crops_stay_larger_than_the_input(prepared, monkeypatch, size, shape, reduced):
    """The same part of a reduced frame differs by less than a level of 255 on average."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([127 + 90 * np.sin(rows / 20 + columns / k) for k in (15, 25, 60)], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="jpeg", quality=90)
    reader = ShardReader(str(prepared[1]), size=size)
    monkeypatch.setattr(reader.files, "read", lambda shard, place: file.getvalue())
    row = {"shard": "a.tar", "path": "a.mp4"}
    found = reader._frame(row, Place(0, 0))
    assert found.shape == (*reduced, 3)
    if size is None or reduced == shape:
        return
    reader.size = None
    whole, factor = reader._frame(row, Place(0, 0)), shape[0] // reduced[0]
    side = int(np.sqrt(0.375 * shape[0] * min(shape[1], 456))) // 8 * 8  # of about the smallest crop
    parts = [whole[8 : 8 + side, 16 : 16 + side], found[8 // factor : (8 + side) // factor, 16 // factor :]]
    parts[1] = parts[1][:, : side // factor]
    pixels = [resize(torch.from_numpy(part.copy()).movedim(-1, 0), size, exact=False).float() for part in parts]
    assert (pixels[0] - pixels[1]).abs().mean() < 1


def test_evaluation_reads_whole_frames(prepared):
    options = {"name": "shards", "path": str(prepared[1])}
    assert build_dataset(options, MODEL, "test", False, 0).reader.size is None
    assert build_dataset(options, MODEL, "train", True, 0).reader.size == (32, 32)
