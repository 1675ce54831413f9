"""Processes that are forked after the imports behave as new ones do."""

import gc
import multiprocessing
import subprocess
import sys

import pytest

from .warm import BESIDE_TRANSFORMERS, warm_python


def run(python, *words, **options):
    done = subprocess.run([python, *words], capture_output=True, text=True, **options)
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize(
    "code",
    [
        "import os, sys; print(sys.argv, os.getcwd(), os.environ['NAME'], sys.stdin.read(), __name__)",
        "import sys; sys.exit('text')",
        "import sys; print('out'); sys.exit(7)",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.kill(os.getpid(), 15)",
        "1 / 0",
    ],
)
def test_code(code, tmp_path):
    options = {"cwd": tmp_path, "env": {"NAME": "value"}, "input": "typed"}
    found, expected = (
        run(p, "-c", code, "a", "b c", **options) for p in (warm_python(*BESIDE_TRANSFORMERS), sys.executable)
    )
    assert found == expected


def test_forked_processes_leave_it_in_place():
    python = warm_python(*BESIDE_TRANSFORMERS)
    process = multiprocessing.get_context("fork").Process(target=gc.collect)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert run(python, "-c", "print('there')") == (0, "there\n", [])


def test_scripts_and_modules(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 3\n")
    (tmp_path / "script.py").write_text("import sys, beside\nprint(sys.argv, __name__, __file__, beside.VALUE)\n")
    for words in ([str(tmp_path / "script.py"), "x"], ["-m", "script", "x"]):
        found, expected = (run(p, *words, cwd=tmp_path) for p in (warm_python(*BESIDE_TRANSFORMERS), sys.executable))
        assert found == expected
        assert found[0] == 0


def test_nobody_runs_on_alone(tmp_path):
    """Where the one that waits is killed, the process is."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [warm_python(*BESIDE_TRANSFORMERS), "-c", code], stdout=subprocess.PIPE, text=True
    ) as waiting:
        number = int(waiting.stdout.readline())
        waiting.kill()
        assert waiting.stdout.read() == ""  # at the end of all that could write
    assert number != waiting.pid


def test_imports_are_there():
    code = "import sys; print({'torch', 'scipy.optimize'} <= {*sys.modules}, 'transformers' in sys.modules)"
    assert run(warm_python(*BESIDE_TRANSFORMERS), "-c", code) == (0, "True False\n", [])
