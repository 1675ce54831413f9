"""Images of things."""

import numpy as np
import pytest
from PIL import Image

from deepavfusion.training.data.scenes import ThingFolder
from deepavfusion.training.data.scenes.things import load_cutouts
from tests.training.data.scenes.thing_factory import write_image, write_things


@pytest.fixture
def folder(tmp_path):
    return write_things(tmp_path / "things", ["cat", "dog"])


def load(folder, radius=20):
    return load_cutouts(ThingFolder.read(folder), radius)


def painted(cutout, radius, turn=0.0, flip=False, size=64):
    image = np.zeros((size, size, 3), np.float32)
    window, cover = cutout.paint(image, size / 2, size / 2, radius, turn, flip)
    alpha = np.zeros((size, size), np.float32)
    alpha[window] = cover
    return image, alpha


@pytest.mark.parametrize("scale", [1, 10])
def test_a_thing_has_the_radius_asked_for(folder, scale):
    """Both where an image is as large as a scene needs it, and where it is reduced."""
    write_image(folder / "cat.png", color=(250, 100, 50), size=(40 * scale, 30 * scale))
    cat = load(folder)[0]
    assert len(cat.levels[0]) <= 2 * 1.1 * 20 + 6
    for radius in (18, 9):
        image, alpha = painted(cat, radius)
        rows, columns = np.nonzero(alpha >= 0.5)
        assert columns.max() + 1 - columns.min() == pytest.approx(2 * radius, abs=2)
        assert rows.max() + 1 - rows.min() == pytest.approx(2 * radius * 26 / 36, abs=2.5)
        assert rows.mean() == pytest.approx(31.5, abs=0.6)
        assert columns.mean() == pytest.approx(31.5, abs=0.6)
        assert image[32, 32] == pytest.approx(np.array([250, 100, 50]) / 255, abs=0.01)
        assert not alpha[:10].any()


def test_flip_and_turn(folder):
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, 4:36] = (0, 0, 255, 255)
    pixels[:, 4:12] = (255, 0, 0, 255)  # red at the left
    Image.fromarray(pixels, "RGBA").save(folder / "cat.png")
    cat = load(folder)[0]
    red, blue = np.array([1, 0, 0]), np.array([0, 0, 1])
    for turn, flip, place in (
        (0, False, (32, 22)),
        (0, True, (32, 41)),
        (0.25, False, (22, 32)),
        (0.5, False, (32, 41)),
    ):
        image, _ = painted(cat, 20, turn, flip)
        assert image[place] == pytest.approx(red, abs=0.05), (turn, flip)
        assert image[63 - place[0], 63 - place[1]] == pytest.approx(blue, abs=0.05), (turn, flip)


def test_alpha_blends_and_one_half_is_visible(folder):
    write_image(folder / "cat.png", color=(255, 255, 255), inside=140, outside=100)
    image, alpha = painted(load(folder)[0], 18)
    assert image[32, 32] == pytest.approx(140 / 255, abs=0.01)
    visible = alpha >= 0.5
    assert visible[32, 32]
    assert np.pi / 4 * 36 * 26 * 0.9 < visible.sum() < np.pi / 4 * 36 * 26 * 1.1


def test_thin_things_have_a_least_radius(folder):
    write_image(folder / "cat.png", size=(200, 24))
    thin, round_thing = load(folder, 30)
    assert thin.least_radius > round_thing.least_radius
    assert (painted(thin, thin.least_radius)[1] >= 0.5).sum() >= 16


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_other_modes_with_transparency(folder, mode):
    with Image.open(folder / "cat.png") as image:
        converted = image.convert("LA") if mode == "LA" else image.quantize(8, Image.Quantize.FASTOCTREE)
    converted.save(folder / "cat.png")
    assert (painted(load(folder)[0], 18)[1] >= 0.5).sum() > 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image", "cat.png: expected a PNG image with an alpha channel, got UnidentifiedImageError"),
        (b"", "cat.png: expected a PNG image"),
        ("RGB", "cat.png: expected a PNG image with an alpha channel, got one of mode RGB"),
        ("L", "got one of mode L"),
        ("cut short", "cat.png: expected a PNG image with an alpha channel, got"),
        ("faint", "cat.png.*no pixel has an alpha of at least 0.5"),
        ("thin", "cat.png.*too thin or too faint"),
    ],
)
def test_faulty_images_are_named(folder, content, message):
    path = folder / "cat.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "cut short":
        path.write_bytes(path.read_bytes()[:-60])
    elif content == "faint":
        write_image(path, inside=127)
    elif content == "thin":
        pixels = np.zeros((400, 400, 4), np.uint8)
        pixels[199, :, 3] = 255
        Image.fromarray(pixels, "RGBA").save(path)
    else:
        Image.new(content, (20, 20)).save(path)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_all_faulty_images_are_named_at_once(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cat\.png.*dog\.png"):
        load(folder)
