"""Whether a repository of the Hub, its license and what is published there may be as given: decided without torch."""

import argparse
import re

from deepavfusion.inference.jobs.locks import folder_owner

from ..paths import HUB_ID, InputError, advice, missing_model, sentence

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]+")


def check_hub_id(name: str) -> None:
    """Raise `InputError` for a name that no repository of the Hub can have."""
    if not HUB_ID.fullmatch(name) or re.search(r"--|\.\.|\.git$", name):
        raise InputError(f"{name}: expected ORG/NAME, of letters, digits and single -, _ or . in between.")


def check_license(name: str | None) -> None:
    """Raise `InputError` for a name that no license has on the Hub."""
    if name is not None and not _LICENSE.fullmatch(name):
        raise InputError(f"--license={name}: expected an identifier of the Hub, e.g. apache-2.0, cc-by-4.0 or other.")


def check_push(given: argparse.Namespace) -> None:
    """Raise `InputError` for a folder that is not there, or an id that the Hub does not take."""
    check_hub_id(given.repo_id)
    if given.create_pr and given.tag is not None:
        raise InputError("--create-pr and --tag: a pull request cannot be tagged before it is merged.")
    absent = None if given.folder.is_dir() else f"there is no such folder{advice(str(given.folder))}"
    if reason := missing_model(str(given.folder)) or absent or folder_owner(given.folder):
        raise InputError(sentence(f"{given.folder} cannot be published: {reason}"))
    check_license(given.license)
    if given.repo_id == "ORG/NAME" and not given.dry_run:
        raise InputError("ORG/NAME stands for the Hub id of your repository: name it, or pass --dry-run.")


__all__ = ["check_hub_id", "check_license", "check_push"]
