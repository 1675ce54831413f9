"""Drafts of separated recordings: continued after a kill at any point, published whole."""

import errno
import json
import os

import numpy as np
import pytest

from deepavfusion.inference.jobs import drafts
from deepavfusion.inference.jobs.locks import lock_folder
from deepavfusion.inference.jobs.recording_drafts import RecordingDraft
from deepavfusion.inference.media import wav
from deepavfusion.processors import load_clip

RATE = 8000
PARTS = [np.random.default_rng(k).uniform(-0.9, 0.9, (2, 1000 + k)).astype(np.float32) for k in range(4)]


class Killed(BaseException):
    """Stands for the end of the process: nothing that follows it runs."""


@pytest.fixture
def make(tmp_path):
    def make(about="this"):
        outputs = [tmp_path / f"duet_{name}.wav" for name in ("cello", "flute")]
        return RecordingDraft(tmp_path / "duet.unfinished", outputs, tmp_path / "duet.png", {"about": about})

    return make


def work(draft, stop=None):
    """Do what is left of the work, or end after a number of steps."""
    steps = iter(range(stop)) if stop is not None else None

    def step():
        if steps is not None and next(steps, None) is None:
            raise Killed

    with draft:
        if not draft.separated:
            if not draft.has_extra:
                draft.add_extra(b"image")
            for part in PARTS[draft.parts :]:
                step()
                draft.add(part, RATE)
            step()
            draft.finish()
        step()
        draft.publish(lambda _: step())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check(folder, factor=1.0):
    assert names(folder) == ["duet.png", "duet_cello.wav", "duet_flute.wav"]
    assert (folder / "duet.png").read_bytes() == b"image"
    for name, waveform in zip(("cello", "flute"), np.concatenate(PARTS, axis=1), strict=True):
        assert (folder / f"duet_{name}.wav").read_bytes() == wav(waveform / np.float32(factor), RATE)


def test_results_appear_once_they_are_whole(make, tmp_path):
    draft = make()
    with draft:
        draft.add_extra(b"image")
        for number, part in enumerate(PARTS):
            draft.add(part, RATE)
            assert names(tmp_path) == ["duet.unfinished"]
            heard = load_clip(tmp_path / "duet.unfinished" / "unfinished.duet_cello.wav", seconds=10, require="audio")
            done = np.concatenate([part[0] for part in PARTS[: number + 1]])
            np.testing.assert_array_equal(heard.waveform[0], done)  # as it goes
        draft.finish()
        draft.publish()
    check(tmp_path)


@pytest.mark.parametrize("stop", range(8))
def test_a_draft_continues_from_where_it_was_killed(make, tmp_path, stop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RecordingDraft, "__exit__", lambda self, *_: self.close())  # no other cleanup runs after a kill
        with pytest.raises(Killed):
            work(make(), stop)
    draft = make()
    assert draft.parts == min(stop, len(PARTS))
    assert draft.separated == (stop > len(PARTS))
    assert draft.peak == pytest.approx(max((abs(part).max() for part in PARTS[:stop]), default=0))
    work(draft)
    check(tmp_path)


def test_a_part_that_was_not_written_whole_does_not_count(make, tmp_path):
    with make() as draft:
        draft.add_extra(b"image")
        draft.add(PARTS[0], RATE)
        for path in (tmp_path / "duet.unfinished").glob("*.wav"):
            with open(path, "ab") as file:
                file.write(b"123")
    draft = make()
    assert (draft.parts, draft.samples, draft.rate) == (1, 1000, RATE)
    work(draft)
    check(tmp_path)


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_results_that_were_moved_in_part_are_moved_whole(make, tmp_path, moved, monkeypatch):
    replace, count = os.replace, iter(range(moved))

    def killed(source, target):
        if source.parent.name == "duet.unfinished" and target.parent == tmp_path and next(count, None) is None:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(drafts.os, "replace", killed)
        patch.setattr(RecordingDraft, "_remove", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            work(make())
    draft = make()
    assert draft.publishing
    work(draft)
    check(tmp_path)


@pytest.mark.parametrize("finished", [True, False])
def test_what_another_process_did_since_a_draft_was_found_counts(make, tmp_path, finished, monkeypatch):
    with make() as first:
        first.add_extra(b"image")
        first.add(PARTS[0], RATE)
    waiting = make()
    if finished:
        work(make())
        assert names(tmp_path) == ["duet.png", "duet_cello.wav", "duet_flute.wav"]
    else:
        with make() as other:
            other.add(PARTS[1], RATE)
    with waiting:
        assert waiting.parts == (0 if finished else 2)
    work(waiting)
    check(tmp_path)


def test_a_draft_of_something_else_is_started_anew(make, tmp_path):
    with make("that") as draft:
        draft.add_extra(b"other image")
        draft.add(np.ones((2, 5), np.float32), RATE)
    draft = make()
    assert (draft.parts, draft.peak) == (0, 0.0)
    work(draft)
    check(tmp_path)


@pytest.mark.parametrize("lost", ["unfinished.duet_flute.wav", "duet.png"])
def test_a_draft_that_lacks_a_file_is_started_anew(make, tmp_path, lost):
    with make() as draft:
        draft.add_extra(b"image")
        draft.add(PARTS[0], RATE)
    (tmp_path / "duet.unfinished" / lost).unlink()
    draft = make()
    assert draft.parts == 0
    work(draft)
    check(tmp_path)


def test_all_sources_are_divided_by_one_factor(make, tmp_path, monkeypatch):
    loud = [part * np.float32([[4.0], [0.5]]) for part in PARTS]
    monkeypatch.setitem(globals(), "PARTS", loud)
    draft = make()
    work(draft)
    assert draft.attenuation == pytest.approx(3.6, abs=0.01)
    check(tmp_path, draft.attenuation)


def test_an_empty_draft_leaves_nothing(make, tmp_path):
    with pytest.raises(KeyboardInterrupt), make():
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", ["a file", "no state", "another state", "broken state"])
def test_folders_of_others_are_never_touched(make, tmp_path, content):
    folder = tmp_path / "duet.unfinished"
    if content == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "mine.wav").write_text("mine")
        if content != "no state":
            (folder / "state.json").write_text(json.dumps({"format": 9}) if content == "another state" else "{")
    with pytest.raises(
        FileExistsError, match=r"duet\.unfinished exists, but is not the draft of a separated recording"
    ):
        make()
    assert "mine" in (folder if folder.is_file() else folder / "mine.wav").read_text()


def test_files_of_others_in_a_draft_stay(make, tmp_path):
    with make() as draft:
        draft.add_extra(b"image")
        draft.add(PARTS[0], RATE)
    (tmp_path / "duet.unfinished" / "mine.wav").write_text("mine")
    work(make())
    assert (tmp_path / "duet.unfinished" / "mine.wav").read_text() == "mine"
    assert names(tmp_path / "duet.unfinished") == ["mine.wav"]


def test_a_full_disk_is_named_and_no_lock_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"duet\.unfinished/\.lock"):
        lock_folder(tmp_path / "out" / "duet.unfinished")
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_were_writing_is_removed_with_the_draft(make, tmp_path):
    with pytest.raises(Killed):
        work(make(), stop=2)
    folder = tmp_path / "duet.unfinished"
    for name in (".state.json.7.tmp", ".film-00000.mp4.7.tmp", ".duet.png.8.tmp"):
        (folder / name).touch()
    work(make())
    check(tmp_path)
