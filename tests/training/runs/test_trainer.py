"""The Trainer of the recipes: order of the clips, learning rates, mixup, withheld modalities, whole checkpoints."""

import pytest
import torch

from deepavfusion.training.data.loading import generator_for
from deepavfusion.training.data.mixup import mixup, soft_labels
from deepavfusion.training.runs.trainer import (
    COMPLETE,
    EpochOrder,
    complete_checkpoints,
)


def test_groups_of_clips_stay_together():
    batches = [[clip for _, clip in batch] for batch in EpochOrder(24, 4, 1, 0, seed=0, group=2)]
    assert sorted(sum(batches, [])) == list(range(24))
    assert sum(batches, []) != list(range(24))
    assert all(batch[k + 1] == batch[k] + 1 and batch[k] % 2 == 0 for batch in batches for k in (0, 2))
    shares = [{clip for batch in EpochOrder(24, 4, 2, p, seed=0, group=2) for _, clip in batch} for p in (0, 1)]
    assert shares[0].isdisjoint(shares[1])
    assert shares[0] | shares[1] == set(range(24))


@pytest.mark.parametrize(("clips", "batch"), [(24, 5), (23, 4)])
def test_batches_hold_whole_groups(clips, batch):
    with pytest.raises(ValueError, match=f"got {batch}"):
        EpochOrder(clips, batch, 1, 0, seed=0, group=2)


def test_an_epoch_has_every_clip_once_and_is_the_same_every_time():
    order = EpochOrder(num_clips=12, batch_size=4, processes=1, process=0, seed=3)
    order.set_epoch(2)
    batches = list(order)
    assert len(batches) == len(order) == 3
    assert sorted(clip for batch in batches for _, clip in batch) == list(range(12))
    assert {epoch for batch in batches for epoch, _ in batch} == {2}
    assert list(order) == batches
    order.set_epoch(3)
    assert [clip for batch in order for _, clip in batch] != [clip for batch in batches for _, clip in batch]


def test_processes_share_an_epoch_without_meeting():
    whole = EpochOrder(16, 8, 1, 0, seed=0)
    parts = [EpochOrder(16, 4, 2, process, seed=0) for process in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch == first + second


def test_an_incomplete_round_is_left_out_and_few_clips_wrap_around():
    assert len(list(EpochOrder(11, 4, 1, 0, seed=0))) == 2
    (batch,) = EpochOrder(3, 8, 1, 0, seed=0)
    clips = [clip for _, clip in batch]
    assert len(clips) == 8
    assert {clips.count(clip) for clip in range(3)} == {2, 3}


def test_weights_decide_how_often_clips_are_drawn():
    weights = torch.tensor([1.0, 0.0, 9.0, 0.0])
    clips = [clip for batch in EpochOrder(4000, 10, 1, 0, 0, weights.repeat(1000)) for _, clip in batch]
    kinds = torch.tensor(clips) % 4
    assert set(kinds.tolist()) == {0, 2}
    assert (kinds == 2).float().mean() == pytest.approx(0.9, abs=0.02)


def test_soft_labels_spread_the_smoothing_evenly():
    assert torch.allclose(
        soft_labels(torch.tensor([1]), 4, smoothing=0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]), atol=1e-6
    )


def test_mixup_mixes_frame_sound_and_label_with_one_weight():
    values = torch.arange(6.0).view(6, 1)
    inputs = {
        "pixel_values": values.view(6, 1, 1, 1).expand(6, 3, 4, 4),
        "input_features": values.view(6, 1, 1, 1).expand(6, 1, 2, 5),
        "labels": values.expand(6, 2),
    }
    mixed = mixup(inputs, 1.0, generator_for(1))
    weight = mixed["labels"][:, 0]
    assert not torch.allclose(weight, values[:, 0])
    assert torch.allclose(mixed["pixel_values"], weight.view(6, 1, 1, 1).expand(6, 3, 4, 4))
    assert torch.allclose(mixed["input_features"], weight.view(6, 1, 1, 1).expand(6, 1, 2, 5))
    assert ((weight >= 0) & (weight <= 5)).all()
    assert all(torch.equal(a, b) for a, b in zip(mixed.values(), mixup(inputs, 1.0, generator_for(1)).values()))


def test_mixup_weights_follow_the_beta_distribution():
    labels = torch.eye(2).repeat(5000, 1)
    mixed = mixup({"labels": labels}, 0.2, generator_for(7))["labels"]
    # Of Beta(0.2, 0.2) the variance is 1 / (4 * 1.4); a pair of unlike labels shows the weight itself.
    unlike = mixed[(mixed != labels).any(1)][:, 0]
    assert unlike.var() == pytest.approx(1 / 5.6, rel=0.08)


def test_mixup_refuses_class_indices():
    with pytest.raises(TypeError, match="labels as floats"):
        mixup({"labels": torch.tensor([1, 2])}, 1.0, generator_for(0))


def test_only_whole_checkpoints_are_gone_on_from(tmp_path):
    for step in (10, 9, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 100:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
