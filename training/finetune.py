"""Fine-tuning for a task (paper, sections 4.2 to 4.4).

    CPU or one device:  deepavfusion finetune scenes_recognition
                        python -m deepavfusion.training.finetune folder_recognition data.path=videos
    many devices:       accelerate launch -m deepavfusion.training.finetune vggsound_finetune data.path=/data/vggsound

RECIPE is the name of a recipe of the package or the path of one; `section.key=value` arguments change it. The best
checkpoint on the selection split is evaluated on the test split; the result folder is a ready-to-push Hub repository,
with evaluation.json and report.html. A run whose folder holds a checkpoint goes on from it.

Exit codes: 0 done; 143 after SIGTERM and 130 after SIGINT (Ctrl-C), with a checkpoint of the last whole step written;
2 for a recipe that cannot be used; 1 for everything else (a loss that is not finite, too many unreadable clips).
"""

import sys

from .command import train_from_recipe


def main(argv: list[str] | None = None) -> int:
    """Fine-tunes from a recipe and leaves a Hub folder. Returns the exit code (see the module's docstring)."""
    return train_from_recipe("finetune", argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
