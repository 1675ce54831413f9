"""Processor: inputs of models from files and arrays; saving and loading."""

import copy
import io
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, AutoVideoProcessor

import deepavfusion
from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionFeatureExtractor,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionImageProcessor,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
    MediaError,
    load_clip,
)
from tests.golden_files import SHARED
from tests.isolated import run_isolated, run_python
from tests.modeling_deepavfusion.cases import MODEL_CLASSES, make_model

av = pytest.importorskip("av")

TINY = {"image_size": [32, 48], "num_mel_bins": 64, "spectrogram_length": 64}  # 1 s
RATE = 16000
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
WAVEFORMS = np.random.default_rng(1).uniform(-1, 1, (3, RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY))


@pytest.fixture(scope="module")
def video_processor():
    return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY, num_frames=4))


def write_clip(path, seconds=4, image=True, audio=True):
    """Write a file whose second n has gray level 60 n and amplitude 0.05 · 2ⁿ."""
    with av.open(str(path), "w") as container:
        if image:
            video_stream = container.add_stream("h264", rate=8)
            video_stream.width, video_stream.height, video_stream.pix_fmt = 64, 48, "yuv420p"
        if audio:
            audio_stream = container.add_stream("aac", rate=RATE)
            audio_stream.layout = "mono"
        if image:
            for index in range(8 * seconds):
                array = np.full((48, 64, 3), 60 * (index // 8), np.uint8)
                container.mux(video_stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(video_stream.encode(None))
        if audio:
            times = np.arange(RATE * seconds) / RATE
            wave = (np.sin(2 * np.pi * 1000 * times) * 0.05 * 2.0 ** np.floor(times)).astype(np.float32)
            for start in range(0, len(wave), 1000):
                frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1000], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, start
                container.mux(audio_stream.encode(frame))
            container.mux(audio_stream.encode(None))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return SimpleNamespace(
        both=write_clip(folder / "both.mp4"),
        other=write_clip(folder / "other clip.mkv", seconds=2),
        silent=write_clip(folder / "silent.mp4", audio=False),
        audio=write_clip(folder / "audio.m4a", image=False),
    )


def seconds_of_frames(processor, inputs):
    """Return the second of the written clip that each sample's frame is from."""
    pixels = processor.visual_processor.denormalize(inputs.pixel_values).mean((-1, -2, -3))
    return (pixels * 255 / 60).round().tolist()


def loudness(inputs):
    """Return the level in the middle of each window, in doublings of the lowest."""
    power = inputs.input_features[:, 0, :, 24:40].amax(1).mean(-1)
    return ((power - power.min()) / (2 * np.log10(2))).round().tolist()


class TestArrays:
    def test_image_and_audio(self, processor):
        inputs = processor(images=IMAGES[0], audio=WAVEFORMS[0], sampling_rate=RATE)
        assert set(inputs) == {"pixel_values", "input_features"}
        assert torch.equal(inputs.pixel_values, processor.image_processor(IMAGES[0]).pixel_values)
        assert_close(
            inputs.input_features, processor.feature_extractor(WAVEFORMS[0], sampling_rate=RATE).input_features
        )

    @pytest.mark.parametrize("images", [IMAGES, list(IMAGES), torch.from_numpy(IMAGES).permute(0, 3, 1, 2)])
    @pytest.mark.parametrize("audio", [list(WAVEFORMS), WAVEFORMS[:, None], [torch.from_numpy(s) for s in WAVEFORMS]])
    def test_batches(self, processor, images, audio):
        inputs = processor(images=images, audio=audio, sampling_rate=RATE)
        assert set(inputs) == {"pixel_values", "input_features"}
        assert inputs.pixel_values.shape == (3, 3, 32, 48)
        assert inputs.input_features.shape == (3, 1, 64, 64)
        alone = processor(images=IMAGES[2], audio=WAVEFORMS[2], sampling_rate=RATE)
        assert torch.equal(inputs.pixel_values[2:], alone.pixel_values)
        assert_close(inputs.input_features[2:], alone.input_features)

    def test_one_modality(self, processor):
        assert set(processor(images=IMAGES)) == {"pixel_values"}
        assert set(processor(audio=WAVEFORMS[0], sampling_rate=RATE)) == {"input_features"}
        assert set(processor(images=[None, None], audio=list(WAVEFORMS[:2]), sampling_rate=RATE)) == {"input_features"}

    def test_samples_with_a_missing_modality(self, processor):
        inputs = processor(images=[None, IMAGES[1], IMAGES[2]], audio=[*WAVEFORMS[:2], None], sampling_rate=RATE)
        assert set(inputs) == {"pixel_values", "input_features", "image_present", "audio_present"}
        assert inputs.image_present.tolist() == [False, True, True]
        assert inputs.audio_present.tolist() == [True, True, False]
        assert inputs.image_present.dtype == torch.bool
        assert inputs.pixel_values[0].abs().max() == 0
        assert inputs.input_features[2].abs().max() == 0
        assert torch.equal(inputs.pixel_values[1:], processor(images=IMAGES[1:]).pixel_values)
        assert_close(inputs.input_features[:2], processor(audio=list(WAVEFORMS[:2]), sampling_rate=RATE).input_features)

    def test_image_models_use_the_middle_frame(self, processor):
        inputs = processor(videos=IMAGES, audio=WAVEFORMS[0], sampling_rate=RATE)
        assert torch.equal(inputs.pixel_values, processor(images=IMAGES[1]).pixel_values)
        several = processor(videos=[IMAGES, IMAGES[:1]])
        assert torch.equal(several.pixel_values, processor(images=IMAGES[[1, 0]]).pixel_values)

    def test_video_models(self, video_processor):
        inputs = video_processor(videos=[IMAGES, None], audio=list(WAVEFORMS[:2]), sampling_rate=RATE)
        assert inputs.pixel_values.shape == (2, 4, 3, 32, 48)
        assert inputs.image_present.tolist() == [True, False]
        assert torch.equal(inputs.pixel_values[:1], video_processor.video_processor(IMAGES).pixel_values)

    def test_video_models_repeat_an_image(self, video_processor):
        inputs = video_processor(images=[IMAGES[0], IMAGES[1]])
        assert inputs.pixel_values.shape == (2, 4, 3, 32, 48)
        assert (inputs.pixel_values == inputs.pixel_values[:, :1]).all()

    def test_returns_numpy_arrays(self, processor):
        inputs = processor(images=[IMAGES[0], None], audio=list(WAVEFORMS[:2]), sampling_rate=RATE, return_tensors="np")
        assert {type(value) for value in inputs.values()} == {np.ndarray}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "Expected images, videos or audio, got none"),
            ({"images": [None], "audio": [None]}, "got none"),
            ({"images": IMAGES, "audio": list(WAVEFORMS[:2])}, "as many waveforms as images or videos, got 2 and 3"),
            ({"images": IMAGES, "videos": IMAGES}, "images or videos, got both"),
            ({"images": IMAGES, "timestamps": [1.0]}, "Expected files .* with timestamps or num_clips"),
            ({"videos": IMAGES, "num_clips": 2}, "Expected files .* with timestamps or num_clips"),
            ({"videos": ["clip.mp4"], "images": IMAGES}, "no images with video files"),
            ({"audio": np.array([np.nan])}, "NaN or infinite"),
            ({"videos": np.zeros((0, 30, 40, 3), np.uint8)}, "Expected a video with at least one frame, got none"),
            ({"videos": [np.zeros((2, 30, 40, 3), np.uint8), []]}, "Expected a video with at least one frame"),
            ({"videos": np.zeros((0, 2, 30, 40, 3), np.uint8)}, "Expected at least one video"),
        ],
    )
    def test_invalid_arguments_raise(self, processor, video_processor, arguments, message):
        for either in (processor, video_processor):
            with pytest.raises(ValueError, match=message):
                either(sampling_rate=RATE, **arguments)

    def test_absent_files_raise(self, processor):
        for arguments in ({"images": "clip.mp4"}, {"videos": "clip.mp4", "audio": WAVEFORMS[0]}, {"audio": "clip.mp4"}):
            with pytest.raises(MediaError, match="clip.mp4: expected a media file, but there is no such file"):
                processor(**arguments)

    def test_processor_for_audio_alone(self):
        processor = DeepAVFusionProcessor(DeepAVFusionFeatureExtractor())
        assert set(processor(audio=WAVEFORMS[0], sampling_rate=RATE)) == {"input_features"}
        with pytest.raises(ValueError, match="Expected an image_processor or video_processor"):
            processor(images=IMAGES)


