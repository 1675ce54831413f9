"""Runs Python in a fresh process in which this package, or others by request, cannot be imported.

That is the machine of somebody who loads a checkpoint from the Hub, or who has installed this package without some of
its extras. The packages are installed in the tests' own environment, so their names are hidden from the import system:
an import fails, and a search for them finds nothing, as where they were never installed.
"""

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.warm import BESIDE_TRANSFORMERS, warm_python

ROOT = Path(__file__).parents[1]
OWN = ("deepavfusion",)
OPTIONAL = ("torchvision", "PIL", "av", "accelerate")

_HIDE = '''\
import re
import sys


class Hiding:
    """A finder of modules and distributions that finds none of the hidden ones."""

    hidden = frozenset({hidden!r})
    distributions = frozenset({distributions!r})

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, fullname, path=None, target=None):
        return None if fullname.partition(".")[0] in self.hidden else self.finder.find_spec(fullname, path, target)

    def find_distributions(self, *args, **kwargs):
        for found in getattr(self.finder, "find_distributions", lambda *a, **k: ())(*args, **kwargs):
            if re.sub(r"[-_.]+", "-", found.name).lower() not in self.distributions:
                yield found

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
    source: str,
    *arguments: str,
    home: Path,
    endpoint: str | None = None,
    hidden: Sequence[str] = (),
    timeout: float = 300,
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
    imported = {module.partition(".")[0] for module in BESIDE_TRANSFORMERS} | {"PIL"}
    python = sys.executable if imported & {*hidden} else warm_python(*BESIDE_TRANSFORMERS)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "snippet.py")
        script.write_text((_HIDE.format(hidden=tuple(hidden), distributions=()) if hidden else "") + source)
        result = subprocess.run(
            [python, str(script), *map(str, arguments)],
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


def copy_source(folder: Path) -> None:
    """Copies what the package is built from to `folder`, which must be new: a build leaves files beside its source."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    paths = [line.partition(" = ")[2] for line in config["options"]["package_dir"].split("\n") if line]
    packages = [path for path in paths if "/" not in path]  # the others lie in these
    folder.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, folder)
    for name in packages:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def declared(*extras: str) -> list[str]:
    """Requirements that setup.cfg declares for the base install, or those of `extras` alone."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options.extras_require"][extra] for extra in extras] or [config["options"]["install_requires"]]
    return [line for text in texts for line in text.split("\n") if line]


def installed_with(*extras: str) -> set[str]:
    """Canonical names of what `pip install deepavfusion[extras]` brings: what is declared, and all that it requires."""
    waiting = [Requirement(text) for text in declared() + (declared(*extras) if extras else [])]
    names, seen = {"deepavfusion"}, set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        names.add(name)
        for extra in requirement.extras | {""}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needed = [Requirement(text) for text in metadata.requires(name) or []]
            waiting += [item for item in needed if item.marker is None or item.marker.evaluate({"extra": extra})]
    return names


def run_with_extras(
    extras: Sequence[str], *arguments: str, home: Path, without: Sequence[str] = (), timeout=500
) -> subprocess.CompletedProcess:
    """Runs Python with `arguments` where exactly `pip install deepavfusion[extras]` is installed, save `without`.

    Args:
        extras: of setup.cfg.
        arguments: of the interpreter, such as "-m", "deepavfusion.training.pretrain".
        home: folder for caches and for the working directory.
        without: distributions that are missing all the same.
        timeout: in seconds.
    """
    kept = installed_with(*extras) - {canonicalize_name(name) for name in without}
    owners = {
        module: {canonicalize_name(n) for n in names} for module, names in metadata.packages_distributions().items()
    }
    hidden = [module for module, names in owners.items() if not names & kept]
    others = {canonicalize_name(found.name) for found in metadata.distributions()} - kept
    with tempfile.TemporaryDirectory() as folder:
        text = _HIDE.format(hidden=tuple(sorted(hidden)), distributions=tuple(sorted(others)))
        Path(folder, "sitecustomize.py").write_text(text)
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=home,
            env=hub_environment(home) | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
