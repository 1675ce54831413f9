"""The five tasks: model, evaluation and report of each."""

from .base import Evaluation, Task, evaluate_task
from .localization import Localization
from .recognition import Recognition
from .retrieval import Retrieval
from .segmentation import Segmentation
from .separation import Separation

TASKS = {task.NAME: task for task in (Recognition, Separation, Segmentation, Localization, Retrieval)}

__all__ = [
    "TASKS",
    "Evaluation",
    "Localization",
    "Recognition",
    "Retrieval",
    "Segmentation",
    "Separation",
    "Task",
    "evaluate_task",
]
