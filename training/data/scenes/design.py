"""What scenes are made of: shapes, timbres, and the classes that pair them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

SHAPES = ("triangle", "square", "star", "cross", "ring", "crescent", "heart", "zigzag")
TIMBRES = ("rising", "falling", "trill", "vibrato", "pulses", "gallop", "wah", "hiss")

NUM_SHAPES = len(SHAPES)
NUM_TIMBRES = len(TIMBRES)
NUM_CLASSES = 2 * NUM_SHAPES

# Class 2s pairs shape s with timbre s, class 2s + 1 with timbre s + 1: a cycle through all shapes and timbres, so that
# every shape occurs with two timbres, every timbre with two shapes, and no part of the design is separate from another.
CLASS_SHAPE = tuple(c // 2 for c in range(NUM_CLASSES))
CLASS_TIMBRE = tuple((c // 2 + c % 2) % NUM_TIMBRES for c in range(NUM_CLASSES))
CLASS_NAMES = tuple(f"{TIMBRES[t]} {SHAPES[s]}" for s, t in zip(CLASS_SHAPE, CLASS_TIMBRE))


@dataclass(frozen=True)
class Design:
    """The shapes and timbres of scenes, and their classes.

    Attributes:
        shapes: Names of the shapes.
        timbres: Names of the timbres.
        class_names: Names of the classes.
        class_shape: Shape of each class.
        class_timbre: Timbre of each class.
        distinct: Whether all objects of a scene differ in shape; else silent objects may share one.
    """

    shapes: tuple[str, ...]
    timbres: tuple[str, ...]
    class_names: tuple[str, ...]
    class_shape: tuple[int, ...]
    class_timbre: tuple[int, ...]
    distinct: bool = False

    @classmethod
    def of_things(cls, names: Sequence[str]) -> "Design":
        """The design in which every thing is a class: its image is the only shape, its sound the only timbre."""
        names, own = tuple(names), tuple(range(len(names)))
        return cls(names, names, names, own, own, distinct=True)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def class_of(self) -> dict[tuple[int, int], int]:
        """(shape, timbre) -> class."""
        return {pair: c for c, pair in enumerate(zip(self.class_shape, self.class_timbre, strict=True))}

    @cached_property
    def compatible_shapes(self) -> tuple[frozenset[int], ...]:
        """For each timbre, the shapes that occur with it."""
        found = [set() for _ in self.timbres]
        for shape, timbre in self.class_of:
            found[timbre].add(shape)
        return tuple(frozenset(shapes) for shapes in found)

    def eligible_classes(self, timbres: Sequence[int]) -> list[int]:
        """Classes that may sound along with `timbres`: those whose timbre shares no compatible shape with them.

        So the other sources never determine which of a timbre's two classes sounds.
        """
        taken = self._taken(timbres)
        return [c for c, t in enumerate(self.class_timbre) if not self.compatible_shapes[t] & taken]

    def eligible_silent_shapes(self, timbres: Sequence[int]) -> list[int]:
        """Shapes that a silent object may have along with `timbres`: those compatible with none of them."""
        taken = self._taken(timbres)
        return [s for s in range(len(self.shapes)) if s not in taken]

    def _taken(self, timbres: Sequence[int]) -> frozenset[int]:
        return frozenset().union(*(self.compatible_shapes[t] for t in timbres))


GENERATED = Design(SHAPES, TIMBRES, CLASS_NAMES, CLASS_SHAPE, CLASS_TIMBRE)
COMPATIBLE_SHAPES = GENERATED.compatible_shapes