class TestFiles:
    def test_both_streams(self, processor, files):
        inputs = processor(videos=files.both)
        assert set(inputs) == {"pixel_values", "input_features"}
        assert inputs.pixel_values.shape == (1, 3, 32, 48)
        assert inputs.input_features.shape == (1, 1, 64, 64)
        clip = load_clip(files.both, seconds=1.0)
        expected = processor(images=clip.frames[0], audio=clip.waveform, sampling_rate=clip.sampling_rate)
        assert torch.equal(inputs.pixel_values, expected.pixel_values)
        assert_close(inputs.input_features, expected.input_features)

    def test_paths_bytes_and_file_objects(self, processor, files, tmp_path):
        reference = processor(videos=files.both, timestamps=1.5)
        content = (tmp_path / files.both).read_bytes()
        for same in (tmp_path / files.both, content, bytearray(content), io.BytesIO(content), [files.both]):
            times = [1.5] if isinstance(same, list) else 1.5
            inputs = processor(videos=same, timestamps=times)
            assert torch.equal(inputs.pixel_values, reference.pixel_values)
            assert torch.equal(inputs.input_features, reference.input_features)

    def test_timestamps(self, processor, files):
        inputs = processor(videos=files.both, timestamps=[0.5, 1.5, 3.5])
        assert seconds_of_frames(processor, inputs) == [0, 1, 3]
        assert loudness(inputs) == [0, 1, 3]
        several = processor(videos=[files.both, files.other], timestamps=[2.5, [0.5, 1.5]])
        assert seconds_of_frames(processor, several) == [2, 0, 1]
        assert loudness(several) == [2, 0, 1]

    def test_default_timestamp_is_the_middle(self, processor, files):
        inputs = processor(videos=[files.both, files.other], timestamps=[None, 0.5])
        assert torch.equal(inputs.pixel_values[0], processor(videos=files.both).pixel_values[0])
        assert seconds_of_frames(processor, inputs)[0] in (1, 2)

    def test_num_clips(self, processor, files):
        inputs = processor(videos=[files.both, files.other], num_clips=4)
        assert inputs.pixel_values.shape == (8, 3, 32, 48)
        assert inputs.input_features.shape == (8, 1, 64, 64)
        assert seconds_of_frames(processor, inputs)[:4] == [0, 1, 2, 3]
        assert loudness(inputs)[:4] == [0, 1, 2, 3]
        alone = processor(videos=files.other, num_clips=4)
        assert torch.equal(inputs.pixel_values[4:], alone.pixel_values)

    def test_frames_of_video_models(self, files):
        # A window of 4 s with one frame per second.
        config = DeepAVFusionConfig(image_size=32, num_frames=4, spectrogram_length=256)
        processor = DeepAVFusionProcessor.from_config(config)
        inputs = processor(videos=files.both)
        assert inputs.pixel_values.shape == (1, 4, 3, 32, 32)
        assert seconds_of_frames(processor, inputs) == [[0, 1, 2, 3]]

    def test_files_with_a_missing_stream(self, processor, files):
        assert set(processor(videos=files.silent)) == {"pixel_values"}
        assert set(processor(videos=files.audio)) == {"input_features"}
        inputs = processor(videos=[files.silent, files.both, files.audio])
        assert inputs.image_present.tolist() == [True, True, False]
        assert inputs.audio_present.tolist() == [False, True, True]
        dense = processor(videos=[files.both, files.audio], num_clips=2)
        assert dense.image_present.tolist() == [True, True, False, False]
        assert "audio_present" not in dense

    def test_unreadable_files_raise(self, processor, files, tmp_path):
        text = tmp_path / "notes.mp4"
        text.write_text("no video")
        with pytest.raises(MediaError, match="notes.mp4"):
            processor(videos=[files.both, str(text)])
        with pytest.raises(MediaError, match="absent.mp4"):
            processor(videos=tmp_path / "absent.mp4", num_clips=2)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"timestamps": [1.0], "num_clips": 2}, "timestamps or num_clips, got both"),
            ({"num_clips": 0}, "num_clips of at least 1, got 0"),
            ({"timestamps": []}, "at least one timestamp"),
        ],
    )
    def test_invalid_windows_raise(self, processor, files, arguments, message):
        with pytest.raises(ValueError, match=message):
            processor(videos=files.both, **arguments)

    @pytest.mark.parametrize("timestamps", [1.0, [1.0], [1.0, 2.0, 3.0]])
    def test_other_numbers_of_timestamps_than_files_raise(self, processor, files, timestamps):
        with pytest.raises(ValueError, match="each of 2 files"):
            processor(videos=[files.both, files.other], timestamps=timestamps)

    def test_real_videos(self, processor):
        clips = sorted((SHARED.parent / "media" / "free").glob("*.mp4"))
        if not clips:
            pytest.skip("real videos are only in the shared folder beside the project")
        inputs = processor(videos=clips[:2])
        assert inputs.pixel_values.shape == (2, 3, 32, 48)
        assert inputs.pixel_values.std() > 0.05
        assert inputs.input_features.isfinite().all()


