"""Links between image and audio: properties of an object that its sound follows, up to noise.

With `ScenesConfig.coupling` above 0, properties of a sounding object's image predict properties of its sound
(`LINKS`), as in nature, where large things sound long. A link is a Gaussian copula: mapped to normal scores,
both properties are jointly normal with correlation `coupling` (or minus it). Both stay uniform, so each modality alone
is distributed as without links, and the information that a link carries is known exactly (`link_strengths`). No link
depends on the class.
"""

from dataclasses import dataclass
from math import asin, log2, pi, sqrt
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_MARGIN = 1e-9  # keeps normal scores finite


@dataclass(frozen=True)
class Link:
    """A property of an object's image and the property of its sound that follows it.

    Attributes:
        image: Name of the visual property.
        audio: Name of the audible property.
        sign: 1 if their uniform numbers rise together, -1 if one falls as the other rises.
        object_index: Which of an object's uniform numbers is the visual property.
        source_index: Which of a source's uniform numbers is the audible property.
    """

    image: str
    audio: str
    sign: int
    object_index: int
    source_index: int

    @property
    def name(self) -> str:
        """Both properties."""
        return f"{self.image} - {self.audio}"


LINKS = (
    Link("lightness", "pitch", 1, 19, 7),  # lighter objects sound higher
    Link("height", "rate", -1, 9, 2),  # rows are counted from the top: higher objects sound faster
    Link("side", "onset", 1, 1, 0),  # objects further to the right start later
    Link("side", "phase", 1, 1, 4),
    Link("hue", "formant", 1, 17, 20),
    Link("size", "end", -1, 0, 1),  # larger objects sound longer
)


def normal_score(uniform: float) -> float:
    """The standard normal number of the same rank as a uniform number in [0, 1)."""
    return _NORMAL.inv_cdf(min(max(float(uniform), _MARGIN), 1 - _MARGIN))


def couple(uniform: float, noise: float, correlation: float) -> float:
    """Draw a uniform number that is linked to another one by a Gaussian copula.

    Args:
        uniform: The given number, uniform in [0, 1).
        noise: Independent number, uniform in [0, 1).
        correlation: Correlation of the normal scores, in (-1, 1).

    Returns:
        Number in (0, 1), uniform if both arguments are.
    """
    free = sqrt(1 - correlation**2) * normal_score(noise)
    return _NORMAL.cdf(correlation * normal_score(uniform) + free)


def couple_source(
    source: np.ndarray, visual: np.ndarray, place: np.ndarray, size: tuple[int, int], coupling: float
) -> np.ndarray:
    """The uniform numbers of a source after the links to its object; its own are the noise of the links.

    Args:
        source: (NUM_SOURCE_UNIFORMS,) numbers in [0, 1).
        visual: (NUM_OBJECT_UNIFORMS,) numbers in [0, 1) of its object.
        place: (x, y, radius) in pixels that the object has found, which may not be the first that was drawn.
        size: Height and width of the frame in pixels.
        coupling: Correlation of the normal scores.
    """
    (height, width), (x, y, radius) = size, place
    seen = visual.copy()
    seen[1], seen[9] = (x - radius) / (width - 2 * radius), (y - radius) / (height - 2 * radius)
    source = source.copy()
    for link in LINKS:
        source[link.source_index] = couple(seen[link.object_index], source[link.source_index], link.sign * coupling)
    return source


def couple_object(visual: np.ndarray, source: np.ndarray, coupling: float) -> np.ndarray:
    """The uniform numbers of an object, alone in its frame, given those of its source: the inverse of `couple_source`.

    Args:
        visual: (NUM_OBJECT_UNIFORMS,) numbers in [0, 1), the noise of the links.
        source: (NUM_SOURCE_UNIFORMS,) from `couple_source`.
        coupling: Correlation of the normal scores.
    """
    visual, noise = visual.copy(), 1 - coupling**2
    for index in {link.object_index for link in LINKS}:
        # The posterior of a normal score with a standard normal prior and one observation for each link.
        scores = [link.sign * normal_score(source[link.source_index]) for link in LINKS if link.object_index == index]
        precision = 1 + len(scores) * coupling**2 / noise
        mean = sum(scores) * coupling / noise / precision
        visual[index] = _NORMAL.cdf(mean + normal_score(visual[index]) / sqrt(precision))
    return visual


def link_strengths(coupling: float) -> dict[str, dict[str, float]]:
    """Exact information that a link carries on either property, given the other one.

    Returns:
        For each link, `"bits"`, the mutual information, and `"best_loss"`, the smallest mean squared error of the
        property, in its units (uniform), relative to its variance, which is the error without the link.
    """
    bits = -0.5 * log2(1 - coupling**2) if coupling else 0.0
    # The conditional mean of u is Phi(r z / sqrt(2 - r^2)), whose second moment is an orthant probability.
    best_loss = 1 - 6 / pi * asin(coupling**2 / 2)
    return {link.name: {"bits": bits, "best_loss": best_loss} for link in LINKS}


__all__ = ["LINKS", "Link", "couple", "couple_object", "couple_source", "link_strengths", "normal_score"]
