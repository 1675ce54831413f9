"""Evaluations of models with known outputs: perfect ones, and ones that ignore the audio."""

import copy
import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data import MODELS, BrokenClip, build_dataset
from deepavfusion.training.data.clips import ClipMedia, collate_clips
from deepavfusion.training.data.files import FileClips
from deepavfusion.training.data.sets.folder import make_rows
from deepavfusion.training.report.report import Example, Table
from deepavfusion.training.runs.records import summary
from deepavfusion.training.tasks import TASKS, Evaluation, evaluate_task, recognition
from deepavfusion.training.tasks.base import Task
from deepavfusion.training.tasks.evaluation import check_classes, relative_names, with_media
from deepavfusion.training.tasks.pretraining_tables import pretraining_tables
from deepavfusion.training.tasks.probing import ALONE
from deepavfusion.training.tasks.reconstruction import MASKS
from deepavfusion.training.tasks.retrieval import retrieval_metrics, retrieval_table
from deepavfusion.training.wording import RANDOM_NEIGHBOR, metric_title
from tests.modeling_deepavfusion.cases import MODEL_CLASSES
from tests.tiny import TINY

STREAMS = ("joint", "image stream", "audio stream", "fusion stream")
CONFIG = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64)
PROCESSOR = DeepAVFusionProcessor.from_config(CONFIG)
SIZE = 12
SMALL = {**TINY, "image_size": 64, "num_mel_bins": 64, "spectrogram_length": 64, "audio_patch_size": 16}
INPUTS = ("pixel_values", "input_features")


class Answers(torch.nn.Module):
    """A fake model that looks up its output by frame and audio, or by frame only.

    Args:
        samples: Samples of the data set.
        answers: Logits for each sample.
        deaf: Whether the audio is ignored.
    """

    config = CONFIG

    def __init__(self, samples, answers, deaf=False):
        super().__init__()
        self.deaf = deaf
        asked = (self.key(sample["pixel_values"], sample["input_features"]) for sample in samples)
        self.known = dict(zip(asked, answers, strict=True))

    def key(self, frame, audio):
        audio = None if self.deaf or audio is None else audio.numpy().tobytes()
        return frame.numpy().tobytes(), audio

    def forward(self, pixel_values, input_features=None):
        features = [None] * len(pixel_values) if input_features is None else input_features
        nothing = torch.full_like(next(iter(self.known.values())), -9.0)
        found = [self.known.get(self.key(*pair), nothing) for pair in zip(pixel_values, features, strict=True)]
        return SimpleNamespace(logits=torch.stack(found))


def build(task, **settings):
    data = {"name": "scenes", "train_size": 8, "eval_size": SIZE, "difficulty": "easy", "max_sounding": 1, **settings}
    return build_dataset(data, CONFIG, "test", False, 0, task, False)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_data_have_the_view_of_the_models_processor(model_class, train):
    """Pre-training and retrieval use the data of recognition."""
    task = next((name for name, cls in MODELS.items() if cls is model_class), "recognition")
    data = {"name": "scenes", "train_size": 4, "eval_size": 4, "max_sounding": 1}
    clips = build_dataset(data, CONFIG, "train" if train else "test", train, 0, task)
    processor = DeepAVFusionProcessor.from_model(model_class, CONFIG)
    assert clips.visual_processor.to_dict() == processor.visual_processor.to_dict()
    assert clips.feature_extractor.to_dict() == processor.feature_extractor.to_dict()


def test_data_sets_and_tasks_agree_on_models():
    assert {name: TASKS[name].MODEL for name in MODELS} == MODELS


def evaluate(task, clips, model, batch_size=8, examples=0):
    task = TASKS[task](clips, PROCESSOR)
    options = {"batch_size": batch_size, "num_workers": 0, "full": True, "examples": examples}
    return evaluate_task(task, model, Accelerator(cpu=True), **options)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_evaluations_show_their_progress_on_a_terminal_alone(stream, monkeypatch, capsys):
    clips = build("separation", max_objects=1)
    samples = clips.__getitems__(range(SIZE))
    monkeypatch.setattr(sys, "stderr", stream())
    evaluate("separation", clips, Answers(samples, [torch.zeros(1, 64, 64)] * SIZE), batch_size=4)
    shown = sys.stderr.getvalue()
    assert ("evaluation: " in shown and "/3" in shown) == (stream is Terminal)
    assert capsys.readouterr().out == ""


