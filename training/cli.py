"""Entry point of the `deepavfusion` command, which dispatches to the `main` of each command's module."""

import importlib
import sys

from .extras import missing_extra

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
}
INFERENCE = ("embed", "classify", "separate", "segment", "localize", "convert")


def usage() -> str:
    """List of all commands for the terminal."""
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return (
        "usage: deepavfusion COMMAND ...\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\nRun deepavfusion COMMAND --help for details."
    )


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code, 2 for an unknown command or missing packages."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from deepavfusion import __version__

        print(f"deepavfusion {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"deepavfusion: unknown command {argv[0]!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    if message := missing_extra(argv[0]):
        print(message, file=sys.stderr)
        return 2
    package = "inference" if argv[0] in INFERENCE else "training"
    return importlib.import_module(f"deepavfusion.{package}.{argv[0]}").main(argv[1:]) or 0


if __name__ == "__main__":
    sys.exit(main())
