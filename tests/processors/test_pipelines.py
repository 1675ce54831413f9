"""Pipelines of the five tasks."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import AutoModel, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
    MediaError,
    load_clip,
)
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from tests.isolated import OPTIONAL, run_isolated
from tests.media_factory import paint_gradients, write_kinds
from tests.modeling_deepavfusion.cases import make_model, save_model
from tests.processors.torchcodec_stand_ins import AudioDecoder, as_datasets_returns

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*")

CLASSIFY, SEPARATE, SEGMENT = (
    "audio-visual-classification",
    "audio-visual-source-separation",
    "audio-visual-segmentation",
)
LOCALIZE, EXTRACT = "sound-source-localization", "audio-visual-feature-extraction"
MODELS = {
    CLASSIFY: (DeepAVFusionForAudioVisualClassification, {"num_labels": 4}),
    SEPARATE: (DeepAVFusionForSourceSeparation, {}),
    SEGMENT: (DeepAVFusionForSemanticSegmentation, {"num_labels": 3, "hidden_size": 128}),
    LOCALIZE: (DeepAVFusionForSoundLocalization, {}),
    EXTRACT: (DeepAVFusionModel, {}),
}
NEEDS = {CLASSIFY: "any", SEPARATE: "both", SEGMENT: "image", LOCALIZE: "image", EXTRACT: "any"}
RATE = 22050
each_task = pytest.mark.parametrize("task", MODELS)
MEDIA = Path(__file__).parents[2] / ".." / "shared" / "media" / "vggsound" / "clips"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models with their processors, and files with both streams, audio alone, images alone, and text."""
    folder = tmp_path_factory.mktemp("pipelines")
    for seed, (task, (model_class, overrides)) in enumerate(MODELS.items()):
        save_model(folder / task, model_class, seed=seed, **overrides)
    write_kinds(folder, seconds=5.1, sound_seconds=5.13, silent_seconds=2.0, rate=RATE, picture="image.png")
    return folder


@pytest.fixture(scope="module")
def pipes(folder):
    return {task: pipeline(task, model=str(folder / task), device="cpu") for task in MODELS}


def assert_same(found, expected, **tolerance):
    """Assert that nested results are equal; with a tolerance, one in a thousand pixels of a mask may differ."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value, **tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, **tolerance)
    elif isinstance(expected, str) or expected is None:
        assert found == expected
    else:
        tensors = [torch.as_tensor(value) for value in (found, expected)]
        if tolerance and tensors[1].dtype == torch.long and tensors[1].ndim == 2:
            assert (tensors[0] != tensors[1]).float().mean() <= 1e-3
            return
        assert_close(*tensors, **{"rtol": 1e-4, "atol": 1e-5, **tolerance})


def run(pipe, **inputs):
    with torch.no_grad():
        return pipe.model(**inputs)


class Column:
    """A sequence that is no list, as columns of `datasets` are."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)


