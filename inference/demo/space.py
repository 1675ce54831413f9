"""Exports the demo as the repository of a Space on the Hub: the same page, its models, and the code of this package."""

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from deepavfusion_cli.paths import check_empty

from ..files import apply_umask
from ..jobs.inputs import numbered
from ..publishing.contents import find_contents
from .models import abilities_of

# What the wheel holds; the experiments and the command line inside of `training` are not part of it, or have a name of
# their own.
_PACKAGES = ("deepavfusion", "deepavfusion.processors", "deepavfusion.inference", "deepavfusion.training")
_COMMAND_LINE = "deepavfusion_cli"
_LEFT_OUT = ("__pycache__", "experiments")
_CODE = (".py", ".json", ".yaml", ".jinja", ".css", ".js")
_MODELS = "models"
_APP = '''"""The demo of `deepavfusion demo`, as a Space."""

import sys
from pathlib import Path

from deepavfusion.inference.demo import main

FOLDER = Path(__file__).parent
MODELS = {models!r}
OPTIONS = {options!r}

if __name__ == "__main__":
    folders = [str(FOLDER / name) if name.startswith("{folder}/") else name for name in MODELS]
    sys.exit(main([*folders, *OPTIONS, *sys.argv[1:]]))
'''
_TEXT = """
# {title}

Drop a video, see what sounds, click a thing and hear it alone: the demo of `deepavfusion`, with the models {names}.

Written by `deepavfusion demo --export-space`. `python app.py` serves it on any machine once `requirements.txt` is
installed.
"""


def export_space(out: Path, models: Sequence[str], fit: str | None = None, seed: int = 0) -> None:
    """Write the repository of a Space.

    Args:
        out: Folder to write, which must be absent or empty.
        models: Folders, which are copied as `deepavfusion push` publishes them, or Hub ids, which are named.
        fit: As of the command.
        seed: Seed of the example scenes.

    Raises:
        FolderError: If the folder is not empty.
        OSError: If there is no such model.
        ValueError: If a model cannot be used.
    """
    check_empty(out, "--export-space")
    local = [origin for origin in models if Path(origin).is_dir()]
    for origin in local:
        abilities_of(origin)
    names = numbered(re.sub(r"[^\w.-]+", "-", Path(origin).resolve().name) for origin in local)
    places = dict(zip(local, (f"{_MODELS}/{name}" for name in names), strict=True))
    options = ["--host", "0.0.0.0", "--port", "7860", "--seed", str(seed), *([] if fit is None else ["--fit", fit])]
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for origin, place in places.items():
            for name in find_contents(Path(origin)).published:
                _copy(Path(origin, name), draft / place / name)
        _copy_code(draft)
        shown = [places.get(origin, origin) for origin in models]
        app = _APP.format(models=shown, options=options, folder=_MODELS)
        (draft / "app.py").write_text(app, encoding="utf-8")
        (draft / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(_card(models, places), encoding="utf-8")
        apply_umask([draft])
        check_empty(out, "--export-space")  # again: something else may have written there meanwhile
        os.replace(draft, out)  # an empty folder is replaced
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def requirements() -> list[str]:
    """What the demo needs besides the code of this package, as lines of a requirements.txt."""
    declared = [Requirement(text) for text in metadata.requires("deepavfusion") or []]
    needed = [item for item in declared if item.marker is None or item.marker.evaluate({"extra": "demo"})]
    return sorted(f"{item.name}{item.specifier}" for item in needed)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_code(target: Path) -> None:
    """Copy the packages under their import names, from wherever they are installed."""
    for name in (*_PACKAGES, _COMMAND_LINE):
        spec = importlib.util.find_spec(name)
        for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
            for path in sorted(folder.rglob("*")):
                inner = path.relative_to(folder)
                own = name == _COMMAND_LINE or inner.parts[0] != "cli"
                if path.suffix in _CODE and path.is_file() and own and not set(inner.parts) & set(_LEFT_OUT):
                    _copy(path, target.joinpath(*name.split("."), inner))


def _card(models: Sequence[str], places: dict[str, str]) -> str:
    names = [places[origin].partition("/")[2] if origin in places else origin for origin in models]
    about = {
        "title": "See and hear",
        "emoji": "👂",
        "colorFrom": "indigo",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "app_file": "app.py",
        "python_version": "3.11",
        "pinned": False,
        "short_description": "What sounds in a video, and how it sounds alone",
    }
    hub = [origin for origin in models if origin not in places]
    about |= {"models": hub} if hub else {}
    header = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n" + _TEXT.format(title=about["title"], names=", ".join(f"`{name}`" for name in names))


__all__ = ["export_space", "requirements"]