class TestConfiguration:
    def test_from_config(self):
        processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
        assert processor.image_processor.output_size == (224, 224)
        assert processor.video_processor is None
        assert processor.num_frames == 1
        assert processor.feature_extractor.seconds == 3.0
        tiny = DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**TINY, num_frames=4), crop_pct=1.0)
        assert tiny.image_processor is None
        assert tiny.visual_processor.output_size == (32, 48)
        assert tiny.visual_processor.crop_pct == 1.0
        assert tiny.num_frames == 4
        assert tiny.feature_extractor.num_mel_bins == 64

    @pytest.mark.parametrize("model_class", MODEL_CLASSES)
    def test_from_model(self, model_class):
        """Models of dense predictions use the whole short side, also if only their class is given."""
        model = make_model(model_class)
        dense = model_class in (DeepAVFusionForSemanticSegmentation, DeepAVFusionForSoundLocalization)
        expected = DeepAVFusionProcessor.from_config(model.config, **({"crop_pct": 1.0} if dense else {}))
        assert expected.visual_processor.crop_pct == (1.0 if dense else 0.875)
        for processor in (
            DeepAVFusionProcessor.from_model(model),
            DeepAVFusionProcessor.from_model(model_class, model.config),
        ):
            assert processor.to_dict() == expected.to_dict()
        with pytest.raises(TypeError, match=rf"or the class {model_class.__name__} with config=\.\.\., got no config"):
            DeepAVFusionProcessor.from_model(model_class)

    @pytest.mark.parametrize("options", [{"num_channels": 1}, {"num_channels": 4, "num_frames": 4}])
    def test_models_of_other_images_than_rgb_are_refused(self, options):
        config = DeepAVFusionConfig(**TINY, **options)
        with pytest.raises(ValueError, match=f"num_channels=3, got num_channels={options['num_channels']}"):
            DeepAVFusionProcessor.from_config(config)
        with pytest.raises(ValueError, match="Expected a model of RGB images"):
            DeepAVFusionProcessor.from_model(MODEL_CLASSES[0], config)

    def test_from_config_of_another_class(self):
        """Remote code may load the configuration from another copy of its module."""
        values = {"image_size": 32, "num_channels": 3, "num_frames": 1, "num_mel_bins": 64, "spectrogram_length": 64}
        assert DeepAVFusionProcessor.from_config(SimpleNamespace(**values)).visual_processor.output_size == (32, 32)

    def test_parts_of_other_classes_raise(self):
        with pytest.raises(TypeError, match="for feature_extractor, got DeepAVFusionImageProcessor"):
            DeepAVFusionProcessor(DeepAVFusionImageProcessor())
        with pytest.raises(TypeError, match="for feature_extractor, got NoneType"):
            DeepAVFusionProcessor(None)
        with pytest.raises(TypeError, match="for image_processor, got DeepAVFusionFeatureExtractor"):
            DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(), DeepAVFusionFeatureExtractor())
        with pytest.raises(TypeError, match="for video_processor, got DeepAVFusionImageProcessor"):
            DeepAVFusionProcessor(DeepAVFusionFeatureExtractor(), None, DeepAVFusionImageProcessor())

    def test_public_names(self):
        names = ["Processor", "FeatureExtractor", "ImageProcessor", "VideoProcessor"]
        for name in [*(f"DeepAVFusion{name}" for name in names), "MediaError", "load_clip"]:
            assert hasattr(deepavfusion, name)
            assert name in deepavfusion.__all__


