"""Frames of the sounding scenes: eight shape families, or cut-outs, over a textured background.

A shape is a signed distance function, tabulated once; an object is that table under a rotation, a stretch and a scale,
so edges are smooth at every resolution. Color, size, place, rotation, stretch and texture vary freely, and the same
way for every family. Cut-outs keep their colors and textures; they are turned slightly, and half of them mirrored.
"""

from functools import lru_cache, partial
from math import ceil

import numpy as np

from .config import ScenesConfig
from .design import SHAPES
from .things import load_cutouts

NUM_OBJECT_UNIFORMS = 32
NUM_BACKGROUND_UNIFORMS = 24
NUM_CONTRAST_UNIFORMS = 48  # after those of the background: eight more pairs of colors
_EXTENT = 1.4  # the tables cover [-_EXTENT, _EXTENT] object radii
_TABLE_SIZE = 224
_TEXTURE_SIZE = 1024  # texels a side; a pattern has 16 stripes across
_THING_TURN = 1 / 12  # range of the rotations of cut-outs in turns

# Per difficulty: object radius (of the image's short side), stretch, distance of colors from the background (0..1 per
# channel), strength of textures, of the light's gradient and of pixel noise, how near objects may come (1: their
# circles touch), and the range of rotations in turns.
_RANGES = {
    "easy": {"radius": (0.25, 0.3), "stretch": 0.0, "contrast": 0.7, "texture": 0.1, "light": 0.1, "noise": 0.01,
             "apart": 1.0, "rotation": 0.03},
    "standard": {"radius": (0.13, 0.26), "stretch": 0.15, "contrast": 0.45, "texture": 0.5, "light": 0.3, "noise": 0.03,
                 "apart": 0.95, "rotation": 1},
    "hard": {"radius": (0.11, 0.26), "stretch": 0.3, "contrast": 0.3, "texture": 0.8, "light": 0.5, "noise": 0.08,
             "apart": 0.8, "rotation": 1},
}  # fmt: skip


def _outline(name: str) -> np.ndarray:
    """Corners (n, 2) of a shape within the unit circle."""
    if name == "triangle":
        radius, angle = np.ones(3), np.arange(3) * 2 * np.pi / 3
    elif name == "square":
        radius, angle = np.full(4, 0.95), (np.arange(4) + 0.5) * np.pi / 2
    elif name == "star":
        radius, angle = np.tile([1.0, 0.42], 5), np.arange(10) * np.pi / 5
    elif name == "heart":
        a = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        x = 16 * np.sin(a) ** 3
        y = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
        return np.stack([x, -y - 2.5], axis=1) / 16
    elif name == "crescent":
        # Outer arc of the unit circle, and back along a circle through the same two tips.
        a = np.linspace(0.22 * np.pi, 1.78 * np.pi, 40)
        center = 0.45
        inner = np.hypot(np.cos(a[0]) - center, np.sin(a[0]))
        tip = np.arctan2(np.sin(a[0]), np.cos(a[0]) - center)
        b = np.linspace(2 * np.pi - tip, tip, 32)[1:-1]
        outer = np.stack([np.cos(a), np.sin(a)], axis=1)
        return np.concatenate([outer, np.stack([center + inner * np.cos(b), inner * np.sin(b)], axis=1)])
    elif name == "cross":
        w, s = 0.3, 0.95
        return np.array([[w, s], [w, w], [s, w], [s, -w], [w, -w], [w, -s], [-w, -s], [-w, -w], [-s, -w], [-s, w],
                         [-w, w], [-w, s]])  # fmt: skip
    else:  # zigzag: two steps, as in a Z
        return np.array([[-0.85, -0.75], [0.42, -0.75], [0.42, 0.3], [0.85, 0.3], [0.85, 0.75], [-0.42, 0.75],
                         [-0.42, -0.3], [-0.85, -0.3]])  # fmt: skip
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


