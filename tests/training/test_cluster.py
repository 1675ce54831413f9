"""Steps of a preparation on many machines, run one after the other, and by the command's parts."""

import pickle
from pathlib import Path

import pytest

from deepavfusion.training import prepare
from deepavfusion.training.cluster import WriteIndex, WriteShards
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.shards import Encoding, FolderTakenError, claim
from deepavfusion_cli.errors import FAILED
from deepavfusion_cli.preflight import check
from tests.training.data.disk import MODEL, make_clips, put, write

SETTINGS = ["--short-side", "48", "--fps", "5", "--clips-per-shard", "1", "--num-workers", "0"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Four clips and one that cannot be read."""
    root = tmp_path_factory.mktemp("videos")
    (clip,) = make_clips(root / "made", 1, 1.5)
    put(clip, *(root / "set" / "ab"[k % 2] / f"{k}.mp4" for k in range(4)))
    write(root / "set" / "a" / "broken.mp4", "no video")
    return root / "set"


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> dict[str, bytes]:
    """Files of the data set prepared by one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert prepare.main(["prepare", "folder", str(videos), str(out), *SETTINGS]) == FAILED
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tasks_end_with_the_files_of_one_process(videos, whole, tmp_path, caplog):
    settings = {"encoding": Encoding(fps=5, short_side=48), "clips_per_shard": 1}
    data = {"name": "folder", "path": str(videos), "out": str(tmp_path / "out"), **settings}
    shards, index = (pickle.loads(pickle.dumps(step(**data))) for step in (WriteShards, WriteIndex))
    shards(None, 2, 3)
    shards(None, 0, 3)
    with pytest.raises(FileNotFoundError, match=r"clips-000001\.tar is missing"):
        index()
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    assert len(written) == 3
    shards(None, 0, 1)  # whatever is left, in one task
    index()
    assert files(tmp_path / "out") == whole
    assert {name: (tmp_path / "out" / "shards" / name).stat().st_mtime_ns for name in written} == written
    assert "left out: set/a/broken.mp4" in caplog.text
    with pytest.raises(ValueError, match="expected tasks=1, got 2"):
        index(None, 0, 2)
    shards(None, 9, 64)  # more tasks than shards


def test_parts_of_the_command(videos, whole, tmp_path, capsys):
    line = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS, "--no-check-space"]
    for part in ("1/2", "0/2"):
        assert prepare.main([*line, "--part", part]) == 0
        assert not (tmp_path / "out" / "index.arrow").exists()
    assert "part 0 of 2: 3 shards in" in capsys.readouterr().out
    assert prepare.main([*line, "--part", "0/2"]) == 0
    assert "part 0 of 2 was there already, nothing is left to do: 3 shards in" in capsys.readouterr().out
    assert prepare.main(line) == FAILED  # one clip cannot be read
    assert files(tmp_path / "out") == whole
    assert len(build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)) == 2


@pytest.mark.parametrize("part", ["2/2", "1", "-1/2", "a/2", "0/0"])
def test_parts_are_checked(videos, part, capsys):
    with pytest.raises(SystemExit):
        check("data", ["prepare", "folder", str(videos), "out", f"--part={part}"])
    assert "expected K/N, such as 0/8 to 7/8" in capsys.readouterr().err


def test_tasks_begin_at_once(videos, tmp_path):
    """A task that finds what another one has just made goes on."""
    step = WriteShards("folder", str(videos), str(tmp_path / "out"))
    (tmp_path / "out" / "parts").mkdir(parents=True)
    write(tmp_path / "out" / "parts" / ".preparation.json.7.tmp", "")
    claim(step.preparation(), tmp_path / "out")
    assert (tmp_path / "out" / "parts" / "preparation.json").is_file()
    write(tmp_path / "other" / "parts" / "train-000000.json", "{}")
    with pytest.raises(FolderTakenError, match="is not a preparation"):
        claim(step.preparation(), tmp_path / "other")