PARTS = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "image and video": ("image_processor", "video_processor"),
    "audio": (),
}


def make(parts):
    made = {
        "image_processor": DeepAVFusionImageProcessor(size=[32, 48], crop_pct=0.5),
        "video_processor": DeepAVFusionVideoProcessor(size=16, num_frames=2),
    }
    extractor = DeepAVFusionFeatureExtractor(num_mel_bins=64, spectrogram_length=64)
    return DeepAVFusionProcessor(extractor, **{name: made[name] for name in parts})


def assert_same(first, second):
    arguments = {"audio": WAVEFORMS[0], "sampling_rate": RATE}
    assert_close(first(**arguments).input_features, second(**arguments).input_features, rtol=0, atol=0)
    for name in ("image_processor", "video_processor"):
        parts = [getattr(processor, name) for processor in (first, second)]
        assert (parts[0] is None) == (parts[1] is None)
        if parts[0] is not None:
            assert torch.equal(*(part(IMAGES).pixel_values for part in parts))


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
class TestSaving:
    @pytest.mark.parametrize("load", [DeepAVFusionProcessor.from_pretrained, AutoProcessor.from_pretrained])
    def test_save_and_load(self, parts, load, tmp_path):
        processor = make(parts)
        processor.save_pretrained(tmp_path)
        stored = json.loads((tmp_path / "processor_config.json").read_text())
        assert {name for name in stored if name.endswith("_processor")} == set(parts)
        if load == AutoProcessor.from_pretrained:
            DeepAVFusionConfig(**TINY).save_pretrained(tmp_path)
        loaded = load(tmp_path)
        assert type(loaded) is DeepAVFusionProcessor
        assert_same(loaded, processor)
        loaded.save_pretrained(tmp_path / "again")
        again = json.loads((tmp_path / "again" / "processor_config.json").read_text())
        assert again == stored
        assert_same(load.__self__.from_pretrained(tmp_path), loaded)

    @pytest.mark.parametrize("load", [DeepAVFusionProcessor.from_pretrained, AutoProcessor.from_pretrained])
    def test_return_presence_is_saved(self, parts, load, tmp_path):
        """Only where it is True: the files of other processors are those of earlier versions."""
        processor = make(parts)
        for value in (False, True, False):
            processor.return_presence = value
            processor.save_pretrained(tmp_path)
            DeepAVFusionConfig(**TINY).save_pretrained(tmp_path)
            stored = json.loads((tmp_path / "processor_config.json").read_text())
            assert stored.get("return_presence", "absent") == (True if value else "absent")
            assert load(tmp_path).return_presence is value
            for other in (True, False):
                loaded = load(tmp_path, return_presence=other)
                assert loaded.return_presence is other
                assert ("audio_present" in loaded(audio=WAVEFORMS[0], sampling_rate=RATE)) == other

    def test_code_is_saved(self, parts, tmp_path):
        make(parts).save_pretrained(tmp_path)
        code = {path.name for path in Path(deepavfusion.processors.__file__).parent.glob("*_deepavfusion.py")}
        assert {path.name for path in tmp_path.iterdir()} == {"processor_config.json"} | code

    def test_copies_and_pickles(self, parts, tmp_path):
        processor = make(parts)
        processor.save_pretrained(tmp_path)  # must leave no attribute that cannot be copied
        for same in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
            assert_same(same, processor)
        assert "DeepAVFusionProcessor" in repr(processor)

    def test_input_names(self, parts):
        expected = {"input_features"} | ({"pixel_values"} if parts else set())
        assert set(make(parts).model_input_names) == expected


