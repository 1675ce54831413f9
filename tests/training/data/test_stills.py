"""Frames with masks and boxes as model inputs."""

import numpy as np
import pytest
import torch

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import BrokenClip
from deepavfusion.training.data.stills import BoxClips, MaskClips, Still
from tests.media_factory import tone

from .disk import MODEL, RATE, VIDEO, make_clips, write, write_audio, write_image

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL, crop_pct=1.0)
SECONDS = 5


def image(height: int = 48, width: int = 64) -> np.ndarray:
    return np.stack(np.broadcast_arrays(np.arange(width) * 3, np.arange(height)[:, None] * 4, 20), -1).astype(np.uint8)


@pytest.fixture
def frame(tmp_path) -> Still:
    """A frame with 5 seconds of audio whose pitch rises each second, and its mask: the left third."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :22] = 255
    pitches = [tone(RATE, 1.0, frequency=200.0 * (second + 1))[0] for second in range(SECONDS)]
    return Still(
        str(write_image(tmp_path / "frame.png", image())),
        str(write_audio(tmp_path / "sound.wav", np.concatenate(pitches))),
        2.5,
        str(write_image(tmp_path / "mask.png", mask)),
    )


def test_evaluation_matches_the_processor(frame):
    sample = MaskClips([frame], PROCESSOR, train=False, seed=0)[0]
    assert sample["labels"].shape == (32, 32)
    assert sample["labels"].dtype == torch.float32
    # short side to 32 cuts about 8 of the 64 columns off at either end
    assert sample["labels"].mean().item() == pytest.approx((22 - 8) / 48, abs=0.03)
    assert sample["labels"][:, 0].all()
    assert not sample["labels"][:, -1].any()
    inputs = PROCESSOR(images=image(), audio=tone(RATE, 1.0, frequency=600.0)[0], sampling_rate=RATE)
    assert torch.equal(sample["pixel_values"], inputs["pixel_values"][0])
    found, expected = sample["input_features"], inputs["input_features"][0]
    loud = expected > -2  # a wav's 16 bits add some noise to quieter bins
    assert 0.02 < loud.float().mean() < 0.5
    assert torch.allclose(found[loud], expected[loud], atol=0.05)


def test_the_media_of_a_sample_are_whole(frame):
    clips = MaskClips([frame], PROCESSOR, train=False, seed=0)
    found = clips.media(0)
    np.testing.assert_array_equal(found.frame, image())
    features = PROCESSOR.feature_extractor([found.waveform], sampling_rate=found.sampling_rate)["input_features"][0]
    torch.testing.assert_close(features, clips[0]["input_features"])


@pytest.mark.parametrize(("timestamp", "pitch"), [(0.5, 200.0), (4.5, 1000.0), (4.9, 1000.0), (7.0, 1000.0)])
def test_windows_stay_within_the_audio(frame, timestamp, pitch):
    sample = MaskClips([frame._replace(timestamp=timestamp)], PROCESSOR, train=False, seed=0)[0]
    expected = PROCESSOR.feature_extractor(tone(RATE, 1.0, frequency=pitch)[0], sampling_rate=RATE)["input_features"]
    assert sample["input_features"][0].mean(-1).argmax() == expected[0, 0].mean(-1).argmax()


def test_masks_follow_the_augmentation(frame):
    clips = MaskClips([frame], PROCESSOR, train=True, seed=3)
    samples = []
    for epoch in range(8):
        clips.set_epoch(epoch)
        sample = clips[0]
        red = PROCESSOR.visual_processor.denormalize(sample["pixel_values"])[0] * 255
        foreground = red < 22 * 3  # red grows from left to right, and the mask covers its lower end
        assert ((foreground == (sample["labels"] > 0)).float().mean() > 0.95).item()
        samples.append(sample)
    assert len({sample["labels"].sum().item() for sample in samples}) > 4
    assert any(not torch.equal(samples[0]["input_features"], sample["input_features"]) for sample in samples[1:])
    again = MaskClips([frame], PROCESSOR, train=True, seed=3)
    again.set_epoch(5)
    assert all(torch.equal(again[0][key], samples[5][key]) for key in ("pixel_values", "input_features", "labels"))


def test_classes_and_foreground(tmp_path, frame):
    numbers = np.zeros((48, 64), np.uint8)
    numbers[:24], numbers[24:] = 2, 255
    row = frame._replace(mask=str(write_image(tmp_path / "classes.png", numbers)))
    clips = MaskClips([row], PROCESSOR, train=False, seed=0, label_names=["background", "cat", "dog"])
    labels = clips[0]["labels"]
    assert labels.dtype == torch.int64
    assert labels[:16].unique().tolist() == [2]
    assert labels[16:].unique().tolist() == [255]
    assert clips.label_names == ["background", "cat", "dog"]
    few = MaskClips([row], PROCESSOR, train=False, seed=0, label_names=["background", "cat"])[0]
    assert isinstance(few, BrokenClip)
    assert "got 2" in few.reason
    with pytest.raises(ValueError, match="has no classes"):
        MaskClips([row], PROCESSOR, train=False, seed=0, label_names=["background"], task="localization")


def test_masks_for_localization(tmp_path, frame):
    empty = frame._replace(mask=str(write_image(tmp_path / "empty.png", np.zeros((48, 64), np.uint8))))
    evaluated = MaskClips([frame, empty], PROCESSOR, train=False, seed=0, task="localization")
    batch = evaluated.collate(evaluated.__getitems__([0, 1]))
    assert batch["sounding"].tolist() == [1, 0]
    assert batch["labels"].shape == (2, 32, 32)
    assert "sounding" not in MaskClips([frame], PROCESSOR, train=True, seed=0, task="localization")[0]
    assert "sounding" not in MaskClips([frame], PROCESSOR, train=False, seed=0)[0]


def test_boxes_become_consensus_maps(frame):
    boxes = ((0.0, 0.0, 0.5, 1.0), (0.26, 0.0, 1.0, 1.0))
    union = BoxClips([frame._replace(boxes=boxes)], PROCESSOR, train=False, seed=0)[0]
    assert union["labels"].all()
    assert union["sounding"] == 1
    votes = BoxClips([frame._replace(boxes=boxes)], PROCESSOR, train=False, seed=0, required_boxes=2)[0]["labels"]
    # resized to 32 x 42, of which the columns 5 to 36 are visible: both boxes from 0.26 to 0.5 of the width
    assert votes[0].tolist() == [1.0 if 0.26 <= (5 + i + 0.5) / 42 < 0.5 else 0.5 for i in range(32)]


def test_negatives_have_an_empty_map(frame):
    outside = ((0.0, 0.0, 0.1, 1.0),)  # cropped away
    rows = [frame._replace(boxes=()), frame._replace(boxes=outside), frame._replace(boxes=((0.3, 0.3, 0.6, 0.6),))]
    clips = BoxClips(rows, PROCESSOR, train=False, seed=0)
    assert [sample["sounding"] for sample in clips.__getitems__([0, 1, 2])] == [0, 0, 1]
    assert "1 of them without a visible sounding object" in clips.card
    trained = BoxClips(rows, PROCESSOR, train=True, seed=0)[2]
    assert "sounding" not in trained
    assert 0 < trained["labels"].mean() < 1


def test_training_without_boxes_has_no_labels(frame):
    clips = BoxClips([frame], PROCESSOR, train=True, seed=0)
    assert clips[0].keys() == {"pixel_values", "input_features", "path", "index"}
    assert "no boxes" in clips.card
    with pytest.raises(ValueError, match="1 of 1 frames have no annotation"):
        BoxClips([frame], PROCESSOR, train=False, seed=0)
    with pytest.raises(ValueError, match="1 of 2 frames have no annotation"):
        BoxClips([frame, frame._replace(boxes=())], PROCESSOR, train=True, seed=0)


def test_frames_of_clips_are_taken_at_the_timestamp(tmp_path):
    first, second = make_clips(tmp_path, 2, seconds=3.0)
    own = Still(str(first), str(first), 2.0, boxes=())
    sample = BoxClips([own], PROCESSOR, train=False, seed=0)[0]
    inputs = PROCESSOR(videos=str(first), timestamps=2.0)
    assert torch.equal(sample["pixel_values"], inputs["pixel_values"][0])
    assert torch.equal(sample["input_features"], inputs["input_features"][0])
    other = BoxClips([Still(str(first), str(second), 2.0, boxes=())], PROCESSOR, train=False, seed=0)[0]
    assert torch.equal(other["pixel_values"], inputs["pixel_values"][0])
    expected = PROCESSOR(videos=str(second), timestamps=2.0)["input_features"][0]
    assert torch.equal(other["input_features"], expected)
    late = BoxClips([own._replace(timestamp=4.0)], PROCESSOR, train=False, seed=0)[0]
    assert isinstance(late, BrokenClip)  # the annotated frame is missing, and no other replaces it


def test_unreadable_files_are_reported(tmp_path, frame):
    text = str(write(tmp_path / "text.png", "no image"))
    rows = [
        frame,
        frame._replace(image=text, name="first"),
        frame._replace(audio=text, name="second"),
        frame._replace(mask=text, name="third"),
    ]
    clips = MaskClips(rows, PROCESSOR, train=True, seed=0, temporal_jitter=False)
    batch = clips.collate(clips.__getitems__([0, 1, 2, 3]))
    assert batch["labels"].shape == (1, 32, 32)
    assert [path for path, _ in batch["broken"]] == ["first", "second", "third"]
    assert all("text.png" in reason for _, reason in batch["broken"])


def test_sizes_and_invalid_arguments(frame):
    rows = [frame._replace(name=f"{i}") for i in range(6)]
    clips = MaskClips(rows, PROCESSOR, train=False, seed=0, size=2)
    again = MaskClips(rows[::-1], PROCESSOR, train=False, seed=0, size=2)
    assert {clips.describe(i) for i in range(len(clips))} == {again.describe(i) for i in range(2)}
    assert "2 frames" in clips.card
    with pytest.raises(IndexError, match="index 2 is out of range for 2"):
        clips[2]
    with pytest.raises(ValueError, match="num_frames=1, got 4"):
        MaskClips(rows, DeepAVFusionProcessor.from_config(VIDEO), train=False, seed=0)
    with pytest.raises(ValueError, match="at least one frame"):
        MaskClips([], PROCESSOR, train=False, seed=0)
