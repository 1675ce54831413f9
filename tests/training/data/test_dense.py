"""Several windows of each clip."""

import pytest
import torch

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import BrokenClip, FileClips
from deepavfusion.training.data.dense import DenseClips
from deepavfusion.training.data.sets.folder import make_rows
from tests.media_factory import tone, write_media

from .disk import MODEL, RATE, VIDEO, write


@pytest.fixture(scope="module")
def rising(tmp_path_factory):
    """4 s whose frames tell the time by their grey and whose seconds differ in pitch."""
    path = tmp_path_factory.mktemp("dense") / "clip.mp4"
    pitches = [tone(RATE, 1.0, frequency=250.0 * (second + 1)) for second in range(4)]
    return write_media(path, seconds=4.0, audio=torch.cat([torch.from_numpy(p) for p in pitches], 1).numpy())


@pytest.mark.parametrize("model", [MODEL, VIDEO])
def test_windows_are_the_processors(rising, model):
    processor = DeepAVFusionProcessor.from_config(model)
    rows = make_rows([{"path": rising, "label": "a"}, {"path": rising, "label": "b", "start": 1.0, "end": 3.0}])
    clips = DenseClips(FileClips(rows, processor, train=False, seed=0), 4)
    whole, part = clips.__getitems__([0, 1])
    inputs = processor(videos=str(rising), num_clips=4)
    assert torch.equal(whole["pixel_values"], inputs["pixel_values"])
    assert torch.equal(whole["input_features"], inputs["input_features"])
    inputs = processor(videos=str(rising), timestamps=[1.5, 1.5 + 1 / 3, 1.5 + 2 / 3, 2.5])
    assert torch.equal(part["pixel_values"], inputs["pixel_values"])
    assert torch.equal(part["input_features"], inputs["input_features"])
    batch = clips.collate([whole, part])
    assert batch["pixel_values"].shape == (2, *inputs["pixel_values"].shape)
    assert batch["labels"].tolist() == [0, 1]
    assert clips.classes() == [[0], [1]]
    assert "4 windows each" in clips.card


def test_short_and_broken_clips(tmp_path):
    short = write_media(tmp_path / "short.mp4", seconds=0.6)
    broken = write(tmp_path / "broken.mp4", "no video")
    rows = make_rows([{"path": short, "label": ["a", "b"]}, {"path": broken, "label": ["b"]}])
    clips = DenseClips(FileClips(rows, DeepAVFusionProcessor.from_config(MODEL), train=False, seed=0), 3)
    sample = clips[0]
    assert sample["label"].tolist() == [1.0, 1.0]
    assert torch.equal(sample["pixel_values"][0], sample["pixel_values"][2])
    assert isinstance(clips[1], BrokenClip)
    with pytest.raises(ValueError, match="at least 1"):
        DenseClips(clips.clips, 0)
