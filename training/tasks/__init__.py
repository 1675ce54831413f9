"""Tasks: masked pre-training and the five downstream tasks, with their data, metrics and reports."""

from .base import Task
from .evaluation import MODEL_INPUTS, Evaluation, evaluate_task
from .localization import Localization
from .pretraining import Pretraining
from .recognition import Recognition
from .retrieval import Retrieval
from .segmentation import Segmentation
from .separation import Separation

TASKS = {task.NAME: task for task in (Pretraining, Recognition, Separation, Segmentation, Localization, Retrieval)}

__all__ = [
    "MODEL_INPUTS",
    "TASKS",
    "Evaluation",
    "Localization",
    "Pretraining",
    "Recognition",
    "Retrieval",
    "Segmentation",
    "Separation",
    "Task",
    "evaluate_task",
]
