"""What the demo does with a video, without the page: films, a clicked thing, labels, reconstruction, search, bounds."""

import os
import re
import shutil
import time

import av
import numpy as np
import pytest
from PIL import Image

from deepavfusion import DeepAVFusionProcessor, load_clip
from deepavfusion.inference.demo import actions, markup, workspace
from deepavfusion.inference.demo.models import DemoModel, abilities_of, able_to, load_models
from deepavfusion.inference.demo.search import ClipSearch, thumbnail
from deepavfusion.inference.demo.workspace import ExampleScenes, Limits, Workspace, error_sentence, shown_name
from deepavfusion.inference.files import UnreadableError
from deepavfusion.inference.pages.reconstructions import KINDS, reconstruct
from deepavfusion.processors import MediaError
from deepavfusion_cli.paths import InputError
from tests.inference.test_commands import MODELS
from tests.media_factory import paint_gradients, write_kinds, write_media
from tests.modeling_deepavfusion.cases import make_model

ABILITIES = {
    "localize": ("localize",),
    "segment": ("segment",),
    "separate": ("separate",),
    "classify": ("classify",),
    "pretrain": ("reconstruct", "search"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for seed, (name, (model_class, overrides)) in enumerate(MODELS.items()):
        model = make_model(model_class, seed=seed, **overrides)
        model.save_pretrained(folder / name)
        DeepAVFusionProcessor.from_model(model).save_pretrained(folder / name)
    (folder / "videos").mkdir()
    write_kinds(folder / "videos", 1.5, sound_seconds=1.5, silent_seconds=0.5, rate=16000, picture="cello.png")
    return folder


@pytest.fixture(scope="module")
def models(folder):
    loaded = load_models([str(folder / name) for name in MODELS], "cpu", precision="float32")
    return {model.name: model for model in loaded}


@pytest.fixture
def clip(folder):
    return str(folder / "videos" / "clip.mov")


class Progress(list):
    def __call__(self, done, text):
        self.append(done)
        assert text


def found_by(mask: np.ndarray, **entry) -> DemoModel:
    """A model whose pipeline finds a mask in every frame."""
    frame = np.zeros((*mask.shape, 3), dtype=np.uint8)
    pipeline = lambda path, timestamps: [{"mask": mask, "frame": frame, **entry}]  # noqa: E731
    return DemoModel("stub", ("localize",), pipeline)


def test_each_model_offers_what_it_can_do(models, folder):
    assert {name: model.abilities for name, model in models.items()} == ABILITIES
    assert list(able_to(models.values(), "search")) == ["pretrain"]
    assert not models["pretrain"].across  # reconstruction alone does not put images and sounds into one space
    assert models["pretrain"].embedder.model is models["pretrain"].pretrained.deepavfusion


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretraining_objective": "jepa"}, ("search",)),
        ({"pretraining_objective": "align"}, ("reconstruct", "search")),
    ],
)
def test_objectives_decide_what_encoders_can_do(changes, expected, tmp_path):
    model_class, overrides = MODELS["pretrain"]
    model = make_model(model_class, **{**overrides, **changes})
    model.save_pretrained(tmp_path / "model")
    DeepAVFusionProcessor.from_model(model).save_pretrained(tmp_path / "model")
    assert abilities_of(str(tmp_path / "model")) == expected
    (loaded,) = load_models([str(tmp_path / "model")], "cpu")
    assert loaded.across
    assert (loaded.pretrained is None) == (expected == ("search",))


def test_models_of_one_name_are_told_apart_and_others_are_refused(folder, tmp_path):
    other = tmp_path / "localize"
    other.symlink_to(folder / "localize")
    names = [model.name for model in load_models([str(folder / "localize"), f"{other}/"], "cpu")]
    assert names == ["localize", "localize_2"]
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(UnreadableError, match=r"vit holds a model of type 'vit': expected 'deepavfusion'\."):
        abilities_of(str(tmp_path / "vit"))
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "deepavfusion", "architectures": ["Mine"]}')
    with pytest.raises(UnreadableError, match="class Mine: expected one of DeepAVFusionForAudioVisual"):
        abilities_of(str(tmp_path / "vit"))
    with pytest.raises(OSError, match="there is no model in that folder"):
        abilities_of(str(tmp_path))