class TestEveryPipeline:
    @each_task
    def test_values_of_datasets_and_sequences_are_files(self, pipes, folder, task):
        pipe, path = pipes[task], str(folder / "clip.mov")
        expected = pipe(path)
        values = [{"path": path, "bytes": None}, {"path": None, "bytes": Path(path).read_bytes()}]
        decoder = as_datasets_returns(AudioDecoder(path), path)
        for same in (*values, decoder, f"file://{path}"):
            assert_same(pipe(same), expected)
        for same in (Column([path, decoder]), np.array([path, path]), tuple(values), Column(values)):
            assert_same(pipe(same), [expected, expected])
        assert pipe(Column([])) == []

    @each_task
    def test_files_as_image_and_audio(self, pipes, folder, task):
        """They are the same as what they contain."""
        pipe, image, path = pipes[task], str(folder / "image.png"), str(folder / "sound.wav")
        clip = load_clip(path, seconds=10.0)
        arrays = {"image": Image.open(image), "audio": clip.waveform, "sampling_rate": clip.sampling_rate}
        expected = pipe(arrays)
        decoder = AudioDecoder(path)
        array = {"array": clip.waveform, "sampling_rate": clip.sampling_rate, "path": path}
        for audio in (path, Path(path), Path(path).read_bytes(), {"path": path, "bytes": None}, decoder, array):
            assert_same(pipe({"image": {"path": image, "bytes": None}, "audio": audio}), expected)
        assert_same(pipe({"image": image, "audio": path, "sampling_rate": clip.sampling_rate}), expected)
        with pytest.raises(ValueError, match="one sampling rate, got 22050"):
            pipe({"image": image, "audio": path, "sampling_rate": 8000})

    @each_task
    def test_is_registered(self, task):
        _, registered, _ = PIPELINE_REGISTRY.check_task(task)
        assert registered["impl"] is pipelines()[task]
        assert [auto.__name__ for auto in registered["pt"]] == [pipelines()[task].auto_class]
        assert pipelines()[task].model_name == MODELS[task][0].__name__

    @each_task
    def test_forms_of_a_file_are_equivalent(self, pipes, folder, task):
        pipe, path = pipes[task], folder / "clip.mov"
        expected = pipe(str(path))
        assert_same(pipe(path), expected)
        assert_same(pipe(path.read_bytes()), expected)
        assert_same(pipe(io.BytesIO(path.read_bytes())), expected)
        with open(path, "rb") as file:
            assert_same(pipe(file), expected)

    @each_task
    def test_lists_tuples_and_generators(self, pipes, folder, task):
        pipe, path = pipes[task], str(folder / "clip.mov")
        expected = pipe(path)
        assert_same(pipe([path, path]), [expected] * 2)
        assert_same(pipe((path, path)), [expected] * 2)
        stream = pipe(item for item in [path, path])
        assert not isinstance(stream, list)
        assert_same(list(stream), [expected] * 2)
        assert pipe([]) == []

    @each_task
    def test_batched_results_are_equal(self, pipes, folder, task):
        """Files of a batch may differ in their streams and their number of windows."""
        pipe = pipes[task]
        names = {"any": ("clip.mov", "sound.wav", "silent.mp4"), "image": ("clip.mov", "silent.mp4")}
        files = [str(folder / name) for name in names.get(NEEDS[task], ("clip.mov",))] + [str(folder / "clip.mov")]
        options = {"frames": [0.5, 3.0]} if task == SEPARATE else {"num_clips": 3}
        expected = [pipe(file, **options) for file in files]
        for size in (2, 3, 16):
            assert_same(pipe(files, batch_size=size, **options), expected, atol=1e-4)

    @each_task
    def test_missing_modalities(self, pipes, folder, task):
        pipe, needs = pipes[task], NEEDS[task]
        for name, modality in (("sound.wav", "audio"), ("silent.mp4", "image")):
            if needs in ("any", modality):
                assert pipe(str(folder / name))
            else:
                with pytest.raises(MediaError, match=name):
                    pipe(str(folder / name))

    @each_task
    @pytest.mark.parametrize("name", ["text.mp4", "absent.mp4"])
    def test_unreadable_files_raise(self, pipes, folder, task, name):
        with pytest.raises(MediaError, match=name):
            pipes[task](str(folder / name))
        with pytest.raises(MediaError, match=name):
            pipes[task]([str(folder / "clip.mov"), str(folder / name)], batch_size=2)

    @each_task
    def test_other_inputs_raise(self, pipes, task):
        with pytest.raises(TypeError, match="Expected a media file .*, got int"):
            pipes[task](7)
        with pytest.raises(ValueError, match="Expected a mapping with image, audio, sampling_rate, got 'video'"):
            pipes[task]({"video": "clip.mp4"})

    @each_task
    def test_unknown_parameters_raise(self, pipes, folder, task):
        with pytest.raises(TypeError, match=r"Unknown parameters of \w+Pipeline: topk\. Valid parameters: "):
            pipes[task](str(folder / "clip.mov"), topk=3)

    @each_task
    def test_from_loaded_model_and_processor(self, pipes, folder, task):
        model = MODELS[task][0].from_pretrained(folder / task).train()
        pipe = pipeline(task, model=model, processor=pipes[task].processor, device="cpu")
        assert not model.training
        assert_same(pipe(str(folder / "clip.mov")), pipes[task](str(folder / "clip.mov")))

    def test_missing_processor_raises(self, folder, tmp_path):
        make_model(DeepAVFusionModel).save_pretrained(tmp_path / "alone")
        with pytest.raises(OSError, match=r"Expected a processor_config\.json .*alone"):
            pipeline(EXTRACT, model=str(tmp_path / "alone"))

    def test_checkpoints_of_other_tasks_warn(self, folder, recwarn):
        """Transformers initializes a random head, which may be trained afterward, so that it does not raise."""
        with pytest.warns(UserWarning, match="saved as DeepAVFusionForSourceSeparation, not as .*SoundLocalization"):
            pipeline(LOCALIZE, model=str(folder / SEPARATE), device="cpu")
        recwarn.clear()
        for task in (LOCALIZE, EXTRACT):
            pipeline(task, model=str(folder / LOCALIZE), device="cpu")
        model = MODELS[LOCALIZE][0].from_pretrained(folder / SEPARATE, localization_map="attention")
        pipeline(LOCALIZE, model=model, processor=str(folder / LOCALIZE), device="cpu")
        assert not [warning for warning in recwarn if "saved as" in str(warning.message)]

    def test_models_of_other_tasks_raise(self, folder):
        model = MODELS[SEPARATE][0].from_pretrained(folder / SEPARATE)
        with pytest.raises(ValueError, match="Expected a DeepAVFusionForAudioVisualClassification .*ForSourceSep"):
            pipeline(CLASSIFY, model=model, processor=str(folder / SEPARATE))

    @each_task
    def test_half_precision(self, folder, task):
        pipe = pipeline(task, model=str(folder / task), dtype=torch.bfloat16, device="cpu")
        assert pipe.dtype == torch.bfloat16
        assert pipe(str(folder / "clip.mov"))

    @pytest.mark.parametrize("task", [CLASSIFY, LOCALIZE, EXTRACT])
    def test_video_models(self, folder, task):
        model_class, overrides = MODELS[task]
        model = make_model(model_class, num_frames=4, **overrides)
        pipe = pipeline(task, model=model, processor=DeepAVFusionProcessor.from_config(model.config), device="cpu")
        files = [str(folder / "clip.mov"), str(folder / "silent.mp4")]
        assert_same(pipe(files, batch_size=2), [pipe(file) for file in files])

    @each_task
    def test_real_clips(self, pipes, task):
        clips = sorted(MEDIA.rglob("*.mp4"), key=lambda path: path.stat().st_size)[: 1 if task == SEPARATE else 2]
        if not clips:
            pytest.skip("needs the clips of shared/media/vggsound")
        found = pipes[task]([str(clip) for clip in clips], batch_size=4)
        assert len(found) == len(clips)
        if task == SEPARATE:
            for clip, result in zip(clips, found, strict=True):
                waveform = load_clip(clip, seconds=1000).waveform
                assert result["audio"].shape == waveform.shape[1:]


