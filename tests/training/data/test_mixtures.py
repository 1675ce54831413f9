"""Mixtures of two clips."""

import collections

import numpy as np
import pytest
import torch

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import BrokenClip, build_dataset
from deepavfusion.training.data.mixtures import MixtureClips, form_pairs
from deepavfusion.training.data.sets.folder import make_rows

from .disk import MODEL, REAL_CLIPS, VIDEO, make_clips, write

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("mixtures"), 6)


def rows_of(paths, labels=None):
    return make_rows(
        [{"path": path} | ({} if labels is None else {"label": labels[i]}) for i, path in enumerate(paths)]
    )


def loudest_bins(features: torch.Tensor) -> set[int]:
    """Mel bins that stand out in a spectrogram."""
    level = features[0].mean(-1)
    peaks = (level[1:-1] > level[:-2]) & (level[1:-1] >= level[2:]) & (level[1:-1] > 0)
    return {int(i) + 1 for i in peaks.nonzero()}


def test_evaluation_pairs_are_two_sources_of_one_mixture(paths):
    clips = MixtureClips(rows_of(paths), PROCESSOR, train=False, seed=0, pairs=[(0, 3), (4, 1)])
    assert len(clips) == 4
    assert clips.in_pairs
    samples = clips.__getitems__([0, 1, 2, 3])
    batch = clips.collate(samples)
    assert batch["waveforms"].shape == (4, 2, PROCESSOR.feature_extractor.num_samples)
    assert batch["labels"].shape == batch["input_features"].shape == (4, 1, 32, 64)
    log_mel = PROCESSOR.feature_extractor.log_mel
    for k, (target, other) in enumerate([(0, 3), (3, 0), (4, 1), (1, 4)]):
        sample = samples[k]
        alone = [PROCESSOR(videos=str(paths[row])) for row in (target, other)]
        assert torch.equal(sample["pixel_values"], alone[0]["pixel_values"][0])
        assert torch.equal(sample["labels"], alone[0]["input_features"][0])
        assert torch.equal(log_mel(sample["waveforms"][1]), alone[1]["input_features"][0, 0])
        assert torch.equal(log_mel(sample["waveforms"].sum(0))[None], sample["input_features"])
        assert sample["path"] == f"{paths[target]} + {paths[other]}"
        assert sample["index"] == k
        assert loudest_bins(sample["labels"]) < loudest_bins(sample["input_features"])
    assert torch.equal(samples[0]["input_features"], samples[1]["input_features"])
    assert torch.equal(samples[0]["waveforms"], samples[1]["waveforms"].flip(0))


def test_training_partners_change_with_epoch_and_seed_alone(paths):
    clips = MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=1)
    assert len(clips) == 6
    partners = collections.Counter()
    for epoch in range(60):
        clips.set_epoch(epoch)
        for i in range(6):
            target, other = clips.sources(i)
            assert target == i != other
            partners[i, other] += 1
    assert len(partners) == 30
    assert max(partners.values()) < 30  # of 60 draws, 12 are expected
    clips.set_epoch(3)
    sample = clips[2]
    assert sample.keys() == {"pixel_values", "input_features", "labels", "path", "index"}
    assert sample["path"] == f"{paths[2]} + {paths[clips.sources(2)[1]]}"
    again = MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=1)
    again.set_epoch(3)
    together = again.__getitems__([5, 2])[1]
    assert all(torch.equal(sample[key], together[key]) for key in ("pixel_values", "input_features", "labels"))
    reseeded = MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=2)
    reseeded.set_epoch(3)
    assert [clips.sources(i) for i in range(6)] != [reseeded.sources(i) for i in range(6)]
    clips = MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=1, temporal_jitter=False)
    frames = []
    for epoch in range(4):
        clips.set_epoch(epoch)
        frames.append(clips[0]["pixel_values"])
        expected = PROCESSOR(videos=str(paths[0]))["input_features"][0]
        assert torch.equal(clips[0]["labels"], expected)  # sounds are mixed as they are
    assert not any(torch.equal(frames[0], frame) for frame in frames[1:])


def test_partners_are_of_another_recording(paths):
    clips = MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=0, groups=["a", "a", "a", "a", "a", "b"])
    assert {clips.sources(i)[1] for i in range(5)} == {5}
    assert clips.sources(5)[1] < 5
    with pytest.raises(ValueError, match="at least two recordings, got 6 clips of one"):
        MixtureClips(rows_of(paths), PROCESSOR, train=True, seed=0, groups=["a"] * 6)
    with pytest.raises(ValueError, match="at least two clips to mix, got 1"):
        MixtureClips(rows_of(paths[:1]), PROCESSOR, train=False, seed=0)


