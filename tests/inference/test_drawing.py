"""Overlays and spectrograms: positions, colors and errors."""

import matplotlib
import numpy as np
import pytest
import torch

from deepavfusion.inference.drawing import (
    class_colors,
    enlarged,
    heat_colors,
    heat_overlay,
    mask_overlay,
    outline,
    resized,
    stft_power,
    stft_spectrograms,
)


def frame(height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(60, 120, (height, width, 3), dtype=np.uint8)


def brightness(image):
    return image.astype(float).sum(axis=2)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 6), (7, 2)])
def test_the_hottest_pixel_is_the_maximum_of_the_map(row, column):
    heat = torch.zeros(8, 8)
    heat[row, column] = 5.0
    image = heat_overlay(np.full((64, 64, 3), 90, np.uint8), heat)
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    y, x = np.unravel_index(np.argmax(brightness(image)), image.shape[:2])
    assert (y // 32, x // 32) == (row, column)


def test_hotter_pixels_are_brighter_and_cold_ones_show_the_frame():
    values = np.repeat(np.linspace(0, 1, 256)[None], 256, axis=0)
    image = heat_overlay(np.full((256, 256, 3), 60, np.uint8), values)
    profile = brightness(image)[128]
    assert (np.diff(profile[64:]) >= -3).all()
    assert profile[-1] > profile[0] + 200
    assert (image[:, 0] == 45).all()  # three quarters of the gray frame


def test_limits_make_maps_comparable_and_flat_maps_cold():
    ground = frame()
    np.testing.assert_array_equal(heat_overlay(ground, np.full((4, 4), 3.0)), heat_overlay(ground, np.zeros((4, 4))))
    half = heat_overlay(ground, np.full((4, 4), 0.5), limits=(0, 1))
    full = heat_overlay(ground, np.full((4, 4), 1.0), limits=(0, 1))
    assert brightness(full).mean() > brightness(half).mean() > brightness(heat_overlay(ground, np.zeros((4, 4)))).mean()
    with pytest.raises(ValueError, match="finite"):
        heat_overlay(ground, np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match=r"map \(H, W\)"):
        heat_overlay(ground, np.zeros((2, 4, 4)))


def test_outlines_follow_the_inside_of_the_mask():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 12:34] = True
    image = outline(np.full((40, 40, 3), 128, np.uint8), mask)
    white = (image == 255).all(axis=2)
    expected = mask.copy()
    expected[12:28, 14:32] = False
    np.testing.assert_array_equal(white, expected)
    dark = (image == 20).all(axis=2)
    assert dark[9, 20]
    assert dark[12, 20]
    assert (image[0] == 128).all()


def test_the_target_is_outlined_on_the_map():
    target = np.zeros((64, 64))
    target[16:32, 16:48] = 1
    image = heat_overlay(frame(), np.zeros((4, 4)), target=target)
    rows, columns = np.nonzero((image == 255).all(axis=2))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (64, 128, 64, 192)


def test_frames_are_enlarged_by_whole_factors_and_never_reduced():
    small = frame(20, 30)
    np.testing.assert_array_equal(enlarged(small)[::8, ::8], small)
    assert enlarged(frame(300, 400)).shape == (300, 400, 3)


def test_resizing_keeps_labels_and_aligns_pixel_centers():
    labels = np.array([[0, 255], [7, 3]])
    large = resized(labels, 8, 8, smooth=False)
    np.testing.assert_array_equal(large, labels.repeat(4, 0).repeat(4, 1))
    smooth = resized(np.array([[0.0, 1.0]]), 1, 4, smooth=True)
    np.testing.assert_allclose(smooth, [[0, 0.25, 0.75, 1]])


@pytest.mark.parametrize("kind", [bool, np.float32, np.int64])
def test_binary_masks_are_colored_at_their_pixels(kind):
    mask = np.zeros((64, 64), kind)
    mask[10:20, 30:40] = 1
    ground = np.full((64, 64, 3), 100, np.uint8)
    image = mask_overlay(ground, mask)
    orange = image[..., 0].astype(int) - image[..., 2] > 60
    np.testing.assert_array_equal(orange, mask.astype(bool).repeat(4, 0).repeat(4, 1))


