"""Windows and frames that training draws from clips: where they lie, and that they depend on epoch and place alone."""

import numpy as np
import pytest
import torch

import deepavfusion.processors
from deepavfusion.processors import DeepAVFusionProcessor, MediaError, MediaInfo, load_clip
from deepavfusion.training.data import BrokenClip, FileClips, build_dataset
from deepavfusion.training.data.files import FileReader, num_windows, training_window
from deepavfusion.training.data.mixtures import MixtureClips
from deepavfusion.training.data.sets.folder import make_rows
from deepavfusion.training.data.stills import BoxClips, MaskClips, Still
from tests.media_factory import gray_at, write_media

from .disk import MODEL, RATE, VIDEO, write, write_audio, write_image

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL)  # windows of 1 s
SECONDS = 6.0
GRAYS = {gray_at(step / 10): step / 10 for step in range(60)}


def ramp(seconds: float) -> np.ndarray:
    """(1, samples): every sample tells its time in units of 20 s."""
    return (np.arange(round(RATE * seconds)) / RATE / 20)[None].astype(np.float32)


def make_clip(path, seconds=SECONDS, **options):
    """A clip of which every frame and sample tells its time."""
    write_media(path, seconds=seconds, audio_codec="pcm_s16le", audio=ramp(seconds), rate=RATE, **options)
    return path


def start_of(clip) -> float:
    """Start of a clip's audio in its file."""
    return float(clip.waveform[0, 0]) * 20


def frame_time(clip) -> float:
    """Time of a clip's frame in its file."""
    level = float(clip.frames[0].mean())
    return GRAYS[min(GRAYS, key=lambda gray: abs(gray - level))]


@pytest.fixture
def decoded(monkeypatch):
    """The clips that `load_clip` has returned."""
    found = []

    def load(*args, **options):
        found.append(load_clip(*args, **options))
        return found[-1]

    monkeypatch.setattr(deepavfusion.processors, "load_clip", load)
    return found


def drawn_windows(draws: int, info: MediaInfo, seconds=3.0, **part):
    generator = torch.Generator().manual_seed(0)
    return np.array([training_window(generator, seconds, **part)(info) for _ in range(draws)])


@pytest.mark.parametrize(
    ("info", "part", "low", "high"),
    [
        (MediaInfo((0.0, 10.0), (0.0, 10.0)), {}, 0.0, 10.0),
        (MediaInfo((0.0, 10.0), (2.0, 9.0)), {}, 2.0, 9.0),  # what both streams cover
        (MediaInfo((0.0, 600.0), (0.0, 600.0)), {"start": 30.0, "end": 40.0}, 30.0, 40.0),
        (MediaInfo((0.0, 600.0), (0.0, 600.0)), {"end": 10.0}, 0.0, 10.0),
        (MediaInfo((0.0, 600.0), (0.0, 600.0)), {"start": 30.0}, 30.0, 33.0),  # a start alone is that of the window
        (MediaInfo((0.0, 10.0), (0.0, 9.0)), {"start": 4.0, "end": 12.0}, 4.0, 9.0),
    ],
)
def test_windows_are_uniform_over_those_within_the_part(info, part, low, high):
    middles, frames = drawn_windows(4000, info, **part).T
    first, last = low + 1.5, high - 1.5
    assert first <= middles.min()
    assert middles.max() <= last
    quarters = np.histogram(middles, 4, (first, last))[0] if last > first else [1000] * 4
    assert min(quarters) > 850
    assert max(quarters) < 1150
    # Frames are uniform within the window.
    within = frames - (middles - 1.5)
    assert 0 <= within.min() < 0.02
    assert 2.98 < within.max() <= 3
    assert min(np.histogram(within, 4, (0, 3))[0]) > 850


