"""Options of a call, named and grouped as in transformers' processors, and what they do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.video_processing_utils import VideoProcessorMixin

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionFeatureExtractor,
    DeepAVFusionImageProcessor,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
)

TINY = {"image_size": [32, 48], "num_mel_bins": 64, "spectrogram_length": 64}  # 1 s
RATE = 16000
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SOUND = np.random.default_rng(1).uniform(-1, 1, RATE).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY))


@pytest.fixture(scope="module")
def image_processor():
    return DeepAVFusionImageProcessor(size=[32, 48])


def normalized(pixels):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy((pixels / 255 - mean) / std).movedim(-1, 0).float()


def test_bases_are_those_of_transformers():
    assert issubclass(DeepAVFusionProcessor, ProcessorMixin)
    assert issubclass(DeepAVFusionImageProcessor, BaseImageProcessor)
    assert issubclass(DeepAVFusionVideoProcessor, VideoProcessorMixin)


class TestProcessor:
    @pytest.mark.parametrize(
        "options",
        [
            {"do_normalize": False, "return_tensors": "np", "sampling_rate": 8000},
            {
                "images_kwargs": {"do_normalize": False},
                "audio_kwargs": {"sampling_rate": 8000},
                "common_kwargs": {"return_tensors": "np"},
            },
            {"images_kwargs": {"do_normalize": False, "return_tensors": "np"}, "sampling_rate": 8000},
        ],
        ids=["flat", "nested", "mixed"],
    )
    def test_flat_and_nested_options(self, processor, options):
        found = processor(images=IMAGE, audio=SOUND, text=None, **options)
        image = processor.image_processor(IMAGE, do_normalize=False, return_tensors="np")
        sound = processor.feature_extractor(SOUND, sampling_rate=8000, return_tensors="np")
        assert {name: type(value) for name, value in found.items()} == dict.fromkeys(found, np.ndarray)
        assert np.array_equal(found["pixel_values"], image["pixel_values"])
        assert np.array_equal(found["input_features"], sound["input_features"])

    def test_options_of_one_call_do_not_stay(self, processor):
        before = processor(images=IMAGE).pixel_values
        settings = json.loads(processor.to_json_string())
        assert not torch.equal(processor(images=IMAGE, fit="pad", size=16).pixel_values[..., :16, :16], before)
        assert torch.equal(processor(images=IMAGE).pixel_values, before)
        assert json.loads(processor.to_json_string()) == settings

    def test_sizes_of_a_call_also_hold_for_missing_images(self, processor):
        found = processor(images=[IMAGE, None], audio=[SOUND, SOUND], sampling_rate=RATE, size=16)
        assert found.pixel_values.shape == (2, 3, 16, 16)
        assert found.image_present.tolist() == [True, False]

    def test_options_of_video_models(self):
        video = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY, num_frames=4))
        clip = np.stack([IMAGE, 255 - IMAGE])
        for options in ({"do_normalize": False}, {"videos_kwargs": {"do_normalize": False}}):
            assert video(videos=clip, **options).pixel_values.min() >= 0
        assert video(images=IMAGE, images_kwargs={"do_normalize": False}).pixel_values.min() >= 0
        assert video(videos=clip, num_frames=2).pixel_values.shape == (1, 2, 3, 32, 48)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"text": "a cello"}, ValueError, "images, videos or audio alone, got text='a cello'"),
            ({"do_normalise": False}, TypeError, "Unexpected arguments: do_normalise"),
            ({"do_normalize": False, "images_kwargs": {"do_normalize": True}}, ValueError, "passed two times"),
            ({"images_kwargs": {"do_normalise": False}}, TypeError, "do_normalise"),
            ({"audio_kwargs": {"windows": 3}, "audio": SOUND}, TypeError, "Unexpected arguments: windows"),
            ({"do_resize": "yes"}, TypeError, "do_resize"),
            ({"fit": "stretch"}, ValueError, "fit as one of crop, pad, squash, tiles, got 'stretch'"),
        ],
    )
    def test_wrong_options_raise(self, processor, options, error, message):
        with pytest.raises(Exception, match=message) as raised:
            processor(**{"images": IMAGE, **options})
        cause = raised.value.__cause__ or raised.value
        assert isinstance(raised.value, error) or isinstance(cause, error)

    def test_attention_mask_on_request(self, processor):
        half = SOUND[: RATE // 2]
        found = processor(
            images=[IMAGE] * 3,
            audio=[SOUND, half, None],
            sampling_rate=RATE,
            audio_kwargs={"return_attention_mask": True},
        )
        assert found.attention_mask.sum(1).tolist() == [64, 32, 0]
        assert found.attention_mask[1].tolist() == [1] * 32 + [0] * 32
        assert "attention_mask" not in processor(audio=half, sampling_rate=RATE)
        for given in ({"images": IMAGE}, {"audio": SOUND, "sampling_rate": RATE}):
            found = processor(**given, return_attention_mask=True, return_presence=True, size=16)
            assert {name: tuple(value.shape) for name, value in found.items()} == {
                "pixel_values": (1, 3, 16, 16),
                "input_features": (1, 1, 64, 64),
                "image_present": (1,),
                "audio_present": (1,),
                "attention_mask": (1, 64),
            }
            assert found.attention_mask.dtype == torch.long


class TestImages:
    def test_resizing_and_cropping_can_be_left_out(self, image_processor):
        cropped = image_processor(IMAGE, do_resize=False).pixel_values
        assert_close(cropped[0], normalized(IMAGE[4:36, 6:54]), rtol=0, atol=1e-5)
        whole = image_processor(IMAGE, do_resize=False, do_center_crop=False).pixel_values
        assert_close(whole[0], normalized(IMAGE), rtol=0, atol=1e-5)
        squashed = image_processor(IMAGE[:, :30], do_center_crop=False).pixel_values
        assert torch.equal(squashed, image_processor(IMAGE[:, :30], fit="squash").pixel_values)
        small = image_processor(IMAGE[:20, :30], do_resize=False).pixel_values
        assert_close(small[0, :, 6:26, 9:39], normalized(IMAGE[:20, :30]), rtol=0, atol=1e-5)
        assert small[0, :, :6].abs().max() == 0
        with pytest.raises(ValueError, match=r"images of one size without do_resize.*\[\(30, 60\), \(40, 60\)\]"):
            image_processor([IMAGE, IMAGE[:30]], do_resize=False, do_center_crop=False)

    def test_rescaling_and_normalization_can_be_left_out(self, image_processor):
        levels = image_processor(IMAGE, do_normalize=False, do_rescale=False, do_resize=False).pixel_values
        assert torch.equal(levels[0].movedim(0, -1), torch.from_numpy(IMAGE[4:36, 6:54]).float())
        unit = image_processor(IMAGE, do_normalize=False).pixel_values
        assert 0 <= unit.min() < unit.max() <= 1
        negative = image_processor(IMAGE, do_normalize=False, rescale_factor=-1.0).pixel_values
        assert_close(negative, unit * -255, rtol=1e-5, atol=1e-4)
        floating = image_processor(IMAGE / 255, do_normalize=False, rescale_factor=-1.0, do_resize=False).pixel_values
        assert_close(floating, -levels, rtol=1e-5, atol=1e-3)
        given = image_processor(IMAGE * 2.0, do_rescale=False, do_normalize=False, do_resize=False).pixel_values
        assert torch.equal(given, levels * 2)

    def test_filters(self, image_processor):
        sizes = (36, 54)  # int(32 / 0.875), and the image's aspect ratio
        for resample in Image.Resampling:
            resized = np.asarray(Image.fromarray(IMAGE).resize(sizes[::-1], resample))
            found = image_processor(IMAGE, resample=resample, do_normalize=False).pixel_values[0]
            assert_close(found.movedim(0, -1), torch.from_numpy(resized[2:34, 3:51] / 255).float(), rtol=0, atol=1e-6)
        assert DeepAVFusionImageProcessor(resample=3).to_dict()["resample"] == 3
        with pytest.raises(ValueError, match=r"Expected resample as 0, 2, 3 for floating-point images, got 1"):
            image_processor(IMAGE / 255, resample=1)

    @pytest.mark.parametrize("edge", [{"shortest_edge": 256}, 256, {"height": 256, "width": 256}])
    def test_size_and_crop_size_as_in_other_processors(self, edge):
        processor = DeepAVFusionImageProcessor(size=edge, crop_size=224)
        assert processor.output_size == (224, 224)
        large = np.repeat(np.repeat(IMAGE, 8, 0), 8, 1)
        expected = DeepAVFusionImageProcessor()(large).pixel_values
        assert torch.equal(processor(large).pixel_values, expected)
        other = DeepAVFusionImageProcessor(size=64, crop_pct=1.0)
        assert torch.equal(other(large, size=edge, crop_size=224).pixel_values, expected)
        loaded = DeepAVFusionImageProcessor.from_dict(json.loads(processor.to_json_string()))
        assert torch.equal(loaded(large).pixel_values, expected)

    @pytest.mark.parametrize("crop", range(200, 260, 7))
    def test_crops_of_any_size_come_from_the_stated_size(self, crop):
        processor = DeepAVFusionImageProcessor(size={"shortest_edge": 261}, crop_size=crop)
        [region] = processor.regions(300, 400)
        assert region.resized == (261, 348)
        assert processor.output_size == (crop, crop)

    def test_crops_larger_than_the_resized_image_have_margins(self):
        found = DeepAVFusionImageProcessor(size=20, crop_size=30)(IMAGE[:, :40]).pixel_values[0]
        assert torch.equal(
            found[:, 5:25, 5:25], DeepAVFusionImageProcessor(size=20, crop_pct=1)(IMAGE[:, :40]).pixel_values[0]
        )
        assert found[:, :5].abs().max() == found[..., 25:].abs().max() == 0

    def test_layouts(self, image_processor):
        narrow = IMAGE[:3]  # (3, 60, 3)
        first = image_processor(narrow, input_data_format="channels_first").pixel_values
        last = image_processor(narrow, input_data_format="channels_last").pixel_values
        assert torch.equal(last, image_processor(narrow).pixel_values)
        assert torch.equal(first, image_processor(torch.from_numpy(narrow)).pixel_values)

    def test_device_and_tensors(self, image_processor):
        assert image_processor(IMAGE, device="cpu").pixel_values.device.type == "cpu"
        assert image_processor(IMAGE, device="meta", do_resize=False).pixel_values.device.type == "meta"
        assert isinstance(image_processor(IMAGE, return_tensors="np").pixel_values, np.ndarray)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"do_pad": True, "pad_size": 8}, "fit='pad' instead of do_pad"),
            ({"data_format": "channels_last"}, "no data_format but 'channels_first'"),
            ({"crop_pct": 0.0}, r"crop_pct in \(0, 1\], got 0"),
            ({"image_std": 0.0}, "image_std as positive numbers"),
            ({"size": {"shortest_edge": 8}}, "Expected a size"),
            ({"crop_size": {"shortest_edge": 8}}, "Expected a size"),
        ],
    )
    def test_wrong_options_raise_in_calls_as_in_settings(self, image_processor, options, message):
        with pytest.raises(ValueError, match=message):
            image_processor(IMAGE, **options)
        with pytest.raises(ValueError, match=message):
            DeepAVFusionImageProcessor(**options)

    def test_one_number_for_all_channels(self, image_processor):
        found = image_processor(IMAGE, image_mean=0.5, image_std=0.5).pixel_values
        assert torch.equal(found, image_processor(IMAGE, image_mean=[0.5] * 3, image_std=(0.5,) * 3).pixel_values)


class TestVideos:
    def test_options(self):
        processor = DeepAVFusionVideoProcessor(size=[32, 48], num_frames=2)
        clip = np.stack([IMAGE, 255 - IMAGE, IMAGE // 2])
        assert processor(clip, do_sample_frames=False).pixel_values.shape == (1, 3, 3, 32, 48)
        assert processor(clip, num_frames=1).pixel_values.shape == (1, 1, 3, 32, 48)
        assert processor(clip, do_normalize=False).pixel_values.min() >= 0
        given = processor(clip * 2.0, do_rescale=False, do_normalize=False, do_resize=False).pixel_values
        assert given.max() == 2.0 * clip[[0, 2], 4:36, 6:54].max()
        found = processor([clip, clip[:1]], return_metadata=True)
        assert [about.frames_indices for about in found["video_metadata"]] == [[0, 2], [0, 0]]
        with pytest.raises(ValueError, match="no fps"):
            processor(clip, fps=2)


class TestAudio:
    def test_padding(self):
        extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=64)
        half = SOUND[: RATE // 2]
        repeated = extractor(half, sampling_rate=RATE)
        silent = extractor(half, sampling_rate=RATE, padding=True)
        assert_close(repeated.input_features, extractor(np.append(half, half[::-1]), sampling_rate=RATE).input_features)
        assert silent.input_features[..., 40:].max() == pytest.approx(-7)
        for padding in ("longest", "max_length"):
            assert torch.equal(
                extractor(half, sampling_rate=RATE, padding=padding).input_features, silent.input_features
            )
        for padding in (False, "do_not_pad"):
            assert extractor(SOUND, sampling_rate=RATE, padding=padding).input_features.shape == (1, 1, 64, 64)
            with pytest.raises(ValueError, match="at least 16000 samples without padding, got 8000"):
                extractor([SOUND, half], sampling_rate=RATE, padding=padding)
        with pytest.raises(ValueError, match="padding as a bool"):
            extractor(SOUND, sampling_rate=RATE, padding="left")

    def test_truncation_and_length(self):
        extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=64)
        long = np.append(SOUND, SOUND)
        cut = extractor(long, sampling_rate=RATE, truncation=True, max_length=RATE)
        assert torch.equal(cut.input_features, extractor(SOUND, sampling_rate=RATE).input_features)
        with pytest.raises(ValueError, match="at most 16000 samples without truncation, got 32000"):
            extractor(long, sampling_rate=RATE, truncation=False)
        with pytest.raises(ValueError, match="max_length as the 16000 samples of the window"):
            extractor(long, sampling_rate=RATE, max_length=8000)

    def test_attention_mask_and_device(self):
        extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=64)
        found = extractor([SOUND, SOUND[:4001]], sampling_rate=RATE, return_attention_mask=True, device="cpu")
        assert found.attention_mask.sum(1).tolist() == [64, 17]
        assert found.attention_mask.dtype == torch.int64


# As written before the options of transformers were added.
EARLIER = {
    "auto_map": {"AutoProcessor": "auto_processing_deepavfusion.DeepAVFusionProcessor"},
    "feature_extractor": {
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_deepavfusion.DeepAVFusionFeatureExtractor"},
        "feature_extractor_type": "DeepAVFusionFeatureExtractor",
        "hop_length": 250,
        "log_offset": 1e-07,
        "n_fft": 800,
        "num_mel_bins": 64,
        "sampling_rate": 16000,
        "spectrogram_length": 64,
    },
    "image_processor": {
        "auto_map": {"AutoImageProcessor": "image_processing_deepavfusion.DeepAVFusionImageProcessor"},
        "crop_pct": 0.5,
        "fit": "crop",
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "DeepAVFusionImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "size": {"height": 32, "width": 48},
    },
    "processor_class": "DeepAVFusionProcessor",
}


def test_earlier_checkpoints_load(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps(EARLIER))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(EARLIER["image_processor"]))
    loaded = DeepAVFusionProcessor.from_pretrained(tmp_path)
    expected = DeepAVFusionImageProcessor(size=[32, 48], crop_pct=0.5)
    assert torch.equal(loaded(images=IMAGE).pixel_values, expected(IMAGE).pixel_values)
    (tmp_path / "processor_config.json").unlink()
    assert DeepAVFusionImageProcessor.from_pretrained(tmp_path).to_dict() == expected.to_dict()
    (tmp_path / "processor_config.json").write_text(json.dumps(EARLIER))
    changed = DeepAVFusionProcessor.from_pretrained(tmp_path, do_normalize=False)
    assert changed(images=IMAGE).pixel_values.min() >= 0


def test_unreadable_parts_are_not_stored_on_the_instance(tmp_path, processor):
    """Saving patches nothing: the same attributes before and after."""
    before = {name: id(value) for name, value in vars(processor).items()}
    processor.save_pretrained(tmp_path)
    assert {name: id(value) for name, value in vars(processor).items()} == before
    parts = {"feature_extractor", "image_processor", "video_processor"}
    assert vars(processor).keys() == {"chat_template", "return_presence", *parts}
