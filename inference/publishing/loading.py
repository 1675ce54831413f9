"""Load a model from its folder alone, in a process in which this package cannot be imported."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deepavfusion_cli.errors import BAD_INPUT

_SCRIPT = """
import importlib.abc
import json
import sys


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("deepavfusion", "deepavfusion_cli"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Absent())

import torch
import transformers

folder, auto_classes, answer = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
for name in auto_classes:
    model, info = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    lacking = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    if lacking:
        raise ValueError(f"{name}: its weights lack {len(lacking)} tensors of the model, such as {sorted(lacking)[0]}")
    with torch.no_grad():
        outputs = model.eval()(**model.dummy_inputs)
    for field, value in outputs.items():
        if torch.is_tensor(value) and value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name}: its output {field} is NaN or infinite")
transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with open(answer, "w") as file:
    file.write(type(model).__name__)
"""


class LoadingError(ValueError):
    """Raised for a folder that cannot be loaded without this package; the message gives the reason."""

    exit_code = BAD_INPUT


def load_alone(folder: Path) -> str:
    """Load model and processor from a folder by the Auto classes, with its code, and run the model once.

    Args:
        folder: Folder of what is published, and of nothing else.

    Returns:
        Name of the model's class.

    Raises:
        LoadingError: If that fails.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = (config.get("architectures") or [None])[0]
    own = [auto for auto, reference in config["auto_map"].items() if reference.rpartition(".")[2] == stored]
    with tempfile.TemporaryDirectory(prefix="deepavfusion-push-") as place:
        answer = Path(place, "answer")
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(Path(place, "modules")),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("PYTHONPATH", None)
        auto_classes = json.dumps(sorted({"AutoModel", *own[:1]}))
        words = [sys.executable, "-c", _SCRIPT, str(folder.resolve()), auto_classes, str(answer)]
        result = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, errors="replace")
        if result.returncode == 0 and answer.is_file():
            return answer.read_text(encoding="utf-8")
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    reason = lines[-1] if lines else f"the process ended with exit code {result.returncode}"
    raise LoadingError(f"it cannot be loaded where the package is not installed: {reason.replace(str(folder), 'it')}")


__all__ = ["LoadingError", "load_alone"]
