"""From (seed, index) to a sounding scene: frames, audio and ground truth."""

from dataclasses import dataclass

import numpy as np

from .audio import NUM_SOURCE_UNIFORMS, background_noise, gate, play, synthesize
from .config import ScenesConfig, sample_structure
from .coupling import couple, couple_object, couple_source
from .image import (
    NUM_BACKGROUND_UNIFORMS,
    NUM_CONTRAST_UNIFORMS,
    NUM_OBJECT_UNIFORMS,
    largest_radius,
    place_objects,
    render,
)
from .things import load_cutouts, load_recordings


@dataclass
class Scene:
    """A clip and its ground truth: n objects, ordered from the farthest to the nearest, m of which sound.

    Attributes:
        index: Index of the scene.
        frames: (T, H, W, 3) uint8.
        waveform: (N,) float32 in [-1, 1], the mixture: exactly `stems.sum(0) + background`.
        stems: (m, N) float32, one for each sounding object, in the objects' order.
        background: (N,) float32, background noise.
        labels: (classes,) float32, 1 where a class sounds.
        shape_ids: (n,) int64; in scenes of things, shape, timbre and class are all the thing.
        timbre_ids: (n,) int64, -1 for silent objects.
        class_ids: (n,) int64, -1 for silent objects: a silent shape belongs to each class that has it.
        sounding: (n,) bool.
        masks: (n, T, H, W) bool, the visible part of each object; disjoint.
        boxes: (n, T, 4) int64, the tight box of each mask as x1, y1, x2, y2 in pixels, x2 and y2 exclusive.
        sampling_rate: Sampling rate in Hz.
    """

    index: int
    frames: np.ndarray
    waveform: np.ndarray
    stems: np.ndarray
    background: np.ndarray
    labels: np.ndarray
    shape_ids: np.ndarray
    timbre_ids: np.ndarray
    class_ids: np.ndarray
    sounding: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    sampling_rate: int

    @property
    def label(self) -> int:
        """The class that sounds, where only one does."""
        classes = self.class_ids[self.sounding]
        if len(classes) != 1:
            raise ValueError(f"Expected one sounding object, got {len(classes)} in scene {self.index}; use `labels`.")
        return int(classes[0])


class _Draws:
    """All random numbers of a scene, drawn at once, so that no part depends on the size of another."""

    def __init__(self, config: ScenesConfig, index: int):
        if not 0 <= index < 1 << 64:
            raise ValueError(f"Expected a scene index in 0 .. 2**64 - 1, got {index}.")
        rng = np.random.Generator(np.random.Philox(key=np.array([config.seed, index], np.uint64)))
        u = rng.random(16 + 4 * NUM_OBJECT_UNIFORMS + 3 * NUM_SOURCE_UNIFORMS + NUM_BACKGROUND_UNIFORMS + 4 * 6 + 4)
        self.structure, rest = u[:16], u[16:]
        self.objects, rest = rest[: 4 * NUM_OBJECT_UNIFORMS].reshape(4, -1), rest[4 * NUM_OBJECT_UNIFORMS :]
        self.sources, rest = rest[: 3 * NUM_SOURCE_UNIFORMS].reshape(3, -1), rest[3 * NUM_SOURCE_UNIFORMS :]
        self.ground, rest = rest[:NUM_BACKGROUND_UNIFORMS], rest[NUM_BACKGROUND_UNIFORMS:]
        self.motion, self.noise = rest[:24].reshape(4, 6), rest[24:]
        if config.coupling:
            self.ground = np.concatenate([self.ground, rng.random(NUM_CONTRAST_UNIFORMS)])


