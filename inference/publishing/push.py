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
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, constants

from deepavfusion.card_deepavfusion import at_location, with_license
from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import BAD_INPUT
from deepavfusion_cli.paths import missing_model
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from ..jobs.locks import folder_owner
from ..jobs.progress import plain_output
from .checks import find_faults, private_paths
from .contents import CARD, REPORT, Contents, find_contents, shows_clips
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
    upload = _upload(args)
    publish(args.folder, upload, args.license, args.include, args.exclude, dry_run=args.dry_run)
    return 0


def publish(
    folder: Path,
    upload: Upload,
    license: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Check a model, say what is uploaded, and upload it.

    Args:
        folder: Folder of a run, or of a saved model with its processor and card.
        upload: Where and how.
        license: License of the weights, if the card names none.
        include: Patterns of further files.
        exclude: Patterns of files that are left out.
        dry_run: Whether nothing is uploaded, and nobody is contacted.

    Raises:
        PublishingError: If the model cannot be published.
        HubError: If the Hub refuses it or cannot be reached.
    """
    if reason := missing_model(str(folder)) or folder_owner(folder):
        raise PublishingError(f"{folder} cannot be published: {reason}")
    contents = find_contents(folder, include, exclude)
    card = _read_card(folder)
    _refuse(folder, find_faults(contents, card, license))
    api, exists = HfApi(), False
    if not dry_run:  # before the model is loaded, which takes longer
        with hub_errors(upload.repo_id):
            check_token(api)
            exists = check_repository(api, upload)
            if exists:
                check_tag(api, upload)
    with tempfile.TemporaryDirectory(prefix="deepavfusion-push-") as place:
        staged = Path(place, "model")
        _stage(contents, staged, _published_card(card, upload, license))
        try:
            loaded = load_alone(staged)
        except LoadingError as error:
            raise PublishingError(f"{folder} cannot be published: {error}") from error
        say("\n".join([f"{folder} -> {upload.repo_id}", *contents.lines()]), kept="\n")
        say(f"checked: card, results, code; {loaded} loads where this package is not installed")
        if REPORT in contents.published and shows_clips(contents.folder / REPORT):
            say(f"note: {REPORT} shows frames and audio of clips; --exclude {REPORT} leaves it out")
        if named := private_paths(contents):
            say(f"note: {', '.join(named)} name{'' if len(named) > 1 else 's'} folders of this machine")
        if dry_run:
            say("nothing was uploaded (--dry-run)")
            return
        with hub_errors(upload.repo_id):
            address, commit, tag = upload_folder(api, staged, upload, exists)
    pinned = f'revision="{tag or commit}"'
    say(f"{'proposed' if upload.create_pr else 'published'} at {address}\n{pinned} names this version", kept="\n")


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


def _published_card(text: str, upload: Upload, license: str | None) -> str:
    """The card with the license that was given, and with an example and players that load from the Hub."""
    card = ModelCard(text)
    if license and not card.data.get("license"):
        text = str(with_license(card, license))
    files = f"{constants.ENDPOINT}/{upload.repo_id}/resolve/{upload.revision or 'main'}/"
    return at_location(_PLAYER.sub(rf"\g<1>{files}", text), upload.repo_id)


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
