"""MUSIC, and VGGSound-Music."""

import logging
from pathlib import Path

import pytest

from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sets import music
from deepavfusion.training.data.sets.folder import label_info
from deepavfusion.training.data.sets.lists import read_list
from deepavfusion.training.data.sets.music import instruments_of, published_split, read_music, video_of
from deepavfusion.training.data.sets.vggsound_music import Pair, instrument_name, read_instruments, read_pairs
from deepavfusion_cli.early.data import MUSIC_LISTS
from tests.training.data.disk import MODEL, SAMPLES, make_clips, put, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("music"), 1)[0]


def test_the_published_split():
    solos, duets = {f"{i:011d}" for i in range(536)}, {f"d{i:010d}" for i in range(173)}
    split = published_split(solos, duets)
    assert sorted(split.test) == sorted(solos)[::4]  # 536 // 130
    assert sorted(split.aside) == sorted(duets)[::2]  # 173 // 85
    assert split.train == (solos | duets) - split.test - split.aside
    assert published_split(solos, set()).train == solos - split.test
    few = published_split(set("abcdef"), set())
    assert (few.test, few.train) == (set("ace"), set("bdf"))
    both = published_split({"a", "b"}, {"b", "c", "d"})  # a video that is in both lists is a solo
    assert both.train == {"b", "d"}
    assert both.aside == {"c"}


@pytest.mark.parametrize("header", ["youtube_url,instrument", "youtube_id,class", "id,label"])
def test_headers_of_lists_are_no_videos(tmp_path, header):
    lines = [f"video-{i:05d},flute" for i in range(3)]
    (tmp_path / MUSIC_LISTS["solo"][0]).write_text("\n".join([header, *lines]))
    assert [entry.key for entry in music._read_videos(tmp_path, "solo")] == [f"video-{i:05d}" for i in range(3)]


def test_duets_are_split_into_instruments():
    known = {"flute", "violin", "acoustic_guitar", "saxophone"}
    assert instruments_of("flute_violin", known) == ["flute", "violin"]
    assert instruments_of("saxophone_acoustic_guitar", known) == ["saxophone", "acoustic_guitar"]
    assert instruments_of("acoustic_guitar_violin", known) == ["acoustic_guitar", "violin"]
    assert instruments_of("cello_acoustic_guitar", known) == ["cello", "acoustic_guitar"]
    for name in ("violin", "drum_kit"):
        with pytest.raises(ValueError, match=f"Expected a duet .*'{name}'"):
            instruments_of(name, known)


def make_music(clip: Path, root: Path) -> None:
    """Eight solos of two instruments, and four duets."""
    solos = [(f"video-{i:05d}", "flute" if i % 2 else "acoustic guitar") for i in range(8)]
    duets = [(f"duet--{i:05d}", "flute acoustic_guitar") for i in range(4)]
    for name, rows in (("music_solo.csv", solos), ("music21_duet.csv", duets)):
        lines = ["youtube,instrument,split", *(f"{video},{label},whatever" for video, label in rows), ""]
        write(root / "anno" / name, "\r\n".join(lines))
    for video, label in solos[:-1] + duets:
        folder = root / "clips_360p_segm" / label.replace(" ", "_")
        put(clip, *(folder / f"{video}.{part}.mp4" for part in range(1 + (video == "video-00000"))))
    put(clip, root / "clips_360p_segm" / "flute" / "not_listed_.0.mp4")


def test_music_layout(clip, tmp_path, caplog):
    make_music(clip, tmp_path)
    with caplog.at_level(logging.WARNING):
        rows = read_music(tmp_path)
    assert "1 of 8 annotated clips are missing, first: flute/video-00007" in caplog.text
    assert label_info(rows) == (["acoustic_guitar", "flute"], False)
    assert len(rows) == 8  # seven videos, one of them in two parts
    names = {Path(row["path"]).name: (row["label"], row["split"]) for row in rows}
    assert names["video-00000.0.mp4"] == names["video-00000.1.mp4"] == (0, "test")
    assert names["video-00001.0.mp4"] == (1, "train")
    assert {video_of(path) for path in read_music(tmp_path, "solo", "test")["path"]} == {
        f"video-{i:05d}" for i in (0, 2, 4, 6)
    }
    both = read_music(tmp_path, "music", "train")
    assert label_info(both) == (["acoustic_guitar", "flute"], True)
    labels = {video_of(row["path"]): row["label"] for row in both}
    assert labels == {
        **{f"video-{i:05d}": [1] for i in (1, 3, 5)},
        **{f"duet--{i:05d}": [1, 0] for i in (1, 3)},
    }


