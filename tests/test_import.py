"""Importing the package takes no time, and registers its classes, be it before or after transformers is imported."""

import os
import subprocess
import sys

import pytest

# What users may write first, to each of which everything must be registered.
FIRST = {
    "auto classes": "import deepavfusion; from transformers import AutoConfig, AutoModel",
    "transformers before": "from transformers import AutoModel; import deepavfusion",
    "pipeline": "import deepavfusion; from transformers import pipeline",
    "trainer": "import deepavfusion; from transformers import Trainer",
    "own class": "from deepavfusion import DeepAVFusionModel",
    "own module": "from deepavfusion.modeling_deepavfusion import DeepAVFusionModel",
    "processors": "from deepavfusion.processors import load_clip",
    "modules of transformers": "import deepavfusion; import transformers.modeling_utils, transformers.modelcard",
    "all names": "from deepavfusion import *; DeepAVFusionModel, __version__",
    "command": "import deepavfusion.inference.common",
    "two threads": """
import threading, deepavfusion
found = []
def take(statement):
    exec(statement)
    found.append(statement)
threads = [
    threading.Thread(target=take, args=[statement])
    for statement in ("from transformers import Trainer", "from deepavfusion import DeepAVFusionModel")
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 2
""",
    "many threads": """
import threading, deepavfusion
found, start = [], threading.Barrier(8)
def take(number):
    start.wait()
    if number % 2:
        from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel
        found.append(DeepAVFusionModel)
    else:
        found.append(deepavfusion.DeepAVFusionModel)
threads = [threading.Thread(target=take, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 8
""",
}
QUICK = ("auto classes", "many threads", "own module")  # `make test-slow` runs all others
CHECK = """
import sys
import transformers
from transformers.modelcard import TrainingSummary
from transformers.pipelines import PIPELINE_REGISTRY

config = transformers.AutoConfig.for_model("deepavfusion")
assert type(config).__name__ == "DeepAVFusionConfig"
assert "trainer_card_deepavfusion" in TrainingSummary.from_trainer.__code__.co_filename
assert "audio-visual-source-separation" in PIPELINE_REGISTRY.supported_tasks
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
for mapping in (FEATURE_EXTRACTOR_MAPPING, IMAGE_PROCESSOR_MAPPING, PROCESSOR_MAPPING, VIDEO_PROCESSOR_MAPPING):
    assert type(config) in mapping
import deepavfusion
from deepavfusion.auto_deepavfusion import AUTO_MODELS
for name, model in AUTO_MODELS.items():
    assert getattr(transformers, name)._model_mapping[type(config)] is model, name
assert deepavfusion.DeepAVFusionModel._prepare_to_save.__module__ == "deepavfusion.auto_deepavfusion"
assert deepavfusion.DeepAVFusionModel is AUTO_MODELS["AutoModel"]
assert "DeepAVFusionModel" in dir(deepavfusion) and "DeepAVFusionModel" in deepavfusion.__all__
assert not any(type(finder).__module__ == "deepavfusion.watch" for finder in sys.meta_path)
"""


def run(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("first", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in FIRST])
def test_the_classes_are_registered(first):
    run(FIRST[first] + CHECK)


def test_nothing_is_imported_that_is_not_used():
    heavy = {"numpy", "torch", "torchaudio", "transformers", "PIL", "av"}
    code = "import sys, deepavfusion, deepavfusion.training.extras; deepavfusion.__version__; print(*sys.modules)"
    assert not heavy & set(run(code).split())


def test_what_does_not_exist_is_named():
    code = """
import deepavfusion
try:
    deepavfusion.DeepAVFusionModels
except AttributeError as error:
    print(error)
try:
    from deepavfusion import DeepAVFusionModels
except ImportError as error:
    print(error)
"""
    lines = run(code).splitlines()
    assert lines[0] == "module 'deepavfusion' has no attribute 'DeepAVFusionModels'"
    assert lines[1].startswith("cannot import name 'DeepAVFusionModels' from 'deepavfusion'")


def test_a_registration_that_fails_is_an_error_of_whoever_needs_it():
    """As in a broken installation: the error names what is missing, and the next use raises it again."""
    code = """
import sys, deepavfusion
sys.modules["deepavfusion.swin_deepavfusion"] = None
for statement in ("from transformers import AutoModel", "deepavfusion.DeepAVFusionModel"):
    try:
        exec(statement)
    except ImportError as error:
        while error.__cause__ is not None:
            error = error.__cause__
        print(error.name)
"""
    assert run(code).split() == ["deepavfusion.swin_deepavfusion"] * 2
