"""Separation in parts: the same samples as at once, from any part on, in bounded memory."""

import numpy as np
import pytest
from torch.testing import assert_close

from deepavfusion import DeepAVFusionForSourceSeparation, DeepAVFusionProcessor, MediaError
from deepavfusion.processors import chunking_deepavfusion, recordings_deepavfusion, sample_streams_deepavfusion
from deepavfusion.processors.pipelines_deepavfusion import AudioVisualSourceSeparationPipeline
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import make_model

RATE, SECONDS = 22050, 5.13
OPTIONS = {
    "default": {},
    "no overlap": {"overlap": 0.0, "batch_size": 3},
    "dense": {"overlap": 0.8, "batch_size": 5},
    "one frame": {"frames": 1.0},
    "frames": {"frames": [0.5, 3.0, 4.5], "consistency": True, "batch_size": 2},
    "tiles": {"fit": "tiles", "batch_size": 3},
    "frames in tiles": {"fit": "tiles", "frames": [0.5, 3.0], "consistency": True, "batch_size": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    write_kinds(folder, seconds=5.1, sound_seconds=SECONDS, silent_seconds=1.0, rate=RATE, picture="image.png")
    return folder


def make_pipe(**overrides):
    model = make_model(DeepAVFusionForSourceSeparation, seed=1, **overrides)
    return AudioVisualSourceSeparationPipeline(model, DeepAVFusionProcessor.from_model(model), device="cpu")


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


@pytest.fixture
def short_parts(monkeypatch):
    """Parts of less than a second, and blocks of a third of one."""
    monkeypatch.setattr(sample_streams_deepavfusion, "_CHUNK", 12000)
    monkeypatch.setattr(chunking_deepavfusion, "_BLOCK", 20)


def parts_of(pipe, path, skip=0, **options):
    return list(pipe.stream(path, **options).parts(skip))


@pytest.mark.parametrize("name", [*OPTIONS, "video", "video in tiles"])
def test_parts_are_those_of_the_whole(pipe, folder, short_parts, name):
    options = OPTIONS.get(name) or ({"fit": "tiles"} if "tiles" in name else {})
    pipe = make_pipe(num_frames=4) if name.startswith("video") else pipe
    found = parts_of(pipe, folder / "clip.mov", **options)
    whole = pipe(folder / "clip.mov", **options)
    whole = whole if isinstance(whole, list) else [whole]
    assert len(found) > 4
    assert [part.index for part in found] == list(range(len(found)))
    assert [part.start for part in found] == np.cumsum([0, *(part.sources.shape[1] for part in found[:-1])]).tolist()
    joined = np.concatenate([part.sources for part in found], axis=1)
    assert joined.shape == (len(whole), round(SECONDS * RATE))
    for source, expected in zip(joined, whole, strict=True):
        assert_close(source, expected["audio"], rtol=0, atol=1e-6)
    mixture = np.concatenate([samples for _, samples in pipe.recording(folder / "clip.mov").audio()], axis=1).mean(0)
    assert_close(np.concatenate([part.mixture for part in found]), mixture, rtol=0, atol=1e-6)
    for skip in (2, len(found) - 1, len(found)):
        again = parts_of(pipe, folder / "clip.mov", skip, **options)
        assert len(again) == len(found) - skip
        for part, expected in zip(again, found[skip:], strict=True):
            assert part[:2] == expected[:2]
            assert np.array_equal(part.sources, expected.sources)
            assert np.array_equal(part.mixture, expected.mixture)


def test_a_recording_shorter_than_a_window(pipe, tmp_path):
    write_kinds(tmp_path, seconds=0.4, sound_seconds=0.41, silent_seconds=1.0, rate=RATE, picture="image.png")
    (part,) = parts_of(pipe, tmp_path / "clip.mov")
    assert_close(part.sources[0], pipe(tmp_path / "clip.mov")["audio"], rtol=0, atol=1e-6)


def test_both_streams_are_decoded_once(pipe, folder, monkeypatch):
    decoded, original = {"audio": [], "video": []}, recordings_deepavfusion.decode

    def counting(container, stream):
        for frame in original(container, stream):
            decoded[stream.type].append(frame.time)
            yield frame

    monkeypatch.setattr(recordings_deepavfusion, "decode", counting)
    for separate in (pipe, lambda path: parts_of(pipe, path)):
        separate(folder / "clip.mov")
        for times in decoded.values():
            assert len(times) == len(set(times)) > 40
            times.clear()


def test_the_model_sees_windows_once_and_none_that_are_skipped(pipe, folder, short_parts):
    count = len(parts_of(pipe, folder / "clip.mov"))
    seen = []
    pipe.progress = seen.append
    try:
        parts_of(pipe, folder / "clip.mov")
        windows = sum(seen)
        seen.clear()
        parts_of(pipe, folder / "clip.mov", count - 1)
    finally:
        pipe.progress = None
    starts = pipe.processor.separation_windows(np.zeros(round(SECONDS * RATE), np.float32), RATE).starts
    assert windows == len(starts)
    assert sum(seen) <= 8 + 8  # the group of the first window that is needed, and those after


def test_what_cannot_work_fails_before_anything_is_read(pipe, folder):
    with pytest.raises(TypeError, match="Expected the path of a file, whose streams are read in turns, got bytes"):
        pipe.stream(b"RIFF")
    with pytest.raises(TypeError, match="got an address"):
        pipe.stream("https://host/clip.mp4")
    with pytest.raises(MediaError, match=r"sound\.wav: expected images"):
        pipe.stream(folder / "sound.wav")
    with pytest.raises(MediaError, match=r"silent\.mp4: expected audio"):
        pipe.stream(folder / "silent.mp4")
    with pytest.raises(ValueError, match=r"overlap in \[0, 1\)"):
        pipe.stream(folder / "clip.mov", overlap=1.0)
    with pytest.raises(ValueError, match="at least 2 sources, got 1"):
        pipe.stream(folder / "clip.mov", consistency=True)