def confident(truth):
    """Confident logits of a binary mask."""
    return torch.where(truth > 0.5, 9.0, -9.0)


def test_separation_by_a_model_that_knows_the_ideal_mask():
    clips = build("separation", max_objects=1)
    samples = clips.__getitems__(range(SIZE))
    oracle = TASKS["separation"](clips, PROCESSOR).oracle
    masks = list(oracle(torch.stack([sample["waveforms"] for sample in samples])))
    found = evaluate("separation", clips, Answers(samples, masks))
    assert found.metrics["si_sdri"] == pytest.approx(found.metrics["oracle_si_sdri"])
    assert found.metrics["oracle_si_sdri"] > 5
    assert found.metrics["both_sources_improved"] == 1
    assert found.metrics["wrong_frame_si_sdri"] < -5  # it outputs the other source
    assert found.metrics["sir"] > 5


def test_separation_by_a_model_that_does_not_look():
    clips = build("separation", max_objects=1)
    samples = clips.__getitems__(range(SIZE))
    found = evaluate("separation", clips, Answers(samples, [torch.zeros(1, 64, 64)] * SIZE))
    assert found.metrics["si_sdri"] == pytest.approx(found.metrics["wrong_frame_si_sdri"])
    assert found.metrics["si_sdri"] == pytest.approx(0, abs=0.2)  # the last STFT frame is not covered by the mask
    assert found.metrics["both_sources_improved"] == 0


def test_mixtures_with_a_silent_estimate_are_left_out_and_counted():
    clips = build("separation", max_objects=1)
    samples = clips.__getitems__(range(SIZE))
    masks = [torch.full((1, 64, 64), -1e4), *[torch.zeros(1, 64, 64)] * (SIZE - 1)]
    found = evaluate("separation", clips, Answers(samples, masks))
    # The first mixture, and that of the second source of the pair, whose control is separated by the first frame.
    assert found.left_out == {"mixtures with a silent estimate": 2}
    assert found.num_scored == SIZE - 2


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("deaf", [False, True])
def test_localization_with_its_controls(deaf, batch_size):
    clips = build("localization", max_objects=3)
    samples = clips.__getitems__(range(SIZE))
    assert clips.in_pairs
    if deaf:  # the frames of a pair are the same: return the output for the first of them
        samples = [samples[i - i % 2] for i in range(SIZE)]
    maps = [confident(sample["labels"]) for sample in samples]
    found = evaluate("localization", clips, Answers(samples, maps, deaf), batch_size).metrics
    assert found["ciou_50"] == found["auc"] == 1
    assert found["shuffled_ciou_50"] == (1 if deaf else 0)
    assert found["ap"] < 0.9 if deaf else found["ap"] == pytest.approx(1)
    assert found["whole_ciou_50"] < 1
    assert 0 < found["centre_auc"] < 1


def test_localization_finds_its_threshold_on_the_selection_split():
    """A correct model with probabilities below 0.3 needs the threshold chosen on the selection split."""
    clips = build("localization", max_objects=3)
    samples = clips.__getitems__(range(SIZE))
    model = Answers(samples, [torch.where(sample["labels"] > 0.5, -0.847, -9.0) for sample in samples])
    task = TASKS["localization"](clips, PROCESSOR)
    quick = evaluate_task(task, model, Accelerator(cpu=True), batch_size=8, num_workers=0).metrics
    assert quick["ciou_50"] == quick["auc"] == quick["ap"] == 1
    assert 0 < quick["threshold"] < 0.3
    missed = evaluate("localization", clips, model).metrics
    assert missed["ciou_50"] == missed["ciou_50_at_0.5"] == 0
    model.config = copy.deepcopy(CONFIG)
    for name, value in TASKS["localization"].calibration(quick).items():
        setattr(model.config, name, value)
    found = evaluate("localization", clips, model)
    assert found.metrics["ciou_50"] == 1
    assert found.metrics["ciou_50_at_0.5"] == found.metrics["shuffled_ciou_50"] == 0
    assert f"Threshold: {quick['threshold']:g};" in found.tables[0].note


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("deaf", [False, True])
def test_segmentation_with_its_controls(deaf, batch_size):
    clips = build("segmentation", max_objects=3)
    samples = clips.__getitems__(range(SIZE))
    maps = [confident(sample["labels"])[None] for sample in samples]
    found = evaluate("segmentation", clips, Answers(samples, maps, deaf), batch_size).metrics
    assert found["miou"] == found["f"] == found["sounding_coverage"] == 1
    assert found["silent_coverage"] == 0
    assert found["shuffled_miou"] == found["silent_miou"] == (1 if deaf else 0)
    assert found["all_foreground_miou"] < 0.5