@pytest.mark.parametrize(("name", "ending", "noted"), [("localize", "heat", "score"), ("segment", "overlay", "labels")])
def test_a_film_of_what_sounds(models, clip, tmp_path, name, ending, noted):
    progress = Progress()
    film, maps = actions.map_film(models[name], clip, tmp_path, progress)
    assert [path.name for path in tmp_path.iterdir()] == [film.name] == [f"clip_{ending}.mp4"]
    with av.open(str(film)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert [entry["timestamp"] for entry in maps] == pytest.approx([0.25, 0.75, 1.25])
    assert all(noted in entry for entry in maps)
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert models[name].pipeline.progress is None
    assert ("Probability" if noted == "score" else "Mean fraction") in markup.about_maps(maps)


def test_a_clicked_thing_is_the_part_of_the_mask_below_the_click(clip):
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:20, 10:16] = True
    mask[30:40, 40:60] = True
    thing = actions.thing_at(found_by(mask, score=0.9), clip, 0.5, (50 / 64, 35 / 48))
    assert (thing.sounding, thing.score, thing.label) == (True, 0.9, None)
    assert thing.mask.sum() == 200
    left, top, right, bottom = thing.box
    assert right - left == bottom - top == 25  # 1.25 times the longer side
    assert left <= 40 < 60 <= right
    assert bottom <= 48
    silent = actions.thing_at(found_by(mask, score=0.9), clip, 0.5, (0.0, 0.99))
    assert silent.sounding is False
    assert silent.box == (0, 48 - 19, 19, 48)  # a square around the click, moved into the frame
    assert "silent" in markup.verdict(silent, True)


def test_a_clicked_thing_has_the_name_of_its_class(clip):
    mask = np.zeros((48, 64), dtype=np.int64)
    mask[:, :30], mask[:, 30:50], mask[:, 50:] = 1, 2, 255
    model = found_by(mask, labels={0: "background", 1: "cello", 2: "flute"})
    thing = actions.thing_at(model, clip, 0.5, (0.6, 0.5))
    assert (thing.sounding, thing.label, thing.mask.sum()) == (True, "flute", 20 * 48)
    assert markup.verdict(thing, True) == "This sounds: flute."
    unseen = actions.thing_at(model, clip, 0.5, (0.95, 0.5))
    assert unseen.sounding is None
    assert "does not see" in markup.verdict(unseen, True)
    model = found_by((mask == 1).astype(int), labels={0: "background", 1: "sounding"})
    binary = actions.thing_at(model, clip, 0.5, (0, 0))
    assert (binary.sounding, binary.label) == (True, None)


def test_without_a_model_a_square_stands_for_the_thing(clip):
    thing = actions.thing_at(None, clip, 0.5, (0.5, 0.5))
    assert (thing.sounding, thing.box) == (None, (23, 15, 42, 34))
    assert thing.mask.sum() == 19 * 19
    alone, frame = np.asarray(actions.cut_out(clip, 0.5, thing)), actions.frame_at(clip, 0.5)
    assert alone.shape == (48, 48, 3)  # of 48 x 64, around the thing: from column 8 on
    assert (alone[15:34, 15:34] == frame[15:34, 23:42]).all()
    assert (alone[0, 0] == frame.mean((0, 1)).astype(np.uint8)).all()
    # Shown eight times as large, with the outline where the thing is.
    shown, outlined = actions.shown_frame(clip, 0.5), actions.outlined(clip, 0.5, thing)
    assert shown.shape == outlined.shape == (384, 512, 3)
    rows, columns = (np.flatnonzero((shown != outlined).any(-1).any(axis)) for axis in (1, 0))
    assert abs(rows[[0, -1]] - np.array([15, 34]) * 8).max() <= 8
    assert abs(columns[[0, -1]] - np.array([23, 42]) * 8).max() <= 8


