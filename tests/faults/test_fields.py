"""The set of fields never depends on the data: batches of the processor, of collators, and outputs of the models."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
)
from deepavfusion.processors import DeepAVFusionFeatureExtractor, DeepAVFusionProcessor
from tests.faults.contract import run_command
from tests.modeling_deepavfusion.cases import make_inputs, make_model
from tests.tiny import tiny_config

PAGE = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
FIELDS = {"pixel_values", "input_features", "image_present", "audio_present"}
IMAGE = np.full((40, 50, 3), 99, np.uint8)
AUDIO = np.full(12000, 0.1, np.float32)
# Image and audio of the samples of a batch.
BATCHES = {
    "whole": ([IMAGE, IMAGE], [AUDIO, AUDIO]),
    "mixed": ([IMAGE, None], [AUDIO, AUDIO]),
    "crossed": ([IMAGE, None], [None, AUDIO]),
    "silent": ([IMAGE, IMAGE], [None, None]),
    "no audio": ([IMAGE, IMAGE], None),
    "no image": (None, [AUDIO, AUDIO]),
}


@pytest.fixture(scope="module", params=[1, 4], ids=["image", "video"])
def processor(request):
    return DeepAVFusionProcessor.from_config(tiny_config(num_frames=request.param))


@pytest.mark.parametrize("name", BATCHES)
def test_the_processor_returns_all_fields_on_request(processor, name):
    images, audio = BATCHES[name]
    batch = processor(images=images, audio=audio, sampling_rate=16000, return_presence=True)
    assert set(batch) == FIELDS
    for field, given in (("image", images), ("audio", audio)):
        assert batch[f"{field}_present"].tolist() == [x is not None for x in given or [None, None]]
    plain = processor(images=images, audio=audio, sampling_rate=16000)
    assert set(plain) <= FIELDS
    for field, values in plain.items():
        assert torch.equal(values, batch[field])
    for field, shape in processor.input_shapes.items():
        assert batch[field].shape == (2, *shape)


def test_a_processor_for_audio_alone_has_the_fields_of_audio():
    processor = DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(num_mel_bins=32, spectrogram_length=48))
    batch = processor(audio=[AUDIO, None], sampling_rate=16000, return_presence=True)
    assert set(batch) == {"input_features", "audio_present"}
    with pytest.raises(ValueError, match="Expected images, videos or audio, got none"):
        processor(audio=[None], sampling_rate=16000, return_presence=True)


@pytest.mark.parametrize("tensors", ["pt", "np"])
def test_a_map_makes_the_same_columns_in_every_batch(tensors):
    from datasets import Dataset

    processor = DeepAVFusionProcessor.from_config(tiny_config())

    def add(rows):
        images = [IMAGE if present else None for present in rows["seen"]]
        audio = [AUDIO if present else None for present in rows["heard"]]
        options = {"sampling_rate": 16000, "return_tensors": tensors, "return_presence": True}
        return dict(processor(images=images, audio=audio, **options))

    rows = {"seen": [True, True, False, False], "heard": [True, True, True, True]}
    columns = Dataset.from_dict(rows).map(add, batched=True, batch_size=2).with_format("torch")
    assert columns["image_present"][:].tolist() == rows["seen"]
    batches = list(DataLoader(columns, batch_size=1, collate_fn=processor.collate))
    assert {tuple(sorted(batch)) for batch in batches} == {tuple(sorted({*FIELDS, *rows}))}
    assert [bool(batch["image_present"]) for batch in batches] == rows["seen"]


def test_the_collator_completes_samples_that_lack_a_modality(processor):
    whole = processor(images=IMAGE, audio=AUDIO, sampling_rate=16000)
    pixels, features = whole.pixel_values[0], whole.input_features[0]
    samples = [
        {"pixel_values": pixels, "input_features": features, "label": 2},
        {"pixel_values": pixels.tolist(), "label": 0},
        {"pixel_values": None, "input_features": features, "label": 1},
        {"pixel_values": pixels, "input_features": features, "image_present": torch.tensor(False), "label": 1},
    ]
    for chosen in (samples, samples[1:2], samples[2:3]):
        assert set(processor.collate(chosen)) == {*FIELDS, "labels"}
    batch = processor.collate(samples)
    assert batch["image_present"].tolist() == [True, True, False, False]
    assert batch["audio_present"].tolist() == [True, False, True, True]
    assert batch["labels"].tolist() == [2, 0, 1, 1]
    assert not batch["pixel_values"][2:].any()
    assert torch.equal(batch["pixel_values"][1], pixels)
    with pytest.raises(ValueError, match="got neither in sample 1"):
        processor.collate([samples[0], {"label": 3}])
    foreign = {"pixel_values": pixels.numpy().astype(pixels.numpy().dtype.newbyteorder())}
    assert torch.equal(processor.collate([foreign])["pixel_values"][0], pixels)
    with pytest.raises(ValueError, match="same fields in every sample, got label in some"):
        processor.collate([samples[0], {"pixel_values": pixels}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], "Expected labels in every sample, got none in sample 1"),
        ([None, 1], "Expected labels in every sample, got none in sample 0"),
        (["cat", None], "Expected labels in every sample, got none in sample 1"),
        ([[1, None], [1, 2]], "Expected text, or numbers of one shape, as labels of every sample, but"),
        ([[1], [1, 2]], "numbers of one shape, as labels"),
        (["cat", 1], "Expected text, or numbers of one shape, as labels"),
    ],
)
def test_the_collator_names_fields_that_cannot_be_stacked(processor, values, message):
    features = processor(audio=AUDIO, sampling_rate=16000).input_features[0]
    with pytest.raises(ValueError, match=message):
        processor.collate([{"input_features": features, "labels": value} for value in values])


# Which samples of two have an image, and which have audio.
PRESENCE = [([True, True], [True, True]), ([True, False], [True, True]), ([True, False], [False, True])]
NO_AUDIO, NO_IMAGE = ([True, True], [False, False]), ([False, False], [True, True])
MODELS = {
    DeepAVFusionModel: [*PRESENCE, NO_AUDIO, NO_IMAGE],
    DeepAVFusionForPreTraining: [*PRESENCE, NO_AUDIO, NO_IMAGE],
    DeepAVFusionForAudioVisualClassification: [*PRESENCE, NO_AUDIO, NO_IMAGE],
    DeepAVFusionForSourceSeparation: [PRESENCE[0], PRESENCE[1], NO_IMAGE],
    DeepAVFusionForSemanticSegmentation: [PRESENCE[0], ([True, True], [False, True]), NO_AUDIO],
    DeepAVFusionForSoundLocalization: [PRESENCE[0], ([True, True], [False, True]), NO_AUDIO],
}


@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_models_return_the_same_fields_whatever_is_marked_absent(cls):
    torch.manual_seed(0)
    model = make_model(cls, num_hidden_layers=1, decoder_num_hidden_layers=1).eval()
    inputs = make_inputs(model.config, cls, batch=2)
    found = []
    for image, audio in MODELS[cls]:
        masks = {"image_present": torch.tensor(image), "audio_present": torch.tensor(audio)}
        with torch.no_grad():
            outputs = model(**inputs, **masks, output_hidden_states=True)
        found.append({name: value.shape for name, value in outputs.items() if torch.is_tensor(value)})
        assert all(value.isfinite().all() for value in outputs.values() if torch.is_tensor(value))
    assert all(fields == found[0] for fields in found)


@pytest.mark.parametrize("objective", ["reconstruction", "align", "jepa"])
def test_losses_are_the_same_whatever_is_marked_absent(objective):
    """An absent modality has a loss of 0, so that processes whose batches differ gather the same."""
    model = make_model(DeepAVFusionForPreTraining, num_hidden_layers=1, decoder_num_hidden_layers=1)
    model.config.pretraining_objective = objective
    model = DeepAVFusionForPreTraining(model.config).train()
    inputs = make_inputs(model.config, DeepAVFusionForPreTraining, batch=2)
    found = set()
    for image, audio in MODELS[DeepAVFusionForPreTraining]:
        masks = {"image_present": torch.tensor(image), "audio_present": torch.tensor(audio)}
        outputs = model(**inputs, **masks)
        assert outputs.loss.isfinite()
        if objective == "reconstruction":
            assert (outputs.image_loss == 0) == (not any(image))
            assert (outputs.audio_loss == 0) == (not any(audio))
        found.add(tuple(sorted(outputs)))
    assert len(found) == 1


def test_the_page_shows_what_happens():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    *lines, shown = snippet.strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    expression, _, result = shown.partition("  # ")
    assert eval(expression, names) == eval(result)
    (command, message) = re.findall(r"^deepavfusion (.*)\n# (.*)$", PAGE, re.MULTILINE)[0]
    code, _, err = run_command(command.split())
    assert (code, err) == (2, f"{message}\n")


def test_the_table_adds_up():
    table = PAGE.partition("<!-- faults:begin -->")[2].partition("<!-- faults:end -->")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    counts = [[int(cell.replace(",", "")) for cell in row[1:5]] for row in rows[2:]]
    assert all(tried == read + refused + broken for tried, read, refused, broken in counts)
    assert f"{sum(row[0] for row in counts):,} tried, {sum(row[3] for row in counts)} broke the contract" in table
