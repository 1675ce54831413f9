"""Publish a model on the Hub: check it, show what is uploaded, and upload it in one commit with a tag.

deepavfusion push runs/quickstart ORG/NAME --dry-run
deepavfusion push runs/quickstart ORG/NAME --private
deepavfusion push runs/quickstart ORG/NAME --overwrite --tag best
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, constants

from deepavfusion.card_deepavfusion import at_location
from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import BAD_INPUT
from deepavfusion_cli.paths import missing_model
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from ..jobs.locks import folder_owner
from ..jobs.progress import plain_output
from .checks import find_faults, private_paths
from .contents import CARD, Contents, find_contents
from .hub import Upload, check_repository, check_tag, check_token, hub_errors, upload_folder
from .loading import LoadingError, load_alone

_PLAYER = re.compile(r'(<(?:video|audio|img) src=")(?![a-z]+:|/)')  # of a file in the folder of the model


class PublishingError(ValueError):
    """Raised for a model that cannot be published; the message lists what is wrong."""

    exit_code = BAD_INPUT


@command("deepavfusion push")
def main(argv: list[str]) -> int:
    """Run the command; returns 0, 1 if the Hub cannot be reached, 2 for a model that cannot be published."""
    args = parse("push", argv)
    plain_output()
    folder = args.folder
    if reason := missing_model(str(folder)) or folder_owner(folder):
        raise PublishingError(f"{folder} cannot be published: {reason}")
    contents = find_contents(folder, args.include, args.exclude)
    card = _read_card(folder)
    _refuse(folder, find_faults(contents, card, args.license))
    api, upload, exists = HfApi(), _upload(args), False
    if not args.dry_run:  # before the model is loaded, which takes longer
        with hub_errors(args.repo_id):
            check_token(api)
            exists = check_repository(api, upload)
            if exists:
                check_tag(api, upload)
    with tempfile.TemporaryDirectory(prefix="deepavfusion-push-") as place:
        staged = Path(place, "model")
        _stage(contents, staged, _published_card(card, args))
        try:
            loaded = load_alone(staged)
        except LoadingError as error:
            raise PublishingError(f"{folder} cannot be published: {error}") from error
        say("\n".join([f"{folder} -> {args.repo_id}", *contents.lines()]), kept="\n")
        say(f"checked: card, results, code; {loaded} loads where this package is not installed")
        if named := private_paths(contents):
            say(f"note: {', '.join(named)} name{'' if len(named) > 1 else 's'} folders of this machine")
        if args.dry_run:
            say("nothing was uploaded (--dry-run)")
            return 0
        with hub_errors(args.repo_id):
            address, commit, tag = upload_folder(api, staged, upload, exists)
    pinned = f'revision="{tag or commit}"'
    say(f"{'proposed' if args.create_pr else 'published'} at {address}\n{pinned} names this version", kept="\n")
    return 0


def _upload(args: argparse.Namespace) -> Upload:
    return Upload(
        args.repo_id,
        private=args.private,
        gated=args.gated,
        revision=args.revision,
        create_pr=args.create_pr,
        tag=args.tag,
        overwrite=args.overwrite,
        message=args.commit_message,
        description=args.commit_description,
    )


def _read_card(folder: Path) -> str:
    path = folder / CARD
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _refuse(folder: Path, faults: list[str]) -> None:
    if len(faults) == 1:
        raise PublishingError(f"{folder} cannot be published: {faults[0]}")
    if faults:
        raise PublishingError("\n  ".join([f"{folder} cannot be published:", *faults]))


def _published_card(text: str, args: argparse.Namespace) -> str:
    """The card with the license that was given, and with an example and players that load from the Hub."""
    card = ModelCard(text)
    if args.license and not card.data.get("license"):
        card.data["license"] = args.license
        text = str(card)
    files = f"{constants.ENDPOINT}/{args.repo_id}/resolve/{args.revision or 'main'}/"
    return at_location(_PLAYER.sub(rf"\g<1>{files}", text), args.repo_id)


def _stage(contents: Contents, staged: Path, card: str) -> None:
    """Make a folder of links to what is published, beside its card."""
    for name in contents.published:
        target = staged / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == CARD:
            target.write_text(card, encoding="utf-8")
        else:
            os.symlink((contents.folder / name).resolve(), target)


if __name__ == "__main__":
    sys.exit(main())
