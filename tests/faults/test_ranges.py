"""Every number of a recipe, configuration, annotation, checkpoint and command line has a range, and is kept to it."""

import argparse
import dataclasses
import json
import math
import shutil
import typing

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionModel,
    export_original_state_dict,
    load_original_checkpoint,
)
from deepavfusion.inference import classify, convert, embed, separate
from deepavfusion.processors import (
    DeepAVFusionFeatureExtractor,
    DeepAVFusionImageProcessor,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
    load_clip,
)
from deepavfusion.processors.media_deepavfusion import load_clips
from deepavfusion.ranges_deepavfusion import Range, field_ranges
from deepavfusion.training.config.options import RecipeError, check_value
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.config.sections import SECTIONS, section_options
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.scenes import ScenesConfig
from deepavfusion.training.data.scenes.__main__ import main as write_scenes
from deepavfusion.training.data.sets.audioset import read_class_labels, read_segments
from deepavfusion.training.data.sets.boxes.vggss import clean_boxes
from deepavfusion.training.data.sets.folder import read_annotations
from deepavfusion_cli import parser
from deepavfusion_cli.arguments import frame
from tests.media_factory import media_bytes
from tests.tiny import INFERABLE, tiny_config

NONSENSE = (math.nan, math.inf, -math.inf)
OPTIONS = [(f"{section}.{option.name}", option) for section in SECTIONS for option in section_options(section)]


def is_number(hint) -> bool:
    """Whether an annotation allows for numbers, or lists of numbers."""
    return any(
        kind in (int, float) or is_number(kind) for kind in typing.get_args(hint) or (hint,) if kind is not hint
    ) or (hint in (int, float))


def outside(limits: Range) -> list[float]:
    """Numbers that are just not within a range, and some that are within none."""
    low = limits.above if limits.above is not None else math.nextafter(limits.at_least, -math.inf)
    high = limits.below if limits.below is not None else math.nextafter(limits.at_most, math.inf)
    return [low, high, -(10.0**30), 10.0**30, *NONSENSE]


def test_ranges_describe_and_contain():
    assert str(Range(at_least=0, below=1)) == "of at least 0 and below 1"
    assert str(Range(above=0, at_most=65536)) == "above 0 and at most 65536"
    limits = Range(above=0, at_most=2)
    assert all(number in limits for number in (1, 2, 2.0, 1e-9, np.float32(1), np.int64(2)))
    assert all(value not in limits for value in (0, 2.1, True, "1", None, 1j, *NONSENSE))
    with pytest.raises(ValueError, match=r"x is nan: expected a number above 0 and at most 2\."):
        limits.check("x", [1, math.nan])


@pytest.mark.parametrize(("key", "option"), [pytest.param(*entry, id=entry[0]) for entry in OPTIONS])
def test_every_number_of_a_recipe_has_a_range(key, option):
    hints = [bool] if key == "model.norm_patch_loss" else [option.type]  # standardization is a name, or true or false
    numeric = any(map(is_number, hints)) and key != "model.fusion_layers"  # indices of layers have a check of their own
    assert numeric == (option.range is not None)
    if option.range is None:
        return
    bounds = dataclasses.astuple(option.range)
    assert sum(bound is not None for bound in bounds[:2]) == sum(bound is not None for bound in bounds[2:]) == 1
    check_value(option.default, option, key)
    for value in outside(option.range):
        with pytest.raises(RecipeError, match=rf"^{key} is .*: expected a number .*\.$"):
            check_value([value] if isinstance(option.default, list) else value, option, key)


@pytest.mark.parametrize(
    "override",
    ["data.train_size=0", "data.eval_size=0", "data.train_size=-5", "data.num_workers=1000", "data.num_workers=-1",
     "data.max_unreadable_fraction=.nan", "data.max_unreadable_fraction=nan", "data.max_unreadable_fraction=2",
     "data.noise=-1", "data.noise=inf", "data.max_objects=5", "data.scene_seed=-1", "optim.base_lr=-1",
     "optim.base_lr=0", "optim.base_lr=1e400", "optim.min_lr=-1e-9", "optim.warmup_epochs=-5", "optim.epochs=.inf",
     "optim.epochs=nan", "optim.batch_size=10000000000", "optim.weight_decay=-0.1", "optim.betas=[0.9, 1.0]",
     "optim.momentum=1", "optim.clip_grad_norm=nan", "run.seed=-1", "run.seed=99999999999", "run.log_steps=0",
     "run.eval_epochs=-.inf", "model.drop_path_rate=.nan", "model.layer_norm_eps=-1.0", "model.hidden_size=-64"],
)  # fmt: skip
def test_nonsense_in_recipes_is_refused(override):
    key = override.partition("=")[0]
    with pytest.raises(RecipeError, match=rf"^{key} is \S*: expected a number [^\n]*\.$"):
        load_recipe("pretrain", "scenes_tiny", [override])


