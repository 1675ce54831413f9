"""Code saved with a processor: its own and that of the pipelines.

The `auto_map` of a saved processor refers to this file. Loading the processor therefore also loads the pipelines, and a
processor loaded from a checkpoint saves all of the code again.
"""

import os

from transformers.dynamic_module_utils import custom_object_save

from .pipelines_deepavfusion import pipelines, register_pipelines
from .processing_deepavfusion import DeepAVFusionProcessor


def copy_code(folder: str | os.PathLike) -> None:
    """Copy this file and everything it imports, directly or indirectly, into a folder."""
    os.makedirs(folder, exist_ok=True)
    custom_object_save(copy_code, folder)  # any object defined in this file will do


# Set here because the processor does the saving but does not import the pipelines.
DeepAVFusionProcessor._copy_code = staticmethod(copy_code)
DeepAVFusionProcessor._auto_module = __name__.split(".")[-1]

__all__ = ["DeepAVFusionProcessor", "pipelines", "register_pipelines"]
