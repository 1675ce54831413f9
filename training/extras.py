"""Extras that commands need, and the message if one is not installed."""

import shlex
from importlib import metadata

from packaging.requirements import Requirement

from deepavfusion_cli import MODULES

# Module of `inference` or `training` -> extra; all other modules run with the base install. setup.cfg declares the
# packages of each extra.
EXTRAS = {
    "demo": "demo",
    "pretrain": "train",
    "finetune": "train",
    "probe": "train",
    "evaluate": "train",
    "verify": "train",
    "check": "train",
    "prepare": "train",
    "experiments.ablations": "train",
    "experiments.benchmark_data": "train",
    "experiments.gallery": "train",
    "experiments.label_efficiency": "train",
    "experiments.objectives": "train",
    "experiments.pretraining": "train",
    "experiments.scenes": "train",
    "experiments.baselines": "eval",
}


def packages(extra: str) -> dict[str, str]:
    """Packages of an extra, and the versions of each that will do, from the metadata of the installed distribution.

    Empty if the package is used without being installed, and therefore without metadata.
    """
    try:
        requirements = [Requirement(text) for text in metadata.requires("deepavfusion") or []]
    except metadata.PackageNotFoundError:
        return {}
    required = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
    return {r.name: str(r.specifier) for r in required if not r.marker.evaluate({"extra": ""})}


def missing_extra(name: str) -> str | None:
    """Error message of a command for which a package is missing; None if all packages are installed.

    Args:
        name: Name of a command, or of a module in `training`, such as "experiments.ablations".
    """
    extra = EXTRAS.get(MODULES.get(name, name))
    needed = packages(extra) if extra else {}
    missing = [package for package in needed if not _is_installed(package)]
    if not missing:
        return None
    command = f"python -m deepavfusion.training.{name}" if "." in name else f"deepavfusion {name}"
    install = shlex.join(["pip", "install", *(f"{package}{needed[package]}" for package in missing)])
    several = len(missing) > 1
    named = f"package{'s' if several else ''} {', '.join(missing)}"
    return f"{command}: needs the {named}; install {'them' if several else 'it'} by `{install}`"


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


__all__ = ["EXTRAS", "missing_extra", "packages"]
