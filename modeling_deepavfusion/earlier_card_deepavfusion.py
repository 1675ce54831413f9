"""Cards in folders that another model is saved to: kept, but not as the card of that model."""

import contextlib
import hashlib
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)

# Ends of the metadata, and the tag of this package's models in it, see `card_tags`.
_RULE = re.compile(r"^---\s*?$", re.MULTILINE)
_OWN_TAG = re.compile(r"^ *- *deepavfusion\s*?$", re.MULTILINE)


@contextlib.contextmanager
def setting_card_aside(folder: Any, at_once: bool = False) -> Generator[None]:
    """Rename the card of a model of this package, README.md, if the block replaces that model by another.

    It becomes README.earlier.md, or the next free name. Cards of anything else stay, as does the card of a model that
    is saved again with the same weights, and one that was written before any model was saved.

    Args:
        folder: Folder that the model is saved to.
        at_once: Whether the card would be overwritten in the block, so that it is renamed first, whatever is saved.
    """
    card = Path(folder) / "README.md"
    before = _weights(card.parent) if _is_own(card) else {}
    if before and at_once:
        _rename(card)
    try:
        yield
    finally:
        if before and not at_once and _weights(card.parent) != before:
            _rename(card)


def _is_own(card: Path) -> bool:
    """Whether a file is a card with the tag of this package's models."""
    if not card.is_file():
        return False
    start, *parts = _RULE.split(card.read_text(encoding="utf-8", errors="replace"), maxsplit=2)
    return len(parts) == 2 and not start.strip() and _OWN_TAG.search(parts[0]) is not None


def _weights(folder: Path) -> dict[str, str]:
    """File of weights -> digest of its content."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _rename(card: Path) -> None:
    number, target = 1, card.with_name("README.earlier.md")
    while target.exists():
        number += 1
        target = card.with_name(f"README.earlier-{number}.md")
    card.rename(target)
    logger.warning("%s described the model that another one has replaced: it is %s now", card, target.name)


__all__ = ["setting_card_aside"]