def test_parts_of_masks_are_followed_around_corners():
    mask = np.zeros((40, 40), dtype=bool)
    mask[5, 5:35] = mask[5:35, 34] = mask[34, 5:35] = True
    mask[20, 5:20] = True
    found = actions.component(mask, 5, 5)
    assert (found == mask)[:, 20:].all()
    assert not found[20, :20].any()
    large = np.zeros((800, 900), dtype=bool)
    large[100:300, 100:300] = large[400:700, 400:800] = True
    found = actions.component(large, 500, 500)
    assert found.sum() == pytest.approx(300 * 400, rel=0.02)
    assert not found[:350].any()


def test_the_clicked_thing_alone(models, clip, tmp_path):
    progress = Progress()
    image = Image.fromarray(paint_gradients(0.5)[:40, :40])
    target = actions.separated(models["separate"], clip, image, tmp_path, progress)
    expected = models["separate"].pipeline(clip, frames=image)["audio"]
    found = load_clip(str(target), seconds=9).waveform[0]
    assert np.abs(found - expected / max(1.0, np.abs(expected).max())).max() < 1e-4
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    with pytest.raises(MediaError, match="audio"):
        actions.separated(models["separate"], clip.replace("clip.mov", "silent.mp4"), image, tmp_path, progress)


def test_labels_over_time(models, clip):
    progress = Progress()
    times, scores = actions.labels_over_time(models["classify"], clip, progress)
    seconds = models["classify"].processor.feature_extractor.seconds
    assert len(times) == round(1.5 * 2 / seconds)
    assert progress[-1] == 1.0
    assert {len(values) for values in scores.values()} == {len(times)}
    for k, time_ in enumerate(times):
        expected = models["classify"].pipeline(clip, timestamps=[time_], top_k=None)
        assert {entry["label"]: entry["score"] for entry in expected} == pytest.approx(
            {label: values[k] for label, values in scores.items()}, abs=1e-4
        )
    text = markup.label_strips(times, {"<b>": [0.5] * len(times)})
    assert "<b>" not in text
    assert text.count("&lt;b&gt;") == len(times) + 1


def test_patches_are_hidden_and_reconstructed(models, clip):
    network, processor = models["pretrain"].pretrained, models["pretrain"].processor
    few = reconstruct(network, processor, clip, 0.75, (0.5, 0.25))
    assert few.total == network.config.num_patches
    assert few.visible == tuple(round(count * part) for count, part in zip(few.total, (0.5, 0.75), strict=True))
    assert len(few.frame) == len(few.spectrogram) == len(KINDS)

    def hidden(images):
        return (images[0] == 128).all(-1)

    assert hidden(few.frame).mean() == pytest.approx(0.5, abs=0.02)
    assert (few.frame[1] == few.frame[2])[~hidden(few.frame)].all()
    assert (few.frame[1] != few.frame[2])[hidden(few.frame)].any()
    more = reconstruct(network, processor, clip, 0.75, (0.75, 1.0))
    assert more.visible[1] == 0
    assert hidden(more.frame)[hidden(few.frame)].mean() > 0.99
    published = reconstruct(network, processor, clip)
    assert published.visible == (network.image_masker.num_kept, network.audio_masker.num_kept)
    with pytest.raises(ValueError, match="Expected a visible patch"):
        reconstruct(network, processor, clip, 0.75, (1.0, 1.0))
    with pytest.raises(MediaError, match="audio"):
        reconstruct(network, processor, clip.replace("clip.mov", "silent.mp4"), 0.25, (0.5, 0.5))
    text = markup.panels({"<i>": [("a", few.frame[0])]})
    assert "<i>" not in text
    assert "data:image/png;base64," in text


