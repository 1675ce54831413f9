"""Counted nouns and display names of metrics."""

import pytest

from deepavfusion.training.data.loading import BrokenClips, BrokenDataError
from deepavfusion.training.wording import clip_title, count, is_control, metric_title


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "clip"), "0 clips"),
        ((1, "clip"), "1 clip"),
        ((1280, "clip"), "1,280 clips"),
        ((1.0, "epoch"), "1 epoch"),
        ((0.5, "epoch"), "0.5 epochs"),
        ((1, "class", "classes"), "1 class"),
        ((2, "class", "classes"), "2 classes"),
    ],
)
def test_count(arguments, text):
    assert count(*arguments) == text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("top1", "top-1 accuracy"),
        ("image_stream_top1", "top-1 accuracy (image stream)"),
        ("dense_audio_only_map", "mAP (audio only, mean over windows)"),
        ("audio_map", "1-NN mAP (audio)"),
        ("chance_accuracy", "1-NN accuracy (random neighbor)"),
        ("single_object_accuracy", "accuracy (one object)"),
        ("shuffled_median_ciou_50", "cIoU@0.5 (median, audio of another clip)"),
        ("median_bound_ciou_50", "cIoU@0.5 (median, upper bound)"),
        ("silent_miou", "mIoU (no audio)"),
        ("silent_coverage", "coverage of silent objects"),
        ("audio_to_image_r10", "R@10 (audio to image)"),
        ("chance_r1", "R@1 (chance)"),
        ("sigreg_loss", "SIGReg loss"),
        ("something_else", "something_else"),
    ],
)
def test_metric_titles(name, title):
    assert metric_title(name) == title


def test_paths_are_never_repeated():
    for reason in ("clip.mp4: it is damaged.", "it is damaged."):
        broken = BrokenClips(100, 0.5)
        assert broken.add([("clip.mp4", reason)]) == ["skipped, cannot be read: clip.mp4: it is damaged."]
        with pytest.raises(BrokenDataError, match=r":\n  clip.mp4: it is damaged.$"):
            BrokenClips(100, 0).add([("clip.mp4", reason)])


@pytest.mark.parametrize(
    ("name", "control"),
    [
        ("ciou_50", False), ("median_ciou_50", False), ("shuffled_median_ciou_50", True), ("centre_auc", True),
        ("miou", False), ("silent_coverage", False), ("silent_miou", True), ("all_foreground_f", True),
        ("sdri", False), ("wrong_frame_si_sdri", True), ("oracle_si_sdri", True), ("image_only_top1", False),
        ("audio_to_image_r10", False), ("chance_r10", True), ("anything", False),
    ],
)  # fmt: skip
def test_controls_are_told_from_results(name, control):
    assert is_control(name) == control


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/home/me/videos/cello/a b.mp4", "a b.mp4"),
        ("/home/me/a.mp4 + /home/me/b/c.mp4", "a.mp4 + c.mp4"),
        ("train/cello/a.mp4", "a.mp4"),
        ("/home/me/clips/a", "a"),
        ("scene test/3", "scene test/3"),
        ("/", "/"),
    ],
)
def test_titles_of_clips_have_no_folders(path, title):
    assert clip_title(path) == title