class TestWindows:
    @pytest.mark.parametrize("task", [SEGMENT, LOCALIZE, EXTRACT])
    def test_several_timestamps(self, pipes, folder, task):
        pipe, path = pipes[task], str(folder / "clip.mov")
        several = pipe(path, timestamps=[1.0, 4.0], batch_size=2)
        single = [pipe(path, timestamps=time) for time in (1.0, 4.0)]
        if task == EXTRACT:
            several = [{name: rows[i] for name, rows in several.items()} for i in range(2)]
        assert_same(several, single)
        assert len(pipe(path, timestamps=[1.0]) if task != EXTRACT else pipe(path, timestamps=[1.0])["fusion"]) == 1

    @pytest.mark.parametrize("times", [(1.0, 4.0), np.array([1.0, 4.0]), torch.tensor([1.0, 4.0]), range(1, 5, 3)])
    def test_sequences_of_timestamps(self, pipes, folder, times):
        path = str(folder / "clip.mov")
        assert_same(pipes[SEGMENT](path, timestamps=times), pipes[SEGMENT](path, timestamps=[1.0, 4.0]))
        found = pipes[CLASSIFY](path, timestamps=times, return_timestamps=True)
        assert found["timestamps"] == [1.0, 4.0]

    def test_what_is_no_timestamp_is_refused(self, pipes, folder):
        for times in ("1.0", ["1.0"], True):
            with pytest.raises(TypeError, match="Expected timestamps as numbers of seconds, got "):
                pipes[CLASSIFY](str(folder / "clip.mov"), timestamps=times)

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_progress_counts_windows_whatever_their_tiles(self, pipes, folder, batch_size, monkeypatch):
        seen = []
        monkeypatch.setattr(pipes[CLASSIFY], "progress", seen.append)
        pipes[CLASSIFY](str(folder / "clip.mov"), num_clips=3, fit="tiles", batch_size=batch_size)
        assert len(seen) == 6 / batch_size
        assert sum(seen) == 3

    def test_num_clips(self, pipes, folder):
        found = pipes[SEGMENT](str(folder / "clip.mov"), num_clips=3)
        half = pipes[SEGMENT].processor.feature_extractor.seconds / 2
        assert [entry["timestamp"] for entry in found] == pytest.approx([half, 2.55, 5.1 - half], abs=0.05)
        for entry in found:
            frame = load_clip(folder / "clip.mov", entry["timestamp"]).frames[0]
            assert np.array_equal(entry["frame"], frame)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"timestamps": [1.0], "num_clips": 2}, "timestamps or num_clips, got both"),
            ({"num_clips": 0}, "num_clips of at least 1, got 0"),
            ({"timestamps": []}, "at least one timestamp"),
        ],
    )
    def test_invalid_windows_raise(self, pipes, folder, options, message):
        with pytest.raises(ValueError, match=message):
            pipes[CLASSIFY](str(folder / "clip.mov"), **options)
        with pytest.raises(ValueError, match="Expected a file with timestamps or num_clips, got a mapping"):
            pipes[CLASSIFY]({"image": paint_gradients(0.0)}, **options)

    def test_timestamps_beyond_the_file_raise(self, pipes, folder):
        with pytest.raises(MediaError, match=r"clip\.mov: expected a timestamp within .*, but got 9\.00 s"):
            pipes[CLASSIFY](str(folder / "clip.mov"), timestamps=9.0)