def test_clips_are_found_by_their_images_and_sounds(models, folder, tmp_path):
    for k, pitch in enumerate((220.0, 1500.0)):
        tone = np.sin(2 * np.pi * pitch * np.arange(16000) / 16000)[None].astype(np.float32)
        write_media(
            tmp_path / f"{k}.mkv", seconds=1.0, audio=tone, paint=lambda time, k=k: paint_gradients(time + 2 * k)
        )
    write_media(tmp_path / "mute.mp4", seconds=1.0, audio_codec=None)
    (tmp_path / "text.mp4").write_text("no video")
    clips, progress = ClipSearch.of_folder(str(tmp_path)), Progress()
    assert [name for _, name in clips.files] == ["0", "1", "mute", "text"]
    for kind, others in (("image", {"mute"}), ("audio", set())):
        for k in (0, 1):
            hits = clips.search(models["pretrain"], str(tmp_path / f"{k}.mkv"), kind, kind, progress)
            assert {hit.name for hit in hits} == others | {str(1 - k)}  # a clip is no answer to itself
            shutil.copyfile(tmp_path / f"{k}.mkv", folder / "query.mkv")
            assert clips.search(models["pretrain"], str(folder / "query.mkv"), kind, kind, progress) == hits
            across = clips.search(models["pretrain"], str(tmp_path / f"{k}.mkv"), kind, "audio", progress)
            assert {hit.name for hit in across} == ({"0", "1"} if kind == "image" else {str(1 - k)})
    read = len(progress)
    clips.search(models["pretrain"], str(folder / "videos" / "cello.png"), "image", "audio", progress)
    assert len(progress) == read  # vectors are kept
    with pytest.raises(ValueError, match="got none"):
        clips.search(models["pretrain"], str(tmp_path / "mute.mp4"), "audio", "audio", progress)
    assert min(thumbnail(str(tmp_path / "0.mkv")).size) == 48
    assert thumbnail(str(tmp_path / "text.mp4")).size == (180, 180)  # a clip without images is found by its sound
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected files ending in"):
        ClipSearch.of_folder(str(tmp_path / "empty"))


def test_files_of_visitors_are_bounded(clip, folder):
    assert Limits().check(clip).has_audio
    cases = [
        (Limits(), None, "Choose an example"),
        (Limits(seconds=1), clip, "clip.mov: expected a video of at most 1 s, got 2 s; cut it first."),
        (Limits(megabytes=0), clip, "expected a file of at most 0 MB, got "),
        (Limits(), str(folder / "videos" / "sound.wav"), "expected a video, but it has no images"),
        (Limits(), str(folder / "videos" / "text.mp4"), "text.mp4"),
    ]
    for limits, path, message in cases:
        with pytest.raises(MediaError, match=re.escape(message)) as raised:
            limits.check(path)
        text = error_sentence(raised.value, [path])
        assert str(folder) not in text
        assert "\n" not in text


def test_messages_name_files_but_not_their_folders():
    name = "n" * 100 + "\x1b.mp4"
    text = error_sentence(MediaError(f"/a/b/{name}: it\nends early"), [f"/a/b/{name}", None])
    assert text == f"{shown_name(name)}: it ends early"
    assert len(shown_name(name)) == 47
    assert "\x1b" not in text
    assert error_sentence(KeyError("x")) == "KeyError: 'x'"  # without the advice to use the command line


def test_results_are_removed_after_an_hour_and_all_at_the_end(monkeypatch):
    with Workspace() as place:
        old, new = place.folder(), place.folder()
        past = time.time() - workspace.KEPT_SECONDS - 1
        os.utime(old, (past, past))
        newest = place.folder()
        assert (old.exists(), new.exists(), newest.exists()) == (False, True, True)
    assert not place.root.exists()


@pytest.mark.slow
def test_example_scenes(tmp_path):
    """A process of its own writes them, which does not import what lies in the working directory."""
    scenes = ExampleScenes(tmp_path / "scenes", seed=3, count=1)
    try:
        (path,) = scenes.paths()
    finally:
        scenes.stop()
    assert path.name == "scene_1.mp4"
    assert Limits().check(str(path)).has_audio
    failing = ExampleScenes(tmp_path / "scenes", seed=3, count=1)  # which exists
    with pytest.raises(UnreadableError, match="cannot be generated: .*holds a scene"):
        failing.paths()
