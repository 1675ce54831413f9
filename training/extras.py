"""Which commands need an extra of the package, and what to answer where it is not installed."""

from importlib import metadata

from packaging.requirements import Requirement

# Module -> extra; all others run with the base install. What an extra consists of is declared in setup.cfg.
EXTRAS = {
    "pretrain": "train",
    "finetune": "train",
    "probe": "train",
    "evaluate": "train",
    "experiments.ablations": "train",
    "experiments.benchmark_attention": "train",
    "experiments.scenes": "train",
    "experiments.baselines": "eval",
}


def packages(extra: str) -> list[str]:
    """Names of the packages of an extra, from the metadata of the installed distribution.

    Empty where the code is used without having been installed: nothing is declared there.
    """
    try:
        requirements = [Requirement(text) for text in metadata.requires("deepavfusion") or []]
    except metadata.PackageNotFoundError:
        return []
    wanted = [r for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
    return [r.name for r in wanted if not r.marker.evaluate({"extra": ""})]


def missing_extra(name: str) -> str | None:
    """The line with which a command refuses to start for want of a package; None if it has all that it needs.

    Args:
        name: of a module in `training`, such as "pretrain".
    """
    extra = EXTRAS.get(name)
    for package in packages(extra) if extra else ():
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            command = f"python -m deepavfusion.training.{name}" if "." in name else f"deepavfusion {name}"
            return f"{command}: needs the package {package}; install it by `pip install 'deepavfusion[{extra}]'`"
    return None


__all__ = ["EXTRAS", "missing_extra", "packages"]