def test_recognition_averages_the_streams():
    clips = build("recognition", max_objects=1)

    class Streams(torch.nn.Module):
        config = CONFIG

        def forward(self, pixel_values=None, input_features=None):
            count = len(input_features if pixel_values is None else pixel_values)
            truth = 9.0 * torch.nn.functional.one_hot(labels[:count], 16)
            wrong = truth.roll(1, 1)
            both = pixel_values is not None and input_features is not None
            streams = {"image_logits": truth, "audio_logits": wrong, "fusion_logits": truth}
            return SimpleNamespace(logits=(2 * truth + wrong) / 3 if both else wrong, **streams)

    labels = torch.stack([torch.as_tensor(sample["label"]) for sample in clips.__getitems__(range(SIZE))])
    found = evaluate("recognition", clips, Streams(), batch_size=SIZE).metrics
    assert found["top1"] == found["image_stream_top1"] == found["fusion_stream_top1"] == 1
    assert found["audio_stream_top1"] == found["image_only_top1"] == found["audio_only_top1"] == 0
    assert found["top5"] == 1


@pytest.mark.parametrize("task", ["recognition", "localization", "segmentation"])
def test_examples_can_be_heard(task):
    """What is heard is what the model was given, also where that is the audio of another scene or background noise."""
    clips = build(task)
    samples = clips.__getitems__(range(4))
    if task == "recognition":
        answers = [torch.eye(16)[sample["label"]] for sample in samples]
    else:
        answers = [confident(sample["labels"]) for sample in samples]
        answers = answers if task == "localization" else [answer[None] for answer in answers]
    inputs = {name: torch.stack([sample[name] for sample in samples]) for name in INPUTS}
    examples = TASKS[task](clips, PROCESSOR).examples(Answers(samples, answers), inputs, collate_clips(samples))
    heard = with_media(examples, clips, list(range(4)))
    assert len(heard) == 4
    for example, own, sample in zip(examples, heard, samples, strict=True):
        assert [image.caption for image in own.images] == [image.caption for image in example.images]
        ((_, waveform, rate),) = own.audio
        assert rate == PROCESSOR.feature_extractor.sampling_rate
        features = PROCESSOR.feature_extractor.log_mel(torch.from_numpy(waveform))
        torch.testing.assert_close(features, sample["input_features"][0], atol=2e-3, rtol=0)


def test_examples_show_the_whole_frame_and_keep_their_own_audio():
    media = ClipMedia(np.zeros((9, 16, 3), np.uint8), np.ones(5, np.float32), 8000)
    clips = SimpleNamespace(media=lambda item: media if item == 3 else None)
    own = [("mixture", np.ones(3, np.float32), 8000)]
    given = [Example("a", []), Example("b", [], audio=own), Example("c", [])]
    whole, mixture, unknown = with_media(given, clips, [3, 3, 4, 3])
    assert [(image.caption, image.image.shape) for image in whole.images] == [("whole frame", (9, 16, 3))]
    assert whole.audio == [("audio", media.waveform, 8000)]
    assert (mixture, unknown) == tuple(given[1:])


@pytest.mark.parametrize(("aligned", "said"), [(False, True), (True, False)])
def test_retrieval_at_chance_says_why(aligned, said):
    vectors = np.eye(200)
    rows = [{"image": vectors[i], "audio": vectors[i if aligned else (i + 100) % 200]} for i in range(200)]
    metrics = retrieval_metrics(rows)
    note = retrieval_table({"": metrics}).note
    assert ("Hardly better than chance" in (note or "")) == said
    assert retrieval_table({"": retrieval_metrics(rows[:5])}).note is None  # ten of five are always found


