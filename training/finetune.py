"""Fine-tune a model for a task (paper, sections 4.2 to 4.4).

    CPU or one device:  deepavfusion finetune scenes_recognition
                        python -m deepavfusion.training.finetune folder_recognition data.path=videos
    many devices:       accelerate launch -m deepavfusion.training.finetune vggsound_finetune data.path=/data/vggsound

RECIPE is the name of a recipe in the package or the path of a recipe file; `section.key=value` overrides its options.
The best checkpoint on the selection split is evaluated on the test split. The result folder is a ready-to-push Hub
repository, with evaluation.json and report.html. A run whose folder contains a checkpoint resumes from it.

Exit codes: 0 success; 143 after SIGTERM and 130 after SIGINT (Ctrl-C), with a checkpoint of the last complete step; 2
for an unusable recipe; 1 for other errors (non-finite loss, too many unreadable clips, full disk, too little memory).
"""

import sys

from deepavfusion_cli.boundary import command

from .command import train_from_recipe


@command("deepavfusion finetune")
def main(argv: list[str]) -> int:
    """Fine-tune from a recipe; returns the exit code (see the module's docstring)."""
    return train_from_recipe("finetune", argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
