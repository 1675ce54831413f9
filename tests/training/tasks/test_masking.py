"""Mixtures of masks in pre-training."""

import collections

import pytest

from deepavfusion.training.tasks.masking import MaskSetting, draw_setting, mask_settings

PATCHES = (64, 48)


def test_settings_are_drawn_as_often_as_their_weights_say_and_by_step_alone():
    settings = mask_settings([{"weight": 3}, {"audio": 1}, {"image": 0, "audio": 10}], PATCHES)
    assert settings == [MaskSetting(3, None, None), MaskSetting(1, None, 1), MaskSetting(1, 0, 10)]
    drawn = [draw_setting(settings, 7, step) for step in range(1000)]
    assert drawn == [draw_setting(settings, 7, step) for step in range(1000)]
    assert drawn != [draw_setting(settings, 8, step) for step in range(1000)]
    counts = collections.Counter(drawn)
    assert counts[settings[0]] == pytest.approx(600, abs=60)
    assert counts[settings[2]] == pytest.approx(200, abs=50)


def test_without_entries_the_ratios_of_the_model_hold():
    assert draw_setting(mask_settings([], PATCHES), 0, 5) == MaskSetting(1, None, None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sound": 1}, "unknown key 'sound'"),
        ({"weight": 0}, "weight of an entry of task.masks is 0"),
        ({"weight": float("inf")}, "weight of an entry of task.masks is inf"),
        ({"weight": True}, "weight of an entry of task.masks is True"),
        ({"image": 64}, "64 visible image patches: expected an integer from 0 to 63"),
        ({"audio": -1}, "-1 visible audio patches"),
        ({"audio": 0.5}, "0.5 visible audio patches"),
        ({"image": 0, "audio": 0}, "hides both modalities"),
    ],
)
def test_impossible_entries_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        mask_settings([entry], PATCHES)
