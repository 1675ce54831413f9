"""Labels of the heads: what does not count, what is refused, and label smoothing."""

import pytest
import torch
from torch.nn import functional as F

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
)

from .cases import make_inputs, make_labels, make_model

INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
CLASSIFICATION = DeepAVFusionForAudioVisualClassification
SEGMENTATION = DeepAVFusionForSemanticSegmentation
LOCALIZATION = DeepAVFusionForSoundLocalization


def run(model, labels, batch=3):
    with torch.no_grad():
        return model(**make_inputs(model.config, type(model), batch=batch), labels=labels)


@pytest.mark.parametrize("loss", ["joint", "per_stream"])
def test_ignored_samples_do_not_count_in_the_mean(loss):
    model = make_model(CLASSIFICATION, classifier_loss=loss)
    inputs = make_inputs(model.config, CLASSIFICATION, batch=3)
    with torch.no_grad():
        found = model(**inputs, labels=torch.tensor([1, -100, 4])).loss
        kept = {name: values[[0, 2]] for name, values in inputs.items()}
        torch.testing.assert_close(found, model(**kept, labels=torch.tensor([1, 4])).loss)
    outputs = model(**inputs, labels=torch.full((3,), -100))
    assert outputs.loss == 0
    outputs.loss.backward()
    assert all(p.grad.eq(0).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("model_class", [CLASSIFICATION, SEGMENTATION], ids=lambda cls: cls.__name__)
def test_every_kind_of_integer_is_a_class(model_class):
    model = make_model(model_class)
    labels = make_labels(model.config, model_class, batch=3)["labels"]
    expected = run(model, labels).loss
    for dtype in INTEGERS:
        assert run(model, labels.to(dtype)).loss == expected, dtype


@pytest.mark.parametrize("model_class", [CLASSIFICATION, SEGMENTATION], ids=lambda cls: cls.__name__)
def test_wrong_labels_are_named(model_class):
    model = make_model(model_class)
    labels = make_labels(model.config, model_class, batch=3)["labels"]
    count = model.config.num_labels
    wrong = labels.clone()
    wrong.view(-1)[:2] = torch.tensor([count, -1])
    with pytest.raises(ValueError, match=rf"labels include -1, {count}: expected class indices from 0 to {count - 1}"):
        run(model, wrong)
    with pytest.raises(ValueError, match=r"labels are torch.bool of shape .*expected integers"):
        run(model, labels > 0)


def test_probabilities_outside_their_range_are_refused():
    for model_class, shape in ((CLASSIFICATION, (3, 5)), (LOCALIZATION, (3, 32, 32))):
        for value in (1.5, -0.1, float("nan")):
            labels = torch.zeros(shape)
            labels.view(-1)[3] = value
            with pytest.raises(ValueError, match=r"expected values in 0 \.\. 1"):
                run(make_model(model_class), labels)


def test_unknown_labels_of_several_do_not_count():
    model = make_model(CLASSIFICATION)
    labels = torch.tensor([[1.0, 0, 1, 0, 1], [0, -100, -100, 1, 0], [-100] * 5])
    outputs = run(model, labels)
    losses = F.binary_cross_entropy_with_logits(outputs.logits, labels.clamp(min=0), reduction="none")
    expected = (losses[0].mean() + losses[1, [0, 3, 4]].mean()) / 2
    torch.testing.assert_close(outputs.loss, expected)


def test_ignored_pixels_of_a_single_class():
    model = make_model(SEGMENTATION, num_labels=1)
    labels = torch.randint(2, (3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    labels[:, :20], labels[:, 20:24] = 255, -100
    outputs = run(model, labels)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[:, 0, 24:], labels[:, 24:])
    torch.testing.assert_close(outputs.loss, expected)


def test_ignored_positions_of_localization():
    """The target of a patch is the mean over the positions that count; patches without any do not count."""
    model = make_model(LOCALIZATION)
    patches = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = patches.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :, ::3] = -100
    labels[0, :8] = -100
    labels[2] = -100
    outputs = run(model, labels)
    losses = F.binary_cross_entropy_with_logits(outputs.logits, patches, reduction="none")
    torch.testing.assert_close(outputs.loss, (losses[0, 1:].mean() + losses[1].mean()) / 2)


def test_label_smoothing():
    """As torch's of classes, and toward one half of probabilities."""
    smoothing = {"label_smoothing": 0.2}
    classes = torch.tensor([0, -100, 2])
    outputs = run(make_model(CLASSIFICATION, **smoothing), classes)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, classes, label_smoothing=0.2))

    several = torch.randint(2, (3, 5), generator=torch.Generator().manual_seed(0)).float()
    outputs = run(make_model(CLASSIFICATION, **smoothing), several)
    torch.testing.assert_close(outputs.loss, F.binary_cross_entropy_with_logits(outputs.logits, several * 0.8 + 0.1))

    soft = several.softmax(dim=1)
    outputs = run(make_model(CLASSIFICATION, problem_type="single_label_classification", **smoothing), soft)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, soft, label_smoothing=0.2))

    pixels = torch.randint(3, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    pixels[:, :4] = 255
    outputs = run(make_model(SEGMENTATION, **smoothing), pixels)
    expected = F.cross_entropy(outputs.logits, pixels, ignore_index=255, label_smoothing=0.2)
    torch.testing.assert_close(outputs.loss, expected)

    single = (pixels == 1).float()
    outputs = run(make_model(SEGMENTATION, num_labels=1, **smoothing), single)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[:, 0], single * 0.8 + 0.1)
    torch.testing.assert_close(outputs.loss, expected)

    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    outputs = run(make_model(LOCALIZATION, **smoothing), maps)
    torch.testing.assert_close(outputs.loss, F.binary_cross_entropy_with_logits(outputs.logits, maps * 0.8 + 0.1))