class TestArrays:
    """Images and audio in memory instead of a file."""

    @pytest.mark.parametrize("task", [CLASSIFY, SEGMENT, LOCALIZE, EXTRACT])
    def test_results_equal_those_of_the_file(self, pipes, folder, task):
        pipe = pipes[task]
        clip = load_clip(folder / "clip.mov", seconds=pipe.processor.feature_extractor.seconds)
        arrays = {"image": clip.frames[0], "audio": clip.waveform, "sampling_rate": clip.sampling_rate}
        expected = pipe(str(folder / "clip.mov"))
        if task in (SEGMENT, LOCALIZE):
            expected["timestamp"] = None
        assert_same(pipe(arrays), expected)
        assert_same(pipe([{**arrays, "image": Image.fromarray(clip.frames[0])}] * 2, batch_size=2), [expected] * 2)

    def test_missing_keys_raise(self, pipes):
        with pytest.raises(ValueError, match="image or audio in the mapping, got none"):
            pipes[CLASSIFY]({"sampling_rate": 16000})
        with pytest.raises(ValueError, match="got 'images', 'audio'. Did you mean 'image' for 'images'?"):
            pipes[CLASSIFY]({"images": paint_gradients(0.0), "audio": np.zeros(16000, np.float32)})
        with pytest.raises(ValueError, match="Expected image in the mapping, got none"):
            pipes[SEGMENT]({"audio": np.zeros(16000, np.float32), "sampling_rate": 16000})
        with pytest.raises(ValueError, match="Expected audio in the mapping, got none"):
            pipes[SEPARATE]({"image": paint_gradients(0.0)})
        with pytest.raises(ValueError, match="Expected an image of the target source"):
            pipes[SEPARATE]({"audio": np.zeros(16000, np.float32), "sampling_rate": 16000})

    @pytest.mark.parametrize("task", [CLASSIFY, SEPARATE, SEGMENT, LOCALIZE, EXTRACT])
    def test_audio_without_a_sampling_rate_raises(self, pipes, task):
        item = {"image": paint_gradients(0.0), "audio": np.zeros(16000, np.float32)}
        with pytest.raises(ValueError, match="Expected sampling_rate, in Hz, beside audio in the mapping, got none"):
            pipes[task](item)

    @pytest.mark.parametrize("task", [CLASSIFY, SEPARATE, EXTRACT])
    def test_values_of_datasets_come_with_their_sampling_rate(self, pipes, task):
        waveform = np.sin(np.arange(44100) / 9).astype(np.float32) / 2
        item = {"image": paint_gradients(0.0), "audio": waveform, "sampling_rate": 44100}
        value = {"path": "a.wav", "array": waveform, "sampling_rate": 44100}
        assert_same(pipes[task]({"image": item["image"], "audio": value}), pipes[task](item))


