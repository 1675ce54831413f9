"""Folders of things."""

import shutil

import pytest

from deepavfusion.training.data.scenes import ScenesConfig, ThingFolder
from tests.training.data.scenes.thing_factory import NAMES, write_image, write_sound, write_things


@pytest.fixture
def folder(tmp_path):
    return write_things(tmp_path / "things")


def test_things_are_sorted_pairs_from_all_subfolders(folder):
    things = ThingFolder.read(folder)
    assert things.names == tuple(sorted(NAMES))
    for name, image, sound in zip(things.names, things.images, things.sounds, strict=True):
        home = folder / "more" if NAMES.index(name) >= 3 else folder
        assert (image, sound) == (str(home / f"{name}.png"), str(home / f"{name}.wav"))


def test_ignored_names(folder):
    expected = ThingFolder.read(folder)
    for name in (".DS_Store", "LICENSE", "cat.txt", "cat.svg", "cat.dat", "README.md", "._cat.png"):
        (folder / name).write_text("not of the scenes")
    (folder / ".git").mkdir()
    (folder / ".git" / "lonely.png").touch()
    for name in ("cat_de", "cat_desc", "cat_desc_fr", "cat_en_GB", "bell_zh_tw", "bell_desc_pt_BR"):
        (folder / f"{name}.ogg").touch()
    assert ThingFolder.read(folder) == expected


def test_an_image_makes_a_translation_a_thing(folder):
    write_image(folder / "cat_de.png")
    write_sound(folder / "cat_de.wav")
    assert "cat_de" in ThingFolder.read(folder).names


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (["dog.png"], r"dog\.png \(without sound\)"),
        (["dog.wav"], r"dog\.wav \(without image\)"),
        (["more/cat.png", "more/cat.ogg"], r"more/cat\.(ogg|png) \(a second cat\)"),
        (["cat.flac"], r"cat\.flac \(with several images or sounds\)"),
        (["cat.ogg"], r"cat\.ogg \(with several images or sounds\)"),
        (["dog.mp3"], r"dog\.mp3 \(neither png, wav, ogg nor flac\)"),
        (["fox_de.ogg"], r"fox_de\.ogg \(without image\)"),  # the fox is in another folder
        (["cat_loud.ogg"], r"cat_loud\.ogg \(without image\)"),
        ([f"d{k}.png" for k in range(8)], r"d0\.png.*d4\.png \(without sound\) and 3 more\.$"),
    ],
)
def test_files_that_do_not_pair_are_named(folder, added, message):
    for name in added:
        (folder / name).touch()
    with pytest.raises(ValueError, match=message) as caught:
        ThingFolder.read(folder)
    assert "NAME.png and NAME.wav, NAME.ogg or NAME.flac" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_things(tmp_path):
    write_things(tmp_path, ["cat"])
    with pytest.raises(ValueError, match="at least 2 pairs.*found 1"):
        ThingFolder.read(tmp_path)
    write_things(tmp_path, ["cat", "dog"])
    with pytest.raises(ValueError, match="min_objects=3"):
        ScenesConfig(things=tmp_path, min_objects=3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ScenesConfig(things=tmp_path / "nowhere")


def test_the_digest_depends_on_names_and_contents_alone(folder, tmp_path):
    things = ThingFolder.read(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert ThingFolder.read(copy).digest == things.digest
    (copy / "cat.png").touch()
    (copy / "notes.txt").touch()
    assert ThingFolder.read(copy).digest == things.digest
    digests = {things.digest}
    write_sound(copy / "cat.wav", frequency=441)
    digests.add(ThingFolder.read(copy).digest)
    write_image(copy / "cat.png", color=(1, 2, 3))
    digests.add(ThingFolder.read(copy).digest)
    for suffix in ("png", "wav"):
        (copy / f"cat.{suffix}").rename(copy / f"dog.{suffix}")
    digests.add(ThingFolder.read(copy).digest)
    assert len(digests) == 4
