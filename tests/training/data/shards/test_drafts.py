"""Drafts: whole files appear, and only what dead processes left is removed."""

import errno
import multiprocessing
import os

import pytest

from deepavfusion.training.data.shards.drafts import remove_dead_drafts, writing


def test_files_appear_when_they_are_whole(tmp_path):
    with writing(tmp_path / "a.tar") as file:
        file.write(b"content")
        assert not (tmp_path / "a.tar").exists()
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "b.tar") as file:
        raise KeyboardInterrupt
    with pytest.raises(OSError, match=r"b\.tar"), writing(tmp_path / "b.tar"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.tar": b"content"}


def test_drafts_of_dead_processes_are_removed(tmp_path):
    (tmp_path / ".a.tar.7.tmp").write_bytes(b"left")
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()

    def write() -> None:
        with writing(tmp_path / "b.tar") as file:
            ready.set()
            end.wait(60)
            file.write(b"content")

    process = context.Process(target=write)
    process.start()
    assert ready.wait(60)
    remove_dead_drafts(tmp_path)
    assert os.listdir(tmp_path) == [f".b.tar.{process.pid}.tmp"]
    end.set()
    process.join()
    assert os.listdir(tmp_path) == ["b.tar"]