@pytest.mark.parametrize("info", [MediaInfo((0.0, 2.0), (0.0, 2.0)), MediaInfo((0.0, 8.0), (3.0, 5.0))])
def test_parts_shorter_than_a_window_have_one_window(info):
    middles, frames = drawn_windows(500, info).T
    assert set(middles) == {sum(info.span) / 2}
    first = max(0.0, middles[0] - 1.5)
    assert first <= frames.min() < first + 0.1
    last = min(info.image_span[1], first + 3)
    assert last - 0.1 < frames.max() <= last


def test_frames_lie_where_there_are_images():
    _, frames = drawn_windows(500, MediaInfo((1.0, 1.5), (0.0, 3.0))).T
    assert 1.0 <= frames.min() < frames.max() <= 1.5


def test_annotated_parts_outside_of_the_file_are_errors(tmp_path):
    path = make_clip(tmp_path / "clip.mov")
    for part in ({"start": 20.0, "end": 25.0}, {"start": 20.0}):
        (broken,) = FileClips(make_rows([{"path": path, **part}]), PROCESSOR, train=True, seed=0).__getitems__([0])
        assert isinstance(broken, BrokenClip)
        assert "within 0.00 to 6.00 s" in broken.reason


def test_training_draws_window_and_frame_by_seed_epoch_and_index(tmp_path, decoded):
    rows = make_rows([{"path": make_clip(tmp_path / f"clip{k}.mov")} for k in range(2)])
    clips = FileClips(rows, PROCESSOR, train=True, seed=0)
    windows = {}
    for epoch in range(30):
        clips.set_epoch(epoch)
        for i in (1, 0):
            clips[i]
            clip = decoded[-1]
            windows[epoch, i] = start, frame = start_of(clip), frame_time(clip)
            assert clip.waveform.shape == (1, RATE)
            assert start == pytest.approx(clip.timestamp - 0.5, abs=0.01)
            assert start - 0.21 <= frame <= start + 1.11  # frames last 0.1 s, and levels are rounded
    starts, frames = np.array(list(windows.values())).T
    assert starts.min() < 1
    assert starts.max() > SECONDS - 2
    assert len(set(starts.round(3))) > 55
    assert 0.1 < np.std(frames - starts) < 0.5
    # Again, in another order, and with other seeds.
    again = FileClips(rows, PROCESSOR, train=True, seed=0)
    again.set_epoch(7)
    again[0]
    assert (start_of(decoded[-1]), frame_time(decoded[-1])) == windows[7, 0]
    other = FileClips(rows, PROCESSOR, train=True, seed=1)
    other.set_epoch(7)
    other[0]
    assert start_of(decoded[-1]) != windows[7, 0][0]


@pytest.mark.parametrize(("train", "jitter"), [(False, True), (True, False)])
def test_windows_are_in_the_middle_in_evaluation_and_on_request(tmp_path, decoded, train, jitter):
    rows = make_rows([{"path": make_clip(tmp_path / "clip.mov")}])
    clips = FileClips(rows, PROCESSOR, train=train, seed=0, temporal_jitter=jitter)
    for epoch in range(3):
        clips.set_epoch(epoch)
        clips[0]
        assert start_of(decoded[-1]) == pytest.approx(2.5, abs=0.01)
        assert frame_time(decoded[-1]) == pytest.approx(3.0, abs=0.11)


def test_frames_of_videos_spread_over_the_drawn_window(tmp_path, decoded):
    rows = make_rows([{"path": make_clip(tmp_path / "clip.mov")}])
    clips = FileClips(rows, DeepAVFusionProcessor.from_config(VIDEO), train=True, seed=0)
    for epoch in range(5):
        clips.set_epoch(epoch)
        clips[0]
        start, levels = start_of(decoded[-1]), decoded[-1].frames.mean((1, 2, 3))
        expected = [gray_at(start + (k + 0.5) / 4) for k in range(4)]
        assert np.abs(levels - expected).max() <= 2.5  # frames are those shown at the time, levels are rounded