def test_retrieval_shows_what_is_found_and_lets_it_be_heard():
    clips = build("recognition")
    task = TASKS["retrieval"](clips, PROCESSOR)
    images = np.eye(4)
    audio = np.array([[1, 0, 0, 0], [0.9, 0.5, 0.6, 0], [0, 0, 0, 1], [0, 0, 0.8, 0.7]])  # clip 5 was unreadable
    items = [2, 3, 6, 7]
    rows = [{"index": i, "image": a, "audio": b} for i, a, b in zip(items, images, audio, strict=True)]
    first, second = task.ranked_examples(rows, [0, 1])
    assert first.text == "Of 4, the frame is number 1 for its audio, and the audio number 1 for its frame"
    assert second.text == "Of 4, the frame is number 3 for its audio, and the audio number 1 for its frame"
    captions = ["frame", *(f"number {number} for the audio" for number in (1, 2, 3))]
    assert [image.caption for image in first.images] == captions
    assert [image.correct for image in first.images] == [None, True, False, False]
    assert [image.correct for image in second.images] == [None, False, False, True]
    frames = task.frames(torch.stack([clips[i]["pixel_values"] for i in (3, 2, 6, 3)]))
    for image, frame in zip(second.images, frames, strict=True):
        np.testing.assert_array_equal(image.image, frame)
    (third,) = task.ranked_examples(rows, [2])  # the audio most similar to its frame is that of another clip
    assert [name for name, _, _ in second.audio] == ["audio"]
    assert [name for name, _, _ in third.audio] == ["audio", "number 1 for the frame"]
    for (_, waveform, _), item in zip(third.audio, (6, 7), strict=True):
        np.testing.assert_array_equal(waveform, clips.media(item).waveform)


def test_an_evaluation_of_retrieval_has_examples_with_the_whole_frame(monkeypatch):
    clips = build("recognition")
    media = clips.media(0)._replace(frame=np.zeros((9, 16, 3), np.uint8))
    monkeypatch.setattr(type(clips), "media", lambda self, i: media)
    torch.manual_seed(0)
    model = DeepAVFusionModel(DeepAVFusionConfig(**SMALL))
    examples = evaluate("retrieval", clips, model, examples=5).examples
    assert [example.title for example in examples] == [f"scene test/{i}" for i in range(5)]
    for example in examples:
        assert example.images[0].caption == "whole frame"
        assert example.images[0].image.shape == (9, 16, 3)
        assert len(example.images) == 5
        assert example.audio[0][0] == "audio"
    assert evaluate("retrieval", clips, model).examples == []


@pytest.mark.parametrize("objective", ["reconstruction", "align", "jepa"])
def test_examples_of_pre_training_can_be_heard(objective):
    """What is reconstructed of masked patches, or, without decoders, what is found for the audio."""
    clips = build("recognition", max_objects=1)
    settings = ["run.num_reconstructions=2", "task.probe_labels=[]", "data.num_workers=0"]
    recipe = load_recipe("pretrain", "scenes_tiny", settings)
    torch.manual_seed(0)
    model = DeepAVFusionForPreTraining(DeepAVFusionConfig(**SMALL, pretraining_objective=objective))
    task = TASKS["pretraining"](clips, PROCESSOR, recipe)
    evaluation = task.evaluate(model, Accelerator(cpu=True), full=True)
    assert len(evaluation.examples) == 2
    for number, (example, row) in enumerate(zip(evaluation.examples, evaluation.predictions["clips"], strict=False)):
        assert example.title == f"scene test/{number}"
        name, waveform, _ = example.audio[0]
        assert name == "audio"
        np.testing.assert_array_equal(waveform, clips.media(number).waveform)
        captions = [image.caption for image in example.images]
        if objective == "jepa":
            assert captions[-1] == "number 3 for the audio"
        else:
            masked, reconstructed, original = (image.image for image in example.images[:3])
            np.testing.assert_array_equal(original, task.frames(clips[number]["pixel_values"][None])[0])
            assert 0 < (masked == original).all(-1).mean() < 1
            assert (reconstructed != original).any()
            assert captions[3] == "log-mel: masked, reconstructed, original"
            assert f"image {row['losses']['image_loss']:.3f}, audio {row['losses']['audio_loss']:.3f}" in example.text


