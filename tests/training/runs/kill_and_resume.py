"""Run by test_resume.py in a process of its own: runs as they are, killed and resumed, on one or more processes.

The processes of a run are forked from this one after its imports, which are what takes long. Prints a JSON object.
"""

import importlib
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import deepavfusion.training.runs.run  # noqa: F401  (everything that a run imports)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: str, arguments: list[str], world: int, log: Path) -> list[int]:
    """Forks the processes of one run; gives their ids."""
    main = importlib.import_module(f"deepavfusion.training.{command}").main
    port, ids = free_port(), []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            if world > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 99
            try:
                code = main(arguments)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ids.append(child)
    return ids


def wait(ids: list[int]) -> list[int]:
    """Exit codes, negative where a signal ended a process."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ids]


def send_after(ids: list[int], number: int, metrics: Path, lines: int) -> list[int]:
    """Sends a signal as soon as so many lines are in metrics.jsonl; gives the exit codes."""
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= lines):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{metrics} did not get {lines} lines")
        time.sleep(0.002)
    for child in ids:
        os.kill(child, number)
    return wait(ids)


def scenario(command: str, recipe: str, folder: Path, world: int, seed: int, extra: list[str]) -> dict:
    """One run without interruption; one killed at a random step and, resumed, terminated at another, and resumed."""
    log = folder / "log.txt"

    def begin(name: str) -> list[int]:
        arguments = [recipe, f"run.output_dir={folder / name}", f"optim.batch_size={8 // world}", *extra]
        return start(command, arguments, world, log)

    draw = random.Random(seed)
    metrics = folder / "interrupted" / "metrics.jsonl"
    killed_at, terminated_at = draw.randint(4, 8), draw.randint(10, 12)
    result = {"whole": wait(begin("whole"))}
    result["killed"] = send_after(begin("interrupted"), signal.SIGKILL, metrics, killed_at)
    result["lines_after_kill"] = metrics.read_bytes().count(b"\n")
    result["terminated"] = send_after(begin("interrupted"), signal.SIGTERM, metrics, terminated_at)
    result["lines_after_term"] = metrics.read_bytes().count(b"\n")
    result["resumed"] = wait(begin("interrupted"))
    return result


def layouts(command: str, recipe: str, folder: Path, extra: list[str]) -> dict:
    """A run on one process, on two (DDP), on two with shards (FSDP2), and begun on one and ended on two shards."""
    log = folder / "log.txt"

    def begin(name: str, world: int, *more: str) -> list[int]:
        arguments = [recipe, f"run.output_dir={folder / name}", f"optim.batch_size={8 // world}", *extra, *more]
        return start(command, arguments, world, log)

    result = {"one": wait(begin("one", 1))}
    result["two"] = wait(begin("two", 2))
    result["sharded"] = wait(begin("sharded", 2, "optim.fsdp=true"))
    result["begun"] = send_after(begin("moved", 1), signal.SIGTERM, folder / "moved" / "metrics.jsonl", 4)
    result["moved"] = wait(begin("moved", 2, "optim.fsdp=true"))
    return result


def moves(command: str, recipe: str, folder: Path, kills: int, extra: list[str]) -> dict:
    """A run without interruption; one that is killed again and again, and goes on with other processes and workers.

    Micro-batches have the same four clips on one process as on two, so that not even rounding differs.
    """
    log, metrics = folder / "log.txt", folder / "interrupted" / "metrics.jsonl"

    def begin(name: str, world: int, workers: int) -> list[int]:
        batches = ["optim.batch_size=4", f"optim.gradient_accumulation={2 // world}", f"data.num_workers={workers}"]
        return start(command, [recipe, f"run.output_dir={folder / name}", *batches, *extra], world, log)

    places = [(1, 2), (2, 1), (1, 0), (2, 0), (1, 1), (2, 2)]
    result: dict = {"whole": wait(begin("whole", 1, 0)), "killed": []}
    for kill in range(kills):
        codes = send_after(begin("interrupted", *places[kill % 6]), signal.SIGKILL, metrics, 3 + kill)
        result["killed"].append([codes, metrics.read_bytes().count(b"\n")])
    result["resumed"] = wait(begin("interrupted", *places[kills % 6]))
    return result


if __name__ == "__main__":
    mode, command, recipe, folder, *extra = sys.argv[1:]
    if mode == "layouts":
        print(json.dumps(layouts(command, recipe, Path(folder), extra)))
    elif mode.startswith("kills="):
        print(json.dumps(moves(command, recipe, Path(folder), int(mode.removeprefix("kills=")), extra)))
    else:
        print(json.dumps(scenario(command, recipe, Path(folder), int(mode), 0, extra)))
