"""Published lists of clips, and overlaps."""

import logging

import pytest

from deepavfusion.training.data.sets.lists import (
    ImageAudioPair,
    Listed,
    clip_key,
    read_list,
    read_test_pairs,
    report_overlap,
)
from tests.training.data.disk import SAMPLES, write


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("---g-f_I2yQ_000001", "---g-f_I2yQ_000001"),
        ("clips/dog/-0BIyqJj9ZU_000030_000040.mp4", "-0BIyqJj9ZU_000030"),
        ("glLQrEijrKg_000300.mp4", "glLQrEijrKg_000300"),
        ("-0BIyqJj9ZU_30000_40000", "-0BIyqJj9ZU_000030"),
        ("--U7joUcTCo_0_10000", "--U7joUcTCo_000000"),
        ("-1EXhfqLLwQ_150000_160000", "-1EXhfqLLwQ_000150"),
        ("HnUOaSfTA6c_000_00007", "HnUOaSfTA6c_000_00007"),
        ("K_U5-GbPgi0_098_02961", "K_U5-GbPgi0_098_02961"),
        ("0WxgIKuetYI_0_1", "0WxgIKuetYI_0_1"),
        ("10000130166", "10000130166"),
        (" 10000130166.JPG ", "10000130166"),
    ],
)
def test_keys(name, key):
    assert clip_key(name) == key


def test_list_formats(tmp_path):
    plain = write(tmp_path / "a.txt", "zpWuikVorYg_000032\r\n\r\ngEvCUcZ6w88_000030\r\n")
    assert read_list(plain) == [Listed("zpWuikVorYg_000032", None), Listed("gEvCUcZ6w88_000030", None)]
    commas = write(tmp_path / "b.csv", '--iY3Bf4hDg_000030,violin,_fiddle\n-2Dm0VjW8oM_000001,"pigeon, dove cooing"\n')
    assert [entry.label for entry in read_list(commas)] == ["violin,_fiddle", "pigeon, dove cooing"]
    tabs = write(tmp_path / "c.tsv", "\ufeffid\tlabel\n--96EN9NUQM_000242\talarm clock, ringing\n")
    assert read_list(tabs) == [Listed("--96EN9NUQM_000242", "alarm clock, ringing")]
    videos = write(tmp_path / "d.json", '{"version": 1.0, "videos": {"flute violin": ["8DHG_hVSw1o"]}}')
    assert read_list(videos) == [Listed("8DHG_hVSw1o", "flute violin")]
    boxes = write(tmp_path / "e.json", '[{"file": "x_000001", "class": "cat", "bbox": []}]')
    assert read_list(boxes) == [Listed("x_000001", "cat")]


def test_invalid_lists_raise(tmp_path):
    with pytest.raises(ValueError, match="Expected names of clips"):
        read_list(write(tmp_path / "a.csv", "id,label\n"))
    with pytest.raises(ValueError, match='objects with "file"'):
        read_list(write(tmp_path / "b.json", '{"cat": 1}'))


def test_pairs_of_frames_and_audio(tmp_path):
    path = write(tmp_path / "a.csv", "video,audio,label\r\n1,2,non-sounding\r\n3,3,tap dancing\r\n")
    assert read_test_pairs(path) == [ImageAudioPair("1", "2", True), ImageAudioPair("3", "3", False)]
    own = write(tmp_path / "b.csv", "1,202\n3,0\n")
    assert read_test_pairs(own) == [ImageAudioPair("1", "1", False), ImageAudioPair("3", "3", False)]
    with pytest.raises(ValueError, match="row 2"):
        read_test_pairs(write(tmp_path / "c.csv", "video,audio,label\n1\n"))
    with pytest.raises(ValueError, match="Expected names of clips"):
        read_test_pairs(write(tmp_path / "d.csv", "video,audio,label\n"))


def test_overlaps_are_reported_whether_dropped_or_not(caplog):
    with caplog.at_level(logging.WARNING):
        kept, note = report_overlap("set", ["a", "b", "c"], {"b", "x"}, drop=False)
        assert (kept, note) == ([0, 1, 2], "1 of 3 training clips are test clips, kept")
        assert "data.drop_overlap=true" in caplog.text
        caplog.clear()
        kept, note = report_overlap("set", ["a", "b", "c"], {"b", "x"}, drop=True)
        assert (kept, note) == ([0, 2], "1 of 3 training clips are test clips, left out")
        assert "first: b" in caplog.text
        caplog.clear()
        assert report_overlap("set", ["a"], {"x"}, drop=True) == ([0], "")
        assert not caplog.text


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no annotation samples in ../shared/media")
def test_real_lists():
    entries = {path.name: read_list(path) for path in SAMPLES.glob("head_stoneMo_*")}
    assert len(entries) == 20
    assert all(len(found) >= 19 for found in entries.values())
    vggsound = [
        name for name in entries if "vggss" in name or name.endswith(("vggsound_test.csv", "vggmusic_train.txt"))
    ]
    assert len(vggsound) == 8
    for name in vggsound:
        assert all(len(entry.key) == 18 and entry.key[12:].isdigit() for entry in entries[name]), name
    assert read_list(SAMPLES / "head_v-iashin_data_vggsound_test.txt")[0].key == "---g-f_I2yQ_000001"
    assert read_list(SAMPLES / "head_hkchengrex_sets_vgg-val.tsv")[3].label == "playing violin, fiddle"
    assert read_list(SAMPLES / "head_hche11_data_AStest.csv")[0].key == "glLQrEijrKg_000300"
    assert read_list(SAMPLES / "head_swimmiing_AVSBench_metadata_avs1_ms3_test.csv")[0] == ("0WxgIKuetYI_0_1", "man")
    silent = read_test_pairs(SAMPLES / "head_swimmiing_Flickr_metadata_flickr_test_plus_silent.csv")
    assert silent[0] == ImageAudioPair("10000130166", "10437048305", True)
    train = [entry.key for entry in entries["head_stoneMo_metadata_vggss_144k.txt"]]
    test = [entry.key for entry in entries["head_stoneMo_metadata_vggsound_test.csv"]]
    assert report_overlap("VGG-SS", train, test, drop=True)[1] == "1 of 20 training clips are test clips, left out"
