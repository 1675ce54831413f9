"""The benchmark of files and shards."""

import json

from deepavfusion.training.experiments import benchmark_data
from tests.training.data.disk import make_clips


def test_files_and_shards_are_compared(tmp_path, capsys):
    make_clips(tmp_path / "videos", 3, 1.0)
    out = tmp_path / "found.json"
    assert benchmark_data.main([str(tmp_path / "videos"), "--size", "32", "--repeats", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    rates = found["clips_per_second"]
    assert found["ratio"] == round(rates["shards"] / rates["files"], 1)
    assert found["clips"] == 2  # of three, one is held out
    assert 0 < found["megabytes_per_clip"] < 1
