"""Jobs in processes: none outlives the one that waits for them, and the death of one names its job."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from deepavfusion.training.data.loading import DeadWorkerError, run_jobs
from deepavfusion_cli.errors import outcome

LONG = 60.0  # seconds that no test waits


def work(folder: Path, action: str):
    """Two steps."""
    yield
    (folder / f"{action}-{os.getpid()}").touch()
    if action == "die":
        while len(list(folder.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "wait":
        time.sleep(LONG)
    elif action == "slow":
        yield
        time.sleep(LONG)
    elif action == "ignore":
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "fail":
        raise ValueError("no such thing")
    yield


def run(folder: Path, *actions: str, num_workers: int = 2):
    jobs = {f"{action}-{k}": (folder, action) for k, action in enumerate(actions)}
    return run_jobs(work, jobs, num_workers, "try again", "shard")


def started(folder: Path, number: int) -> list[int]:
    """Processes that have begun to work, when they are so many."""
    end = time.monotonic() + LONG
    while len(found := list(folder.iterdir())) < number and time.monotonic() < end:
        time.sleep(0.01)
    return [int(path.name.rpartition("-")[2]) for path in found]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_jobs_are_done_once_and_ignore_signals(tmp_path):
    assert sum(run(tmp_path, "do", "ignore", "do", "ignore")) == 8
    assert len(started(tmp_path, 0)) <= 4
    assert list(run(tmp_path)) == []


def test_steps_are_counted_before_their_job_is_done(tmp_path):
    began, jobs, steps = time.monotonic(), run(tmp_path, "slow", "slow"), 0
    while steps < 4:  # of six
        steps += next(jobs)
    assert steps == 4
    jobs.close()
    assert time.monotonic() - began < LONG / 2
    assert not any(map(alive, started(tmp_path, 0)))


@pytest.mark.parametrize("actions", [("do", "wait", "wait", "wait"), ("fail", "wait", "wait", "wait")])
def test_all_processes_end_when_nobody_waits_for_them(tmp_path, actions):
    began, jobs = time.monotonic(), run(tmp_path, *actions)
    if actions[0] == "do":
        assert next(jobs) >= 1
        jobs.close()
    else:
        with pytest.raises(ValueError, match="no such thing"):
            list(jobs)
    assert time.monotonic() - began < LONG / 2
    assert not any(map(alive, started(tmp_path, 0)))
    assert len(started(tmp_path, 0)) < 4  # what was queued is not begun


def test_the_death_of_a_process_names_its_job(tmp_path):
    with pytest.raises(DeadWorkerError) as caught:
        list(run(tmp_path, "wait", "die", "wait"))
    how = "a process that reads data ended (killed by signal: killed), perhaps for lack of memory"
    assert outcome(caught.value) == (1, f"{how}: try again. The shard that it held: die-1")
    assert not any(map(alive, started(tmp_path, 0)))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    parent = multiprocessing.get_context("fork").Process(target=lambda: list(run(tmp_path, "wait", "wait", "wait")))
    parent.start()
    workers = started(tmp_path, 2)
    assert len(workers) == 2
    parent.kill()
    parent.join()
    end = time.monotonic() + LONG / 2
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, workers))
