"""What a run records beside its model: results.json, package versions and device."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.files import write_atomically

_PACKAGES = ("deepavfusion", "torch", "torchaudio", "transformers", "accelerate", "safetensors", "numpy", "av")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; "absent" for packages not installed."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def device_name(device: torch.device) -> str:
    """Name of a device for reports: the GPU's model, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json into a folder."""
    write_atomically(folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")


__all__ = ["device_name", "package_versions", "write_results"]
