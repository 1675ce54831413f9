"""Imports point downward and form no circles, files and folders stay small: read from the source alone."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
PACKAGES = {"deepavfusion": "modeling_deepavfusion"} | {
    f"deepavfusion.{folder}": folder for folder in ("processors", "inference", "training")
}
# Folders whose files are copied side by side, so they have no folders of their own.
FLAT = ("modeling_deepavfusion", "processors")
MAX_LINES = {"modeling_deepavfusion": 400, "processors": 400, "inference": 300, "training": 300}
MAX_MODULES = 12

MODELS = r"deepavfusion(?!\.(processors|inference|training)\b)"
TASK_PARTS = r"deepavfusion\.training\.(data|metrics|report)\b"
ENTRY_POINTS = r"deepavfusion\.training\.(pretrain|finetune|probe|evaluate|verify|check|command|cli)$"
# Modules (of which name matches) and those that they must not import.
ARROWS = [
    (rf"{MODELS}\.(?!registration$)", r"deepavfusion\.(processors|inference|training)\b"),
    (r"deepavfusion(\.registration)?$", r"deepavfusion\.(inference|training)\b"),
    (rf"{MODELS}\.", r"deepavfusion\.registration$"),
    (r"deepavfusion\.processors", rf"{MODELS}|deepavfusion\.(inference|training)\b"),
    (r"deepavfusion\.inference", r"deepavfusion\.training\b"),
    (TASK_PARTS, r"deepavfusion\.training\.(config|tasks|runs|experiments)\b"),
    (TASK_PARTS, ENTRY_POINTS),
    (r"deepavfusion\.training\.(config|tasks)", r"deepavfusion\.training\.(runs|experiments)\b"),
    (r"deepavfusion\.training\.(config|tasks|runs)", ENTRY_POINTS),
    (r"deepavfusion\.training(?!\.experiments\b)", r"deepavfusion\.training\.experiments\b"),
]


def read_modules() -> dict[str, Path]:
    """Import name -> file, of all modules."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imported(name: str, path: Path, modules) -> set[str]:
    """Own modules that a module imports, in functions too; a package's `__init__` counts if a name is taken from it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                found.add(inner if inner in modules else origin)
    return {target for target in found if target in modules and target != name}


MODULES = read_modules()
IMPORTS = {name: imported(name, path, MODULES) for name, path in MODULES.items()}


def circle(imports: dict[str, set[str]]) -> list[str] | None:
    """A path of imports that ends where it starts, if there is one."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for target in sorted(imports[name]):
            if found := search(target, [*path, name]):
                return found
        done.add(name)
        return None

    return next((found for name in sorted(imports) if (found := search(name, []))), None)


@pytest.mark.parametrize(("importers", "forbidden"), ARROWS)
def test_imports_point_downward(importers, forbidden):
    names = [name for name in MODULES if re.match(importers, name)]
    assert names
    assert any(re.match(forbidden, name) for name in MODULES)
    wrong = [f"{name} -> {to}" for name in names for to in IMPORTS[name] if re.match(forbidden, to)]
    assert not wrong


def test_no_imports_form_a_circle():
    assert circle(IMPORTS) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_files_are_short_and_folders_small():
    for folder, limit in MAX_LINES.items():
        paths = list((ROOT / folder).rglob("*.py"))
        lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
        assert not {path: length for path, length in lengths.items() if length > limit}
        if folder not in FLAT:
            modules = {path.parent: 0 for path in paths}
            for path in paths:
                modules[path.parent] += path.name != "__init__.py"
            assert not {str(parent): number for parent, number in modules.items() if number > MAX_MODULES}
        else:
            assert {path.parent for path in paths} == {ROOT / folder}
