"""Reconstructions and training curves: arrays and written files."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.inference.pages.reconstructions import reconstruction_images
from deepavfusion.training.report.charts import training_curves
from deepavfusion.training.report.reconstructions import draw_reconstructions
from tests.tiny import tiny_config

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def images(**changes):
    torch.manual_seed(0)
    sizes = {"patch_size": 16, "audio_patch_size": 16, "image_mask_ratio": 0.5, "audio_mask_ratio": 0.5}
    model = DeepAVFusionForPreTraining(tiny_config(**{**sizes, **changes})).eval()
    frames = () if model.config.num_frames == 1 else (model.config.num_frames,)
    unit = torch.rand(3, *frames, 3, 32, 32)
    shape = (3, 1, 1)
    pixels = (unit - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
    sound = torch.randn(3, 1, 32, 48)
    with torch.no_grad():
        outputs = model(pixels, sound)
    return model, unit, sound, outputs, reconstruction_images(model, pixels, sound, outputs, MEAN, STD)


@pytest.mark.parametrize("changes", [{}, {"norm_patch_loss": False}, {"norm_patch_loss": "channel", "num_frames": 2}])
def test_images_show_original_mask_and_prediction(changes):
    model, unit, sound, outputs, (*standardized, found) = images(**changes)
    assert len(standardized) == (changes.get("norm_patch_loss", True) is not False)
    first = unit[:, 0] if unit.ndim == 5 else unit
    for row in range(3):
        np.testing.assert_allclose(found["image_original"][row], first[row].permute(1, 2, 0).numpy(), atol=1e-5)
        np.testing.assert_allclose(found["audio_original"][row], sound[row, 0].numpy(), atol=1e-6)
        hidden = np.isnan(found["audio_masked"][row])
        assert hidden.mean() == 0.5
        np.testing.assert_array_equal(found["audio_masked"][row][~hidden], found["audio_original"][row][~hidden])
        np.testing.assert_array_equal(found["audio_reconstructed"][row][~hidden], found["audio_original"][row][~hidden])
        assert (found["audio_reconstructed"][row][hidden] != found["audio_original"][row][hidden]).mean() > 0.99
    mask = outputs.image_mask.view(3, 2, 2).bool()
    for row in range(3):
        for i in range(2):
            for j in range(2):
                patch = found["image_masked"][row][16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
                assert bool((patch == 0.5).all()) == bool(mask[row, i, j])


def test_standardized_images_show_the_targets_and_the_predictions_as_they_are():
    model, unit, sound, outputs, (found, _) = images()
    targets = model.unpatchify_audio(model.audio_decoder.targets(sound))[0, 0].numpy()
    np.testing.assert_allclose(found["audio_original"][0], targets, atol=1e-5)
    hidden = np.isnan(found["audio_masked"][0])
    predicted = model.unpatchify_audio(outputs.audio_logits)[0, 0].numpy()
    np.testing.assert_allclose(found["audio_reconstructed"][0][hidden], predicted[hidden], atol=1e-5)
    assert found["image_original"][0].min() >= 0
    assert found["image_original"][0].max() <= 1
    assert found["image_original"][0].mean() == pytest.approx(0.5, abs=0.01)


def test_figures_are_written_and_not_empty(tmp_path):
    found = images()[-1]
    found[0]["audio_original"][0] = np.full((32, 48), -7.0, np.float32)  # digital silence
    draw_reconstructions(found, ["a", "b" * 60, "c"], tmp_path / "r.png", "title")
    record = {"loss": 1.0, "image_loss": 0.4, "audio_loss": 0.6, "learning_rate": 1e-3, "grad_norm": 1.0}
    train = [{**record, "epoch": e, "image_loss": 1 / (e + 1)} for e in range(5)]
    scores = {name: {"accuracy": 0.5} for name in ("fusion", "image", "audio", "all")}
    labeled = [{**record, "epoch": e, "probe": scores} for e in (0, 4)]
    training_curves(train, labeled, {"accuracy": 0.1}, tmp_path / "c.png", "title")
    training_curves(train, [{**row, "probe": None} for row in labeled], None, tmp_path / "n.png", "title")
    for name in ("r.png", "c.png", "n.png"):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert pixels.shape[1] > 800
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