@lru_cache(maxsize=1)
def shape_tables() -> np.ndarray:
    """Signed distances (8, 224, 224) to each family's outline in object radii, negative inside."""
    axis = (np.arange(_TABLE_SIZE) + 0.5) / _TABLE_SIZE * 2 * _EXTENT - _EXTENT
    x, y = np.meshgrid(axis, axis)
    tables = []
    for name in SHAPES:
        if name == "ring":
            tables.append(np.abs(np.hypot(x, y) - 0.74) - 0.22)
            continue
        corners = _outline(name)
        distance, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0)):
            ex, ey = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * ex + (y - y0) * ey) / (ex * ex + ey * ey), 0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * ex, y - y0 - along * ey))
            crosses = (y0 > y) != (y1 > y)
            if y1 != y0:
                inside ^= crosses & (x < ex * (y - y0) / ey + x0)
        tables.append(np.where(inside, -distance, distance))
    return np.stack(tables).astype(np.float32)


@lru_cache(maxsize=1)
def _textures() -> np.ndarray:
    """Periodic textures (5, 1024, 1024) in [-1, 1]: coarse clouds, fine clouds, stripes, checks, dots."""
    rng = np.random.Generator(np.random.Philox(key=0x7E47))
    n = _TEXTURE_SIZE
    frequency = np.hypot(np.fft.fftfreq(n)[:, None] * n, np.arange(n // 2 + 1)[None, :])
    frequency[0, 0] = np.inf
    clouds = []
    for power in (1.7, 1.0):
        spectrum = np.fft.rfft2(rng.standard_normal((n, n))) * frequency**-power * (frequency < 120)
        cloud = np.fft.irfft2(spectrum, s=(n, n))
        clouds.append(np.clip(cloud / (2 * cloud.std()), -1, 1))
    wave = np.sin(np.arange(n) / n * 2 * np.pi * 16)
    stripes = np.broadcast_to(wave[:, None], (n, n))
    checks, dots = np.clip(3 * wave[:, None] * wave, -1, 1), np.clip(4 * wave[:, None] * wave - 2, -1, 1)
    return np.stack([*clouds, stripes, checks, dots]).astype(np.float32)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """White noise (1024, 1024) in [-1, 1]."""
    noise = np.random.Generator(np.random.Philox(key=0x6A1)).standard_normal((_TEXTURE_SIZE, _TEXTURE_SIZE))
    return np.clip(noise / 2, -1, 1).astype(np.float32)


def _color(u: np.ndarray) -> np.ndarray:
    """An RGB color (3,) in 0..1 of random hue, saturation and lightness."""
    hue = (u[0] * 6 + np.array([0.0, 4.0, 2.0])) % 6
    pure = np.clip(np.abs(hue - 3) - 1, 0, 1)
    saturation, value = 0.15 + 0.85 * u[1], 0.15 + 0.85 * u[2]
    return value * (1 - saturation * (1 - pure))


def largest_radius(config: ScenesConfig) -> int:
    """Radius in pixels of the largest object that there may be."""
    return ceil(min(config.size) * _RANGES[config.difficulty]["radius"][1])


def place_objects(u: np.ndarray, count: int, config: ScenesConfig) -> np.ndarray:
    """Centers and radii (count, 3) as (x, y, radius) in pixels.

    Each object takes the first of eight random positions that is free, or the freest one, shrunk to fit.

    Args:
        u: (count, NUM_OBJECT_UNIFORMS) numbers in [0, 1).
        count: Number of objects.
        config: Settings of the scenes.
    """
    height, width = config.size
    short, r = min(height, width), _RANGES[config.difficulty]
    low, high = r["radius"]
    # With more objects, the large ones become rarer.
    high = low + (high - low) * (1.0, 1.0, 0.8, 0.65)[count - 1]
    placed: list[tuple[float, float, float]] = []
    for v in u[:count]:
        radius = short * (low + (high - low) * float(v[0]))
        best, best_room = None, -np.inf
        for k in range(8):
            x = radius + (width - 2 * radius) * float(v[1 + k])
            y = radius + (height - 2 * radius) * float(v[9 + k])
            room = min((((x - a) ** 2 + (y - b) ** 2) ** 0.5 - r["apart"] * c for a, b, c in placed), default=np.inf)
            if room > best_room:
                best, best_room = (x, y), room
            if best_room >= r["apart"] * radius:
                break
        placed.append((*best, max(min(radius, best_room / r["apart"]), 0.6 * low * short)))
    return np.array(placed)


def render(shapes: list[int], swings: np.ndarray, u: np.ndarray, ground: np.ndarray, config: ScenesConfig):
    """Render a clip's frames.

    Args:
        shapes: Family, or thing, of each object, from the farthest to the nearest.
        swings: (objects, frames, 2) displacement of each object in object radii (x, y).
        u: (objects, NUM_OBJECT_UNIFORMS) numbers in [0, 1).
        ground: NUM_BACKGROUND_UNIFORMS numbers in [0, 1).
        config: Settings of the scenes.

    Returns:
        Frames (T, H, W, 3) uint8 and visible masks (objects, T, H, W) bool; masks never overlap.
    """
    r = _RANGES[config.difficulty]
    height, width = config.size
    short = min(height, width)
    texture = _textures()
    yy, xx = np.arange(height), np.arange(width)

    def look_up(kind: float, offset_y: float, offset_x: float, zoom: float) -> np.ndarray:
        rows = (yy * (zoom * 256 / short) + offset_y * _TEXTURE_SIZE).astype(np.int64) % _TEXTURE_SIZE
        columns = (xx * (zoom * 256 / short) + offset_x * _TEXTURE_SIZE).astype(np.int64) % _TEXTURE_SIZE
        return texture[int(kind * len(texture))][rows[:, None], columns]

    # Background: two colors mixed by a texture and a gradient.
    first, second = _ground_colors(u[: len(shapes)], ground, r["contrast"])
    slope_x, slope_y = 2 * ground[6] - 1, 2 * ground[7] - 1
    light = (slope_x * (xx / width - 0.5) + (slope_y * (yy / height - 0.5))[:, None]).astype(np.float32)
    mix = 0.5 + light + (r["texture"] * ground[8]) * look_up(ground[9], ground[10], ground[11], 0.5 + 2 * ground[12])
    np.clip(mix, 0, 1, out=mix)
    first32, change = first.astype(np.float32), (second - first).astype(np.float32)
    canvas = first32 + mix[..., None] * change
    shade = 1 + r["light"] * (2 * ground[13] - 1) * look_up(0.0, ground[14], ground[15], 1.0)
    rows, columns = (int(g * _TEXTURE_SIZE) + axis & (_TEXTURE_SIZE - 1) for g, axis in zip(ground[17:19], (yy, xx)))
    grain = (2 * r["noise"] * ground[16]) * _grain()[rows[:, None], columns]
    mean_ground = first + (second - first) * float(mix.mean())

    places = place_objects(u, len(shapes), config)
    frames = np.empty((config.num_frames, height, width, 3), np.uint8)
    masks = np.zeros((len(shapes), config.num_frames, height, width), bool)
    if config.things is None:
        own_colors, tables = len(ground) > NUM_BACKGROUND_UNIFORMS, shape_tables()
        looks = [_appearance(v, mean_ground, r, own_colors) for v in u[: len(shapes)]]
        painters = [partial(_paint, table=tables[s], look=look) for s, look in zip(shapes, looks, strict=True)]
    else:
        cutouts = load_cutouts(config.things, largest_radius(config))
        least = [cutouts[s].least_radius for s in shapes]
        places[:, 2] = np.maximum(places[:, 2], least)
        turns = [(_THING_TURN * (v[27] - 0.5), bool(v[28] < 0.5)) for v in u[: len(shapes)]]
        painters = [partial(cutouts[s].paint, turn=t, flip=f) for s, (t, f) in zip(shapes, turns, strict=True)]
    for frame in range(config.num_frames):
        image = canvas.copy() if config.num_frames > 1 else canvas
        for k, paint in enumerate(painters):
            x0, y0, radius = places[k]
            x0 = np.clip(x0 + swings[k, frame, 0] * radius, 0.9 * radius, width - 0.9 * radius)
            y0 = np.clip(y0 + swings[k, frame, 1] * radius, 0.9 * radius, height - 0.9 * radius)
            window, cover = paint(image, x0, y0, radius)
            visible = cover >= 0.5
            masks[(slice(k), frame, *window)] &= ~visible
            masks[(k, frame, *window)] = visible
        image = image * shade[..., None] + grain[..., None]
        image *= 255
        frames[frame] = np.clip(image, 0, 255, out=image)
    return frames, masks


def _ground_colors(u: np.ndarray, ground: np.ndarray, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """The two colors of the background.

    Where `ground` holds the numbers of further pairs, objects keep their own colors, and the first pair is taken whose
    mean differs from all of them by `contrast`, or the one that differs most.
    """
    numbers = [ground[0:6], *ground[NUM_BACKGROUND_UNIFORMS:].reshape(-1, 6)]
    pairs = [(_color(v[:3]), _color(v[3:])) for v in numbers]
    if len(pairs) == 1:
        return pairs[0]
    colors = np.stack([_color(v[17:20]) for v in u])
    distances = [np.sqrt((((a + b) / 2 - colors) ** 2).sum(axis=1)).min() for a, b in pairs]
    return pairs[next((k for k, d in enumerate(distances) if d >= contrast), int(np.argmax(distances)))]


def _appearance(v: np.ndarray, mean_ground: np.ndarray, r: dict, own_color: bool) -> tuple:
    """Colors, map from pixels to the object's own axes, and texture of an object.

    Args:
        v: (NUM_OBJECT_UNIFORMS,) numbers in [0, 1).
        mean_ground: (3,) mean color of the background.
        r: Ranges of the difficulty.
        own_color: Whether the object has the first color drawn, instead of one that differs from the background.
    """
    candidates = [_color(v[17 + 3 * k : 20 + 3 * k]) for k in range(3)]
    distances = [np.sqrt(((c - mean_ground) ** 2).sum()) for c in candidates]
    far = candidates[:1] if own_color else [c for c, d in zip(candidates, distances) if d >= r["contrast"]]
    if far:
        main = far[0]
    else:  # push the farthest candidate away from the ground, within the cube of colors
        main = candidates[int(np.argmax(distances))]
        direction = np.where(mean_ground < 0.5, 1.0, -1.0)
        main = np.clip(mean_ground + direction * max(r["contrast"], 0.35), 0, 1) * 0.9 + 0.1 * main
    other = main + (r["texture"] * v[26]) * (mean_ground[::-1] - main)
    turn = v[27] if r["rotation"] == 1 else r["rotation"] * (v[27] - 0.5)
    angle, stretch = 2 * np.pi * turn, 1 + r["stretch"] * (2 * v[28] - 1)
    to_own = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / [[stretch], [1 / stretch]]
    return main.astype(np.float32), (other - main).astype(np.float32), to_own, v[29:32], stretch


def _paint(image: np.ndarray, x0: float, y0: float, radius: float, table: np.ndarray, look: tuple) -> tuple:
    """Paint a shape onto an image, as `Cutout.paint` does a thing."""
    texture = _textures()
    main, change, to_own, pattern, stretch = look
    height, width = image.shape[:2]
    reach = radius * 1.05 * max(stretch, 1 / stretch) + 1
    left, right = max(int(x0 - reach), 0), min(int(x0 + reach) + 2, width)
    top, bottom = max(int(y0 - reach), 0), min(int(y0 + reach) + 2, height)
    x = ((np.arange(left, right) + (0.5 - x0)) / radius).astype(np.float32)
    y = ((np.arange(top, bottom) + (0.5 - y0)) / radius).astype(np.float32)[:, None]
    own_x = x * np.float32(to_own[0, 0]) + y * np.float32(to_own[0, 1])
    own_y = x * np.float32(to_own[1, 0]) + y * np.float32(to_own[1, 1])
    scale = np.float32(_TABLE_SIZE / (2 * _EXTENT))
    column = np.clip((own_x + np.float32(_EXTENT)) * scale, 0, _TABLE_SIZE - 1).astype(np.int32)
    row = np.clip((own_y + np.float32(_EXTENT)) * scale, 0, _TABLE_SIZE - 1).astype(np.int32)
    cover = np.clip(0.5 - table[row, column] * np.float32(radius), 0, 1)
    kind, zoom, offset = pattern
    zoom = np.float32(48 + 96 * zoom)  # texels per radius
    shift = int(offset * _TEXTURE_SIZE)
    u = (own_x * zoom).astype(np.int32) + shift & (_TEXTURE_SIZE - 1)
    v = (own_y * zoom).astype(np.int32) + 2 * shift & (_TEXTURE_SIZE - 1)
    # Fine clouds, stripes, checks, dots: coarse clouds would be plain within an object.
    paint = main + (0.5 + 0.5 * texture[1 + int(kind * 4)][v, u])[..., None] * change
    window = image[top:bottom, left:right]
    window += cover[..., None] * (paint - window)
    return (slice(top, bottom), slice(left, right)), cover
