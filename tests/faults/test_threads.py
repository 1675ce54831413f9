"""Cores and threads: how many a run uses, how they wait, and what it says when others use the cores."""

import os
import subprocess
import sys

import pytest
import torch

from deepavfusion.inference import precision
from deepavfusion.training.config.data import DataArguments
from deepavfusion.training.runs import logging
from deepavfusion.training.runs.logging import WaitingNotes
from deepavfusion_cli import environment


@pytest.mark.parametrize(
    ("cores", "workers", "processes", "threads"),
    [
        (2, 0, "", 2),
        (2, 1, "", 1),  # of a tiny model, two threads beside a worker take 1.4 times as long
        (1, 4, "", 1),
        (8, 2, "", 6),
        (8, 8, "", 4),
        (8, 1, "2", 3),
        (2, 1, "16", 1),
        (4, 0, "nonsense", 4),
    ],
)
def test_threads_leave_cores_to_workers_and_processes(monkeypatch, cores, workers, processes, threads):
    monkeypatch.setattr(environment, "usable_cores", lambda: cores)
    assert environment.threads_beside(workers, {"LOCAL_WORLD_SIZE": processes}) == threads


@pytest.mark.parametrize(
    ("cores", "processes", "workers"), [(1, "", 1), (2, "", 1), (8, "", 7), (8, "2", 3), (64, "", 16), (2, "16", 1)]
)
def test_data_is_read_by_as_many_workers_as_there_are_other_cores(monkeypatch, cores, processes, workers):
    monkeypatch.setattr(environment, "usable_cores", lambda: cores)
    assert environment.workers_beside({"LOCAL_WORLD_SIZE": processes}) == workers
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert DataArguments().workers == workers
    assert DataArguments(num_workers=0).workers == 0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_decides_if_it_names_a_number(name, monkeypatch):
    assert environment.threads_beside(1, {name: "7"}) is None
    monkeypatch.setenv(name, "7")
    before = torch.get_num_threads()
    precision.set_threads(3)
    assert torch.get_num_threads() == before


def test_commands_set_the_number(monkeypatch):
    numbers = []
    monkeypatch.setattr(environment, "usable_cores", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    precision.set_threads(2)
    precision.set_threads()
    assert numbers == [4, 6]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        ({"/sys/fs/cgroup//cpu.max": "max 100000"}, 4),
        ({"/sys/fs/cgroup//cpu.max": "200000 100000"}, 2),
        ({"/sys/fs/cgroup//cpu.max": "50000 100000"}, 1),
        ({"/proc/self/cgroup": "0::/job", "/sys/fs/cgroup//job/cpu.max": "300000 100000"}, 3),
        ({"/sys/fs/cgroup/cpu//cpu.cfs_quota_us": "100000", "/sys/fs/cgroup/cpu//cpu.cfs_period_us": "50000"}, 2),
        ({"/sys/fs/cgroup/cpu//cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu//cpu.cfs_period_us": "50000"}, 4),
        ({f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i // 2}" for i in range(4)}, 2),
    ],
)
def test_usable_cores(monkeypatch, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment, "_read", lambda path: files.get(str(path), ""))
    assert environment.usable_cores() == cores


_PRINT = "import os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('KMP_BLOCKTIME'), 'torch' in sys.modules)"


@pytest.mark.parametrize(
    ("given", "found"), [({}, "passive 0 False"), ({"OMP_WAIT_POLICY": "active"}, "active 0 False")]
)
def test_commands_wait_passively_before_torch_is_imported(given, found, tmp_path):
    kept = {name: value for name, value in os.environ.items() if name not in environment.PASSIVE_WAITING}
    code = f"import sys, deepavfusion_cli as c; c.main(); {_PRINT}"
    line = [sys.executable, "-c", code, "--version"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=kept | given)
    assert done.stdout.splitlines()[-1] == found
    # `python -m` of a module: the first import of the package, before it imports transformers or torch.
    finder = "class F:\n    def find_spec(self, name, *_):\n        if name in ('transformers', 'torch'):\n            "
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\n{finder}{_PRINT}; sys.stdout.flush(); os._exit(0)\nsys.meta_path.insert(0, F())\n"
    )
    line = [sys.executable, "-m", "deepavfusion.training.pretrain"]
    path = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=kept | given | path, cwd=tmp_path)
    assert done.stdout.strip() == found


def test_importing_the_package_changes_no_environment(tmp_path):
    """Only commands do: a program of its own decides for itself."""
    code = f"import sys; import deepavfusion_cli; {_PRINT}"
    kept = {name: value for name, value in os.environ.items() if name not in environment.PASSIVE_WAITING}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout == "None None False\n"


@pytest.mark.parametrize(("threads", "workers", "text"), [(1, 0, "1 thread, 0 workers"), (4, 1, "4 threads, 1 worker")])
def test_threads_and_workers_are_said(monkeypatch, threads, workers, text):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert precision.computing(workers) == text


def notes(monkeypatch, *measured):
    values = iter(measured)
    monkeypatch.setattr(logging, "core_seconds", lambda: next(values))
    return WaitingNotes()


def test_waiting_for_cores_is_said_once(monkeypatch):
    waiting = notes(monkeypatch, (0, 0), (10, 1), (20, 11), (30, 30))
    assert waiting.add(0.0) == []
    (note,) = waiting.add(0.9)
    assert note.startswith("this run waits 50 % of its time for a core")
    assert waiting.add(0.0) == []


def test_fewer_threads_are_advised_only_if_there_are_several(monkeypatch):
    for threads, advised in ((1, False), (2, True)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        waiting = notes(monkeypatch, (0, 0), (10, 10))
        (note,) = waiting.add(0.0)
        assert ("OMP_NUM_THREADS" in note) is advised


def test_waiting_for_clips_is_said_once(monkeypatch):
    waiting = notes(monkeypatch, *[None] * 4)
    assert waiting.add(0.1) == []
    (note,) = waiting.add(0.75)
    assert note.startswith("this run waits 75 % of the time for its clips: more data.num_workers")
    assert waiting.add(0.75) == []


def test_short_times_are_not_judged(monkeypatch):
    waiting = notes(monkeypatch, (0, 0), (0.1, 2.0), (1.0, 5.0), (1.0, 5.5))
    assert waiting.add(0.0) == []
    assert len(waiting.add(0.0)) == 1  # the times since the last judgment add up
    assert waiting.add(0.0) == []


def test_times_of_this_process_grow():
    before = environment.core_seconds()
    if before is None:
        pytest.skip("the system does not tell")
    sum(i * i for i in range(200_000))
    assert environment.core_seconds()[0] >= before[0]