class TestClassification:
    def test_scores(self, pipes, folder):
        pipe, path = pipes[CLASSIFY], str(folder / "clip.mov")
        logits = run(pipe, **pipe.processor(videos=path)).logits
        expected = pipe.processor.post_process_classification({"logits": logits}, 5, pipe.model.config.id2label)[0]
        found = pipe(path)
        assert_same(found, expected)
        assert sum(entry["score"] for entry in found) == pytest.approx(1)
        assert [entry["label"] for entry in pipe(path, top_k=2)] == [entry["label"] for entry in found[:2]]

    def test_logits_of_several_windows_are_averaged(self, pipes, folder):
        pipe, path = pipes[CLASSIFY], str(folder / "clip.mov")
        logits = run(pipe, **pipe.processor(videos=path, num_clips=4)).logits.mean(0)
        found = {entry["label"]: entry["score"] for entry in pipe(path, num_clips=4, top_k=None)}
        assert [found[f"LABEL_{i}"] for i in range(4)] == pytest.approx(logits.softmax(0).tolist(), rel=1e-4)

    def test_multi_label(self, pipes, folder):
        pipe, path = pipes[CLASSIFY], str(folder / "clip.mov")
        expected = pipe(path, multi_label=True)
        model = MODELS[CLASSIFY][0].from_pretrained(folder / CLASSIFY, problem_type="multi_label_classification")
        assert_same(pipeline(CLASSIFY, model=model, processor=pipe.processor, device="cpu")(path), expected)
        assert sum(entry["score"] for entry in expected) != pytest.approx(1)

    def test_a_single_label_has_a_probability(self, pipes, folder):
        model, path = make_model(MODELS[CLASSIFY][0], num_labels=1), str(folder / "clip.mov")
        pipe = pipeline(CLASSIFY, model=model, processor=pipes[CLASSIFY].processor, device="cpu")
        logit = run(pipe, **pipe.processor(videos=path)).logits.item()
        assert [entry["score"] for entry in pipe(path)] == pytest.approx([1 / (1 + np.exp(-logit))], rel=1e-4)

    def test_parameters_of_the_pipeline_are_defaults(self, folder):
        pipe = pipeline(CLASSIFY, model=str(folder / CLASSIFY), top_k=1, num_clips=2, batch_size=2)
        assert len(pipe(str(folder / "clip.mov"))) == 1
        assert len(pipe(str(folder / "clip.mov"), top_k=3)) == 3


