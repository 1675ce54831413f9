"""Films that the commands write, and what happens to them when a command is interrupted or repeated."""

import json
import os
import re
from pathlib import Path

import av
import numpy as np
import pytest

import deepavfusion_cli as cli
from deepavfusion import load_clip
from deepavfusion.inference.films import parts
from deepavfusion.inference.films.parts import FilmParts
from deepavfusion.processors import probe_clip
from tests.inference.test_commands import MEDIA, MODELS
from tests.isolated import run_python
from tests.media_factory import turn_mp4, write_kinds, write_media
from tests.modeling_deepavfusion.cases import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for seed, name in enumerate(("localize", "segment", "separate")):
        model_class, overrides = MODELS[name]
        save_model(folder / name, model_class, seed=seed, **overrides)
    write_kinds(folder, seconds=1.5, sound_seconds=1.51, silent_seconds=0.5, rate=22050, picture="cello.png")
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """Runs a command; gives its exit code, and the files that it has written by name."""

    def run(name, file, *options):
        out = tmp_path / "out"
        words = [name, str(file), "--model", str(folder / name), "--out", str(out), "--device", "cpu", *options]
        return cli.main(list(map(str, words))), {path.name: path for path in out.glob("*")}

    return run


def kinds(path):
    with av.open(str(path)) as container:
        return [stream.type for stream in container.streams]


