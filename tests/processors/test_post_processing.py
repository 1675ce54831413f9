"""Post-processing: outputs of models to labels, waveforms, and maps over images."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers.utils import ModelOutput

from deepavfusion import DeepAVFusionConfig, DeepAVFusionFeatureExtractor, DeepAVFusionProcessor


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig())


@pytest.fixture(scope="module")
def whole():
    """A processor whose crop of a square image is the whole image."""
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(), crop_pct=1.0)


def outputs(logits):
    return ModelOutput(logits=torch.as_tensor(logits, dtype=torch.float32))


class TestClassification:
    LOGITS = [[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]]

    def test_highest_score_first(self, processor):
        found = processor.post_process_classification(outputs(self.LOGITS), top_k=2)
        probabilities = torch.tensor(self.LOGITS).softmax(-1)
        assert [[entry["label"] for entry in row] for row in found] == [[1, 2], [0, 2]]
        assert found[0][0]["score"] == pytest.approx(probabilities[0, 1].item())
        assert found[1][1]["score"] == pytest.approx(probabilities[1, 2].item())

    @pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (5, 3), (None, 3)])
    def test_top_k(self, processor, top_k, count):
        found = processor.post_process_classification(outputs(self.LOGITS), top_k=top_k)
        assert [len(row) for row in found] == [count, count]

    @pytest.mark.parametrize("names", [{0: "bell", 1: "dog", 2: "rain"}, {"0": "bell", "1": "dog", "2": "rain"}])
    def test_names(self, processor, names):
        found = processor.post_process_classification(outputs(self.LOGITS), top_k=1, id2label=names)
        assert [row[0]["label"] for row in found] == ["dog", "bell"]

    def test_multi_label(self, processor):
        found = processor.post_process_classification(outputs(self.LOGITS), top_k=3, multi_label=True)
        assert found[0][0]["score"] == pytest.approx(1 / (1 + math.exp(-2)))
        assert sum(entry["score"] for entry in found[0]) > 1

    @pytest.mark.parametrize("multi_label", [False, True])
    def test_the_score_of_a_single_label_is_its_probability(self, processor, multi_label):
        found = processor.post_process_classification(outputs([[0.0], [2.0]]), multi_label=multi_label)
        assert [row[0]["score"] for row in found] == pytest.approx([0.5, 1 / (1 + math.exp(-2))])

    @pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor, iter])
    def test_numbers_of_tiles(self, processor, convert):
        logits = torch.tensor([*self.LOGITS, [0.0, 0.0, 9.0]])
        found = processor.post_process_classification(outputs(logits), num_tiles=convert([2, 1]))
        expected = processor.post_process_classification(outputs(torch.stack([logits[:2].mean(0), logits[2]])))
        assert found == expected
        with pytest.raises(ValueError, match=r"num_tiles that add up to 3 rows, got \[1, 1\]"):
            processor.post_process_classification(outputs(logits), num_tiles=convert([1, 1]))

    def test_half_precision_and_dicts(self, processor):
        reference = processor.post_process_classification(outputs(self.LOGITS))
        assert processor.post_process_classification({"logits": torch.tensor(self.LOGITS)}) == reference
        half = processor.post_process_classification({"logits": torch.tensor(self.LOGITS, dtype=torch.bfloat16)})
        assert [row[0]["label"] for row in half] == [1, 0]

    def test_invalid_shapes_raise(self, processor):
        with pytest.raises(ValueError, match=r"\(batch, labels\), got \(3,\)"):
            processor.post_process_classification(outputs([1.0, 2.0, 3.0]))
        with pytest.raises(ValueError, match="top_k of at least 1, or None for all labels, got 0"):
            processor.post_process_classification(outputs(self.LOGITS), top_k=0)


def tone(hertz, rate, seconds):
    return torch.sin(2 * math.pi * hertz * torch.arange(round(rate * seconds)) / rate) / 2


class TestSourceSeparation:
    LOW = torch.full((1, 1, 128, 192), -20.0)
    LOW[:, :, :64] = 20.0  # up to about 2 kHz

    @pytest.mark.parametrize("rate", [16000, 44100, 8000, 22050])
    def test_sampling_rate_is_that_of_the_mixture(self, processor, rate):
        low, high = tone(440, rate, 2.0), tone(3500, rate, 2.0)
        (found,) = processor.post_process_source_separation(outputs(self.LOW), low + high, rate)
        assert found.shape == low.shape
        edge = rate // 10
        assert_close(found[edge:-edge], low[edge:-edge], rtol=0, atol=0.03)

    def test_long_mixtures_are_cut_to_the_window(self, processor):
        (found,) = processor.post_process_source_separation(outputs(self.LOW), tone(440, 44100, 4.0), 44100)
        assert found.shape == (3 * 44100,)

    def test_mixtures_of_a_batch_may_differ_in_length_and_channels(self, processor):
        audio = [tone(440, 16000, 1.0), np.stack([tone(440, 16000, 3.0).numpy()] * 2)]
        masks = outputs(self.LOW.repeat(2, 1, 1, 1))
        found = processor.post_process_source_separation(masks, audio, 16000)
        assert [len(source) for source in found] == [16000, 48000]
        for source, mixture in zip(found, audio, strict=True):
            (alone,) = processor.post_process_source_separation(outputs(self.LOW), mixture, 16000)
            assert torch.equal(source, alone)

    @pytest.mark.parametrize("batch", [list, iter])
    @pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
    def test_each_mixture_may_have_its_own_rate(self, processor, batch, convert):
        rates = [44100, 22050]
        audio = [tone(440, rate, 2.0) + tone(3500, rate, 2.0) for rate in rates]
        masks = outputs(self.LOW.repeat(2, 1, 1, 1))
        found = processor.post_process_source_separation(masks, batch(audio), convert(rates))
        for source, mixture, rate in zip(found, audio, rates, strict=True):
            (alone,) = processor.post_process_source_separation(outputs(self.LOW), mixture, rate)
            assert torch.equal(source, alone)
            assert len(source) == 2 * rate
        with pytest.raises(ValueError, match="one for each of 2 sounds, got 3"):
            processor.post_process_source_separation(masks, audio, [*rates, 16000])

    def test_tiny_windows(self):
        processor = DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=96))
        mask = torch.full((1, 1, 64, 96), 20.0)
        (found,) = processor.post_process_source_separation(outputs(mask), tone(1000, 16000, 1.5), 16000)
        assert_close(found[1000:-1000], tone(1000, 16000, 1.5)[1000:-1000], rtol=0, atol=0.01)

    def test_other_numbers_of_mixtures_than_masks_raise(self, processor):
        with pytest.raises(ValueError, match="each of 1 masks, got 2"):
            processor.post_process_source_separation(outputs(self.LOW), [tone(440, 16000, 1.0)] * 2, 16000)


class TestSemanticSegmentation:
    def test_without_sizes(self, processor):
        logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        found = processor.post_process_semantic_segmentation(outputs(logits))
        assert torch.equal(torch.stack(found), logits.argmax(1))

    @pytest.mark.parametrize("target_sizes", [[(448, 448)], torch.tensor([[448, 448]]), [[448, 448]]])
    def test_over_the_image(self, whole, target_sizes):
        logits = torch.zeros(1, 2, 224, 224)
        logits[:, 1, :112, :56] = 4.0
        (found,) = whole.post_process_semantic_segmentation(outputs(logits - 1), target_sizes)
        expected = torch.zeros(448, 448, dtype=torch.long)
        expected[:224, :112] = 1
        assert found.dtype == torch.long
        assert (found != expected).float().mean() < 0.01

    def test_single_label(self, whole):
        logits = torch.full((1, 1, 4, 4), -1.0)
        logits[..., :2] = 1.0
        (found,) = whole.post_process_semantic_segmentation(outputs(logits))
        assert found.tolist() == [[1, 1, 0, 0]] * 4
        (found,) = whole.post_process_semantic_segmentation(outputs(logits), threshold=0.9)
        assert found.sum() == 0

    @pytest.mark.parametrize("shape", [(360, 480), (480, 360), (224, 300)])
    @pytest.mark.parametrize("crop_pct", [0.875, 1.0])
    def test_mask_is_aligned_with_the_image(self, shape, crop_pct):
        """Pixels of the image, used as logits, return to their positions."""
        processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(), crop_pct=crop_pct)
        image = np.zeros((*shape, 3), np.uint8)
        height, width = shape
        rows, columns = slice(height // 3, height // 2), slice(int(width * 0.4), int(width * 0.7))
        image[rows, columns] = 255
        logits = processor(images=image).pixel_values[:, :1]
        (found,) = processor.post_process_semantic_segmentation(outputs(logits), [shape], outside=9)
        assert found.shape == shape
        top, left, bottom, right = processor.image_processor.crop_box(*shape)
        inside = torch.zeros(shape, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(found == 9, ~inside)
        expected = torch.from_numpy(image[..., 0] > 0)
        union = ((found == 1) | expected)[inside].sum()
        assert ((found == 1) & expected)[inside].sum() / union > 0.95

    SIZES = ((40, 50), (60, 70))
    FORMS = (
        np.array(SIZES),
        torch.tensor(SIZES),
        torch.tensor(SIZES).double(),
        [np.array(size) for size in SIZES],
        [torch.tensor(size) for size in SIZES],
        [torch.Size(size) for size in SIZES],
        [tuple(np.array(size)) for size in SIZES],
        dict.fromkeys(SIZES).keys(),
    )

    @pytest.mark.parametrize("target_sizes", FORMS, ids=map(str, range(len(FORMS))))
    def test_forms_of_target_sizes_are_equivalent(self, processor, target_sizes):
        logits = outputs(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
        found = processor.post_process_semantic_segmentation(logits, target_sizes)
        expected = processor.post_process_semantic_segmentation(logits, self.SIZES)
        assert [tuple(labels.shape) for labels in found] == list(self.SIZES)
        assert all(map(torch.equal, found, expected))

    INVALID = (
        *([(4, 4)], (4, 4), [(4, 4, 3)] * 2, [4], 4, np.array([[4, 4]]), torch.tensor([4, 4])),
        *([(0, 10), (4, 4)], [(4, 4), (4, -1)], [(4, 4), (4.5, 4)], np.array([[4, np.nan], [4, 4]]), ["ab", "cd"]),
    )

    @pytest.mark.parametrize("target_sizes", INVALID, ids=repr)
    def test_invalid_target_sizes_raise(self, processor, target_sizes):
        message = r"Expected 2 target sizes \(height, width\), one per sample, with sides of at least 1 pixel, got"
        with pytest.raises(ValueError, match=message):
            processor.post_process_semantic_segmentation(outputs(torch.zeros(2, 1, 4, 4)), target_sizes)
        with pytest.raises(ValueError, match=message):
            processor.post_process_sound_localization(outputs(torch.zeros(2, 4, 4)), target_sizes)


class TestSoundLocalization:
    MAPS = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[-3.0, -3.0], [-3.0, -3.0]]])

    def test_normalized_to_0_to_1(self, processor):
        found = processor.post_process_sound_localization(outputs(self.MAPS))
        assert_close(found[0], torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
        assert_close(found[1], torch.zeros(2, 2))
        (alone, _) = processor.post_process_sound_localization(outputs(self.MAPS[:, None]))
        assert_close(alone, found[0])

    def test_without_normalization(self, processor):
        found = processor.post_process_sound_localization(outputs(self.MAPS), normalize=False)
        assert_close(torch.stack(found), self.MAPS)

    def test_over_the_image(self, whole):
        maps = torch.zeros(2, 14, 14)
        maps[0, 3, 10] = maps[1, 12, 1] = 5.0
        large, wide = whole.post_process_sound_localization(outputs(maps), [(448, 448), (224, 448)])
        assert large.shape == (448, 448)
        assert wide.shape == (224, 448)
        assert large.max() == pytest.approx(1, abs=0.05)
        row, column = divmod(large.argmax().item(), 448)
        assert abs(row - 3.5 * 32) <= 2
        assert abs(column - 10.5 * 32) <= 2
        # The crop of the wide image is its middle 224 columns.
        row, column = divmod(wide.argmax().item(), 448)
        assert abs(row - 12.5 * 16) <= 2
        assert abs(column - (112 + 1.5 * 16)) <= 2
        assert wide[:, :112].abs().max() == 0

    def test_several_maps_per_sample_raise(self, processor):
        with pytest.raises(ValueError, match="one map per sample"):
            processor.post_process_sound_localization(outputs(torch.zeros(1, 2, 4, 4)))