class TestMaps:
    def test_segmentation(self, pipes, folder):
        pipe, path = pipes[SEGMENT], str(folder / "clip.mov")
        found = pipe(path)
        logits = run(pipe, **pipe.processor(videos=path)).logits
        (expected,) = pipe.processor.post_process_semantic_segmentation({"logits": logits}, [(48, 64)])
        assert found["mask"].shape == found["frame"].shape[:2] == (48, 64)
        assert np.array_equal(found["mask"], expected.numpy())
        assert found["frame"].dtype == np.uint8
        assert found["labels"] == {i: f"LABEL_{i}" for i in range(3) if (found["mask"] == i).any()}

    def test_segmentation_with_a_single_label(self, folder):
        model = make_model(MODELS[SEGMENT][0], hidden_size=128, num_labels=1)
        processor = DeepAVFusionProcessor.from_config(model.config, crop_pct=1.0)
        pipe = pipeline(SEGMENT, model=model, processor=processor, device="cpu")
        path = str(folder / "clip.mov")
        areas = [(pipe(path, threshold=threshold)["mask"] == 1).mean() for threshold in (0.0, 0.5, 0.999)]
        assert areas[0] > areas[2]
        assert pipe(path, threshold=0.0)["labels"] == {1: "sounding"}

    def test_localization(self, pipes, folder):
        pipe, path = pipes[LOCALIZE], str(folder / "clip.mov")
        found = pipe(path)
        logits = run(pipe, **pipe.processor(videos=path)).logits
        (expected,) = pipe.processor.post_process_sound_localization({"logits": logits}, [(48, 64)])
        assert found["heat_map"].shape == found["frame"].shape[:2] == (48, 64)
        assert_same(found["heat_map"], expected)
        assert 0 < found["score"] < 1
        raw = pipe(path, normalize=False)["heat_map"]
        assert raw.min() == pytest.approx(logits.min().item(), abs=1e-4)

    def test_localization_without_audio(self, pipes, folder):
        found = pipes[LOCALIZE](str(folder / "silent.mp4"))
        assert found["score"] == 0
        assert not found["heat_map"].any()


class TestFeatures:
    def test_features_of_the_streams(self, pipes, folder):
        pipe, path = pipes[EXTRACT], str(folder / "clip.mov")
        outputs = run(pipe, **pipe.processor(videos=path))
        expected = {
            "fusion": outputs.last_hidden_state[0],
            "image": outputs.image_last_hidden_state[0],
            "audio": outputs.audio_last_hidden_state[0],
        }
        assert_same(pipe(path, tokens=True), expected)
        assert_same(pipe(path), {name: tokens.mean(0) for name, tokens in expected.items()})
        for vector in pipe(path, normalize=True).values():
            assert vector.norm().item() == pytest.approx(1, abs=1e-5)
        assert pipe(path, num_clips=3)["image"].shape == (3, 32)

    def test_features_of_missing_modalities_are_omitted(self, pipes, folder):
        assert set(pipes[EXTRACT](str(folder / "sound.wav"))) == {"fusion", "audio"}
        both = pipes[EXTRACT]([str(folder / "silent.mp4"), str(folder / "clip.mov")], batch_size=2)
        assert [set(entry) for entry in both] == [{"fusion", "image"}, {"fusion", "image", "audio"}]

    def test_features_of_models_with_a_head(self, folder):
        found = pipeline(EXTRACT, model=str(folder / CLASSIFY), device="cpu")(str(folder / "clip.mov"))
        head = MODELS[CLASSIFY][0].from_pretrained(folder / CLASSIFY)
        pipe = pipeline(EXTRACT, model=head, processor=str(folder / CLASSIFY), device="cpu")
        assert_same(pipe(str(folder / "clip.mov")), found)


