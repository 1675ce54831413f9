"""Entry point of the `deepavfusion` command, which dispatches to the `main` of each command's module.

Importing the classes of `deepavfusion` takes seconds, for which help, version and misspelled commands do not wait: what
they need is a package of its own, `deepavfusion_cli`, which never imports torch or transformers.
"""

import contextlib
import importlib
import sys

from .boundary import guard, own_process, report_and_exit
from .environment import module_run_by_python, wait_passively
from .errors import BAD_INPUT, TRACEBACK
from .terminal import say, say_again

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
    "demo": "serve a page to try models in the browser, or write it as a Space",
    "convert": "convert a published checkpoint to a Hub repository",
    "export": "export a model, or what it predicts, to the format of another program",
    "push": "check a model and publish it on the Hub",
    "verify": "derive the numbers of an evaluation anew from its stored predictions",
    "recipes": "list the recipes of the package, each with its goal, what it needs and its cost",
    "data": "check a data set, or prepare its clips for training",
}
INFERENCE = ("embed", "classify", "separate", "segment", "localize", "demo", "convert", "export", "push")
MODULES = {"data": "check", "push": "publishing.push"}  # of commands whose module has another name
_FLAGS = ("--help", "--version")
_PROGRAM = "deepavfusion"


def usage() -> str:
    """List of all commands for the terminal."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return (
        "usage: deepavfusion COMMAND ...\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\nRun deepavfusion COMMAND --help for details, deepavfusion --version for the version. Every command takes"
        + "\n--traceback, which shows where an error was raised."
    )


def unknown(words: list[str]) -> str:
    """Error message for a first word that is neither a command nor a flag, with the closest one.

    Args:
        words: The command line, which starts with that word.
    """
    import difflib

    word, what = words[0], "option" if words[0].startswith("-") else "command"
    named = next((other for other in words[1:] if other in COMMANDS), None)
    if what == "option" and named is not None:
        return f"option {word!r} is before the command: options come after it, deepavfusion {named} ... {word}"
    # Without dashes: "fine-tune" is closest to "finetune", and "help" is "--help".
    valid = {name.replace("-", ""): name for name in (*_FLAGS, *COMMANDS)}
    sought = word.replace("-", "").replace("_", "").lower()
    short = {"v": "--version"}.get(sought) if what == "option" else None
    close = difflib.get_close_matches(sought, valid, n=1)
    hint = short or (valid[close[0]] if close else None)
    return f"unknown {what} {word!r}.{f' Did you mean {hint}?' if hint else ''}"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code (see `boundary`).

    The code is 2 for an unknown command or missing packages, 130 if Ctrl-C ends the command, and 1, without a message,
    if what reads its output is gone, as in `deepavfusion --help | head -1`.
    """
    words = sys.argv[1:] if argv is None else argv
    if argv is None:
        own_process()
        wait_passively()
    # While modules are imported, a signal to a process of its own ends it at once: imports would swallow exceptions.
    return guard(_PROGRAM, lambda: _dispatch(words), TRACEBACK in words, stops=argv is not None)


def prepare_module() -> None:
    """Prepare the process if it runs a module of the package by `python -m`, as `main` does for the command."""
    name = module_run_by_python()
    if name is not None and name.partition(".")[0] == _PROGRAM:
        own_process()
        wait_passively()
        sys.excepthook = report_and_exit


def _dispatch(argv: list[str]) -> int:
    flags = [word for word in argv[:1] if word == TRACEBACK]
    argv = argv[len(flags) :]
    if not argv or argv[0] in ("-h", "--help"):
        say(usage(), kept="\n")
        return 0 if argv else BAD_INPUT
    if argv[0] == "--version":
        from importlib import metadata

        say(f"{_PROGRAM} {metadata.version(_PROGRAM)}")
        return 0
    if argv[0] not in COMMANDS:
        say(f"{_PROGRAM}: {unknown(argv)}", stream=sys.stderr)
        say(f"\n{usage()}", kept="\n", stream=sys.stderr)
        return BAD_INPUT
    from .preflight import check, help_without_recipe, program, recipes_page

    name, words = argv[0], [word for word in argv[1:] if word != TRACEBACK]
    if (text := help_without_recipe(name, words)) is not None:
        say(text, kept="\n")
        return 0
    listing = name == "recipes"
    action = (lambda: say(recipes_page(words), kept="\n")) if listing else (lambda: check(name, words))
    if (code := guard(program(name, words), action, TRACEBACK in argv + flags, stops=False)) or listing:
        return code
    loading = say_again(f"{_PROGRAM} {name}: loading ...")  # imports take seconds, and on busy machines a minute
    with contextlib.nullcontext() if "torch" in sys.modules else loading:
        from deepavfusion.training.extras import missing_extra

        if message := missing_extra(argv[0]):
            say(message, stream=sys.stderr)
            return BAD_INPUT
        package = "inference" if argv[0] in INFERENCE else "training"
        module = "prepare" if argv[:2] == ["data", "prepare"] else MODULES.get(argv[0], argv[0])
        imported = importlib.import_module(f"deepavfusion.{package}.{module}")
    return imported.main(argv[1:] + flags) or 0


__all__ = ["COMMANDS", "INFERENCE", "MODULES", "main", "prepare_module", "usage"]
