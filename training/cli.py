"""The `deepavfusion` command: `deepavfusion <command> ...` runs the `main` of the command's module."""

import importlib
import sys

from .extras import missing_extra

COMMANDS = {
    "pretrain": "train an encoder by masked reconstruction, from a recipe",
    "finetune": "fine-tune for a task, from a recipe, and evaluate",
    "probe": "score a frozen encoder: nearest neighbours and linear classifiers",
    "evaluate": "evaluate a fine-tuned model on a data set, with a report",
    "embed": "write the three streams of media files, as safetensors files",
    "classify": "print the likeliest labels of media files",
    "separate": "write what a picture shows of the sound of media files, as wav files",
    "segment": "write masks of what sounds in frames of media files",
    "localize": "write heat maps of where the sound of media files comes from",
    "convert": "turn a published checkpoint into a Hub folder",
}


INFERENCE = ("embed", "classify", "separate", "segment", "localize", "convert")


def usage() -> str:
    lines = [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    return (
        "usage: deepavfusion COMMAND ...\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\ndeepavfusion COMMAND --help says more."
    )


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code, 2 for one that does not exist or lacks packages."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from deepavfusion import __version__

        print(f"deepavfusion {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"deepavfusion: there is no command {argv[0]!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    if message := missing_extra(argv[0]):
        print(message, file=sys.stderr)
        return 2
    package = "inference" if argv[0] in INFERENCE else "training"
    return importlib.import_module(f"deepavfusion.{package}.{argv[0]}").main(argv[1:]) or 0


if __name__ == "__main__":
    sys.exit(main())
