"""One photo gives one answer however it comes: turned and mirrored as its file says, with its masks and boxes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from deepavfusion import DeepAVFusionConfig, DeepAVFusionImageProcessor, DeepAVFusionProcessor, load_clip
from deepavfusion.processors.pipeline_base_deepavfusion import as_frame, read_arrays
from deepavfusion.processors.pixels_deepavfusion import to_pixels
from deepavfusion.processors.stills_deepavfusion import Orientation, matrix_orientation
from deepavfusion.training.data.scenes.things.cutouts import _load_cutout
from deepavfusion.training.data.stills import BoxClips, MaskClips, Still
from deepavfusion.training.data.views import Frame, read_class_map, read_image, read_mask
from tests.media_factory import write_display_matrix, write_media
from tests.tiny import tiny_config

FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tif": "TIFF",
    **({"avif": "AVIF"} if features.check("avif") else {}),
}
# How PIL stores an upright image for each EXIF orientation: the inverse of how it is shown.
STORE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Display matrices (a, b, c, d) of the same orientations.
MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
each_orientation = pytest.mark.parametrize("orientation", STORE)


def scene() -> np.ndarray:
    """(48, 64, 3) uint8 in blocks of 16, so that lossy formats keep the colors; no turn or flip leaves it the same."""
    blocks = np.arange(12).reshape(3, 4)
    colors = np.stack([blocks * 20, 240 - blocks * 20, blocks % 3 * 100], axis=-1).astype(np.uint8)
    return colors.repeat(16, axis=0).repeat(16, axis=1)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    method = STORE[orientation]
    image = Image.fromarray(upright)
    return np.asarray(image if method is None else image.transpose(method))


def save(path, upright: np.ndarray, orientation: int, **options):
    """Saves an image with an EXIF orientation."""
    image = Image.fromarray(stored(upright, orientation))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@each_orientation
def test_photos_give_one_answer(tmp_path, suffix, orientation):
    path = save(tmp_path / f"photo.{suffix}", scene(), orientation)
    data = path.read_bytes()
    expected = load_clip(path).frames[0]
    difference = np.abs(expected.astype(int) - scene())  # lossy formats blur the colors of neighboring blocks
    assert difference.mean() < (8 if suffix in ("jpg", "webp", "avif") else 1e-9)
    with Image.open(path) as image:
        opened = [to_pixels(image).permute(1, 2, 0).numpy(), as_frame(image)]
    ways = [load_clip(data).frames[0], load_clip(io.BytesIO(data)).frames[0], read_image(path), *opened]
    ways += [as_frame(read_arrays({"image": item}, "image")[0]) for item in (str(path), data)]
    for frame in ways:
        assert np.array_equal(frame, expected)


@each_orientation
def test_processors_turn_photos(tmp_path, orientation):
    path = save(tmp_path / "photo.png", scene(), orientation)
    processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(image_size=32))
    expected = processor(images=scene()).pixel_values
    with Image.open(path) as image:
        assert torch.equal(processor(images=image).pixel_values, expected)
        assert torch.equal(processor(images=[image, scene()]).pixel_values[:1], expected)
    assert torch.equal(processor(videos=path).pixel_values, expected)
    assert torch.equal(processor(videos=path.read_bytes()).pixel_values, expected)


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_upright(tmp_path, tag):
    image = Image.fromarray(scene())
    exif = image.getexif()
    exif[0x0112] = tag
    image.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(load_clip(tmp_path / "photo.png").frames[0], scene())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_modes_of_photos_give_one_answer(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(scene()[..., 0].astype(np.uint16) * 201)
    else:
        image = Image.fromarray(scene()).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    image.save(path)
    with Image.open(path) as opened:
        assert np.array_equal(to_pixels(opened).permute(1, 2, 0).numpy(), load_clip(path).frames[0])


@each_orientation
def test_videos_follow_the_whole_display_matrix(tmp_path, orientation):
    frame = stored(scene(), orientation)
    path = write_media(
        tmp_path / "clip.mp4", size=frame.shape[1::-1], paint=lambda _: frame, seconds=0.4, audio_codec=None
    )
    write_display_matrix(path, *MATRICES[orientation])
    frames = load_clip(path, num_frames=2, seconds=0.4).frames
    np.testing.assert_allclose(frames.astype(int), np.stack([scene()] * 2).astype(int), atol=40)


def test_matrices_that_stretch_frames_give_square_pixels(tmp_path):
    frame = stored(scene(), 6)
    path = write_media(
        tmp_path / "clip.mp4", size=frame.shape[1::-1], paint=lambda _: frame, seconds=0.4, audio_codec=None
    )
    write_display_matrix(path, 0, 2, -1, 0)  # turned, and twice as high on the screen as stored
    assert load_clip(path).frames.shape == (1, 96, 64, 3)


@pytest.mark.parametrize("angle", [-8, 5])
@pytest.mark.parametrize("scale", [0.5, 3.0])
@each_orientation
def test_matrices_are_rounded_to_the_closest_orientation(orientation, angle, scale):
    a, b, c, d = MATRICES[orientation]
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = np.zeros((3, 3))
    matrix[:2, :2] = scale * np.array([[a, b], [c, d]]) @ rotation
    shown = matrix_orientation(matrix).apply(stored(scene(), orientation))
    assert np.array_equal(shown, scene())


def test_empty_matrices_are_upright():
    assert matrix_orientation(np.zeros((3, 3))) == Orientation()


@each_orientation
def test_masks_are_shown_like_their_images(tmp_path, orientation):
    """A mask with its own orientation, one drawn on the image as shown, and one that is stored like the image."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:16, :40] = 2
    path = save(tmp_path / "frame.jpg", scene(), orientation)
    frame = Frame(str(path), (48, 64))
    save(tmp_path / "own.png", mask, orientation)
    Image.fromarray(mask).save(tmp_path / "shown.png")
    Image.fromarray(stored(mask, orientation)).save(tmp_path / "stored.png")
    names = ["own.png", "shown.png"] + (["stored.png"] if orientation >= 5 else [])
    for name in names:
        assert np.array_equal(read_class_map(tmp_path / name, 3, frame), mask), name
        assert np.array_equal(read_mask(tmp_path / name, frame), mask // 2), name


@each_orientation
def test_frames_of_data_sets_turn_with_masks_and_boxes(tmp_path, orientation):
    """The same sample as from an image that is stored upright."""
    write_media(tmp_path / "sound.wav", codec=None, audio_codec="pcm_s16le", seconds=1.0)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 4:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    sound, drawn = str(tmp_path / "sound.wav"), str(tmp_path / "mask.png")
    paths = [str(save(tmp_path / f"frame{number}.png", scene(), number)) for number in (1, orientation)]
    rows = [Still(path, sound, mask=drawn, boxes=((4 / 64, 8 / 48, 20 / 64, 24 / 48),)) for path in paths]
    processor = DeepAVFusionProcessor.from_config(tiny_config(), crop_pct=1.0)
    for kind in (MaskClips, BoxClips):
        upright, turned = (kind([row], processor, train=False, seed=0)[0] for row in rows)
        assert upright["labels"].any()
        for name in ("pixel_values", "labels"):
            assert torch.equal(upright[name], turned[name]), (kind, name)


def test_cutouts_of_things_are_turned(tmp_path):
    thing = np.dstack([scene(), np.full((48, 64), 255, np.uint8)])
    upright, turned = (_load_cutout(str(save(tmp_path / f"{n}.png", thing, n)), 20) for n in (1, 6))
    assert np.array_equal(upright.levels[0], turned.levels[0])


def test_arrays_are_taken_as_they_are():
    processor = DeepAVFusionImageProcessor(size=32)
    image = Image.fromarray(scene())
    assert torch.equal(processor(image).pixel_values, processor(np.asarray(image)).pixel_values)
