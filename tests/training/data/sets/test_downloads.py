"""Copies of public data sets as they are after the download: accepted, or answered with how to get there."""

import json
import re

import pytest

from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sets.audioset import read_audioset
from deepavfusion.training.data.sets.avsbench import read_avsbench
from deepavfusion.training.data.sets.folder import read_folder
from deepavfusion.training.data.sets.music import read_music
from deepavfusion.training.data.sets.vggsound import read_vggsound
from deepavfusion.training.data.sets.vggsound_music import read_training_clips
from deepavfusion_cli.early.contents import contents
from tests.training.data.disk import MODEL, make_clips, put, write

IDS = ("-0BIyqJj9ZU", "__2MwJ2uHu0", "zpWuikVorYg")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def vggsound(tmp_path):
    rows = (f'{video},{30 + k},"playing violin, fiddle",train' for k, video in enumerate(IDS))
    return write(tmp_path / "vggsound.csv", "\r\n".join(rows) + "\r\n").parent


def audioset(root):
    write(root / "class_labels_indices.csv", 'index,mid,display_name\n0,/m/0,"Speech"\n')
    write(root / "eval_segments.csv", "".join(f"{video}, 30.000, 40.000, /m/0\n" for video in IDS))


@pytest.mark.parametrize(
    "names",
    [
        ("{}_30.mp4", "{}_31.webm", "{}_32.mkv"),  # flat
        ("video/{}_30_40.mp4", "train/dog/{}_000031.MP4", "b/{}_32000_42000.mkv"),
        ("scratch/VGGSound_final/video/{}_000030.mp4", "video/Y{}_31.0_41.0.mp4", "clips.tmp/{}.mp4"),
    ],
)
def test_vggsound_anywhere_below_the_root_with_its_csv(vggsound, names):
    touch(*(vggsound / name.format(video) for name, video in zip(names, IDS, strict=True)))
    assert len(read_vggsound(vggsound, "train")) == 3


def test_audioset_without_a_folder_of_clips(tmp_path):
    audioset(tmp_path)
    touch(tmp_path / "video" / "eval_segments" / f"Y{IDS[0]}.mp4", tmp_path / f"{IDS[2]}_30.webm")
    assert len(read_audioset(tmp_path, ("eval",))) == 2


def test_music_in_folders_of_any_name_and_as_yt_dlp_names_it(tmp_path):
    lists = {"flute": list(IDS[:2]), "acoustic guitar": [IDS[2]]}
    write(tmp_path / "MUSIC_solo_videos.json", json.dumps({"videos": lists}))
    duets = {"videos": {"acoustic guitar flute": [IDS[2]]}}
    write(tmp_path / "MUSIC_duet_videos.json", json.dumps(duets))
    touch(
        tmp_path / "videos" / f"{IDS[0]}.mp4",
        tmp_path / f"Bach - Sonata [{IDS[1]}].webm",
        tmp_path / "solo" / "acoustic_guitar" / f"{IDS[2]}.mkv",
    )
    rows = read_music(tmp_path)
    assert sorted(zip(rows["recording"], rows["label"], strict=True)) == [(IDS[0], 1), (IDS[1], 1), (IDS[2], 0)]
    both = read_music(tmp_path, "music")  # the solo is not taken for the duet that has the same id
    assert [label for video, label in zip(both["recording"], both["label"], strict=True) if video == IDS[2]] == [[0]]


def test_vggss_with_clips_outside_of_a_folder_clips(tmp_path):
    write(tmp_path / "vggss.json", json.dumps([{"file": f"{IDS[0]}_000030", "bbox": [[0, 0, 0.5, 0.5]]}]))
    put(make_clips(tmp_path / "made", 1, seconds=6.0)[0], tmp_path / "VGGSound" / f"{IDS[0]}_30.mp4")
    clips = build_dataset({"name": "vggss", "path": str(tmp_path)}, MODEL, "test", False, 0, task="localization")
    assert clips[0]["labels"].any()


def test_a_flat_folder_with_labels_in_a_csv(tmp_path):
    touch(*(tmp_path / "videos" / name for name in (f"{IDS[0]}.mp4", f"{IDS[1]}.webm", f"{IDS[2]}.MKV")))
    write(tmp_path / "labels.csv", "file,label\n" + "".join(f"videos/{video},dog\n" for video in IDS))
    assert len(read_folder(tmp_path)) == 3