class _Plan:
    """What a scene holds, before it is rendered and synthesized."""

    def __init__(self, config: ScenesConfig, index: int):
        draws, self.design = _Draws(config, index), config.design
        self.objects, self.sources, self.ground = draws.objects, draws.sources, draws.ground
        self.motion, self.noise, structure = draws.motion, draws.noise, draws.structure
        classes, silent = sample_structure(structure[:9], config)
        members = [(self.design.class_shape[c], self.design.class_timbre[c], c) for c in classes]
        members += [(s, -1, -1) for s in silent]
        # Depth order is independent of which objects sound.
        order = np.argsort(structure[9 : 9 + len(members)], kind="stable")
        self.shape_ids, self.timbre_ids, self.class_ids = np.array([members[k] for k in order], np.int64).T
        self.sounding = self.class_ids >= 0
        if config.coupling:
            self._couple(config)

    def _couple(self, config: ScenesConfig) -> None:
        """Let sources follow the objects that make them."""
        places = place_objects(self.objects, len(self.shape_ids), config)
        self.sources, self.motion = self.sources.copy(), self.motion.copy()
        for j, k in enumerate(np.flatnonzero(self.sounding)):
            source = couple_source(self.sources[j], self.objects[k], places[k], config.size, config.coupling)
            self.sources[j] = source
            # What moves, moves in step with its sound: rate and phase of the swing.
            self.motion[k, :2] = [couple(source[i], self.motion[k, n], config.coupling) for n, i in enumerate((2, 4))]

    def replace_audio(self, config: ScenesConfig, index: int) -> None:
        """Draw the sound of this image anew, with the numbers of another scene; for scenes of one object."""
        draws = _Draws(config, index)
        classes = [c for c, s in enumerate(self.design.class_shape) if s == self.shape_ids[0]]
        self.class_ids[0] = classes[int(draws.structure[2] * len(classes))]
        self.timbre_ids[0] = self.design.class_timbre[self.class_ids[0]]
        self.sources, self.noise, self.motion = draws.sources, draws.noise, draws.motion
        if config.coupling:
            self._couple(config)

    def replace_image(self, config: ScenesConfig, index: int) -> None:
        """Draw the image of this sound anew, with the numbers of another scene; for scenes of one object."""
        draws = _Draws(config, index)
        classes = [c for c, t in enumerate(self.design.class_timbre) if t == self.timbre_ids[0]]
        self.class_ids[0] = classes[int(draws.structure[2] * len(classes))]
        self.shape_ids[0] = self.design.class_shape[self.class_ids[0]]
        self.objects, self.ground = draws.objects.copy(), draws.ground
        self.objects[0] = couple_object(self.objects[0], self.sources[0], config.coupling)

    def swings(self, config: ScenesConfig) -> np.ndarray:
        """Displacement (objects, T, 2) in object radii.

        Every object swings for a while: a source while it sounds, a silent one for as long at some other time, so that
        the image alone does not distinguish them. No rate depends on a timbre.
        """
        result = np.zeros((len(self.shape_ids), config.num_frames, 2))
        if not config.motion:
            return result
        t = (np.arange(config.num_frames) + 0.5) / config.num_frames * config.seconds
        sources = iter(self.sources)
        for k, (rate, phase, angle, reach, *pause) in enumerate(self.motion[: len(self.shape_ids)]):
            onset, end = gate(next(sources) if self.sounding[k] else np.array(pause), config.seconds)
            along = (0.25 + 0.4 * reach) * ((t >= onset) & (t <= end))
            along = along * np.sin(2 * np.pi * ((0.8 + 1.2 * rate) * t + phase))
            result[k] = along[:, None] * [np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)]
        return result


def check_things(config: ScenesConfig) -> None:
    """Decode all things, if scenes are made of them.

    Raises:
        ValueError: If a file cannot be used.
    """
    if config.things is not None:
        load_cutouts(config.things, largest_radius(config))
        load_recordings(config.things, config.sampling_rate)


def _frames(plan: _Plan, config: ScenesConfig) -> tuple[np.ndarray, np.ndarray]:
    return render(plan.shape_ids.tolist(), plan.swings(config), plan.objects, plan.ground, config)