class TestSeparation:
    def test_sequences_of_frames(self, pipes, folder):
        pipe, path, image = pipes[SEPARATE], str(folder / "clip.mov"), str(folder / "image.png")
        expected = pipe(path, frames=[image, image])
        assert len(expected) == 2
        for frames in (iter([image, image]), np.array([image, image]), Column([{"path": image, "bytes": None}] * 2)):
            assert_same(pipe(path, frames=frames), expected)
        with pytest.raises(ValueError, match="at least one image as frames"):
            pipe(path, frames=[])

    @pytest.fixture
    def recording(self, folder):
        return load_clip(folder / "clip.mov", seconds=100).waveform

    def test_frames_of_the_windows_by_default(self, pipes, folder, recording):
        pipe = pipes[SEPARATE]
        processor = pipe.processor
        windows = processor.separation_windows(recording, RATE)
        assert len(windows.starts) > 4
        frames = [load_clip(folder / "clip.mov", time).frames[0] for time in windows.times]
        pixels = processor(images=frames).pixel_values
        logits = run(pipe, pixel_values=pixels, input_features=windows.input_features).logits
        (expected,) = processor.post_process_source_separation({"logits": logits}, [recording], RATE, windows.starts)
        found = pipe(str(folder / "clip.mov"))
        assert found["sampling_rate"] == RATE
        assert found["audio"].dtype == np.float32
        assert found["audio"].shape == recording.shape[1:] == (round(5.13 * RATE),)
        assert_same(found["audio"], expected)

    def test_several_frames(self, pipes, folder):
        pipe, path = pipes[SEPARATE], str(folder / "clip.mov")
        image = load_clip(folder / "image.png").frames[0]
        frames = [1.0, image, Image.fromarray(image), str(folder / "image.png")]
        found = pipe(path, frames=frames, batch_size=5)
        assert_same(found, [pipe(path, frames=frame) for frame in frames])
        assert_same(found[1:], [found[1]] * 3)
        assert not np.array_equal(found[0]["audio"], found[1]["audio"])
        assert_same(pipe(path, frames=[1.0]), found[:1])

    def test_consistent_sources_add_up_to_the_mixture(self, pipes, folder, recording):
        pipe, path = pipes[SEPARATE], str(folder / "clip.mov")
        found = pipe(path, frames=[0.5, 2.0, 4.5], consistency=True)
        mask = torch.full((1, 1, 32, 48), 100.0)
        starts = pipe.processor.separation_windows(recording, RATE).starts
        (mixture,) = pipe.processor.post_process_source_separation(
            {"logits": mask.expand(len(starts), -1, -1, -1)}, [recording], RATE, starts
        )
        assert_same(sum(entry["audio"] for entry in found), mixture, atol=1e-4)
        with pytest.raises(ValueError, match="at least 2 sources"):
            pipe(path, consistency=True)

    def test_audio_alone_needs_an_image(self, pipes, folder):
        pipe, path = pipes[SEPARATE], str(folder / "sound.wav")
        with pytest.raises(MediaError, match="sound.wav: expected images"):
            pipe(path)
        assert pipe(path, frames=str(folder / "image.png"))["audio"].shape == (round(5.13 * RATE),)

    def test_arrays(self, pipes, folder, recording):
        pipe = pipes[SEPARATE]
        arrays = {"image": paint_gradients(1.0), "audio": recording, "sampling_rate": RATE}
        expected = pipe(str(folder / "clip.mov"), frames=paint_gradients(1.0))
        assert_same(pipe(arrays), expected)
        assert_same(pipe({**arrays, "image": [paint_gradients(1.0)]}), [expected])
        with pytest.raises(ValueError, match=r"Expected a file with a timestamp as frames \(1\.0 s\)"):
            pipe(arrays, frames=1.0)

    def test_overlap(self, pipes, folder):
        pipe, path = pipes[SEPARATE], str(folder / "clip.mov")
        found = [pipe(path, overlap=overlap)["audio"] for overlap in (0.0, 0.75)]
        assert found[0].shape == found[1].shape
        assert not np.allclose(*found)


