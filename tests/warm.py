"""A Python that has imported torch and more already, for tests that run commands in processes.

Every process is forked from a server that has done nothing but these imports, which take seconds: it has a state of its
own, as any new process, except for what libraries read from the environment when they are imported. Signals do not
reach it, and functions registered with `atexit` do not run. Tests of imports, signals and such variables use
`sys.executable`.
"""

import atexit
import functools
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PYTHON = sys.executable
RUN = ("deepavfusion.training.runs.run",)  # all that commands import
# What transformers imports, of that only what reads no variables of the environment.
BESIDE_TRANSFORMERS = ("torch", "torchvision", "scipy.optimize", "sklearn.metrics")

_SERVER = """
import contextlib, importlib, json, multiprocessing, os, runpy, select, signal, socket, sys

def run(request, descriptors):
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # multiprocessing has put another in its place
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = request["words"]
    if sys.argv[0] == "-c":
        sys.path[0] = ""
        source = sys.argv.pop(1)
        exec(compile(source, "<string>", "exec"), {"__name__": "__main__"})
    elif sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")

def answer(connection):
    data, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    data += connection.makefile("rb").readline()
    process = multiprocessing.get_context("fork").Process(target=run, args=(json.loads(data), descriptors))
    process.start()
    for descriptor in descriptors:
        os.close(descriptor)
    if process.sentinel not in select.select([connection, process.sentinel], [], [])[0]:
        process.kill()  # nobody waits for it any more
    process.join()
    connection.sendall(str(process.exitcode).encode())

if __name__ == "__main__":
    listener = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        with contextlib.suppress(ImportError):  # which those that need it will meet
            importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none is waited for
    while 0 not in select.select([listener, 0], [], [])[0]:  # until the tests end
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            try:
                answer(connection)
            finally:
                os._exit(0)
        connection.close()
"""

_CLIENT = """
import json, os, socket, sys

place, *words = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.connect(place)
request = json.dumps({"words": words, "environment": dict(os.environ), "folder": os.getcwd()}) + "\\n"
socket.send_fds(server, [request[:1].encode()], [0, 1, 2])
server.sendall(request[1:].encode())
code = int(server.recv(100) or 99)
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@functools.cache
def warm_python(*modules: str) -> str:
    """Path of the interpreter that has imported `modules`; starts its server on the first call."""
    # The name is short, for addresses of sockets have at most 107 bytes. Not a `TemporaryDirectory` that `atexit` alone
    # refers to: forked processes would remove it, as multiprocessing clears `atexit` there since Python 3.13.
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    for name, text in (("server.py", _SERVER), ("client.py", _CLIENT)):
        (folder / name).write_text(text)
    with socket.socket(socket.AF_UNIX) as listener, open(folder / "log.txt", "w") as log:
        listener.bind(str(folder / "socket"))
        listener.listen(8)  # processes wait here until the imports are done, and fail once the server has ended
        server = subprocess.Popen(
            [PYTHON, str(folder / "server.py"), str(listener.fileno()), *(modules or RUN)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=folder,
            pass_fds=[listener.fileno()],
        )
    python = folder / "python"
    words = [PYTHON, "-ISB", str(folder / "client.py"), str(folder / "socket")]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)

    def stop():
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return str(python)


@pytest.fixture
def warm(monkeypatch):
    """Commands that the tested code runs by `sys.executable` start at once."""
    monkeypatch.setattr(sys, "executable", warm_python())
