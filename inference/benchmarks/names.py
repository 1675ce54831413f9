"""Names of classes that data sets and models spell differently."""

import re
from collections.abc import Sequence


def match_names(names: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Positions in `known` of those names that occur there.

    Names that only differ in capitals and punctuation (`dog_barking`, "Dog barking") match if that leaves no choice.
    """
    plain = {name: re.sub(r"[\W_]+", " ", name).strip().casefold() for name in (*names, *known)}
    exact = {name: i for i, name in enumerate(known)}
    found = {name: exact[name] for name in names if name in exact}
    for name in names:
        alike = [i for i, other in enumerate(known) if plain[other] == plain[name] and i not in found.values()]
        rivals = [other for other in names if plain[other] == plain[name] and other not in found]
        if name not in found and len(alike) == len(rivals) == 1:
            found[name] = alike[0]
    return found


__all__ = ["match_names"]
