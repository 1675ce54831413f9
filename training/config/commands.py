"""The commands that read recipes and the tasks of each."""

from deepavfusion_cli.recipes import COMMANDS

TASKS = ("pretraining", "recognition", "separation", "segmentation", "localization", "retrieval")
# Commands that train, and those among them that train the head of a task.
TRAINING = ("pretrain", "finetune", "probe")
FINETUNING = ("finetune", "probe")

__all__ = ["COMMANDS", "FINETUNING", "TASKS", "TRAINING"]