@pytest.mark.parametrize(("name", "film"), [("localize", "clip_heat"), ("segment", "clip_overlay")])
def test_maps_over_the_moving_frames(run, folder, name, film):
    code, written = run(name, folder / "clip.mov", "--maps-per-second", 4)
    assert code == 0
    path = written[f"{film}.mp4"]
    assert kinds(path) == ["video", "audio"]
    clip = load_clip(path, seconds=1.5, num_frames=15)
    assert clip.frames.shape[1:3] == (192, 256)  # enlarged, as images are
    assert np.abs(np.diff(clip.frames.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 2  # it moves
    waveform, rate = load_clip(path, seconds=5.0).waveform, clip.sampling_rate
    assert waveform.shape[1] / rate == pytest.approx(1.51, abs=0.1)
    assert waveform.shape[0] == 2
    record = json.loads(next(path for key, path in written.items() if key.endswith(".json")).read_text())
    assert record["film"]["film"] == path.name
    assert [entry["timestamp"] for entry in record["film"]["maps"]] == pytest.approx(np.arange(0.125, 1.5, 0.25))
    assert record["images"][0]["timestamp"] == pytest.approx(0.75)
    assert record["images"][0]["unseen"] == pytest.approx(0.25)
    assert record["audio"] is True
    assert np.abs(clip.frames[:, :, 1:30].astype(int) - 130).max() < 45  # hatched beyond the center crop
    assert set(record["files"]) == set(written) - {f"clip_{'heat' if name == 'localize' else 'mask'}.json"}


def test_the_separated_audio_is_in_the_film(run, folder):
    code, written = run("separate", folder / "clip.mov", "--frame", "0.5", folder / "cello.png")
    assert code == 0
    record = json.loads(written["clip_separated.json"].read_text())
    assert [source["film"] for source in record["sources"]] == ["clip_at_0.50s.mp4", "clip_cello.mp4"]
    assert record["sources"][0]["frame"] == 0.5
    assert (record["start"], record["end"]) == (0.0, pytest.approx(1.51, abs=1e-3))
    for source in record["sources"]:
        film, separated = (load_clip(written[source[key]], seconds=5.0) for key in ("film", "audio"))
        length = min(film.waveform.shape[1], separated.waveform.shape[1])
        # Noise survives AAC in its low frequencies.
        low = [np.fft.rfft(clip.waveform[0, :length])[: length // 8] for clip in (film, separated)]
        correlation = np.vdot(*low).real / np.linalg.norm(low[0]) / np.linalg.norm(low[1])
        assert correlation > 0.9
        assert film.frames.shape[1:3] == (48, 64)


def test_what_has_no_moving_frames_has_no_film(run, folder):
    for name, file, options in (
        ("localize", "cello.png", ()),
        ("separate", "sound.wav", ("--frame", folder / "cello.png")),
        ("segment", "clip.mov", ("--no-film",)),
    ):
        code, written = run(name, folder / file, *options)
        assert code == 0
        assert not any(key.endswith(".mp4") for key in written)
    assert json.loads(written["cello_heat.json"].read_text())["film"] is None
    assert json.loads(written["sound_separated.json"].read_text())["sources"][0]["film"] is None


def test_a_video_without_audio_has_a_film_without_audio(run, folder):
    code, written = run("localize", folder / "silent.mp4")
    assert code == 0
    assert kinds(written["silent_heat.mp4"]) == ["video"]


def test_a_turned_wide_video_stands_upright(run, tmp_path):
    name = "n" * 200
    write_media(tmp_path / f"{name}.mp4", size=(800, 90), seconds=0.5)
    turn_mp4(tmp_path / f"{name}.mp4", 90)
    code, written = run("localize", tmp_path / f"{name}.mp4", "--fit", "pad")
    assert code == 0
    assert load_clip(written[f"{name}_heat.mp4"]).frames.shape[1:3] == (800, 90)


def test_an_interrupted_film_is_continued(run, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "_SECONDS", 0.5)
    times, read = FilmParts.times, []

    def stopping(self, part):
        read.append(part)
        if part == 2 and self.done == 2:
            raise KeyboardInterrupt
        return times(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(FilmParts, "times", stopping)
        code, written = run("localize", folder / "clip.mov")
    assert code == 130
    assert set(written) == {"clip_heat.unfinished"}  # no result before all are whole
    assert (tmp_path / "out" / "clip_heat.unfinished" / "film-00001.mp4").is_file()
    replace, replaced = os.replace, []
    monkeypatch.setattr(os, "replace", lambda old, new: replaced.append(Path(new).name) or replace(old, new))
    code, written = run("localize", folder / "clip.mov")
    assert code == 0
    assert set(written) == {"clip_at_0.75s_heat.png", "clip_heat.json", "clip_heat.mp4"}
    assert [name for name in replaced if name.startswith("film-0")] == ["film-00002.mp4", "film-00002.json"]
    capsys.readouterr()
    assert run("localize", folder / "clip.mov")[0] == 0
    assert "clip: its results are there already" in capsys.readouterr().err
    before = written["clip_heat.mp4"].read_bytes()
    assert run("localize", folder / "clip.mov", "--at", "0.75", "--map", "attention")[0] == 2
    assert "already exists: choose another output path, or pass --overwrite" in capsys.readouterr().err
    assert written["clip_heat.mp4"].read_bytes() == before
    assert run("localize", folder / "clip.mov", "--map", "attention", "--force")[0] == 0
    assert written["clip_heat.mp4"].read_bytes() != before


def test_without_an_encoder_the_option_is_named(run, folder, monkeypatch, capsys):
    monkeypatch.setattr("deepavfusion.inference.films.encoding._ENCODERS", ("nothing264",))
    code, written = run("segment", folder / "clip.mov")
    assert (code, written) == (2, {})
    assert "pass --no-film" in capsys.readouterr().err
    assert run("segment", folder / "clip.mov", "--no-film")[0] == 0


MEASURE = """
import resource
import sys
from deepavfusion.inference import localize

model, out, *videos = sys.argv[1:]
for video in videos:
    assert localize.main([video, "--model", model, "--device", "cpu", "--out", out]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # MiB
"""


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(folder, tmp_path):
    """Four minutes after one, whose frames take 88 MiB as they are decoded."""
    for minutes in (1, 4):
        write_media(tmp_path / f"{minutes}.mp4", seconds=60 * minutes, size=(256, 192))
    videos = [str(tmp_path / f"{minutes}.mp4") for minutes in (1, 4)]
    printed = run_python(MEASURE, str(folder / "localize"), str(tmp_path / "out"), *videos, home=tmp_path / "home")
    short, long = (float(line) for line in printed.splitlines() if re.fullmatch(r"[\d.]+", line))
    assert long - short < 60
    record = json.loads((tmp_path / "out" / "4_heat.json").read_text())
    assert len(record["film"]["maps"]) == 480
    assert record["film"]["end"] == pytest.approx(240, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["localize", "segment", "separate"])
def test_real_clips(run, name):
    clips = sorted(MEDIA.rglob("*.mp4"), key=lambda path: path.stat().st_size)[:1]
    if not clips:
        pytest.skip("needs the clips of shared/media/vggsound")
    code, written = run(name, *clips)
    assert code == 0
    (film,) = (path for key, path in written.items() if key.endswith(".mp4"))
    own, shown = probe_clip(clips[0]), probe_clip(film)
    assert shown.end == pytest.approx(own.end, abs=0.2)
    assert shown.has_audio
