"""Python processes with what the heavy packages need: FFmpeg's libraries for torchcodec, which PyAV brings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.isolated import hub_environment

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page: str, language: str = "python") -> list[str]:
    """Code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def ffmpeg_libraries(folder: Path) -> Path:
    """A folder in which the libraries of PyAV have the names under which torchcodec looks for them."""
    import av

    folder.mkdir()
    for library in (Path(av.__file__).parents[1] / "av.libs").iterdir():
        (folder / library.name).symlink_to(library)
        if named := re.match(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)", library.name):
            (folder / f"{named[1]}.so.{named[2]}").symlink_to(library)
    return folder


def run(source: str, folder: Path, *arguments: object, libraries: Path | None = None) -> Any:
    """Run Python source in a folder, offline; returns the JSON value on the last line that it prints, if it is one.

    Args:
        source: The source.
        folder: Folder to run in.
        arguments: `sys.argv[1:]`.
        libraries: Result of `ffmpeg_libraries`.
    """
    environment = hub_environment(folder / "home")
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    command = [sys.executable, "-c", source, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return done.stdout