def message(read, *arguments):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


READERS = {
    "vggsound": lambda root: read_vggsound(root, "train"),
    "audioset": lambda root: read_audioset(root, ("eval",)),
    "vggsound_music": read_training_clips,
    "music": read_music,
    "folder": read_folder,
}


@pytest.fixture(params=READERS)
def reader(request, vggsound):
    """Reads a data set that has its lists, and no clips yet."""
    if request.param == "audioset":
        audioset(vggsound)
    elif request.param == "vggsound_music":
        write(vggsound / "vggmusic_train.txt", f"{IDS[0]}_000030,harp\n")
    elif request.param == "music":
        write(vggsound / "MUSIC_solo_videos.json", json.dumps({"videos": {"flute": list(IDS)}}))
    elif request.param == "folder":
        (vggsound / "vggsound.csv").unlink()
    return lambda: message(READERS[request.param], vggsound)


def test_archives_are_to_be_unpacked(reader, vggsound):
    touch(*(vggsound / f"vggsound_{k:02d}.tar.gz" for k in range(3)))
    command = f"cd {vggsound} && for file in *.tar.gz; do tar -xf $file; done"
    assert f"found no videos but 3 archives: unpack with `{command}`" in reader()


def test_images_beside_audio_are_to_be_made_into_clips(reader, vggsound):
    touch(*(vggsound / "frames" / f"{video}_000030.jpg" for video in IDS))
    touch(*(vggsound / "audio" / f"{video}_000030.wav" for video in IDS))
    text = reader()
    assert "found no videos but 3 images and 3 audio files: make a clip of each pair with `ffmpeg -loop 1" in text


def test_audio_alone_is_not_enough(reader, vggsound):
    touch(*(vggsound / "audio" / "bal_train" / f"{video}.flac" for video in IDS))
    assert "found no videos but 3 audio files: clips hold both images and audio" in reader()


def test_other_videos_are_named(vggsound):
    touch(vggsound / "other.mp4")
    expected = f"expected e.g. playing_violin__fiddle/{IDS[0]}_000030_*.mp4, found 1 video, e.g. other.mp4"
    assert expected in message(read_vggsound, vggsound, "train")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.zip", "unzip a.zip"),
        ("a.tar", "for file in *.tar; do tar -xf $file; done"),
        ("a.tgz", "for file in *.tgz; do tar -xf $file; done"),
        ("a.tar.gz.aa", "cat a.tar.gz* | tar -xz"),
        ("a.tar.gz.part00", "cat a.tar.gz* | tar -xz"),
        ("a.tar.000", "cat a.tar* | tar -x"),
        ("a.zip.001", "7z x a.zip.001"),
        ("a.7z", "7z x a.7z"),
    ],
)
def test_how_archives_are_unpacked(tmp_path, name, command):
    assert contents([tmp_path / name]) == f"found no videos but 1 archive: unpack with `cd {tmp_path} && {command}`"


def test_a_missing_csv_is_told_with_where_it_belongs(tmp_path):
    touch(tmp_path / f"{IDS[0]}_30.mp4")
    text = message(read_vggsound, tmp_path)
    assert f"at {tmp_path}/annotations/vggsound.csv, found none" in text
    assert "put vggsound.csv there, or give data.annotations=FILE" in text


def test_avsbench_one_folder_deeper_or_still_packed(tmp_path):
    touch(tmp_path / "Single-source.zip")
    assert f"found no masks but 1 archive: unpack with `cd {tmp_path} && unzip Single-source.zip`" in message(
        read_avsbench, tmp_path, "s4", "train"
    )
    write(tmp_path / "AVSBench-semantic" / "metadata.csv", "uid,split,label\n")
    assert f"set data.path={tmp_path / 'AVSBench-semantic'}." in message(read_avsbench, tmp_path, "s4", "train")


def test_a_csv_without_names_of_files_is_told_with_its_columns(tmp_path):
    touch(tmp_path / f"{IDS[0]}_30.mp4")
    write(tmp_path / "labels.csv", f"youtube_id,start,label\n{IDS[0]},30,dog\n")
    text = message(read_folder, tmp_path)
    assert re.search(r"labels\.csv, line 2: .*'file' .*got the columns youtube_id, start, label", text)