def test_auto_classes_load_the_parts(tmp_path):
    make(("image_processor", "video_processor")).save_pretrained(tmp_path)
    DeepAVFusionConfig(**TINY).save_pretrained(tmp_path)
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path)) is DeepAVFusionFeatureExtractor
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is DeepAVFusionImageProcessor
    assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is DeepAVFusionVideoProcessor


def test_from_pretrained_overrides_settings(tmp_path):
    make(("image_processor", "video_processor")).save_pretrained(tmp_path)
    loaded = DeepAVFusionProcessor.from_pretrained(tmp_path, crop_pct=1.0, num_frames=4, num_mel_bins=32)
    assert loaded.image_processor.crop_pct == loaded.video_processor.crop_pct == 1.0
    assert loaded.num_frames == 4
    assert loaded.feature_extractor.num_mel_bins == 32
    assert loaded.feature_extractor.spectrogram_length == 64


def test_folders_without_a_processor_raise(tmp_path):
    (tmp_path / "processor_config.json").write_text('{"processor_class": "DeepAVFusionProcessor"}')
    with pytest.raises(OSError, match="with a feature_extractor"):
        DeepAVFusionProcessor.from_pretrained(tmp_path)


LOAD_PARTS = """
import sys
import numpy as np
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor

images = np.zeros((3, 40, 60, 3), np.uint8)
for auto, arguments in (
    (AutoFeatureExtractor, {"audio": np.zeros(16000), "sampling_rate": 16000}),
    (AutoImageProcessor, {"images": images}),
    (AutoVideoProcessor, {"videos": images}),
):
    part = auto.from_pretrained(sys.argv[1], trust_remote_code=True)
    print(type(part).__name__, *(tuple(value.shape) for value in part(**arguments).values()))
"""


