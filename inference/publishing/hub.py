"""The Hub: who publishes, what a repository holds already, one commit with a tag, and errors in words."""

import contextlib
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # version 2 of the client has replaced it under this name

from deepavfusion_cli.errors import BAD_INPUT, FAILED, one_line

from .contents import PUBLISHED

_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN to a token with write access"
_TAG = re.compile(r"v([0-9]+)")
_ADDRESSES = re.compile(r"\s*\(Request ID:[^)]*\)|\s*for url:? \S+|\s*For more information\S*.*")


class HubError(OSError):
    """Raised for what the Hub refuses, or if it cannot be reached; the message says what to do.

    Attributes:
        exit_code: Exit code of a command that it ends.
    """

    def __init__(self, message: str, exit_code: int = BAD_INPUT):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Upload:
    """How a model is uploaded, as by the options of `hf upload` and `hf repos`.

    Attributes:
        repo_id: Hub id.
        private: Create the repository as a private one.
        gated: Who may download it: "auto" or "manual" approval; None for everybody.
        revision: Branch, which is created if it is absent; None for the main one.
        create_pr: Open a pull request instead of committing.
        tag: Name of the commit; "" for none, None for the next one of v1, v2, ...
        overwrite: Replace the model that the repository holds.
        message: Title of the commit.
        description: Text of the commit.
    """

    repo_id: str
    private: bool = False
    gated: str | None = None
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    overwrite: bool = False
    message: str | None = None
    description: str | None = None


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Generator[None]:
    """Raise `HubError` for what the client raises.

    Args:
        repo_id: Hub id, for messages.
    """
    try:
        yield
    except HubError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError("the environment forbids to contact the Hub: unset HF_HUB_OFFLINE") from error
    except LocalTokenNotFoundError as error:
        raise HubError(f"there is no token for the Hub: {_LOG_IN}") from error
    except HfHubHTTPError as error:
        raise _refusal(error, repo_id) from error
    except ValueError as error:
        if "Invalid metadata" not in str(error):
            raise
        raise HubError(f"the Hub refuses the card: {one_line(error)}") from error
    except (httpx.TransportError, ConnectionError, TimeoutError) as error:
        raise HubError(
            f"the Hub ({constants.ENDPOINT}) cannot be reached ({one_line(error) or type(error).__name__}): check the "
            "network, and run the same command again",
            FAILED,
        ) from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> HubError:
    status = error.response.status_code
    said = _ADDRESSES.sub("", one_line(getattr(error, "server_message", None) or error)).strip().rstrip(".")
    if status == 401:
        return HubError(f"the Hub does not accept the token ({said.partition('. ')[0]}): {_LOG_IN}")
    if status == 403:
        return HubError(
            f"the token may not write to {repo_id} ({said}): use one with write access to {repo_id.split('/')[0]}, "
            "or propose the change by --create-pr"
        )
    if status == 404:
        return HubError(f"{repo_id}: the Hub has no such repository or branch, or the token may not see it ({said})")
    if status == 429 or status >= 500:
        return HubError(f"the Hub answered {status} ({said}): run the same command again later", FAILED)
    return HubError(f"the Hub refused {repo_id} ({status}: {said})")


def check_token(api: HfApi) -> str:
    """Check that there is a token that the Hub accepts; returns the name of its user.

    Raises:
        HubError: If there is none.
    """
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled
    if get_token() is None:
        raise LocalTokenNotFoundError
    return api.whoami()["name"]


def check_repository(api: HfApi, upload: Upload) -> bool:
    """Check that the model may go to its repository, without changing anything.

    Returns:
        Whether the repository exists.

    Raises:
        HubError: If it holds another model that is not to be replaced, or is public and is not to be.
    """
    try:
        info = api.model_info(upload.repo_id)
    except RepositoryNotFoundError as error:
        if upload.create_pr or upload.revision:
            option = "--create-pr" if upload.create_pr else "--revision"
            raise HubError(f"{upload.repo_id} does not exist: push it once without {option}") from error
        return False
    if upload.private and not info.private:
        raise HubError(
            f"{upload.repo_id} exists and is public, and --private is for new ones: make it private by "
            f"`hf repos settings {upload.repo_id} --private`"
        )
    if upload.create_pr or upload.overwrite:
        return True
    with contextlib.suppress(RevisionNotFoundError):  # a new branch
        info = api.model_info(upload.repo_id, revision=upload.revision)
        if any(file.rfilename == "config.json" for file in info.siblings or ()):
            raise HubError(
                f"{upload.repo_id} holds a model already (commit {(info.sha or '')[:8]}): replace it by --overwrite, "
                "propose the change by --create-pr, or name another repository or --revision"
            )
    return True


def check_tag(api: HfApi, upload: Upload) -> None:
    """Raise `HubError` if the repository has the tag already."""
    if upload.tag and upload.tag in _tags(api, upload.repo_id):
        raise HubError(f"{upload.repo_id} has a tag {upload.tag} already: name another one by --tag")


def _tags(api: HfApi, repo_id: str) -> dict[str, str]:
    """Tag -> commit."""
    return {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}


def upload_folder(api: HfApi, folder: Path, upload: Upload, exists: bool) -> tuple[str, str, str | None]:
    """Upload a folder in one commit, and tag it.

    Files of an earlier model that the new one does not have are removed.

    Args:
        api: Client.
        folder: Folder of what is uploaded, and of nothing else.
        upload: Where and how.
        exists: What `check_repository` returned.

    Returns:
        Address of the commit or pull request, name of the commit, and its tag, if it has one.
    """
    if not exists:
        # Private until it is gated: nobody can download it in between.
        api.create_repo(upload.repo_id, private=upload.private or upload.gated is not None or None)
    if upload.gated:
        api.update_repo_settings(upload.repo_id, gated=upload.gated)
        if not (exists or upload.private):
            api.update_repo_settings(upload.repo_id, private=False)
    if upload.revision and not upload.create_pr:
        api.create_branch(upload.repo_id, branch=upload.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=upload.repo_id,
        folder_path=folder,
        revision=upload.revision,
        create_pr=upload.create_pr or None,
        commit_message=upload.message or "Upload model",
        commit_description=upload.description,
        delete_patterns=[pattern for pattern in PUBLISHED if pattern != ".gitattributes"],
        ignore_patterns=[],
    )
    if upload.create_pr:
        return commit.pr_url or commit.commit_url, commit.oid, None
    return f"{constants.ENDPOINT}/{upload.repo_id}", commit.oid, _tagged(api, upload, commit.oid)


def _tagged(api: HfApi, upload: Upload, commit: str) -> str | None:
    if upload.tag == "":
        return None
    tags = _tags(api, upload.repo_id)
    numbers = {name: int(found[1]) for name in tags if (found := _TAG.fullmatch(name))}
    if upload.tag is None and (same := [name for name in numbers if tags[name] == commit]):
        return same[0]  # nothing has changed since
    tag = upload.tag or f"v{1 + max(numbers.values(), default=0)}"
    api.create_tag(upload.repo_id, tag=tag, revision=commit)
    return tag


__all__ = ["HubError", "Upload", "check_repository", "check_tag", "check_token", "hub_errors", "upload_folder"]