@pytest.mark.parametrize(
    ("name", "limits"), [pytest.param(*entry, id=entry[0]) for entry in field_ranges(DeepAVFusionConfig)]
)
def test_every_number_of_a_configuration_is_kept_to_its_range(name, limits):
    for value in outside(limits):
        whole = math.isfinite(value) and value == int(value)
        for entry in {value, int(value)} if whole else {value}:
            with pytest.raises((StrictDataclassError, ValueError), match=name.split("_")[0]):
                tiny_config(**{name: entry})


def test_configurations_have_labels():
    with pytest.raises((StrictDataclassError, ValueError), match="num_labels is 0: expected a number of at least 1"):
        tiny_config(num_labels=0)
    numbers = {
        f.name
        for f in dataclasses.fields(DeepAVFusionConfig)
        if f.name in DeepAVFusionConfig.__annotations__ and is_number(f.type)
    }
    assert numbers - {"fusion_layers", "norm_patch_loss"} == {name for name, _ in field_ranges(DeepAVFusionConfig)}


@pytest.mark.parametrize(
    ("cls", "name"),
    [*((DeepAVFusionFeatureExtractor, name) for name in ("num_mel_bins", "spectrogram_length", "sampling_rate", "n_fft",
                                                         "hop_length", "log_offset")),
     *((DeepAVFusionImageProcessor, name) for name in ("size", "crop_pct", "image_mean", "image_std")),
     (DeepAVFusionVideoProcessor, "num_frames")],
)  # fmt: skip
@pytest.mark.parametrize("value", [*NONSENSE, -1e9, 1e30, -3, True, "8", 10**12])
def test_numbers_of_processors_are_kept_to_their_ranges(cls, name, value):
    if (name, value) in {("crop_pct", True), ("log_offset", True)}:
        pytest.skip("true is 1")
    several = [value] * 3 if name.startswith("image_") else value
    with pytest.raises((ValueError, TypeError), match=rf"{name}|size|not supported"):
        cls(**{name: several})


@pytest.mark.parametrize(
    "values",
    [{"seconds": math.nan}, {"seconds": math.inf}, {"noise": -1}, {"coupling": math.nan}, {"seed": -1},
     {"sampling_rate": math.inf}, {"min_objects": 3, "max_objects": 2}],
)  # fmt: skip
def test_nonsense_in_scenes_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ScenesConfig(**values)


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf, True])
@pytest.mark.parametrize(("split", "key"), [("train", "train_size"), ("test", "eval_size")])
def test_no_clips_are_not_the_default_number_of_clips(split, key, size):
    with pytest.raises(ValueError, match=rf"data.{key} is {size}: expected a number of at least 1"):
        build_dataset({"name": "scenes", key: size}, tiny_config(), split, False, 0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "times",
    [{"start": "nan"}, {"end": "inf"}, {"start": "inf"}, {"start": "-1"}, {"start": "-inf", "end": "2"},
     {"start": "2", "end": "2"}, {"end": "0"}, {"start": "soon"}, {"start": "1e30"}, {"end": "1e400"}],
    ids=lambda times: ",".join(f"{k}={v}" for k, v in times.items()),
)  # fmt: skip
def test_nonsense_times_of_annotations_are_refused(tmp_path, suffix, times):
    path = tmp_path / f"clips.{suffix}"
    if suffix == "csv":
        path.write_text(f"file,{','.join(times)}\na.mp4,{','.join(times.values())}\n")
    else:
        path.write_text(json.dumps({"file": "a.mp4", **times}) + "\n")
    with pytest.raises(ValueError, match=rf"clips.{suffix}, line [12]: expected (start|end) "):
        read_annotations(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "true", "[1]", '{"a": 1}', "-0.1", "1" + "0" * 400])
@pytest.mark.parametrize("name", ["start", "end"])
def test_times_of_jsonl_are_numbers(tmp_path, name, value):
    path = tmp_path / "clips.jsonl"
    path.write_text(f'{{"file": "a.mp4", "{name}": {value}}}\n')
    with pytest.raises(ValueError, match=rf"line 1: expected {name} in seconds, a number of at least 0"):
        read_annotations(path)


