"""Prepared shards with `datasets` and `webdataset`, and preparation by an executor of datatrove."""

import io
import json
import re
from pathlib import Path

import pytest
import torch

from deepavfusion.processors import load_clip
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.shards import Encoding, finish, prepare
from deepavfusion.training.prepare import preparation_of
from tests.training.data.disk import MODEL, make_clips, put
from tests.training.data.sets.test_avsbench import make_semantic
from tests.training.data.sets.test_localization_sets import make_vggss_clips

from .processes import DOCS, ffmpeg_libraries, run

pytestmark = pytest.mark.ecosystem

FOLDER = '"clips_per_shard": 1, "name": "folder", "path": "VIDEOS"'
MAKE = {"avsbench": make_semantic, "vggss": make_vggss_clips}


@pytest.fixture(scope="module", params=["folder", "avsbench", "vggss"])
def shards(request, tmp_path_factory) -> list[Path]:
    """Shards of videos, of frames with masks, and of clips with boxes."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        for k, clip in enumerate(make_clips(root / "made", 4)):
            put(clip, root / "set" / "ab"[k % 2] / f"{k}.mp4")
    else:
        MAKE[request.param](root / "set")
    preparation = preparation_of({"name": request.param, "path": str(root / "set")}, Encoding(fps=5), 3)
    list(prepare(preparation, root / "out"))
    finish(preparation, root / "out")
    return sorted((root / "out" / "shards").iterdir())


def test_datasets_loads_them(shards, tmp_path):
    found = run(
        """
import json, sys
from datasets import load_dataset
rows = load_dataset("webdataset", data_files=sys.argv[1:], split="train")
streamed = list(load_dataset("webdataset", data_files=sys.argv[1:], split="train", streaming=True))
first = rows[0]
samples = first["flac"].get_all_samples()
print(json.dumps([
    [row["__key__"] for row in streamed], rows["__key__"][:], rows.column_names, first["json"]["source"],
    samples.sample_rate, list(samples.data.shape), list(first["mov"][0].shape), len(first["mov"]),
]))
""",
        tmp_path,
        *shards,
        libraries=ffmpeg_libraries(tmp_path / "libraries"),
    )
    streamed, keys, columns, source, rate, (channels, samples), (colors, *size), frames = found
    assert streamed == keys
    assert len(set(keys)) == len(keys) > 1
    assert {"mov", "flac", "json"} <= set(columns)
    assert ("masks.mov" in columns) == ("audio.wav" in source)
    assert (rate, channels, colors) == (16_000, 1, 3)
    assert samples >= 2 * rate
    assert size == [48, 64]
    assert frames >= 1


def test_webdataset_reads_them(shards):
    import webdataset

    rows = list(webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False))
    out = shards[0].parents[1]
    about = json.loads((out / "dataset.json").read_text())
    assert len(rows) == sum(about["splits"].values())
    assert [row["__key__"] for row in rows] == sorted(row["__key__"] for row in rows)
    for row in rows:
        fields = json.loads(row["json"])
        clip = load_clip(io.BytesIO(row["mov"]))
        assert clip.frames.shape == (1, 48, 64, 3)
        seconds = fields["audio_end"] - fields["audio_start"]
        sound = load_clip(io.BytesIO(row["flac"]), seconds=seconds)
        assert sound.waveform.shape[1] == pytest.approx(16_000 * seconds, abs=2)
        assert ("masks.mov" in row) == (about["kind"] == "masks")


def test_the_page_prepares_with_an_executor(tmp_path, monkeypatch):
    """With the executor of one machine in place of Slurm's; what it has completed is not repeated."""
    for k, clip in enumerate(make_clips(tmp_path / "made", 4)):
        put(clip, tmp_path / "VIDEOS" / "ab"[k % 2] / f"{k}.mp4")
    (snippet,) = re.findall(r"```python\n(.*?)```", (DOCS / "cluster.md").read_text(), re.DOTALL)
    slurm = re.search(r"^slurm = \{.*\}$", snippet, re.MULTILINE)[0]
    assert {"partition", "time"} <= set(re.findall(r'"(\w+)":', slurm))
    local = snippet.replace("SlurmPipelineExecutor", "LocalPipelineExecutor").replace(slurm, 'slurm = {"workers": 2}')
    local = local.replace("tasks=64", "tasks=3").replace('"name": "vggsound", "path": "VGGSOUND"', FOLDER)
    for _ in range(2):
        run(f'if __name__ == "__main__":\n{re.sub("^", "    ", local, flags=re.MULTILINE)}', tmp_path)
    assert sorted(path.name for path in (tmp_path / "LOGS" / "shards" / "completions").iterdir()) == [
        f"{rank:05d}" for rank in range(3)
    ]
    clips = build_dataset({"name": "shards", "path": str(tmp_path / "PREPARED")}, MODEL, "train", True, 0)
    assert clips.label_names == ["a", "b"]
    assert torch.isfinite(clips[0]["pixel_values"]).all()
    preparation = preparation_of({"name": "folder", "path": str(tmp_path / "VIDEOS")}, Encoding(), 1)
    list(prepare(preparation, tmp_path / "again"))
    finish(preparation, tmp_path / "again")
    for path in (tmp_path / "again").rglob("*"):
        if path.is_file():
            assert (tmp_path / "PREPARED" / path.relative_to(tmp_path / "again")).read_bytes() == path.read_bytes()
