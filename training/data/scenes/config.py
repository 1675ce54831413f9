"""Settings of the sounding scenes, what a clip holds, and the best scores that a single modality can reach."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from math import log
from pathlib import Path

from deepavfusion.ranges_deepavfusion import Range, check_fields, number

from .design import CLASS_SHAPE, CLASS_TIMBRE, GENERATED, NUM_CLASSES, Design
from .things import ThingFolder

DIFFICULTIES = ("easy", "standard", "hard")
SPLIT_OFFSETS = {"train": 0, "validation": 1 << 40, "test": 2 << 40}
# Scenes of a split, counted from its offset.
SPLIT_INDICES = Range(at_least=0, below=1 << 40)


@dataclass(frozen=True)
class ScenesConfig:
    """Settings that, together with an index, determine a sounding scene.

    Args:
        image_size: Height and width in pixels, one number or a pair; smaller shapes cannot be distinguished.
        seconds: Length of the audio; rhythms need at least 0.75 s.
        sampling_rate: Sampling rate in Hz.
        num_frames: Frames per clip, spread evenly over the audio (a single frame is its middle).
        difficulty: `"easy"`, `"standard"` or `"hard"`: how far colors, sizes, textures, pitches, rates and noise vary
            within a family, and how far the families' own patterns stand out.
        min_objects: Fewest visible objects.
        max_objects: Most visible objects, at most 4, and at most as many as there are things.
        max_sounding: Most objects that sound at once, at most 3. At 1 a clip has one label, else several.
        noise: Background noise's RMS relative to a source at full level; None takes the difficulty's range.
        motion: Whether objects move (needs `num_frames > 1`). A source swings while it sounds, a silent object at some
            other time: the image alone still does not show which object sounds, yet audio and movement correspond.
        coupling: How closely the sound of an object follows its size, place and color, from 0 (not at all) to below 1
            (see `scenes.coupling`).
        things: Folder of cut-outs with their sounds to make scenes of, instead of generated shapes and timbres (see
            `scenes.things`). It is read when the settings are made, and later changes do not affect them.
        seed: Seed of the scenes.
    """

    image_size: int | tuple[int, int] = number(64, at_least=32, at_most=16384)
    seconds: float = number(3.0, at_least=0.75, at_most=600)
    sampling_rate: int = number(16000, at_least=8000, at_most=768_000)
    num_frames: int = number(1, at_least=1, at_most=4096)
    difficulty: str = "standard"
    min_objects: int = number(1, at_least=1, at_most=4)
    max_objects: int = number(4, at_least=1, at_most=4)
    max_sounding: int = number(2, at_least=1, at_most=3)
    noise: float | None = number(None, at_least=0, at_most=100)
    motion: bool = False
    coupling: float = number(0.0, at_least=0, below=1)
    things: str | Path | ThingFolder | None = None
    seed: int = number(0, at_least=0, below=1 << 64)

    def __post_init__(self):
        if isinstance(self.image_size, list):
            object.__setattr__(self, "image_size", tuple(self.image_size))
        if self.difficulty not in DIFFICULTIES:
            raise ValueError(f"Expected a difficulty of {', '.join(DIFFICULTIES)}, got {self.difficulty!r}.")
        check_fields(self)
        if self.min_objects > self.max_objects:
            raise ValueError(
                f"Expected min_objects <= max_objects, got min_objects={self.min_objects}, "
                f"max_objects={self.max_objects}."
            )
        if self.motion and self.num_frames == 1:
            raise ValueError("Expected num_frames > 1 for motion, got num_frames=1.")
        if self.things is not None:
            self._read_things()

    def _read_things(self) -> None:
        if self.coupling:
            raise ValueError("coupling does not apply to scenes of things: their sounds do not follow their images.")
        if not isinstance(self.things, ThingFolder):
            object.__setattr__(self, "things", ThingFolder.read(self.things))
        if len(self.things.names) < self.min_objects:
            raise ValueError(
                f"{self.things.path}: expected at least min_objects={self.min_objects} things, "
                f"found {len(self.things.names)}."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def num_samples(self) -> int:
        """Samples of the waveform."""
        return round(self.seconds * self.sampling_rate)

    @property
    def multi_label(self) -> bool:
        """Whether more than one object may sound in a clip."""
        return self.max_sounding > 1

    @cached_property
    def design(self) -> Design:
        """The shapes, timbres and classes of the scenes."""
        return GENERATED if self.things is None else Design.of_things(self.things.names)

    def to_dict(self) -> dict:
        """The settings as plain values; of things, the digest of the folder's contents."""
        # Without coupling and things as before there were any, so that caches stay valid.
        values = asdict(self) | {"things": self.things and self.things.digest}
        return {name: value for name, value in values.items() if name not in ("coupling", "things") or value}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all settings."""
        return tuple(f.name for f in fields(cls))


def sample_structure(uniforms, config: ScenesConfig) -> tuple[list[int], list[int]]:
    """Draw the content of a clip: the classes that sound and the shapes that stay silent.

    Args:
        uniforms: At least 9 numbers in [0, 1).
        config: Settings of the scenes.
    """
    design = config.design
    most = min(config.max_objects, len(design.shapes))
    count = config.min_objects + int(uniforms[0] * (most - config.min_objects + 1))
    sounding = 1 + int(uniforms[1] * min(count, config.max_sounding))
    classes, timbres = [], ()
    for u in uniforms[2 : 2 + sounding]:
        choices = design.eligible_classes(timbres)
        classes.append(choices[int(u * len(choices))])
        timbres += (design.class_timbre[classes[-1]],)
    shapes, silent = design.eligible_silent_shapes(timbres), []
    for u in uniforms[5 : 5 + count - sounding]:
        silent.append(shapes[int(u * len(shapes))])
        if design.distinct:
            shapes.remove(silent[-1])
    return classes, silent


def enumerate_structures(config: ScenesConfig) -> Iterator[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """Every outcome of `sample_structure` with its probability: (probability, sounding classes, silent shapes).

    For generated shapes and timbres, not for things.
    """

    def sources(left: int, probability: float, classes: tuple[int, ...]):
        if left == 0:
            yield probability, classes
            return
        choices = GENERATED.eligible_classes([CLASS_TIMBRE[c] for c in classes])
        for c in choices:
            yield from sources(left - 1, probability / len(choices), (*classes, c))

    def bystanders(left: int, probability: float, shapes: tuple[int, ...], choices: list[int]):
        if left == 0:
            yield probability, shapes
            return
        for s in choices:
            yield from bystanders(left - 1, probability / len(choices), (*shapes, s), choices)

    counts = range(config.min_objects, config.max_objects + 1)
    for count in counts:
        most = min(count, config.max_sounding)
        for sounding in range(1, most + 1):
            for p, classes in sources(sounding, 1 / len(counts) / most, ()):
                choices = GENERATED.eligible_silent_shapes([CLASS_TIMBRE[c] for c in classes])
                for q, silent in bystanders(count - sounding, p, (), choices):
                    yield q, classes, silent


def _best_scores(structures: list, evidence: Callable) -> tuple[float, float]:
    """(accuracy, mAP) of the ideal observer who knows the design and `evidence(classes, silent)`, a hashable value.

    Accuracy: probability that its likeliest class sounds. mAP: with its posterior as score, ties in random order.
    """
    mass = defaultdict(float)
    joint = defaultdict(lambda: [0.0] * NUM_CLASSES)
    for p, classes, silent in structures:
        known = evidence(classes, silent)
        mass[known] += p
        for c in classes:
            joint[known][c] += p
    total = sum(mass.values())
    accuracy = sum(max(row) for row in joint.values()) / total
    average_precisions = []
    for c in range(NUM_CLASSES):
        # Merge evidence of equal posterior: between equal scores the order is random, precision moves smoothly.
        groups = defaultdict(float)
        for known, row in joint.items():
            groups[round(row[c] / mass[known], 12)] += mass[known]
        positives = sum(row[c] for row in joint.values())
        found = examined = area = 0.0
        for posterior, weight in sorted(groups.items(), reverse=True):
            # Integral of the precision (found + posterior x) / (examined + x) over the recall posterior dx / positives.
            area += posterior * posterior * weight
            if examined:
                area += posterior * (found - posterior * examined) * log((examined + weight) / examined)
            found, examined = found + posterior * weight, examined + weight
        average_precisions.append(area / positives)
    return accuracy, sum(average_precisions) / NUM_CLASSES


@lru_cache(maxsize=16)
def _ceilings(min_objects: int, max_objects: int, max_sounding: int) -> tuple:
    clips = ScenesConfig(min_objects=min_objects, max_objects=max_objects, max_sounding=max_sounding)
    structures = list(enumerate_structures(clips))
    single = list(enumerate_structures(replace(clips, min_objects=1, max_objects=1)))

    def audio(classes, silent):
        return tuple(sorted(CLASS_TIMBRE[c] for c in classes))

    def image(classes, silent):
        return tuple(sorted((*(CLASS_SHAPE[c] for c in classes), *silent)))

    def both(classes, silent):
        return audio(classes, silent), image(classes, silent)

    result = []
    for name, evidence in (("audio", audio), ("image", image), ("both", both), ("chance", lambda classes, silent: 0)):
        accuracy, mean_average_precision = _best_scores(structures, evidence)
        result.append((name, _best_scores(single, evidence)[0], accuracy, mean_average_precision))
    return tuple(result)


def modality_ceilings(config: ScenesConfig) -> dict[str, dict[str, float]]:
    """Best scores that any classifier can reach from one modality, from both, and from none.

    Computed from the probabilities of the design, not simulated.

    Returns:
        For each of `"audio"`, `"image"`, `"both"` and `"chance"`: `"single_object_accuracy"` (clips with one object),
        `"accuracy"` (how often the likeliest class is among those that sound, over the clips of `config`) and `"mAP"`
        (mean over classes of the average precision of the exact posterior, over the clips of `config`).

    Raises:
        ValueError: For scenes of things.
    """
    if config.things is not None:
        raise ValueError("Expected generated shapes and timbres: ceilings of things are not known.")
    rows = _ceilings(config.min_objects, config.max_objects, config.max_sounding)
    return {name: {"single_object_accuracy": one, "accuracy": acc, "mAP": ap} for name, one, acc, ap in rows}
