"""Entry point of the `deepavfusion` command, which dispatches to the `main` of each command's module.

It is installed as a package of its own, `deepavfusion_cli`, because any module of `deepavfusion` imports transformers.
That takes seconds, for which help, version and misspelled commands do not wait.
"""

import difflib
import importlib
import os
import select
import sys
from importlib import metadata

COMMANDS = {
    "pretrain": "pre-train an encoder by masked reconstruction, from a recipe",
    "finetune": "fine-tune a model for a task, from a recipe, and evaluate it",
    "probe": "evaluate a frozen encoder by nearest neighbors and linear classifiers",
    "evaluate": "evaluate a model on a data set and write a report",
    "embed": "write the fusion, image and audio tokens of media files",
    "classify": "print the most likely labels of media files",
    "separate": "separate the sources that frames or images show from the audio of media files",
    "segment": "write masks of sounding objects in media files",
    "localize": "write heat maps of the sound sources in media files",
    "convert": "convert a published checkpoint to a Hub repository",
    "data": "check a data set: read every clip, and name those that cannot be read",
}
INFERENCE = ("embed", "classify", "separate", "segment", "localize", "convert")
_MODULES = {"data": "data.__main__"}  # of commands whose module has another name
_FLAGS = ("--help", "--version")


def usage() -> str:
    """List of all commands for the terminal."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return (
        "usage: deepavfusion COMMAND ...\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\nRun deepavfusion COMMAND --help for details, deepavfusion --version for the version."
    )


def unknown(word: str) -> str:
    """Error message for a word that is neither a command nor a flag, with the closest one."""
    what, valid = ("option", _FLAGS) if word.startswith("-") else ("command", COMMANDS)
    # Without dashes: "fine-tune" is closest to "finetune".
    close = difflib.get_close_matches(word.replace("-", ""), [name.replace("-", "") for name in valid], n=1, cutoff=0.5)
    name = next((name for name in valid if close and name.replace("-", "") == close[0]), None)
    hint = f" Did you mean {name}?" if name else ""
    return f"deepavfusion: unknown {what} {word!r}.{hint}"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code.

    The code is 2 for an unknown command or missing packages, 130 if Ctrl-C ends the command, and 1, without a message,
    if what reads its output is gone, as in `deepavfusion --help | head -1`.
    """
    try:
        try:
            return _dispatch(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _silence_broken_outputs():
            raise
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _silence_broken_outputs() -> bool:
    """Redirect standard output and error to nowhere if nothing reads them; returns whether one was redirected."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if poll.poll(0):  # without events to wait for: only errors
            # Python flushes both streams once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            found = True
    return found


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"deepavfusion {metadata.version('deepavfusion')}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"{unknown(argv[0])}\n\n{usage()}", file=sys.stderr)
        return 2
    from deepavfusion.training.extras import missing_extra

    if message := missing_extra(argv[0]):
        print(message, file=sys.stderr)
        return 2
    package = "inference" if argv[0] in INFERENCE else "training"
    module = f"deepavfusion.{package}.{_MODULES.get(argv[0], argv[0])}"
    return importlib.import_module(module).main(argv[1:]) or 0


__all__ = ["COMMANDS", "INFERENCE", "main", "usage"]