@pytest.mark.parametrize("several", [False, True])
def test_classes_are_listed_worst_first(several):
    labels = [0, 0, 1, 1, 1, 3]
    scores = np.eye(4, dtype=np.float32)[[0, 2, 1, 1, 1, 0]]
    names = ["cello", "flute", "drum", "horn"]
    clips = SimpleNamespace(label_names=names, multi_label=several, ceilings=None)
    rows = [
        {"label": np.eye(4)[label] if several else label, **dict.fromkeys(("joint", "image only"), row)}
        for label, row in zip(labels, scores, strict=True)
    ]
    task = TASKS["recognition"](clips, PROCESSOR)
    (table,) = task.details(rows)
    assert [(row[0], row[2]) for row in table.rows] == [("horn", 1), ("cello", 2), ("flute", 3), ("drum", 0)]
    assert [row[1] for row in table.rows][2:] == ["100.0 %", "-"]
    if not several:
        assert [row[1] for row in table.rows] == ["0.0 %", "50.0 %", "100.0 %", "-"]
    _, (scored,), _ = task.summarize(rows, full=True)
    column = scored.columns.index("precision at 1" if several else "top-1 accuracy")
    assert scored.rows[-1][0] == "most frequent class"
    assert scored.rows[-1][column] == "50.0 %"
    assert [row[0] for row in task.summarize(rows, full=False)[1][0].rows] == ["joint", "image only"]


def test_mismatched_audio_skips_unreadable_clips():
    class Three:
        in_pairs = False

        def __len__(self):
            return 3

        def __getitems__(self, items):
            samples = {1: BrokenClip("b.mp4", "broken", 1), 2: {"input_features": torch.full((1, 4, 4), 2.0)}}
            return [samples[i] for i in items]

    task = TASKS["segmentation"](Three(), PROCESSOR)
    batch = {"index": torch.tensor([0])}
    assert task.mismatched_audio({"input_features": torch.zeros(1, 1, 4, 4)}, batch).eq(2).all()
    two, both = torch.arange(2.0).view(2, 1, 1, 1), {"index": torch.tensor([0, 2])}
    assert task.mismatched_audio({"input_features": two}, both).flatten().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("skipped", "note"),
    [
        ({"a.mp4": "no video"}, None),
        (
            {"a.mp4": "no video", "c.mp4": "broken at 9 s"},
            "Without 1 clip of which a window could not be read: c.mp4.",
        ),
    ],
)
def test_clips_without_all_windows_are_named(skipped, note, monkeypatch):
    rows = make_rows([{"path": name, "label": "a"} for name in ("a.mp4", "b.mp4", "c.mp4")])
    task = TASKS["recognition"](
        FileClips(rows, PROCESSOR, train=False, seed=0),
        PROCESSOR,
        load_recipe("evaluate", "folder_recognition", ["data.path=x"]),
    )

    def evaluated(number, skipped):
        tables, predictions = [Table("Recognition", ["input"], [["joint"]])], {"clips": list(range(number))}
        metrics = {"top1": 0.5}
        return Evaluation("recognition", "", metrics, number, skipped=skipped, tables=tables, predictions=predictions)

    monkeypatch.setattr(Task, "evaluate", lambda *_: evaluated(2, {"a.mp4": "no video"}))
    monkeypatch.setattr(recognition, "evaluate_task", lambda *_, **__: evaluated(3 - len(skipped), skipped))
    found = task.evaluate(None, None, True)
    assert found.tables[-1].note == note
    assert found.remarks == ([] if note is None else [f"Mean over 10 windows: {note[0].lower()}{note[1:]}"])
    assert found.metrics["dense_top1"] == 0.5


@pytest.mark.parametrize("pairs", [False, True])
def test_mismatched_audio_does_not_depend_on_batches(pairs):
    """It is that of the next clip, or pair, as the protocol says."""

    class Seven:
        in_pairs = pairs

        def __len__(self):
            return 7

        def __getitems__(self, items):
            return [{"input_features": torch.full((1, 1, 1), float(i))} for i in items]

    task, found = TASKS["localization"](Seven(), PROCESSOR), []
    for size in (2, 4, 7):
        parts = torch.arange(7).split(size)
        batches = [({"input_features": part.float().view(-1, 1, 1, 1)}, {"index": part}) for part in parts]
        found.append(torch.cat([task.mismatched_audio(*batch).flatten() for batch in batches]).tolist())
    assert found == [[2, 3, 4, 5, 6, 0, 1] if pairs else [1, 2, 3, 4, 5, 6, 0]] * 3


