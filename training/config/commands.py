"""The commands that read recipes and the tasks of each."""

TASKS = ("pretraining", "recognition", "separation", "segmentation", "localization", "retrieval")
# Command -> its tasks.
COMMANDS = {
    "pretrain": ("pretraining",),
    "finetune": ("recognition", "separation", "segmentation", "localization"),
    "probe": ("recognition",),
    "evaluate": ("recognition", "separation", "segmentation", "localization", "retrieval"),
}
# Commands that train, and those among them that train the head of a task.
TRAINING = ("pretrain", "finetune", "probe")
FINETUNING = ("finetune", "probe")

__all__ = ["COMMANDS", "FINETUNING", "TASKS", "TRAINING"]
