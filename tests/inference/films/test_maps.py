"""Maps of films are those of the pipeline at their timestamps, and films are continued where they were interrupted."""

import numpy as np
import pytest

from deepavfusion import DeepAVFusionForSoundLocalization
from deepavfusion.inference.common import load_pipeline
from deepavfusion.inference.films import parts
from deepavfusion.inference.films.maps import MapTrack, Overlay, map_timestamps, small_map, write_map_film
from deepavfusion.processors import load_clip
from tests.media_factory import write_kinds, write_media
from tests.modeling_deepavfusion.cases import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    save_model(folder / "model", DeepAVFusionForSoundLocalization, seed=3)
    write_kinds(folder, seconds=2.5, sound_seconds=2.51, silent_seconds=1.0, rate=22050, picture="cello.png")
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return load_pipeline("sound-source-localization", str(folder / "model"), "cpu")


def drawn(frame, heat):
    """The mean of the map as the level of the frame."""
    return np.full_like(frame, round(255 * float(np.clip(heat.mean(), 0, 1))))


OVERLAY = Overlay(lambda entry: entry["heat_map"], drawn, lambda entry: {"score": entry["score"]}, True, {})


def test_maps_are_those_of_the_pipeline(folder, pipeline, tmp_path):
    file = str(folder / "clip.mov")
    about = write_map_film(pipeline, file, "clip", tmp_path, "film.mp4", OVERLAY, 2.0, 2)
    timestamps = map_timestamps(0.0, 2.5, 2.0)
    assert [entry["timestamp"] for entry in about["maps"]] == timestamps == [0.25, 0.75, 1.25, 1.75, 2.25]
    assert (about["film"], about["start"], about["end"]) == ("film.mp4", 0.0, 2.5)
    expected = pipeline(file, timestamps=timestamps)
    assert [e["score"] for e in about["maps"]] == pytest.approx([e["score"] for e in expected], abs=1e-4)
    means = np.array([entry["heat_map"].mean() for entry in expected])
    for time, mean in ((0.25, means[0]), (1.25, means[2]), (1.5, means[2:4].mean())):
        shown = load_clip(tmp_path / "film.mp4", time, require="both").frames[0]
        assert shown.mean() / 255 == pytest.approx(np.interp(time, timestamps, means), abs=0.05)
        assert shown.mean() / 255 == pytest.approx(mean, abs=0.05)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_film_is_continued_with_the_same_result(folder, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_SECONDS", 1)
    file, rate = str(folder / "clip.mov"), 4.0
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    expected = write_map_film(pipeline, file, "clip", tmp_path / "whole", "film.mp4", OVERLAY, rate, 2)
    frames = iter(range(14))

    def killed(frame, heat):
        if next(frames, None) is None:
            raise Killed
        return drawn(frame, heat)

    stopped = Overlay(OVERLAY.map_of, killed, OVERLAY.describe, True, {})
    with pytest.raises(Killed):
        write_map_film(pipeline, file, "clip", tmp_path / "stopped", "film.mp4", stopped, rate, 2)
    kept = tmp_path / "stopped" / "film-00000.mp4"
    before = kept.stat().st_mtime_ns
    assert load_clip(kept, seconds=9).frames.shape[0] == 1  # can be watched meanwhile
    assert not (tmp_path / "stopped" / "film-00001.json").exists()
    found = write_map_film(pipeline, file, "clip", tmp_path / "stopped", "film.mp4", OVERLAY, rate, 2)
    assert found == expected
    assert kept.stat().st_mtime_ns == before
    assert (tmp_path / "stopped" / "film.mp4").read_bytes() == (tmp_path / "whole" / "film.mp4").read_bytes()


def test_few_windows_are_read_ahead(folder, pipeline, tmp_path, monkeypatch):
    read, used = [], []
    windows = parts.Recording.windows

    def counted(self, *arguments):
        for clip in windows(self, *arguments):
            read.append(clip.timestamp)
            yield clip

    def draw(frame, heat):
        used.append(len(read))
        return drawn(frame, heat)

    monkeypatch.setattr(parts.Recording, "windows", counted)
    overlay = Overlay(OVERLAY.map_of, draw, OVERLAY.describe, True, {})
    write_map_film(pipeline, str(folder / "clip.mov"), "clip", tmp_path, "film.mp4", overlay, 10.0, 2)
    assert used[0] <= 4
    assert max(ahead - frame for frame, ahead in enumerate(used)) <= 5


def test_sizes_that_change_and_files_without_audio(pipeline, tmp_path):
    path = write_media(tmp_path / "upright.mp4", size=(90, 400), seconds=1.0, audio_codec=None)
    about = write_map_film(pipeline, str(path), "upright", tmp_path, "film.mp4", OVERLAY, 1.0, 8)
    assert [entry["score"] for entry in about["maps"]] == [0.0]
    clip = load_clip(tmp_path / "film.mp4", require="image")
    assert clip.frames.shape[1:3] == (400, 90)
    assert clip.waveform is None


def track(interpolated):
    maps = ((time, np.full((2, 3), value)) for time, value in ((1.0, 10.0), (2.0, 20.0), (4.0, 0.0)))
    return MapTrack(maps, interpolated)


def test_maps_between_timestamps():
    for interpolated, expected in ((True, [10, 10, 15, 18, 20, 10, 0, 0]), (False, [10, 10, 20, 20, 20, 0, 0, 0])):
        maps = track(interpolated)
        found = [maps.at(time)[0, 0] for time in (0.0, 1.0, 1.5, 1.8, 2.0, 3.0, 4.0, 9.0)]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("smooth", [True, False])
def test_maps_are_reduced(smooth):
    values = np.arange(8 * 16).reshape(8, 16) % 7
    small = small_map(values.astype(np.float32) if smooth else values, 4, smooth)
    assert small.shape == (4, 8)
    assert smooth or set(np.unique(small)) <= set(range(7))
    assert small_map(values, 8, smooth) is values
