"""The order of the files, and what holds for all tests.

Those files that take longest come first, so that no worker is left with one of them at the end.
"""

import gc
import os
import sys
from pathlib import Path

import pytest

# Frames that tests encode have threads, which a forked process lacks: it must not be left to free them.
os.register_at_fork(before=gc.collect)

LONGEST = (
    "test_remote_code.py",
    "test_notebooks.py",
    "training/runs/test_resume.py",
    "training/experiments/test_experiments.py",
    "modeling_deepavfusion/test_common.py",
    "training/test_finetune.py",
    "training/test_verify.py",
    "test_remote_processor.py",
    "training/test_extras.py",
    "training/test_pretrain.py",
    "test_hub.py",
    "inference/publishing/test_push.py",
    "training/experiments/test_label_efficiency.py",
    "training/experiments/test_objectives.py",
    "training/experiments/test_benchmark.py",
    "training/tasks/test_tasks.py",
    "inference/test_separate.py",
    "inference/test_films.py",
    "modeling_deepavfusion/test_sentence_transformers.py",
    "inference/test_benchmarks.py",
    "faults/test_surroundings.py",
    "faults/test_claims.py",
    "test_lint.py",
)
RANKS = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order below: pytest-xdist sorts files by their numbers of tests."""
    missing = [str(path) for path in RANKS if not path.is_file()]
    if missing:
        raise pytest.UsageError(f"{__file__} names files that do not exist: {', '.join(missing)}")
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the others stay in their order."""
    items.sort(key=lambda item: RANKS.get(item.path, len(RANKS)))


@pytest.fixture(scope="module", autouse=True)
def own_precision():
    """Let the commands of a file choose the precision: accelerate keeps that of the first one in a process."""
    if accelerate := sys.modules.get("accelerate"):
        accelerate.state.AcceleratorState._reset_state()