def test_parts_load_without_this_package(tmp_path):
    make(("image_processor", "video_processor")).save_pretrained(tmp_path / "processor")
    printed = run_isolated(LOAD_PARTS, str(tmp_path / "processor"), home=tmp_path / "home").splitlines()
    assert printed == [
        "DeepAVFusionFeatureExtractor (1, 1, 64, 64)",
        "DeepAVFusionImageProcessor (3, 3, 32, 48)",
        "DeepAVFusionVideoProcessor (1, 2, 3, 16, 16)",
    ]


WITHOUT_OPTIONAL_PACKAGES = """
import numpy as np
from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor

processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
print(tuple(processor(images=np.zeros((40, 60, 3), np.uint8)).pixel_values.shape))
for arguments in ({"audio": np.zeros(16000), "sampling_rate": 16000}, {"videos": b"clip"}):
    try:
        processor(**arguments)
    except ImportError as error:
        print(error)
"""


def test_without_optional_packages(tmp_path):
    hidden = ("torchvision", "PIL", "av", "torchaudio")
    shape, audio, file = run_python(WITHOUT_OPTIONAL_PACKAGES, home=tmp_path, hidden=hidden).splitlines()
    assert shape == "(1, 3, 224, 224)"
    assert "pip install torchaudio" in audio
    assert "pip install av" in file