def test_an_epoch_takes_several_windows_of_each_clip(tmp_path, decoded):
    paths = [make_clip(tmp_path / "short.mov", 2.0), make_clip(tmp_path / "long.mov")]
    rows = make_rows([{"path": path, "label": name} for path, name in zip(paths, "ab", strict=True)])
    clips = FileClips(rows, PROCESSOR, train=True, seed=0, windows_per_clip=3)
    assert clips.card == "videos: 2 clips in 6 windows, 2 classes"
    assert [clips.describe(i) for i in range(6)] == [str(paths[0])] * 3 + [str(paths[1])] * 3
    assert clips.classes() == [[0]] * 3 + [[1]] * 3
    clips.__getitems__(range(6))
    assert len({round(start_of(clip), 3) for clip in decoded}) == 6
    assert len(FileClips(rows, PROCESSOR, train=False, seed=0, windows_per_clip=3)) == 2
    by_time = FileClips(rows, PROCESSOR, train=True, seed=0, seconds_per_window=2.0)
    assert [by_time.describe(i) for i in range(4)] == [str(paths[0])] + [str(paths[1])] * 3
    annotated = make_rows([{"path": paths[1], "start": 1.0, "end": 5.0}, {"path": paths[1], "start": 1.0}])
    assert num_windows(annotated, 2.0, FileReader()) == [2, 1]
    unreadable = make_rows([{"path": write(tmp_path / "text.mp4", "no video")}])
    assert num_windows(unreadable, 2.0, FileReader()) == [1]
    with pytest.raises(ValueError, match="either windows_per_clip or seconds_per_window, got both: 3 and 2.0"):
        FileClips(rows, PROCESSOR, train=True, seed=0, windows_per_clip=3, seconds_per_window=2.0)


def test_each_source_of_a_mixture_has_a_window_of_its_own(tmp_path, decoded):
    paths = [make_clip(tmp_path / f"clip{k}.mov") for k in range(2)]
    rows = make_rows([{"path": path} for path in paths])
    clips = MixtureClips(rows, PROCESSOR, train=True, seed=0, windows_per_clip=2)
    assert len(clips) == 4
    assert clips.groups.tolist() == [0, 0, 1, 1]
    clips.__getitems__([0, 1])
    assert len({round(start_of(clip), 3) for clip in decoded}) == len(decoded) == 4
    target = clips[1]["labels"]
    assert torch.equal(target, clips.__getitems__([0, 1])[1]["labels"])
    clips.set_epoch(1)
    assert not torch.equal(target, clips[1]["labels"])
    decoded.clear()
    evaluated = MixtureClips(rows, PROCESSOR, train=False, seed=0)
    evaluated.__getitems__([0, 1])
    assert [start_of(clip) for clip in decoded] == pytest.approx([2.5, 2.5], abs=0.01)  # each is decoded once


@pytest.fixture
def labeled(tmp_path) -> list[Still]:
    """Four labeled frames of one clip, and one of another, whose images are files."""
    mask = str(write_image(tmp_path / "mask.png", np.full((48, 64), 255, np.uint8)))
    image = str(write_image(tmp_path / "frame.png", np.zeros((48, 64, 3), np.uint8)))
    audio = [str(write_audio(tmp_path / f"audio{k}.wav", ramp(SECONDS)[0])) for k in range(2)]
    rows = [Still(image, audio[0], k + 1.5, mask, name=f"a_{k}") for k in range(4)]
    return [*rows, Still(image, audio[1], 0.2, mask, name="b_0")]


