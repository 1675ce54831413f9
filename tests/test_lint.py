"""`make lint` finds names, attributes and arguments that do not exist, whether or not a test would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISTAKES = {
    "missing-attribute": "torch.cuda.getdevice_name(0)",
    "missing-module-member": "from torch.cuda import getdevice_name",
    "import-not-found": "import torch.gpu",
    "unresolved-reference": "undefined",
    "unknown-argument": "torch.cuda.get_device_name(gpu=0)",
    "missing-argument": "torch.nn.Linear(3)",
    "possibly-unresolved-reference": "if torch.cuda.is_available():\n    name = 0\nname",
}


def test_the_type_checker_finds_mistakes(tmp_path):
    pytest.importorskip("ty", reason="ty is of the extra dev")
    for rule, code in {**MISTAKES, "right": "torch.cuda.get_device_name(0)"}.items():
        (tmp_path / f"{rule}.py").write_text(f"import torch\n\n{code}\n")
    # The project's settings, without the links to its packages, which only `make lint` makes.
    settings = (ROOT / "pyproject.toml").read_text().splitlines()
    (tmp_path / "pyproject.toml").write_text("\n".join(x for x in settings if not x.startswith("extra-paths = ")))
    command = [sys.executable, "-m", "ty", "check", "--project", str(tmp_path), "--python", sys.prefix]
    run = subprocess.run([*command, "--output-format", "concise"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    found = {line.split(".py:")[0].rpartition("/")[2]: line for line in run.stdout.splitlines() if ".py:" in line}
    assert found.keys() == MISTAKES.keys(), run.stdout
    for rule, line in found.items():
        assert f"error[{rule}]" in line
