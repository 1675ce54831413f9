"""The wheel and the source distribution hold every module, and all files agree on the supported Python versions."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.isolated import ROOT, copy_source

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
FOLDERS = dict(re.findall(r"(\S+) = (\S+)", SETUP["options"]["package_dir"]))
PYTHONS = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
JOBS = [(job["target"], job["python"]) for job in WORKFLOW["jobs"]["make"]["strategy"]["matrix"]["include"]]


def files(pattern: str) -> dict[str, str]:
    """Path in the wheel -> path in the repository, of files in the packages' folders; experiments are not packaged."""
    found = {}
    for package, folder in FOLDERS.items():
        inner = [ROOT / other for other in FOLDERS.values() if other.startswith(f"{folder}/")]
        for path in (ROOT / folder).rglob(pattern):
            if any(map(path.is_relative_to, [ROOT / "training" / "experiments", *inner])):
                continue
            found[f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"] = path.relative_to(
                ROOT
            ).as_posix()
    return found


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("packaging")
    copy_source(folder / "repository")
    shutil.copytree(ROOT / "tests", folder / "repository" / "tests")

    def build(kind: str, source: Path) -> Path:
        code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        command = [sys.executable, "-c", code, str(folder / kind)]
        (folder / kind).mkdir()
        done = subprocess.run(command, cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (built,) = (folder / kind).iterdir()
        return built

    sdist = build("sdist", folder / "repository")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return sdist, build("wheel", unpacked)


def test_setup_cfg_lists_every_folder_with_code():
    folders = {str(PurePosixPath(path).parent) for path in files("*.py")}
    assert set(SETUP["options"]["packages"].split()) == {folder.replace("/", ".") for folder in folders}


def test_the_wheel_holds_the_packages_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {*files("*.py"), *files("recipes/*.yaml"), *files("templates/*"), *files("options.json")}


def test_the_source_distribution_holds_the_packages_and_no_tests(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        *files("*.py").values(),
        *files("recipes/*.yaml").values(),
        *files("templates/*").values(),
        *files("options.json").values(),
        "setup.cfg",
        "pyproject.toml",
        "README.md",
    }
    assert needed | {"LICENSE"} <= names
    assert [name for name in names if name.startswith("tests")] == []


def test_one_lowest_python():
    lowest = PYTHONS[0]
    assert SETUP["options"]["python_requires"] == f">={lowest}"
    for name in ("Makefile", "README.md"):
        assert re.findall(r"Python (3\.\d+) or later", (ROOT / name).read_text(encoding="utf-8")) == [lowest], name
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")


def test_the_lowest_versions_are_those_of_setup_cfg():
    (program,) = re.findall(r"sed -n '(.+)' setup\.cfg", (ROOT / "Makefile").read_text(encoding="utf-8"))
    done = subprocess.run(["sed", "-n", program, "setup.cfg"], cwd=ROOT, capture_output=True, text=True, check=True)
    given = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    bounds = {f"{name}=={low}" for name, low in re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(given), re.MULTILINE)}
    assert "jinja2==3.1" in bounds
    assert set(done.stdout.splitlines()) == bounds


def test_the_workflow_runs_make_targets_on_every_python():
    assert [python for target, python in JOBS if target == "test"] == PYTHONS
    assert {("test-lowest", PYTHONS[0]), ("test-newest", PYTHONS[-1])} <= set(JOBS)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {target for target, _ in JOBS} <= targets


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the environment of the Makefile is absent")
def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path):
    (tmp_path / "deepavfusion").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import importlib.util; print(importlib.util.find_spec('deepavfusion').origin)"
    python = ROOT / ".venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("__init__.py")
