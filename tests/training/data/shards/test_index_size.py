"""Large indices are mapped into memory: opening one reads its columns of splits alone."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from deepavfusion.training.data.shards import Encoding, finish, prepare
from deepavfusion.training.prepare import preparation_of
from tests.warm import warm_python

from ..disk import make_clips, put

# Prints how long the training split takes to open, how much memory that takes, and what a sample is.
OPEN = """
import json, resource, sys, time
import deepavfusion.training.runs.run
from deepavfusion.training.data import build_dataset
from tests.training.data.disk import MODEL

def memory():  # anonymous memory in bytes, and with it all that is in memory of mapped files
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS")]

options = {"name": "shards", "path": sys.argv[1]}
build_dataset(options | {"path": sys.argv[2]}, MODEL, "train", True, 0)  # imports all that it needs
anonymous, whole = memory()
start = time.perf_counter()
clips = build_dataset(options, MODEL, "train", True, 0)
seconds = time.perf_counter() - start
after = memory()
sample = clips[len(clips) - 1]
print(json.dumps({
    "clips": len(clips), "seconds": seconds, "anonymous": after[0] - anonymous, "memory": after[1] - whole,
    "shape": list(sample["pixel_values"].shape), "path": sample["path"],
}))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A prepared data set of two splits."""
    root = tmp_path_factory.mktemp("small")
    (clip,) = make_clips(root / "made", 1)
    put(clip, *(root / "set" / split / label / f"{split}.mp4" for split in ("train", "test") for label in "ab"))
    preparation = preparation_of({"name": "folder", "path": str(root / "set")}, Encoding(fps=5, short_side=48), 8)
    list(prepare(preparation, root / "out"))
    assert finish(preparation, root / "out").clips == 4
    return root / "out"


def enlarge(small: Path, out: Path, count: int) -> int:
    """Writes an index whose entries are those of the small one, again and again; gives its size in bytes.

    Only the last entry of a split has the place of its audio; those of the others ascend to it.
    """
    table = Dataset.from_file(str(small / "index.arrow")).data.table.combine_chunks()
    split = table.column("split").to_pylist()
    batch, place = 1000, table.column_names.index("audio_offset")
    out.mkdir()
    (out / "shards").symlink_to(small / "shards")
    about = json.loads((small / "dataset.json").read_text())
    about["splits"] = {"train": count - batch, "test": batch}
    (out / "dataset.json").write_text(json.dumps(about))
    with pa.OSFile(str(out / "index.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for name, number in about["splits"].items():
            own = np.flatnonzero(np.asarray(split) == name)
            rows = table.take(pa.array(np.resize(own, batch))).combine_chunks()
            last = rows.column(place)[-1].as_py() + 1
            for k in range(0, number, batch):
                offsets = pa.array(np.arange(batch) + last + k - number)
                for part in rows.set_column(place, "audio_offset", offsets).to_batches():
                    writer.write_batch(part)
    return (out / "index.arrow").stat().st_size


@pytest.mark.parametrize(
    ("count", "most"), [(50_000, 20e6), pytest.param(2_000_000, 300e6, marks=pytest.mark.slow)], ids=str
)
def test_large_indices_open_at_once(small, tmp_path, count, most):
    size = enlarge(small, tmp_path / "large", count)
    line = [warm_python(), "-c", OPEN, str(tmp_path / "large"), str(small)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{count:,} entries, {size / 1e6:,.0f} MB: {found}")
    assert found["clips"] == count - 1000
    assert found["shape"] == [3, 32, 32]
    assert found["path"].startswith("set/train/")
    assert found["memory"] < most
    assert found["anonymous"] < size / 4
    assert found["seconds"] < 2