def test_what_was_not_seen_is_hatched_on_heat_maps():
    seen = np.zeros((64, 64), bool)
    seen[:, 16:] = True
    ground, heat = frame(), np.ones((4, 4))
    image = heat_overlay(ground, heat, seen=seen)
    assert set(np.unique(image[:, :64])) == {110, 150}
    np.testing.assert_array_equal(image[:, 64:], heat_overlay(ground, heat)[:, 64:])


def test_classes_have_their_colors_and_ignored_pixels_are_hatched():
    colors = class_colors(3)
    mask = torch.zeros(64, 64, dtype=torch.long)
    mask[:16], mask[16:32], mask[48:] = 1, 2, 255
    ground = np.full((64, 64, 3), 100, np.uint8)
    image = mask_overlay(ground, mask, colors, alpha=1.0)
    assert (image[:64] == colors[1]).all()
    assert (image[64:128] == colors[2]).all()
    assert (image[128:192] == 85).all()  # the frame, darkened
    assert set(np.unique(image[192:])) == {110, 150}
    everything = mask_overlay(ground, mask, colors, background=None, alpha=1.0)
    assert (everything[128:192] == colors[0]).all()


def test_masks_outside_the_palette_are_refused():
    with pytest.raises(ValueError, match=r"classes 0\.\.2 or 255, got 0\.\.3"):
        mask_overlay(frame(), np.array([[0, 3]]), class_colors(3))
    with pytest.raises(ValueError, match="class indices, got float64"):
        mask_overlay(frame(), np.zeros((4, 4)), class_colors(3))


def test_colors_of_classes_are_distinct_and_stable():
    colors = class_colors(72)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 72
    np.testing.assert_array_equal(class_colors(20), colors[:20])
    assert class_colors(0).shape == (0, 3)


def test_heat_colors_approximate_inferno_and_increase_in_brightness():
    values = np.linspace(0, 1, 501)
    colors = heat_colors(values)
    assert np.abs(colors - 255 * matplotlib.colormaps["inferno"](values)[:, :3]).max() < 8
    assert (np.diff(colors @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert heat_colors(values.reshape(3, 167)).shape == (3, 167, 3)


def test_spectrograms_show_time_frequency_and_level_of_a_tone():
    rate = 16000
    times = np.arange(2 * rate) / rate
    tone = np.where(times < 1, np.sin(2 * np.pi * 2000 * times), 0).astype(np.float32)
    page = np.asarray(stft_spectrograms({"loud": tone, "soft": 0.1 * tone[:rate], "silent": 0 * tone}, rate, 256))
    assert page.shape == (3 * 216, 792, 3)
    panels = page.reshape(3, 216, 792, 3)[:, 30:190, 56:776]
    loud, soft, silent = (brightness(panel) for panel in panels)
    row, column = np.unravel_index(loud.argmax(), loud.shape)
    assert abs(row - 160 * (1 - 2000 / 8000)) <= 2
    assert column < 360
    assert loud[:, 400:].max() == loud.min()  # nothing after the tone
    assert tuple(panels[0][row, column]) == (252, 255, 164)  # the loudest value
    expected = heat_colors(np.array(1 - 20 / 80)).sum()  # 20 dB softer, of 80
    assert soft[row, 100:300].mean() == pytest.approx(expected, abs=6)
    assert (soft[:, 362:] == 765).all()  # half as long: white beyond
    assert (silent == silent[0, 0]).all()
    assert (page[:30, 56:200] < 128).any()  # a title


def test_stft_power_is_that_of_torch():
    waveform = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(1024)
    expected = torch.stft(waveform, 1024, 256, window=window, pad_mode="constant", return_complex=True).abs() ** 2
    np.testing.assert_allclose(stft_power(waveform, 1024), expected, rtol=1e-3, atol=1e-3)


def test_spectrograms_of_silence_and_of_no_panels():
    quiet = np.asarray(stft_spectrograms({"silent": np.zeros(4000, np.float32)}, 16000, max_frequency=4000))
    assert (quiet[30:190, 56:776] == quiet[30, 56]).all()
    with pytest.raises(ValueError, match="at least one"):
        stft_spectrograms({}, 16000)
