"""transformers' own common tests of processors, for every class of the package.

Tests of tokenizers and chat templates skip themselves: there is no text.
"""

import pytest

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionFeatureExtractor,
    DeepAVFusionImageProcessor,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
)

from .transformers_suite import build_tests, load_mixin, missing_source

pytestmark = pytest.mark.ecosystem

# Tests that do not apply, and why.
_TEXT = "passes text, which is refused"
_ONE = "asks for image and video processor: a processor has one of them, that of its model"
OF_PROCESSORS = {
    "test_model_input_names": _TEXT,
    "test_flat_kwarg_applied_when_modality_dict_lacks_it": _TEXT,
    "test_processor_with_multiple_inputs": "passes images and videos, which are the same input of the model",
    "test_save_load_pretrained_additional_features": _ONE,
}
OF_IMAGES = {"test_call_numpy_4_channels": "passes four means and deviations; models take three channels"}
OF_VIDEOS = {
    "test_call_sample_frames": "passes fps, and expects all frames of a video; models take num_frames",
    "test_video_processor_from_dict_with_kwargs": "expects one number as size to be the shortest edge, not both sides",
}


def processor_tests(name: str, reasons: dict[str, str], **fields) -> type:
    """Build the test case of processors for models with fields of their configuration."""

    def build(cls):
        return DeepAVFusionProcessor.from_config(DeepAVFusionConfig(**fields))

    def get_component(self, attribute, use_tiny_ckpt=True, **options):
        return getattr(DeepAVFusionProcessor.from_pretrained(self.tmpdirname, **options), attribute)

    given = {
        "processor_class": DeepAVFusionProcessor,
        "_setup_from_components": classmethod(build),
        "get_component": get_component,
    }
    return build_tests(name, load_mixin("test_processing_common", "ProcessorTesterMixin"), given, reasons)


def image_tests() -> type:
    """Build the test case of image processors."""
    common = "test_image_processing_common"

    def get_classes(self):
        return {"torchvision": DeepAVFusionImageProcessor}

    def set_up(self, parent):
        tester.__init__(self, parent, size={"height": 32, "width": 32})

    tester = load_mixin(common, "ImageProcessingTester")
    own = type("Tester", (tester,), {"__init__": set_up, "_get_image_processing_classes": get_classes})
    given = {"image_processor_tester_class": own}
    return build_tests("TestImageProcessor", load_mixin(common, "ImageProcessingTestMixin"), given, OF_IMAGES)


class VideoTester:
    """What the common tests ask of tests of video processors: inputs, and the sizes of outputs."""

    batch_size, num_frames, num_channels = 3, 8, 3
    settings = {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}, "num_frames": 4}

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        prepare = load_mixin("test_video_processing_common", "prepare_video_inputs")
        return prepare(self.batch_size, self.num_frames, self.num_channels, 30, 80, equal_resolution, return_tensors)

    def expected_output_video_shape(self, videos):
        return (self.settings["num_frames"], 3, *self.settings["crop_size"].values())


def video_tests() -> type:
    """Build the test case of video processors."""
    given = {
        "fast_video_processing_class": DeepAVFusionVideoProcessor,
        "input_name": "pixel_values",
        "video_processor_dict": VideoTester.settings,
        "video_processor_tester": property(lambda self: self.__dict__.setdefault("tester", VideoTester())),
    }
    mixin = load_mixin("test_video_processing_common", "VideoProcessingTestMixin")
    return build_tests("TestVideoProcessor", mixin, given, OF_VIDEOS)


def audio_tests() -> type:
    """Build the test case of feature extractors."""
    given = {"feature_extraction_class": DeepAVFusionFeatureExtractor, "feat_extract_dict": {"num_mel_bins": 64}}
    mixin = load_mixin("test_feature_extraction_common", "FeatureExtractionSavingTestMixin")
    return build_tests("TestFeatureExtractor", mixin, given, {})


if reason := missing_source():

    @pytest.mark.skip(reason=reason)
    def test_common_tests_of_processors():
        """Stands for all of them."""

else:
    TestProcessorOfImages = processor_tests(
        "TestProcessorOfImages", {**OF_PROCESSORS, "test_subprocessor_defaults_2_videos": _ONE}
    )
    TestProcessorOfVideos = processor_tests(
        "TestProcessorOfVideos",
        {**OF_PROCESSORS, "test_subprocessor_defaults_1_images": _ONE, "test_args_overlap_kwargs": _ONE},
        num_frames=4,
    )
    TestImageProcessor = image_tests()
    TestVideoProcessor = video_tests()
    TestFeatureExtractor = audio_tests()