PROCESS = """
import sys
import torch
from pathlib import Path
from transformers import pipeline

folder, hidden = Path(sys.argv[1]), sys.argv[2].split(",")
results = {}
arrays = torch.load(folder / "arrays.pt", weights_only=True)
item = {"image": arrays["image"], "audio": arrays["audio"].numpy(), "sampling_rate": 22050}
for task in sys.argv[3].split(","):
    pipe = pipeline(task, model=str(folder / "saved" / task), trust_remote_code=True, device="cpu")
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    found = {"arrays": pipe(item)}
    if "av" not in hidden:
        found["file"] = pipe(str(folder / "clip.mov"))
    pipe.save_pretrained(folder / "again" / task)
    again = pipeline(task, model=str(folder / "again" / task), trust_remote_code=True, device="cpu")
    found["again"] = again(item)
    results[task] = found
    try:
        pipeline(task, model=str(folder / "saved" / task), trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error)
    else:
        raise AssertionError("loaded without trust")
assert not [name for name in sys.modules if name.partition(".")[0] in hidden]
torch.save(results, folder / "results.pt")
"""


@pytest.mark.parametrize("minimal", [False, True], ids=["everything", "the minimum"])
def test_saved_pipelines_load_without_this_package(pipes, folder, tmp_path, minimal):
    arrays = {
        # Floating-point images are resized alike with and without PIL.
        "image": torch.from_numpy(paint_gradients(1.0) / 255).float(),
        "audio": torch.from_numpy(load_clip(folder / "clip.mov").waveform),
    }
    torch.save(arrays, tmp_path / "arrays.pt")
    (tmp_path / "clip.mov").write_bytes((folder / "clip.mov").read_bytes())
    for task, pipe in pipes.items():
        pipe.save_pretrained(tmp_path / "saved" / task)
    hidden = ("deepavfusion", *(OPTIONAL if minimal else ()))
    run_isolated(PROCESS, str(tmp_path), ",".join(hidden), ",".join(MODELS), home=tmp_path / "home", without=hidden[1:])
    results = torch.load(tmp_path / "results.pt", weights_only=False)
    item = {"image": arrays["image"], "audio": arrays["audio"].numpy(), "sampling_rate": RATE}
    for task, pipe in pipes.items():
        found = results[task]
        expected = pipe(item)
        assert_same(found["arrays"], expected, rtol=0, atol=0)
        assert_same(found["again"], expected, rtol=0, atol=0)
        if not minimal:
            assert_same(found["file"], pipe(str(folder / "clip.mov")), rtol=0, atol=0)


@each_task
def test_custom_pipelines_of_saved_models(pipes, tmp_path, task):
    pipes[task].model.save_pretrained(tmp_path)
    pipes[task].processor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
    assert set(stored) == {task, EXTRACT}
    for name, entry in stored.items():
        pipeline_class = pipelines()[name]
        assert pipeline_class.model_name in (type(pipes[task].model).__name__, "DeepAVFusionModel")
        assert entry["pt"] == [pipeline_class.auto_class]
        module, class_name = entry["impl"].split(".")
        assert class_name == pipeline_class.__name__
        assert f"class {class_name}(" in (tmp_path / f"{module}.py").read_text()


@each_task
def test_registered_pipelines_load_saved_ones(pipes, folder, tmp_path, task):
    """With this package, custom_pipelines of a configuration need no trust."""
    pipes[task].save_pretrained(tmp_path)
    pipe = pipeline(task, model=str(tmp_path), device="cpu")
    assert type(pipe) is pipelines()[task]
    assert_same(pipe(str(folder / "clip.mov")), pipes[task](str(folder / "clip.mov")))
    # Configurations that are saved again keep them.
    AutoModel.from_pretrained(tmp_path).config.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["custom_pipelines"]
