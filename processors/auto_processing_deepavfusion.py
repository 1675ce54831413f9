"""Code saved with a processor: its own and that of the pipelines.

The `auto_map` of a saved processor names this file. Loading the processor therefore loads the pipelines too, and a
processor that was loaded from a checkpoint saves all of the code again.
"""

import os

from transformers.dynamic_module_utils import custom_object_save

from .pipelines_deepavfusion import pipelines, register_pipelines
from .processing_deepavfusion import DeepAVFusionProcessor


def copy_code(folder: str | os.PathLike) -> None:
    """Copy this file and all that it imports, directly or not, into a folder."""
    os.makedirs(folder, exist_ok=True)
    custom_object_save(copy_code, folder)  # transformers asks for any object that is defined in the file


# The processor saves, but does not import the pipelines.
DeepAVFusionProcessor._copy_code = staticmethod(copy_code)
DeepAVFusionProcessor._auto_module = __name__.split(".")[-1]

__all__ = ["DeepAVFusionProcessor", "pipelines", "register_pipelines"]