@pytest.mark.parametrize("times", ["nan, 10", "0, inf", "-1, 10", "10, 10", "1", "zero, 10"])
def test_nonsense_times_of_audioset_are_refused(tmp_path, times):
    path = tmp_path / "eval_segments.csv"
    path.write_text(f'# comment\nYTID, start, end, labels\nx-y, {times}, "/m/1"\n')
    with pytest.raises(ValueError, match="eval_segments.csv: expected id, start, end, labels"):
        read_segments(path)


def test_other_numbers_of_annotations_are_numbers(tmp_path):
    path = tmp_path / "class_labels_indices.csv"
    path.write_text("index,mid,display_name\nfirst,/m/1,Dog\n")
    with pytest.raises(ValueError, match="class_labels_indices.csv: expected a whole number as index, got 'first'"):
        read_class_labels(path)
    for box in ([0, 0, 1, math.nan], [0, 0, 1], [0, 0, 1, None], "0011x", 5):
        with pytest.raises(ValueError, match="frame: expected a box x1, y1, x2, y2 of finite numbers"):
            clean_boxes([box], "frame")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e400", "soon", ""])
def test_nonsense_on_command_lines_is_refused(text):
    for parse in (parser.seconds, parser.fraction, parser.positive):
        with pytest.raises(argparse.ArgumentTypeError, match="^expected a .*, got"):
            parse(text)
    if text not in ("soon", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a timestamp in seconds or an image"):
            frame(text)


@pytest.mark.parametrize(
    ("main", "words"),
    [(classify.main, ["--at", "nan"]), (classify.main, ["--at=-1"]), (classify.main, ["--num-clips", "-3"]),
     (embed.main, ["--batch-size", "0"]), (embed.main, ["--batch-size", "1000001"]),
     (classify.main, ["--top-k", "nan"]), (embed.main, ["--num-clips", "9" * 5000]),
     (separate.main, ["--out", "x", "--overlap", "nan"]), (separate.main, ["--out", "x", "--frame", "inf"])],
)  # fmt: skip
def test_commands_answer_nonsense_with_usage(main, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--model", "none", "clip.mp4", *words])
    assert ended.value.code == 2
    assert f"error: argument {words[-2] if '=' not in words[-1] else '--at'}" in capsys.readouterr().err


@pytest.mark.parametrize("index", ["-1", str(1 << 40)])
def test_scenes_are_of_their_split(tmp_path, index, capsys):
    with pytest.raises(SystemExit):
        write_scenes(["--out", str(tmp_path), f"--index={index}"])
    assert f"--index is {index}: expected a number of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("value", [*NONSENSE, -1, 10**12, "1", True])
def test_nonsense_arguments_of_loading_are_refused(value):
    sound = media_bytes(codec=None, audio_codec="pcm_s16le", seconds=0.5, container_format="wav")
    for options in ({"num_clips": value}, {"num_frames": value}, {"seconds": -1 if value == 10**12 else value}):
        if options == {"seconds": True}:
            continue  # one second
        with pytest.raises((ValueError, TypeError)):
            list(load_clips(sound, **options))
    for time in (math.nan, math.inf, -1.0, 1e12):
        with pytest.raises(Exception, match="expected a timestamp within"):
            load_clip(sound, time)


@pytest.mark.parametrize("rate", [*NONSENSE, 0, -8000, 16000.5, 10**9, True])
def test_nonsense_sampling_rates_are_refused(rate):
    with pytest.raises(ValueError, match="Expected sampling_rate as a whole number of Hz, 100 to 1000000"):
        DeepAVFusionFeatureExtractor(num_mel_bins=32, spectrogram_length=48)(np.zeros(800, np.float32), rate)


# What is wrong with a weight -> how it comes about.
DAMAGE = {
    "nan": lambda weight: weight.index_fill(0, torch.tensor([0]), math.nan),
    "inf": lambda weight: weight.index_fill(0, torch.tensor([0]), -math.inf),
    "complex": lambda weight: weight.to(torch.complex64),
    "int": lambda weight: torch.ones_like(weight, dtype=torch.int64),
    "int8": lambda weight: torch.ones_like(weight, dtype=torch.int8),
    "bool": lambda weight: torch.ones_like(weight, dtype=torch.bool),
    "too large": lambda weight: torch.full_like(weight, 1e300, dtype=torch.float64),
}
WEIGHTS = {
    "weight": "deepavfusion.audio.layers.0.mlp.fc1.weight",
    "bias": "deepavfusion.fusion_layers.0.mlp.fc2.bias",
    "statistics": "image_classifier.norm.running_mean",
}
REFUSED = "holds (weights that are (NaN, infinite|no floating-point)|complex numbers)"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of a classifier and its processor, whose sizes a published checkpoint determines."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "model"
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1, "num_labels": 3, "classifier_input_norm": True})
    DeepAVFusionForAudioVisualClassification(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published(saved):
    """The weights of the saved model under their published names."""
    return export_original_state_dict(DeepAVFusionForAudioVisualClassification.from_pretrained(saved))


def damaged(saved, folder, name: str, damage) -> str:
    """A copy of a saved model in which one weight is damaged."""
    shutil.copytree(saved, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = damage(tensors[name]).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("where", WEIGHTS)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_are_not_loaded(saved, tmp_path, kind, where):
    folder = damaged(saved, tmp_path / "model", WEIGHTS[where], DAMAGE[kind])
    cls = DeepAVFusionModel if where == "bias" else DeepAVFusionForAudioVisualClassification
    with pytest.raises(ValueError, match=rf"{REFUSED}.*{WEIGHTS[where].removeprefix('deepavfusion.')}"):
        cls.from_pretrained(folder)


def test_negative_variances_and_fractional_counts_are_not_loaded(saved, tmp_path):
    for name, damage in (("running_var", torch.neg), ("num_batches_tracked", torch.Tensor.float)):
        folder = damaged(saved, tmp_path / name, f"image_classifier.norm.{name}", damage)
        with pytest.raises(ValueError, match=f"holds weights that are .*{name}"):
            DeepAVFusionForAudioVisualClassification.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_all_floating_types_are_loaded(saved, tmp_path, dtype):
    folder = damaged(saved, tmp_path / "model", WEIGHTS["weight"], lambda weight: weight.to(dtype))
    loaded = DeepAVFusionForAudioVisualClassification.from_pretrained(folder).state_dict()
    stored = load_file(saved / "model.safetensors")
    torch.testing.assert_close(loaded[WEIGHTS["weight"]], stored[WEIGHTS["weight"]].to(dtype).float())


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<html>", b""])
def test_files_that_are_no_weights_are_named_for_what_they_are(saved, tmp_path, content):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    found = {b"v": "a Git LFS pointer .*`git lfs pull`", b"<": "text", b"": "an empty file"}[content[:1]]
    with pytest.raises(ValueError, match=f"model.safetensors: expected a checkpoint, .* got {found}"):
        DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path / "model")


def test_types_in_torch_files_are_checked(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "model")
    tensors = load_file(saved / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "model" / "pytorch_model.bin")
    DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path / "model")
    torch.save({**tensors, WEIGHTS["bias"]: tensors[WEIGHTS["bias"]].int()}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"pytorch_model.bin {REFUSED}"):
        DeepAVFusionForAudioVisualClassification.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("kind", ["nan", "complex", "int"])
