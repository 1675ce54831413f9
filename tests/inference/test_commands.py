"""The commands classify, separate, segment and localize: output, files, and errors for bad input."""

import html
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepavfusion_cli as cli
from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    load_clip,
)
from deepavfusion.inference import common as inference
from deepavfusion.inference.files import write_files
from deepavfusion.inference.folder import ResultFolder
from deepavfusion.inference.jobs.records import OUTSIDE
from deepavfusion.processors.media_deepavfusion import load_clips
from deepavfusion.processors.recording_separation_deepavfusion import RecordingSeparation
from deepavfusion.training.config.recipe import RecipeError
from deepavfusion.training.runs.models import check_origin
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import make_model, save_model

MODELS = {
    "classify": (DeepAVFusionForAudioVisualClassification, {"num_labels": 3, "hidden_size": 128}),
    "separate": (DeepAVFusionForSourceSeparation, {}),
    "segment": (DeepAVFusionForSemanticSegmentation, {"num_labels": 3, "hidden_size": 128}),
    "localize": (DeepAVFusionForSoundLocalization, {}),
    "pretrain": (DeepAVFusionForPreTraining, {"hidden_size": 128}),
}
TASKS = {
    "classify": "audio-visual-classification",
    "separate": "audio-visual-source-separation",
    "segment": "audio-visual-segmentation",
    "localize": "sound-source-localization",
}
RECIPES = {
    "classify": "scenes_recognition",
    "separate": "scenes_separation",
    "segment": "scenes_segmentation",
    "localize": "scenes_localization",
}
RATE, SECONDS = 22050, 2.51
MEDIA = Path(__file__).parents[2] / ".." / "shared" / "media" / "vggsound" / "clips"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model per command, and media files: complete, audio only, video only, text, an image."""
    folder = tmp_path_factory.mktemp("commands")
    for seed, (name, (model_class, overrides)) in enumerate(MODELS.items()):
        save_model(folder / name, model_class, seed=seed, **overrides)
    write_kinds(folder, seconds=2.5, sound_seconds=SECONDS, silent_seconds=1.0, rate=RATE, picture="cello.png")
    return folder


@pytest.fixture
def command(folder, tmp_path, capsys):
    """Runs a command with its model; returns the exit code, standard output, standard error, and the files written."""

    def run(name, *arguments, model=None, device="cpu", precision="float32"):
        out = [] if name == "classify" else ["--out", str(tmp_path / "out" / "here")]
        out += ["--no-film"] if name in ("separate", "segment", "localize") else []
        argv = [name, *map(str, arguments), "--model", str(folder / (model or name)), "--device", device, *out]
        argv += ["--precision", precision]
        capsys.readouterr()
        try:
            code = cli.main(argv)
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        written = {path.name: path for path in (tmp_path / "out" / "here").glob("*")}
        return code, captured.out, captured.err, written

    return run


def pipe(folder, command):
    return inference.load_pipeline(TASKS[command], str(folder / command), "cpu")


def expected_times(file, timestamps=None, num_clips=None):
    return [clip.timestamp for clip in load_clips(file, timestamps, num_clips, seconds=0.75)]


def read_wav(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768, file.getframerate()


def printed(out):
    """Lines of the results, without those on what was written."""
    return [line for line in out.splitlines() if not line.startswith("written to ")]


def without_note(err):
    """Standard error without the line on what the model does not see."""
    return "".join(line for line in err.splitlines(keepends=True) if OUTSIDE not in line)


@pytest.mark.parametrize("name", [*TASKS, "embed"])
def test_every_command_says_what_it_has_written(command, folder, tmp_path, name):
    out = tmp_path / "out" / "here"
    options = ["--out", out] if name == "classify" else []
    code, said, _, written = command(name, folder / "clip.mov", *options, model=None if name in MODELS else "pretrain")
    assert code == 0
    results = {str(path) for path in written.values() if path.suffix != ".json" or name == "classify"}
    assert {line.removeprefix("written to ") for line in said.splitlines() if line not in printed(said)} == results
    if name != "embed":  # again: nothing is written
        assert "written to" not in command(name, folder / "clip.mov", *options)[1]


class TestClassify:
    def test_prints_labels(self, command, folder):
        code, out, _, _ = command("classify", folder / "clip.mov", folder / "sound.wav", "--top-k", 2)
        assert code == 0
        lines = out.splitlines()
        assert lines[0] == str(folder / "clip.mov")
        assert lines[3] == str(folder / "sound.wav")
        assert len(lines) == 6
        expected = pipe(folder, "classify")(str(folder / "clip.mov"), top_k=2)
        assert lines[1:3] == [f"  {entry['score']:.3f}  {entry['label']}" for entry in expected]

    @pytest.mark.parametrize(
        ("options", "timestamps"),
        [((), {}), (("--num-clips", 3), {"num_clips": 3}), (("--at", 0.5, 2), {"timestamps": [0.5, 2.0]})],
    )
    def test_json_lines(self, command, folder, options, timestamps):
        files = [str(folder / name) for name in ("clip.mov", "silent.mp4")]
        if "--at" in options:
            files = files[:1]
        code, out, _, _ = command("classify", *files, "--json", *options)
        assert code == 0
        found = [json.loads(line) for line in out.splitlines()]
        assert [entry["file"] for entry in found] == files
        for entry in found:
            assert entry["timestamps"] == pytest.approx(expected_times(entry["file"], **timestamps))
            expected = pipe(folder, "classify")(entry["file"], **timestamps)
            assert [label["label"] for label in entry["labels"]] == [label["label"] for label in expected]
            scores = [label["score"] for label in expected]
            assert [label["score"] for label in entry["labels"]] == pytest.approx(scores, abs=1e-5)


class TestSeparate:
    def test_writes_audio_and_spectrograms(self, command, folder):
        code, out, _, written = command("separate", folder / "clip.mov")
        assert code == 0
        assert set(written) == {"clip_separated.wav", "clip_spectrograms.png", "clip_separated.json"}
        assert str(written["clip_separated.wav"]) in out
        waveform, rate = read_wav(written["clip_separated.wav"])
        expected = pipe(folder, "separate")(str(folder / "clip.mov"))["audio"]
        assert rate == RATE
        assert len(waveform) == round(SECONDS * RATE)
        assert np.abs(waveform - expected).max() < 1e-4
        assert Image.open(written["clip_spectrograms.png"]).width > 300

    def test_several_frames(self, command, folder):
        code, _, _, written = command(
            "separate", folder / "clip.mov", "--frame", "0.5", folder / "cello.png", "0.5", "--consistency"
        )
        assert code == 0
        wavs = ["clip_at_0.50s.wav", "clip_cello.wav", "clip_at_0.50s_2.wav"]
        assert set(written) == {*wavs, "clip_spectrograms.png", "clip_separated.json"}
        frames = [0.5, str(folder / "cello.png"), 0.5]
        expected = pipe(folder, "separate")(str(folder / "clip.mov"), frames=frames, consistency=True)
        for name, entry in zip(wavs, expected, strict=True):
            assert np.abs(read_wav(written[name])[0] - entry["audio"]).max() < 1e-4

    def test_audio_only_file_by_an_image(self, command, folder):
        code, _, _, written = command("separate", folder / "sound.wav", "--frame", folder / "cello.png")
        assert code == 0
        assert len(read_wav(written["sound_cello.wav"])[0]) == round(SECONDS * RATE)

    def test_loud_sources_are_scaled_together(self, command, folder, monkeypatch):
        parts = RecordingSeparation.parts

        def louder(self, skip=0):
            factors = np.float32([[8.0], [1.0]])
            for part in parts(self, skip):
                yield part._replace(sources=factors * part.sources / np.abs(part.sources).max(1, keepdims=True))

        monkeypatch.setattr(RecordingSeparation, "parts", louder)
        code, out, _, written = command("separate", folder / "clip.mov", "--frame", "0.5", "2")
        assert code == 0
        assert "by a factor of 8.00" in out
        peaks = [np.abs(read_wav(written[f"clip_at_{time}s.wav"])[0]).max() for time in ("0.50", "2.00")]
        assert peaks == pytest.approx([1.0, 0.125], abs=1e-3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--consistency",), "at least 2 values of --frame, got 0"),
            (
                ("--frame", "absent.png"),
                "--frame absent.png: expected a timestamp in seconds, an image or a video, but",
            ),
            (("--frame", __file__), f"--frame {__file__}: expected a timestamp in seconds, an image or a video; "),
            (("--frame", "-1"), "expected at least one argument|expected a timestamp"),
            (("--overlap", "1"), "a number in [0, 1), got '1'"),
        ],
    )
    def test_bad_options(self, command, folder, options, message):
        code, _, err, written = command("separate", folder / "clip.mov", *options)
        assert code == 2
        assert any(part in err for part in message.split("|"))
        assert not written


class TestSegment:
    def test_writes_indices_and_overlay(self, command, folder):
        code, out, _, written = command("segment", folder / "clip.mov")
        assert code == 0
        assert set(written) == {"clip_at_1.25s_mask.png", "clip_at_1.25s_overlay.png", "clip_mask.json"}
        expected = pipe(folder, "segment")(str(folder / "clip.mov"))
        mask = np.asarray(Image.open(written["clip_at_1.25s_mask.png"]))
        assert np.array_equal(mask, expected["mask"])
        assert float(Image.open(written["clip_at_1.25s_mask.png"]).info["timestamp"]) == expected["timestamp"]
        assert 255 in mask  # beyond the center crop
        colors = np.asarray(Image.open(written["clip_at_1.25s_mask.png"]).convert("RGB"))
        assert len(np.unique(colors.reshape(-1, 3), axis=0)) == len(np.unique(mask))
        overlay = Image.open(written["clip_at_1.25s_overlay.png"])
        assert overlay.width / overlay.height == 64 / 48
        assert out.startswith("clip_at_1.25s: LABEL_")

    def test_several_timestamps_and_files_of_one_name(self, command, folder, tmp_path):
        (tmp_path / "other").mkdir()
        copy = tmp_path / "other" / "clip.mov"
        copy.write_bytes((folder / "clip.mov").read_bytes())
        code, out, _, written = command("segment", folder / "clip.mov", copy, "--at", "0.5", "2")
        assert code == 0
        stems = [f"clip{number}_at_{time}s" for number in ("", "_2") for time in ("0.50", "2.00")]
        images = {f"{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
        assert set(written) == images | {"clip_mask.json", "clip_2_mask.json", "index.html"}
        assert [line.split(":")[0] for line in printed(out)] == stems
        assert out.splitlines()[-1] == f"written to {written['index.html']}"

    def test_a_single_class(self, command, folder, tmp_path):
        save_model(tmp_path / "one", DeepAVFusionForSemanticSegmentation, hidden_size=128, num_labels=1)
        code, out, _, written = command("segment", folder / "silent.mp4", "--threshold", 0, model=tmp_path / "one")
        assert code == 0
        mask = np.asarray(Image.open(written["silent_at_0.50s_mask.png"]))
        assert set(np.unique(mask)) == {1, 255}
        assert printed(out) == ["silent_at_0.50s: sounding 100.0 %; the file has no audio"]


class TestLocalize:
    def test_writes_heat_maps(self, command, folder):
        code, out, _, written = command("localize", folder / "clip.mov", "--num-clips", 2)
        assert code == 0
        found = pipe(folder, "localize")(str(folder / "clip.mov"), num_clips=2)
        lines = printed(out)
        assert set(written) == {"clip_heat.json", *(f"{line.split(':')[0]}_heat.png" for line in lines)}
        assert len(lines) == 2
        for line, entry in zip(lines, found, strict=True):
            row, column = np.unravel_index(entry["heat_map"].argmax(), (48, 64))
            title = f"clip_at_{entry['timestamp']:.2f}s"
            assert line == f"{title}: maximum at x {column}, y {row} of 64 x 48, score {entry['score']:.2f}"
            overlay = Image.open(written[f"{title}_heat.png"])
            assert float(overlay.info["timestamp"]) == pytest.approx(entry["timestamp"], abs=1e-6)
            assert overlay.width / overlay.height == 64 / 48

    def test_silence(self, command, folder):
        code, out, _, written = command("localize", folder / "silent.mp4")
        assert code == 0
        assert printed(out) == ["silent_at_0.50s: no maximum of 64 x 48, score 0.00; the file has no audio"]
        assert set(written) == {"silent_at_0.50s_heat.png", "silent_heat.json"}

    @pytest.mark.parametrize("kind", ["attention", "similarity"])
    def test_maps_of_an_encoder(self, command, folder, kind):
        code, out, _, written = command("localize", folder / "clip.mov", "--map", kind, model="pretrain")
        assert code == 0
        line = r"clip_at_1\.25s: maximum at x \d+, y \d+ of 64 x 48"  # no score: it is not calibrated
        assert re.fullmatch(line, *printed(out))
        assert set(written) == {"clip_at_1.25s_heat.png", "clip_heat.json"}

    def test_an_untrained_head_is_refused(self, command, folder):
        code, _, err, written = command("localize", folder / "clip.mov", model="pretrain")
        assert code == 2
        assert err.rstrip().endswith(f"model.init_from={folder / 'pretrain'}, or pass --map attention.")
        assert not written


class TestFolders:
    """A folder stands for the media files in it and below."""

    @pytest.fixture
    def videos(self, folder, tmp_path):
        place = tmp_path / "videos"
        for name in ("a.mov", "cello/a.mov", ".hidden/b.mov", "cello/.c.mov"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).symlink_to(folder / "clip.mov")
        (place / "notes.txt").write_text("no video")
        (place / "cello" / "sound.wav").symlink_to(folder / "sound.wav")
        return place

    @pytest.mark.parametrize("name", TASKS)
    def test_all_files_of_a_folder(self, command, videos, name):
        code, out, err, written = command(name, videos)
        assert code == 0
        left_out = ": 1 audio file left out: a folder stands for its videos; name others one by one\n"
        assert without_note(err) == ("" if name == "classify" else f"deepavfusion {name}: {videos}{left_out}")
        assert "a" in out
        assert "hidden" not in out
        if name == "classify":
            files = [line for line in out.splitlines() if not line.startswith(" ")]
            assert files == [str(videos / file) for file in ("a.mov", "cello/a.mov", "cello/sound.wav")]
        else:
            assert written.pop("cello").is_dir()
            assert written.pop("index.html").is_file()
            assert all(file.startswith("a_") for file in written)
            assert "sound" not in out  # it shows nothing

    def test_results_are_no_input(self, command, videos, tmp_path):
        for _ in range(2):
            code, _, err, _ = command("separate", tmp_path, "--frame", videos / "a.mov", "--overwrite")
            assert (code, err) == (0, "")
        results = [path.relative_to(tmp_path / "out" / "here") for path in (tmp_path / "out").rglob("*.wav")]
        assert sorted(map(str, results)) == [
            "videos/a_a.wav",
            "videos/cello/a_a.wav",
            "videos/cello/sound_a.wav",
        ]

    @pytest.mark.parametrize("name", TASKS)
    def test_an_empty_folder_is_named(self, command, tmp_path, name):
        (tmp_path / "empty").mkdir()
        code, out, err, written = command(name, tmp_path / "empty")
        assert (code, out, written) == (2, "", {})
        assert f"{tmp_path / 'empty'}: expected files ending in .mp4, " in err
        assert err.count("\n") == 1


class TestBadInput:
    @pytest.mark.parametrize("name", TASKS)
    def test_files_that_fail_are_named_and_the_others_done(self, command, folder, name):
        files = [folder / "text.mp4", folder / "clip.mov", folder / "absent.mp4"]
        code, out, err, written = command(name, *files)
        err = without_note(err)
        assert code == 2
        assert [line.split(":")[0] for line in err.splitlines()] == [f"deepavfusion {name}"] * 2
        assert "text.mp4" in err.splitlines()[0]
        assert "absent.mp4: expected a media file, but there is no such file" in err.splitlines()[1]
        assert "clip" in out
        assert ("index.html" in written) == (name != "classify")
        written.pop("index.html", None)
        assert all(title.startswith("clip") for title in written)

    @pytest.mark.parametrize(
        ("name", "file", "missing"),
        [
            ("separate", "sound.wav", "image"),
            ("separate", "silent.mp4", "audio"),
            ("segment", "sound.wav", "image"),
            ("localize", "sound.wav", "image"),
        ],
    )
    def test_files_that_lack_what_is_needed(self, command, folder, name, file, missing):
        code, out, err, written = command(name, folder / file)
        assert (code, out, written) == (2, "", {})
        assert f"{file}: expected {missing}" in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize("name", TASKS)
    def test_models_that_are_not_there(self, command, folder, tmp_path, name):
        for model in ("nowhere", tmp_path):
            code, _, err, written = command(name, folder / "clip.mov", model=model)
            assert (code, written) == (2, {})
            assert err.startswith(f"deepavfusion {name}: ")
            assert err.count("\n") == 1
            assert str(model) in err

    @pytest.mark.parametrize("name", [*TASKS, "embed"])
    def test_the_run_of_a_training_that_has_not_finished(self, command, folder, tmp_path, name):
        run = ResultFolder(tmp_path / "run", "pretrain", "run.output_dir")
        run.plan({})
        with run.claimed():
            run.begin()
        run.close()
        code, _, err, _ = command(name, folder / "clip.mov", model=tmp_path / "run")
        reason = "the run in that folder has not finished; the command that started it resumes it"
        assert (code, err) == (2, f"deepavfusion {name}: {tmp_path / 'run'} cannot be used: {reason}.\n")
        (tmp_path / "empty").mkdir()
        places = {run.path: reason, tmp_path / "empty": "there is no model in that folder"}
        places |= {"./x": "there is no such folder"}
        for place, expected in places.items():
            with pytest.raises(RecipeError, match=rf"^model.init_from={place} cannot be used: {expected}(; .*)?\.$"):
                check_origin(str(place), "model.init_from")

    @pytest.mark.parametrize("name", TASKS)
    def test_the_model_of_another_task(self, command, folder, name):
        other = "classify" if name != "classify" else "separate"
        code, _, err, _ = command(name, folder / "clip.mov", model=other)
        assert code == 2
        wanted, stored = MODELS[name][0].__name__, MODELS[other][0].__name__
        task = {
            "classify": "recognition",
            "separate": "separation",
            "segment": "segmentation",
            "localize": "localization",
        }
        assert err == (
            f"deepavfusion {name}: {folder / other} holds a model for {task[other]} ({stored}): expected one for "
            f"{task[name]} ({wanted}), which deepavfusion finetune scenes_{task[name]} makes, e.g. with "
            f"model.init_from={folder / other}.\n"
        )

    @pytest.mark.parametrize("name", TASKS)
    def test_an_encoder_without_head_says_what_to_do(self, command, folder, name):
        code, out, err, written = command(name, folder / "clip.mov", model="pretrain")
        assert (code, out, written) == (2, "", {})
        assert err.startswith(
            f"deepavfusion {name}: {folder / 'pretrain'} holds a pre-trained encoder (DeepAVFusionForPreTraining) "
            f"without the weights of a {MODELS[name][0].__name__}: fine-tune it first, "
            f"e.g. deepavfusion finetune {RECIPES[name]} model.init_from={folder / 'pretrain'}"
        )
        assert ("--map" in err) == (name == "localize")

    @pytest.mark.parametrize("name", TASKS)
    def test_a_model_without_processor(self, command, folder, tmp_path, name):
        make_model(MODELS[name][0], **MODELS[name][1]).save_pretrained(tmp_path / "alone")
        code, _, err, _ = command(name, folder / "clip.mov", model=tmp_path / "alone")
        assert code == 2
        assert "Expected a processor_config.json" in err
        assert "alone" in err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--at", "soon"), "expected a timestamp in seconds, got 'soon'"),
            (("--num-clips", "0"), "expected a whole number from 1 to 1,000,000, got '0'"),
            (("--at", "1", "--num-clips", "2"), "not allowed with argument"),
            (("--top-k", "-1"), "expected a whole number from 1"),
            (("--topk", "3"), "unrecognized arguments: --topk 3 (did you mean --top-k?)"),
            (("--xyz=3",), "unrecognized arguments: --xyz=3\n"),
        ],
    )
    def test_options(self, command, folder, options, message):
        code, _, err, _ = command("classify", folder / "clip.mov", *options)
        assert code == 2
        assert message in err

    def test_a_timestamp_beyond_the_file(self, command, folder):
        code, _, err, _ = command("segment", folder / "clip.mov", "--at", "9")
        assert code == 2
        assert "clip.mov: expected a timestamp within " in err

    def test_devices_that_are_not_there(self, command, folder):
        code, _, err, _ = command("classify", folder / "clip.mov", device="toaster:7")
        assert code == 2
        assert "device 'toaster:7' is not available" in err


@pytest.mark.parametrize("name", ["separate", "segment", "localize"])
def test_files_that_exist_are_replaced_only_on_request(name, command, folder):
    code, _, _, written = command(name, folder / "clip.mov")
    assert code == 0
    for path in written.values():
        path.write_text("user content")
    code, out, err, again = command(name, folder / "clip.mov")
    assert (code, out, again) == (2, "", written)
    assert "--overwrite" in err
    assert {path.read_text() for path in again.values()} == {"user content"}
    assert command(name, folder / "clip.mov", "--overwrite")[0] == 0
    assert all(path.stat().st_size > 60 for path in written.values())


@pytest.mark.parametrize("name", ["segment", "localize"])
def test_what_the_model_does_not_see_is_hatched_and_said_once(name, command, folder):
    kind = "heat" if name == "localize" else "overlay"
    files = (folder / "clip.mov", folder / "silent.mp4")
    code, _, err, written = command(name, *files)
    assert code == 0
    assert err == f"deepavfusion {name}: {OUTSIDE}\n"
    image = np.asarray(Image.open(written[f"clip_at_1.25s_{kind}.png"]))
    assert set(np.unique(image[:, :16])) == set(np.unique(image[:, -16:])) == {110, 150}
    assert not np.isin(image[20:-20, 40:-40], (110, 150)).all(axis=-1).all()
    page = html.unescape(written["index.html"].read_text())
    assert page.count(OUTSIDE[1:]) == 1
    assert page.count("The file has no audio.") == 1
    code, _, err, written = command(name, *files, "--fit", "pad", "--overwrite")
    assert (code, err) == (0, "")
    assert OUTSIDE[1:] not in html.unescape(written["index.html"].read_text())


@pytest.mark.parametrize("name", ["segment", "localize"])
def test_results_that_are_replaced_by_others_do_not_stay(name, command, folder, tmp_path):
    _, _, _, first = command(name, folder / "clip.mov", "--at", "0.2")
    other = tmp_path / "out" / "here" / "of the user.png"
    other.write_text("user content")
    _, _, _, second = command(name, folder / "clip.mov", "--at", "0.7", "--overwrite")
    images = {key for key in first if key.endswith(".png")}
    assert images
    assert not images & second.keys()
    assert other.read_text() == "user content"


@pytest.mark.parametrize(
    ("precision", "fast", "lower"), [("auto", True, True), ("auto", False, False), ("bfloat16", False, True)]
)
def test_precision(precision, fast, lower, command, folder, monkeypatch):
    """bfloat16 where the device is fast at it, or as asked for, within its rounding."""
    monkeypatch.setattr(inference, "fast_bfloat16", lambda device_type: fast)
    _, _, _, written = command("separate", folder / "clip.mov", precision=precision)
    expected = pipe(folder, "separate")(str(folder / "clip.mov"))["audio"]
    error = np.abs(read_wav(written["clip_separated.wav"])[0] - expected).max()
    assert (error > 1e-4) == lower
    assert error < 1e-2
    _, out, _, _ = command("classify", folder / "clip.mov", "--json", precision=precision)
    found = {label["label"]: label["score"] for label in json.loads(out)["labels"]}
    for label in pipe(folder, "classify")(str(folder / "clip.mov")):
        assert found[label["label"]] == pytest.approx(label["score"], abs=1e-2 if lower else 1e-5)


def test_many_classes_are_written_in_16_bits(tmp_path):
    from deepavfusion.inference.media import encode_png
    from deepavfusion.inference.segment import index_image

    mask = np.arange(300).reshape(15, 20)
    colors = np.zeros((300, 3), np.uint8)
    write_files({tmp_path / "mask.png": encode_png(index_image(mask, colors))}, overwrite=False)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), mask)


@pytest.mark.parametrize("name", TASKS)
def test_real_clips(command, name):
    clips = sorted(MEDIA.rglob("*.mp4"), key=lambda path: path.stat().st_size)[: 1 if name == "separate" else 2]
    if not clips:
        pytest.skip("needs the clips of shared/media/vggsound")
    code, out, err, written = command(name, *clips)
    assert (code, without_note(err)) == (0, "")
    for clip in clips:
        assert clip.stem in out
    if name == "separate":
        clip = load_clip(clips[0], seconds=1000)
        waveform, rate = read_wav(written[f"{clips[0].stem}_separated.wav"])
        assert (len(waveform), rate) == (clip.waveform.shape[1], clip.sampling_rate)