def _audio(plan: _Plan, config: ScenesConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    timbres = plan.timbre_ids[plan.sounding].tolist()
    if config.things is None:
        stems = np.stack([synthesize(t, u, config) for t, u in zip(timbres, plan.sources)])
    else:
        recordings = load_recordings(config.things, config.sampling_rate)
        stems = np.stack([play(recordings[t], u, config) for t, u in zip(timbres, plan.sources)])
    background = background_noise(plan.noise, config)
    waveform = stems.sum(0) + background
    peak = max(float(waveform.max()), -float(waveform.min()))
    if peak > 0.99:
        stems, background = stems * np.float32(0.99 / peak), background * np.float32(0.99 / peak)
        waveform = stems.sum(0) + background
    return waveform, stems, background


def generate_frames(config: ScenesConfig, index: int) -> np.ndarray:
    """The frames (T, H, W, 3) uint8 of a scene, without its audio."""
    return _frames(_Plan(config, index), config)[0]


def generate_waveform(config: ScenesConfig, index: int) -> np.ndarray:
    """The waveform (N,) float32 of a scene, without its frames."""
    return _audio(_Plan(config, index), config)[0]


def generate_classes(config: ScenesConfig, index: int) -> np.ndarray:
    """The classes that sound in a scene, in the objects' order, without generating the scene."""
    plan = _Plan(config, index)
    return plan.class_ids[plan.sounding]


def generate_members(config: ScenesConfig, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes that sound in a scene and the shapes of its objects, without generating the scene."""
    plan = _Plan(config, index)
    return plan.class_ids[plan.sounding], plan.shape_ids


def generate_clip(config: ScenesConfig, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of a scene that training needs: frames (T, H, W, 3) uint8, waveform (N,) float32, sounding classes."""
    plan = _Plan(config, index)
    return _frames(plan, config)[0], _audio(plan, config)[0], plan.class_ids[plan.sounding]


def regenerate_clip(
    config: ScenesConfig, index: int, other: int, modality: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene of which one modality is drawn anew given the other one: an independent draw from what the other allows.

    Args:
        config: Settings of the scenes, which must have one object.
        index: Index of the scene.
        other: Index of a scene whose random numbers are used for what is drawn anew.
        modality: `"image"` or `"audio"`, which one to draw anew; the other one is that of the scene, unchanged.

    Returns:
        As `generate_clip`.

    Raises:
        ValueError: If scenes may have several objects.
    """
    if config.max_objects > 1 or config.motion:
        raise ValueError("Only still scenes of one object can be drawn anew: expected max_objects=1 and motion=False.")
    plan = _Plan(config, index)
    (plan.replace_audio if modality == "audio" else plan.replace_image)(config, other)
    return _frames(plan, config)[0], _audio(plan, config)[0], plan.class_ids[plan.sounding]


def shape_map(scene: Scene) -> np.ndarray:
    """(H, W) int16 of a scene's middle frame: s + 1 where an object of shape s is visible, else 0."""
    result = np.zeros(scene.masks.shape[-2:], np.int16)
    for mask, shape in zip(scene.masks[:, scene.masks.shape[1] // 2], scene.shape_ids, strict=True):
        result[mask] = shape + 1
    return result


def _boxes(masks: np.ndarray) -> np.ndarray:
    columns, rows = masks.any(-2), masks.any(-1)
    height, width = masks.shape[-2:]
    x1, x2 = columns.argmax(-1), width - columns[..., ::-1].argmax(-1)
    y1, y2 = rows.argmax(-1), height - rows[..., ::-1].argmax(-1)
    return np.where(rows.any(-1)[..., None], np.stack([x1, y1, x2, y2], axis=-1), 0)


def generate_scene(config: ScenesConfig, index: int) -> Scene:
    """Generate the scene `index` of the seed `config.seed`, with all its ground truth.

    Example:
    ```python
    >>> scene = generate_scene(ScenesConfig(), 3)
    >>> scene.frames.shape, scene.waveform.shape
    ((1, 64, 64, 3), (48000,))
    ```
    """
    plan = _Plan(config, index)
    frames, masks = _frames(plan, config)
    waveform, stems, background = _audio(plan, config)
    labels = np.zeros(config.design.num_classes, np.float32)
    labels[plan.class_ids[plan.sounding]] = 1
    return Scene(
        index=index, frames=frames, waveform=waveform, stems=stems, background=background, labels=labels,
        shape_ids=plan.shape_ids, timbre_ids=plan.timbre_ids, class_ids=plan.class_ids, sounding=plan.sounding,
        masks=masks, boxes=_boxes(masks), sampling_rate=config.sampling_rate,
    )  # fmt: skip