def test_commands_refuse_damaged_weights_in_one_line(saved, tmp_path, kind, capsys):
    folder = damaged(saved, tmp_path / "model", WEIGHTS["weight"], DAMAGE[kind])
    clip = tmp_path / "clip.wav"
    clip.write_bytes(media_bytes(codec=None, audio_codec="pcm_s16le", seconds=1.5, container_format="wav"))
    capsys.readouterr()
    assert classify.main(["--model", folder, str(clip), "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert err.startswith("deepavfusion classify: ")
    assert WEIGHTS["weight"] in err


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_are_not_converted(published, tmp_path, kind, capsys):
    for number, name in enumerate(("encoder.audio.blocks.0.mlp.fc1.weight", "encoder.fusion_blocks.0.mlp.fc2.bias",
                                   "image_norm.running_mean", "encoder.audio.pos_embed")):  # fmt: skip
        if (kind, name) in {("too large", "encoder.audio.pos_embed")}:
            continue
        broken = {**published, name: DAMAGE[kind](published[name])}
        with pytest.raises(ValueError, match=f"{REFUSED}|is the sin-cos table of no|is not the table"):
            load_original_checkpoint(broken)
        if number == 0:
            path = tmp_path / "published.pth"
            torch.save(broken, path)
            capsys.readouterr()
            assert convert.main([str(path), str(tmp_path / "converted")]) in (1, 2)
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert "Traceback" not in err
            assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize("kind", DAMAGE)
def test_towers_are_not_made_of_damaged_weights(published, kind):
    tensors = {k.removeprefix("encoder.audio."): v for k, v in published.items() if k.startswith("encoder.audio.")}
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1})
    DeepAVFusionModel.from_unimodal_pretrained(audio=tensors, config=config)
    broken = {**tensors, "blocks.0.mlp.fc1.weight": DAMAGE[kind](tensors["blocks.0.mlp.fc1.weight"])}
    with pytest.raises(ValueError, match=REFUSED):
        DeepAVFusionModel.from_unimodal_pretrained(audio=broken, config=config)