def test_form_pairs():
    paths = [f"/x/{i}.mp4" for i in range(40)]
    classes = [frozenset({i % 3}) for i in range(40)]
    pairs = form_pairs(paths, classes, paths)
    assert len(pairs) == 20
    assert all(not classes[a] & classes[b] for a, b in pairs)
    used = collections.Counter(row for pair in pairs for row in pair)
    assert len(used) > 35  # nearly every clip is used once
    assert pairs == form_pairs(paths, classes, paths)
    elsewhere = [f"/other/x/{i}.mp4" for i in range(40)]
    assert pairs == form_pairs(elsewhere, classes, elsewhere)
    turned = form_pairs(paths[::-1], classes[::-1], paths[::-1])
    assert {frozenset(39 - row for row in pair) for pair in turned} == {frozenset(pair) for pair in pairs}
    grouped = form_pairs(paths, [frozenset()] * 40, [str(i // 20) for i in range(40)])
    assert all(a // 20 != b // 20 for a, b in grouped)


def test_form_pairs_without_fitting_clips():
    paths = [f"/x/{i}.mp4" for i in range(7)]
    rare = [frozenset({int(i == 6)}) for i in range(7)]
    pairs = form_pairs(paths, rare, paths)
    assert len(pairs) == 3
    assert all(6 in pair for pair in pairs)  # the one clip of the other class, taken again
    same = form_pairs(paths, [frozenset({0})] * 7, paths)
    assert all(a != b for a, b in same)
    one = form_pairs(paths, [frozenset()] * 7, ["video"] * 7)
    assert len(one) == 3
    assert all(a != b for a, b in one)


def test_card_counts_pairs_of_one_class(paths):
    several = MixtureClips(rows_of(paths, list("aabbcc")), PROCESSOR, train=False, seed=0)
    assert several.card.endswith("3 pairs of clips")
    assert several.label_names is None
    labels = list("aabbcc")
    assert all(labels[a] != labels[b] for a, b in several.pairs)
    one = MixtureClips(rows_of(paths, ["a"] * 6), PROCESSOR, train=False, seed=0)
    assert one.card.endswith("3 pairs of clips, 3 of them of one class")


def test_sizes(paths):
    rows = rows_of(paths)
    clips = MixtureClips(rows, PROCESSOR, train=False, seed=0, size=5)
    assert len(clips) == 4
    assert set(clips.pairs) < set(MixtureClips(rows, PROCESSOR, train=False, seed=7).pairs)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        MixtureClips(rows, PROCESSOR, train=False, seed=0, size=1)
    trained = MixtureClips(rows, PROCESSOR, train=True, seed=0, size=3, groups=[str(i // 2) for i in range(6)])
    assert len(trained) == len(trained.groups) == 3
    expected = [paths.index(path) // 2 for path in map(type(paths[0]), trained.rows["path"])]
    assert np.array_equal(np.equal.outer(trained.groups, trained.groups), np.equal.outer(expected, expected))


def test_broken_clips_break_whole_pairs(paths, tmp_path):
    broken = write(tmp_path / "broken.mp4", "no video")
    rows = rows_of([*paths[:3], broken])
    clips = MixtureClips(rows, PROCESSOR, train=False, seed=0, pairs=[(0, 3), (1, 2)])
    samples = clips.__getitems__([0, 1, 2, 3])
    assert [isinstance(sample, BrokenClip) for sample in samples] == [True, True, False, False]
    batch = clips.collate(samples)
    assert [path for path, _ in batch["broken"]] == [str(broken)] * 2
    assert batch["index"].tolist() == [2, 3]
    trained = MixtureClips(rows, PROCESSOR, train=True, seed=0)
    for i, sample in enumerate(trained.__getitems__(range(4))):
        assert isinstance(sample, BrokenClip) == (3 in trained.sources(i))


def test_videos(paths):
    processor = DeepAVFusionProcessor.from_config(VIDEO)
    for train in (False, True):
        sample = MixtureClips(rows_of(paths), processor, train=train, seed=0)[0]
        assert sample["pixel_values"].shape == (4, 3, 32, 32)


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="no real clips in ../shared/media")
def test_real_clips():
    settings = {"name": "vggsound", "path": str(REAL_CLIPS)}
    clips = build_dataset(settings, MODEL, "test", False, 0, task="separation")
    assert len(clips) == 8
    classes = [label for path in clips.rows["path"] for label in [path.split("/")[-2]]]
    assert all(classes[a] != classes[b] for a, b in clips.pairs)
    batch = clips.collate(clips.__getitems__(range(8)))
    assert batch["broken"] == []
    assert torch.isfinite(batch["input_features"]).all()
    levels = np.log10(batch["waveforms"].square().mean(-1).numpy())
    assert (levels > -7).all()  # none is silent