def test_music_clips(clip, tmp_path):
    make_music(clip, tmp_path)
    settings = {"name": "music", "path": str(tmp_path), "subset": "music"}
    train = build_dataset(settings, MODEL, "train", True, 0)
    assert train.multi_label
    assert train[0]["label"].tolist() in ([0.0, 1.0], [1.0, 1.0])
    held = settings | {"validation_fraction": 0.4}
    kept, out = (build_dataset(held, MODEL, split, False, 0) for split in ("train", "validation"))
    videos = [{video_of(path) for path in clips.rows["path"]} for clips in (train, kept, out)]
    assert videos[1] | videos[2] == videos[0]
    assert not videos[1] & videos[2]
    assert len(videos[2]) == 2
    test = build_dataset(settings | {"subset": "solo"}, MODEL, "test", False, 0, task="separation")
    assert test[0]["waveforms"].shape == (2, 16000)
    groups = [(test.groups[a], test.groups[b]) for a, b in test.pairs]
    assert all(first != second for first, second in groups)
    with pytest.raises(ValueError, match="data.subset of music must be one of solo, solo21, music, got 'duo'"):
        build_dataset(settings | {"subset": "duo"}, MODEL, "train", True, 0)


def test_missing_music_raises(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"music_solo\.csv or MUSIC_solo_videos\.json"):
        read_music(tmp_path)
    write(
        tmp_path / "anno" / "MUSIC_solo_videos.json", '{"videos": {"flute": ["video-00000"], "cello": ["video-00001"]}}'
    )
    (tmp_path / "clips").mkdir()
    with pytest.raises(FileNotFoundError, match="None of MUSIC's 2 listed videos"):
        read_music(tmp_path)
    put(clip, tmp_path / "clips" / "cello" / "video-00001.mp4")
    rows = read_music(tmp_path)
    assert label_info(rows)[0] == ["cello", "flute"]
    assert rows["label"] == [0]
    with pytest.raises(ValueError, match="split train or test"):
        read_music(tmp_path, split="validation")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no annotation samples in ../shared/media")
