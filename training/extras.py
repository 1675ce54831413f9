"""Extras that commands need, and the message if one is not installed."""

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


def packages(extra: str) -> list[str]:
    """Names of the packages of an extra, from the metadata of the installed distribution.

    Empty if the package is used without being installed, and therefore without metadata.
    """
    try:
        requirements = [Requirement(text) for text in metadata.requires("deepavfusion") or []]
    except metadata.PackageNotFoundError:
        return []
    required = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
    return [r.name for r in required if not r.marker.evaluate({"extra": ""})]


def missing_extra(name: str) -> str | None:
    """Error message of a command for which a package is missing; None if all packages are installed.

    Args:
        name: Name of a command, or of a module in `training`, such as "experiments.ablations".
    """
    extra = EXTRAS.get(MODULES.get(name, name))
    for package in packages(extra) if extra else ():
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            command = f"python -m deepavfusion.training.{name}" if "." in name else f"deepavfusion {name}"
            return f"{command}: needs the package {package}; install it by `pip install 'deepavfusion[{extra}]'`"
    return None


__all__ = ["EXTRAS", "missing_extra", "packages"]