@pytest.mark.parametrize(("task", "count"), [("localization", 2), ("segmentation", 1)])
def test_a_single_clip_has_no_mismatched_audio(task, count):
    clips = build(task, eval_size=count, max_objects=2)
    samples = clips.__getitems__(range(count))
    maps = [confident(sample["labels"]) for sample in samples]
    maps = maps if task == "localization" else [values[None] for values in maps]
    found = evaluate(task, clips, Answers(samples, maps))
    assert not any("shuffled" in name for name in found.metrics)
    titles = np.array(found.tables[0].rows)[:, 0]
    assert "own audio" in titles
    assert "audio of another clip" not in titles


def test_few_and_left_out_clips_are_noted():
    few = Evaluation("separation", "", {}, 4, left_out={"mixtures with a silent source": 3})
    assert few.notes == ["Left out: mixtures with a silent source (3).", "Few clips (4): the metrics are uncertain."]
    assert Evaluation("separation", "", {}, 30).notes == []
    frames = Evaluation("localization", "", {}, 40, num_scored=1, units="frames with a visible source")
    assert frames.notes == ["Few frames with a visible source (1): the metrics are uncertain."]
    assert Evaluation("localization", "", {}, 8, num_scored=40).notes == []
    assert (Evaluation("separation", "", {}, 1).clip_count, few.clip_count) == ("1 clip", "4 clips")


@pytest.mark.parametrize("task", ["separation", "localization", "segmentation"])
def test_few_scored_units_are_noted(task):
    clips = build(task, max_objects=2)
    samples = clips.__getitems__(range(SIZE))
    maps = [torch.zeros(1, 64, 64)] * SIZE
    if task == "localization":
        maps = [confident(sample["labels"]) for sample in samples]
    found = evaluate(task, clips, Answers(samples, maps))
    assert found.data == clips.card
    sounding = sum(int(sample["sounding"]) for sample in samples) if task == "localization" else SIZE
    units = {"separation": "mixtures", "localization": "frames with a visible source", "segmentation": "frames"}[task]
    assert found.notes[-1] == f"Few {units} ({sounding}): the metrics are uncertain."
    assert sounding < SIZE or task != "localization"


def test_every_metric_has_a_title():
    found = {}
    for task in ("separation", "localization", "segmentation"):
        clips = build(task, max_objects=2)
        samples = clips.__getitems__(range(SIZE))
        maps = [confident(sample["labels"]) for sample in samples] if task != "separation" else []
        shapes = {"separation": [torch.zeros(1, 64, 64)] * SIZE, "segmentation": [part[None] for part in maps]}
        found |= evaluate(task, clips, Answers(samples, shapes.get(task, maps))).metrics
    assert len(found) > 25
    assert {name for name in found if metric_title(name) == name} <= {"threshold"}


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([None, None], "the held-out clips have no labels"),
        ([3], "only one held-out clip was read, too few for a score that means anything (at least 10)"),
        ([3, 4] * 4, "only 8 held-out clips were read, too few for a score that means anything (at least 10)"),
        ([3] * 10, "the held-out clips all have the same labels"),
        ([torch.tensor([1.0, 0.0])] * 10, "the held-out clips all have the same labels"),
        (list(range(10)), "no two of the held-out clips have a label in common"),
        (list(torch.eye(10)), "no two of the held-out clips have a label in common"),
        ([3, 4] * 5, None),
        ([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])] * 5, None),
    ],
)
def test_missing_neighbor_scores_have_the_true_reason(labels, reason):
    task = TASKS["pretraining"](None, None)
    names = ("image_loss", "audio_loss", "image_oracle_loss", "audio_oracle_loss")
    losses, alone = dict.fromkeys(names, 1.0), dict.fromkeys(("image", "audio"), np.ones(4))
    for title, part in (("Held-out losses", {"losses": losses}), ("Retrieval", {"alone": alone})):
        rows = [{**part, "streams": [torch.ones(4)] * 3, "label": label} for label in labels]
        metrics, tables, _ = task.summarize(rows, full=True)
        assert tables[0].title == title
        assert tables[0].note == (reason and f"No nearest-neighbor scores: {reason}.")
        assert bool({"chance_accuracy", "chance_map"} & metrics.keys()) == (reason is None)


def explained_rows(heading):
    """The rows that a section of docs/evaluation.md explains."""
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def row_titles(task, rows, clips=None):
    _, tables, _ = TASKS[task](clips, PROCESSOR).summarize(rows, full=True)
    return {row[0] for table in tables for row in table.rows}