def test_real_music_lists(clip, tmp_path):
    solos = read_list(SAMPLES / "MUSIC_solo_videos.json")
    ids = {entry.key for entry in solos}
    assert len({entry.label for entry in solos}) == 11
    assert sorted(published_split(ids, set()).test) == sorted(ids)[:: len(ids) // 130]
    assert len({entry.label for entry in read_list(SAMPLES / "MUSIC21_solo_videos.json")}) == 21
    known = {entry.label for entry in solos}
    duets = {entry.label for entry in read_list(SAMPLES / "MUSIC_duet_videos.json")}
    assert all(set(instruments_of(label.replace(" ", "_"), known)) <= known for label in duets)
    for name in ("MUSIC_solo_videos.json", "MUSIC_duet_videos.json"):
        write(tmp_path / "anno" / name, (SAMPLES / name).read_text())
    put(clip, tmp_path / "clips" / "flute" / f"{solos[0].key}.mp4")
    rows = read_music(tmp_path, "music")
    assert len(label_info(rows)[0]) == 11
    assert len(rows) == 1


# VGGSound-Music


def test_names_of_instruments():
    assert instrument_name("violin") == instrument_name("violin,_fiddle") == "violin__fiddle"
    assert (
        instrument_name("steel_guitar") == instrument_name("steel guitar, slide guitar") == "steel_guitar__slide_guitar"
    )
    assert instrument_name("bass_guitar") == "bass_guitar"


def make_vggsound_music(clip: Path, root: Path) -> None:
    train = [("a", "violin"), ("b", "cello"), ("c", "violin"), ("d", "flute"), ("gone", "flute")]
    lines = [f"{name * 11:.11}_000030,{label}" for name, label in train]
    write(root / "annotations" / "vggmusic_train.txt", "\n".join(lines) + "\n")
    pairs = [
        "source_1,source_2,class_1,class_2,sep_type",
        f'{"d" * 11}_000030,{"e" * 11}_000030,flute,"violin,_fiddle",Easy',
        f"{'f' * 11}_000030,gone1234567_000010,cello,cello,Hard",
        f"{'e' * 11}_000030,{'f' * 11}_000030,violin,cello,Easy",
    ]
    write(root / "annotations" / "vggmusic_eval_ss.csv", "\r\n".join(pairs) + "\r\n")
    labels = dict(train) | {"e": "violin", "f": "cello"}
    for name in "abcdef":
        folder = root / "clips" / f"playing_{instrument_name(labels[name])}"
        put(clip, folder / f"{name * 11}_000030_000040.mp4")


def test_vggsound_music_layout(clip, tmp_path, caplog):
    make_vggsound_music(clip, tmp_path)
    settings = {"name": "vggsound_music", "path": str(tmp_path)}
    with caplog.at_level(logging.WARNING):
        train = build_dataset(settings, MODEL, "train", True, 0, task="separation")
    assert "1 of 5 annotated clips are missing" in caplog.text
    assert "1 of 4 training clips are test clips, kept" in caplog.text
    assert len(train) == 4
    dropped = build_dataset(settings | {"drop_overlap": True}, MODEL, "train", True, 0, task="separation")
    assert len(dropped) == 3
    assert "1 of 4 training clips are test clips, left out" in dropped.card
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        test = build_dataset(settings, MODEL, "test", False, 0, task="separation")
    assert "1 of 3 annotated clips are missing" in caplog.text
    names = [[Path(part).name[0] for part in test.describe(i).split(" + ")] for i in range(len(test))]
    assert names == [["d", "e"], ["e", "d"], ["e", "f"], ["f", "e"]]
    assert test[3]["waveforms"].shape == (2, 16000)
    limited = build_dataset(settings | {"eval_size": 2}, MODEL, "test", False, 0, task="separation")
    assert len(limited) == 2


def test_vggsound_music_labels_and_test_split(clip, tmp_path):
    make_vggsound_music(clip, tmp_path)
    settings = {"name": "vggsound_music", "path": str(tmp_path)}
    train = build_dataset(settings, MODEL, "train", False, 0)
    test = build_dataset(settings, MODEL, "test", False, 0)
    assert train.label_names == test.label_names == ["cello", "flute", "violin__fiddle"]
    assert {Path(s["path"]).name[0]: s["label"] for s in test.__getitems__(range(3))} == {"d": 1, "e": 2, "f": 0}
    write(
        tmp_path / "annotations" / "vggsound.csv", f"{'a' * 11},30,playing violin fiddle,test\n{'b' * 11},30,x,train\n"
    )
    dropped = build_dataset(settings | {"drop_overlap": True}, MODEL, "train", False, 0)
    assert {Path(path).name[0] for path in dropped.rows["path"]} == {"b", "c"}
    share = settings | {"validation_fraction": 0.5}
    halves = [build_dataset(share, MODEL, split, False, 0) for split in ("train", "validation")]
    assert sorted(len(half) for half in halves) == [2, 2]


def test_missing_vggsound_music_raises(clip, tmp_path):
    settings = {"name": "vggsound_music", "path": str(tmp_path)}
    with pytest.raises(FileNotFoundError, match=r"list vggmusic_train\.txt at"):
        build_dataset(settings, MODEL, "train", True, 0)
    with pytest.raises(FileNotFoundError, match=r"list vggmusic_eval_ss\.csv at"):
        build_dataset(settings, MODEL, "test", False, 0, task="separation")
    make_vggsound_music(clip, tmp_path)
    (tmp_path / "annotations" / "vggmusic_eval_ss.csv").unlink()
    assert len(build_dataset(settings, MODEL, "train", True, 0)) == 4
    with pytest.raises(FileNotFoundError, match=r"vggmusic_eval_ss\.csv"):  # needed to drop the overlap
        build_dataset(settings | {"drop_overlap": True}, MODEL, "train", True, 0)
    with pytest.raises(ValueError, match="1 clips have no instrument, first: aaaaaaaaaaa_000030"):
        read_instruments(write(tmp_path / "bare.txt", "aaaaaaaaaaa_000030\n"))
    with pytest.raises(ValueError, match="expected the columns source_1"):
        read_pairs(write(tmp_path / "columns.csv", "a,b\n"))
    header = "source_1,source_2,class_1,class_2\n"
    with pytest.raises(ValueError, match="line 2: expected two clips"):
        read_pairs(write(tmp_path / "short.csv", header + "a,b,c,\n"))
    with pytest.raises(ValueError, match="Expected pairs of clips"):
        read_pairs(write(tmp_path / "none.csv", header))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no annotation samples in ../shared/media")
def test_real_vggsound_music_lists():
    pairs = read_pairs(SAMPLES / "head_stoneMo_metadata_vggmusic_eval_ss.csv")
    assert len(pairs) == 19
    assert pairs[11] == Pair(
        ("P5tsRM1iokA_000030", "-Y-UegG9tLw_000282"), ("steel_guitar__slide_guitar", "cornet"), "Easy"
    )
    assert all((pair.kind == "Hard") == (pair.instruments[0] == pair.instruments[1]) for pair in pairs)
    short = read_instruments(SAMPLES / "head_stoneMo_metadata_vggmusic_train.txt")
    long = read_instruments(SAMPLES / "head_stoneMo_metadata_vgginstruments_train.txt")
    assert {"violin__fiddle", "steel_guitar__slide_guitar"} < set(short.values())
    assert all(short[key] == long[key] for key in short.keys() & long.keys())