def test_segmentation_draws_a_labeled_frame_and_shifts_its_audio(labeled, decoded):
    clips = MaskClips(labeled, PROCESSOR, train=True, seed=0)
    assert len(clips) == 2
    assert clips.card.startswith("masks: 5 frames of 2 clips")
    seen, shifts = set(), []
    for epoch in range(60):
        clips.set_epoch(epoch)
        sample = clips[0]
        middle = start_of(decoded[-1]) + 0.5
        frame = next(row for row in labeled if row.name == sample["path"])
        seen.add(frame.name)
        shifts.append(middle - frame.timestamp)
    assert seen == {"a_0", "a_1", "a_2", "a_3"}
    assert -0.34 < min(shifts) < -0.25
    assert 0.25 < max(shifts) < 0.34
    sample = clips[1]  # its window starts with the file, however it is shifted
    assert start_of(decoded[-1]) == pytest.approx(0, abs=0.01)
    assert clips.annotations()["path"][:] == [clips.describe(i) for i in range(2)]
    again = MaskClips(labeled, PROCESSOR, train=True, seed=0)
    again.set_epoch(59)
    assert torch.equal(sample["input_features"], again.__getitems__([0, 1])[1]["input_features"])
    assert len(MaskClips(labeled, PROCESSOR, train=True, seed=0, size=1)) == 1


@pytest.mark.parametrize(("train", "jitter"), [(False, True), (True, False)])
def test_every_labeled_frame_is_an_item_in_evaluation_and_on_request(labeled, decoded, train, jitter):
    clips = MaskClips(labeled, PROCESSOR, train=train, seed=0, temporal_jitter=jitter)
    assert [clips.describe(i) for i in range(len(clips))] == [row.name for row in labeled]
    for i in range(4):
        clips[i]
        assert start_of(decoded[-1]) == pytest.approx(i + 1.0, abs=0.01)


def test_localization_draws_windows_of_videos_without_boxes(tmp_path, decoded):
    path = str(make_clip(tmp_path / "clip.mov"))
    boxed, free = Still(path, path, 3.0, boxes=((0.0, 0.0, 1.0, 1.0),)), Still(path, path, 3.0)
    frames = {row: [] for row in (boxed, free)}
    starts = {row: [] for row in (boxed, free)}
    for row in (boxed, free):
        clips = BoxClips([row], PROCESSOR, train=True, seed=0)
        for epoch in range(20):
            clips.set_epoch(epoch)
            clips[0]
            frames[row].append(frame_time(decoded[-1]))
            starts[row].append(start_of(decoded[-1]))
    assert set(frames[boxed]) == {3.0}  # boxes belong to their frame
    assert 0.3 < np.ptp(starts[boxed]) < 0.67
    assert np.ptp(frames[free]) > 3
    assert np.ptp(starts[free]) > 3
    assert np.abs(np.array(frames[free]) - starts[free] - 0.5).max() <= 0.62


def test_options_of_recipes_reach_the_data_set(tmp_path, decoded):
    for k in range(4):
        make_clip(tmp_path / f"clip{k}.mov")
    options = {"name": "folder", "path": str(tmp_path), "validation_fraction": 0.5}
    clips = build_dataset(options | {"windows_per_clip": 2}, MODEL, "train", True, 0)
    assert "in 4 windows" in clips.card
    assert "windows_per_clip" not in clips.check
    clips.__getitems__([0, 1])
    assert len({round(start_of(clip), 3) for clip in decoded}) == 2
    fixed = build_dataset(options | {"temporal_jitter": False}, MODEL, "train", True, 0)
    fixed[0]
    assert start_of(decoded[-1]) == pytest.approx(2.5, abs=0.01)
    mixtures = build_dataset(options | {"seconds_per_window": 3.0}, MODEL, "train", True, 0, "separation")
    assert len(mixtures) == 4
    with pytest.raises(ValueError, match=r"Unknown option data\.temporal_jitter for dataset 'scenes'"):
        build_dataset({"name": "scenes", "temporal_jitter": True}, MODEL, "train", True, 0)


def test_functions_place_windows_and_frames(tmp_path):
    path = make_clip(tmp_path / "clip.mov")
    clip = load_clip(path, lambda info: (info.end - 0.5, 1.0), seconds=1.0)
    assert start_of(clip) == pytest.approx(5.0, abs=0.01)
    assert frame_time(clip) == 1.0
    with pytest.raises(MediaError, match="within 0.00 to 6.00 s"):
        load_clip(path, lambda info: (info.end + 1, 1.0), seconds=1.0)