def test_every_row_of_a_table_is_explained():
    """docs/evaluation.md explains the rows that are printed, and no others."""
    scores = {name: np.array([0.6, 0.4]) for name in (*STREAMS, "image only", "audio only")}
    clips = SimpleNamespace(multi_label=False, ceilings=None)
    rows = [{"label": label, **scores} for label in (0, 1)]
    assert row_titles("recognition", rows, clips) == explained_rows("Recognition")
    maps = ("own", "own_median", "shuffled", "shuffled_median", "whole", "centre", "at_0.5", "median_bound")
    negative = {
        f"{kind}_{score}": 0.4 for kind in ("silence", "noise", "offscreen") for score in ("area", "confidence")
    }
    about = {"sounding": True, "confidence": 0.5, "threshold": 0.5, "area": 0.3}
    rows = [dict.fromkeys(maps, 0.6) | about | negative] * 2
    assert row_titles("localization", rows) == explained_rows("Localization")
    rows = [{"own": 0.5, "shuffled": 0.4, "silent": 0.3, "curve": np.full((2, 255), 0.5), "area": 0.2}] * 2
    assert row_titles("segmentation", rows, SimpleNamespace(label_names=None)) == explained_rows("Segmentation")
    names = ("sdr", "sir", "sar", "sdri", "si_sdr", "si_sdri", "swapped", "wrong_frame", "oracle")
    assert row_titles("separation", [dict.fromkeys(names, 1.0)] * 2) == explained_rows("Separation")
    assert row_titles("retrieval", [{"image": np.eye(2)[0], "audio": np.eye(2)[0]}] * 2) == explained_rows("Retrieval")


def test_every_row_of_pre_training_is_explained():
    metrics = {f"{name}_loss": 1.0 for name in ("image", "audio", "image_oracle", "audio_oracle")} | {"loss": 2.0}
    for modality in ("image", "audio"):
        metrics |= {f"{modality}_saved_{masks}": 0.5 for masks in MASKS}
        metrics |= {f"{modality}_bound_{kind}": 0.5 for kind in ("true", "none", "saved")}
    for name in ("fusion", "image", "audio", "all", *ALONE):
        metrics |= {f"{name}_linear_50": 0.5, f"{name}_accuracy": 0.5, f"{name}_whitened": 0.5}
    metrics |= {"shape_image_alone_linear": 0.5, "timbre_audio_alone_linear": 0.5, "chance_accuracy": 0.1}
    tables = {table.title: table for table in pretraining_tables(metrics, metrics, None)}
    column = {"How much the other modality helps": 1}
    titles = {row[column.get(title, 0)] for title, table in tables.items() for row in table.rows}
    assert titles | {RANDOM_NEIGHBOR} == explained_rows("Pre-training")


def test_the_terminal_names_tables_where_there_are_several(tmp_path):
    tables = [Table("Recognition", ["from", "top-1"], [["joint", "50.0 %"]]), Table("Mean over 10", ["a"], [["b"]])]
    evaluation = Evaluation("recognition", "", {}, 4, tables[:1])
    assert "Recognition" not in summary(evaluation, tmp_path)
    evaluation.tables = tables
    text = summary(evaluation, tmp_path)
    assert text.index("Recognition:") < text.index("joint") < text.index("Mean over 10:")


def test_a_single_class_cannot_be_learned():
    clips = SimpleNamespace(label_names=["dog"], multi_label=False, card="folder, split train: 2 clips, 1 class")
    with pytest.raises(ValueError, match=r"at least 2 classes, but all clips are of one, 'dog' \(folder, split train"):
        check_classes(clips, 2)
    check_classes(clips)
    check_classes(SimpleNamespace(label_names=["dog"], multi_label=True, card=""), 2)


def test_names_of_clips_leave_out_the_folder_that_all_are_in():
    assert relative_names(["/data/a/1.mp4", "/data/b/2.mp4"]) == ["a/1.mp4", "b/2.mp4"]
    assert relative_names(["/data/a/1.mp4 + /data/a/2.mp4", "/data/a/3.mp4"]) == ["1.mp4 + 2.mp4", "3.mp4"]
    assert relative_names(["scene test/1", "scene test/2"]) == ["scene test/1", "scene test/2"]
    assert relative_names(["memory://a/1.mp4"]) == ["memory://a/1.mp4"]
    assert relative_names([]) == []
