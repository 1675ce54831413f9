"""Runs Python source in a fresh process in which this package, and others by request, cannot be imported.

That is the machine of somebody who loads a checkpoint from the Hub. The package is installed in the tests' own
environment, so its name is hidden from the import system: an import fails, and a search for it finds nothing, as where
it was never installed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

OWN = ("deepavfusion",)
OPTIONAL = ("torchvision", "PIL", "av", "accelerate")

_HIDE = '''\
import sys


class Hiding:
    """A finder of modules that finds none of the hidden ones."""

    hidden = frozenset({hidden!r})

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in self.hidden else self.finder.find_spec(fullname, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
'''


def hub_environment(home: Path, endpoint: str | None = None) -> dict[str, str]:
    """Environment variables of a process whose caches lie in `home`.

    Without an `endpoint` it is offline. With one, that server is its Hub, and it is logged in there.
    """
    dropped = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHONPATH", "XDG_CACHE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if endpoint is None:
        return environment | {"HF_HUB_OFFLINE": "1"}
    return environment | {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test", "NO_PROXY": "*"}


def run_python(
    source: str, *arguments: str, home: Path, endpoint: str | None = None, hidden: Sequence[str] = (), timeout=300
) -> str:
    """Runs `source` with `arguments` as `sys.argv[1:]` and gives what it printed.

    Args:
        source: Python source.
        arguments: strings.
        home: folder for caches and for the working directory.
        endpoint: address of the Hub that the process sees; none by default.
        hidden: top-level modules that it cannot import.
        timeout: in seconds.

    Raises:
        AssertionError: where the process fails, with all that it wrote.
    """
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "snippet.py")
        script.write_text((_HIDE.format(hidden=tuple(hidden)) if hidden else "") + source)
        result = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            cwd=home,
            env=hub_environment(home, endpoint),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    if result.returncode:
        raise AssertionError(f"The process ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def run_isolated(
    source: str, *arguments: str, home: Path, endpoint: str | None = None, without: Sequence[str] = (), timeout=300
) -> str:
    """`run_python` where this package cannot be imported, nor any of `without`."""
    return run_python(source, *arguments, home=home, endpoint=endpoint, hidden=(*OWN, *without), timeout=timeout)
