"""The recipes that come with the package: they parse, hold the published numbers, and fit models and data sets."""

import json
import re
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel
from deepavfusion.training import cli
from deepavfusion.training.config.arguments import PretrainArguments, load_arguments
from deepavfusion.training.config.finetune_arguments import FinetuneArguments, load_finetune_arguments
from deepavfusion.training.config.recipe import RecipeError, recipe_names
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion.training.runs.optimization import scaled_learning_rate
from deepavfusion.training.tasks import TASKS
from tests.media_factory import tone
from tests.tiny import WIDE
from tests.training.data.disk import make_clips, put, write_picture, write_sound

PRETRAINING = recipe_names(PretrainArguments)
FINETUNING = recipe_names(FinetuneArguments)
ON_DISK = [name for name in FINETUNING if not name.startswith("scenes_")]

# What the authors trained with (paper, section 4, and their commands): task, epochs, warm-up, per device, devices,
# accumulation, base_lr. AudioSet's balanced part has numbers of its own.
PUBLISHED = {
    "vggsound_finetune": ("recognition", 100, 20, 32, 4, 4, 3e-4),
    "audioset_finetune": ("recognition", 100, 20, 32, 4, 4, 3e-4),
    "vggsound_probe": ("recognition", 60, 10, 64, 4, 4, 0.3),
    "audioset_probe": ("recognition", 300, 20, 64, 4, 4, 0.3),
    "vggsound_music_separation": ("separation", 300, 40, 16, 4, 8, 3e-4),
    "music_separation": ("separation", 300, 40, 16, 4, 8, 3e-4),
    "avsbench_s4": ("segmentation", 100, 20, 16, 4, 8, 2e-4),
    "avsbench_ms3": ("segmentation", 100, 20, 16, 4, 8, 2e-4),
    "avsbench_avss": ("segmentation", 100, 20, 16, 4, 8, 2e-4),
}
# Learning rates that follow: base_lr * effective batch / 256.
RATES = {
    "vggsound_finetune": 6e-4,
    "audioset_finetune": 6e-4,
    "vggsound_probe": 1.2,
    "audioset_probe": 1.2,
    "vggsound_music_separation": 6e-4,
    "music_separation": 6e-4,
    "avsbench_s4": 4e-4,
    "avsbench_ms3": 4e-4,
    "avsbench_avss": 4e-4,
}
# Recipe -> the numbers that its comment gives as published.
EXPECTED = {
    "vggsound_finetune": ("58.19", "57.91"),
    "vggsound_probe": ("53.08",),
    "vggsound_music_separation": ("5.79", "8.24", "13.82", "6.93", "9.93", "13.49"),
    "avsbench_s4": ("89.94", "92.34", "90.27", "92.49"),
}
# Recipe -> data.name and data.subset.
SOURCES = {
    "vggsound_finetune": ("vggsound", None),
    "vggsound_probe": ("vggsound", None),
    "vggsound_retrieval": ("vggsound", None),
    "audioset_finetune": ("audioset", "balanced"),
    "audioset_probe": ("audioset", "balanced"),
    "vggsound_music_separation": ("vggsound_music", None),
    "music_separation": ("music", "solo"),
    "avsbench_s4": ("avsbench", "s4"),
    "avsbench_ms3": ("avsbench", "ms3"),
    "avsbench_avss": ("avsbench", "avss"),
    "vggss_localization": ("vggss", None),
    "flickr_localization": ("flickr_soundnet", None),
    "folder_recognition": ("folder", None),
}
TINY = {**WIDE, "spectrogram_length": 64}


def load(name):
    return load_arguments(name) if name in PRETRAINING else load_finetune_arguments(name)


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A model to start from: of any size, for nothing of it is trained here."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("origin")
    DeepAVFusionModel(DeepAVFusionConfig(**TINY)).save_pretrained(folder)
    return folder


def command_of(name, origin, folder, *overrides):
    """The command of a recipe, as its comment gives it, with other folders."""
    recipe = load_finetune_arguments(name)
    common = ["run.cpu=true", "data.num_workers=0", *overrides]
    if recipe.task.name == "retrieval":
        return ["evaluate", name, *common, "--model", str(origin), "--out", str(folder)]
    command = "probe" if recipe.task.freeze_encoder else "finetune"
    return [command, name, f"model.init_from={origin}", f"run.output_dir={folder}", *common]


def test_every_file_is_a_recipe_of_one_kind():
    folder = resources.files("deepavfusion.training.recipes")
    files = {entry.name for entry in folder.iterdir() if entry.name.endswith((".yaml", ".yml"))}
    assert files == {f"{name}.yaml" for name in (*PRETRAINING, *FINETUNING)}
    assert not set(PRETRAINING) & set(FINETUNING)
    assert {*PUBLISHED, *SOURCES} <= set(FINETUNING)


@pytest.mark.parametrize("name", [*PRETRAINING, *FINETUNING])
def test_a_recipe_begins_with_goal_cost_and_expectation(name):
    goal = load(name).goal
    starts = [re.search(rf"^{word}: \S", goal, re.MULTILINE) for word in ("Goal", "Cost", "Expected")]
    assert all(starts), goal
    assert starts[0].start() == 0
    assert [match.start() for match in starts] == sorted(match.start() for match in starts)


@pytest.mark.parametrize("name", FINETUNING)
def test_a_recipe_reads_back_as_it_is_written(name, tmp_path):
    recipe = load_finetune_arguments(name)
    path = tmp_path / f"{name}.yaml"
    path.write_text(recipe.to_yaml())
    assert load_finetune_arguments(str(path)) == recipe


@pytest.mark.parametrize("name", ON_DISK)
def test_comments_do_not_claim_what_was_not_run(name):
    goal = load(name).goal
    assert "not run here" in goal
    numbers = EXPECTED.get(name)
    if numbers is None:
        paragraph = goal.partition("Expected:")[2].partition("\n\n")[0]
        assert not re.search(r"\d\.\d|\d %| dB", paragraph), "a number that nobody published"
    else:
        assert all(number in goal for number in numbers)
        assert "published" in goal
        assert "not reproduced here" in goal


@pytest.mark.parametrize("name", ON_DISK)
def test_the_command_of_the_comment_names_the_recipe(name):
    recipe = load_finetune_arguments(name)
    command = "evaluate" if recipe.task.name == "retrieval" else "probe" if recipe.task.freeze_encoder else "finetune"
    forms = (rf"^deepavfusion {command} {name} ", rf"^accelerate launch -m deepavfusion.training.{command} {name} ")
    assert any(re.search(form, recipe.goal, re.MULTILINE) for form in forms)
    for override in re.findall(r"\b((?:data|model|run|task|optim)\.\w+=\S+)", recipe.goal):
        load_finetune_arguments(name, [override.rstrip(").")])  # raises for keys and values that do not exist


@pytest.mark.parametrize("name", PUBLISHED)
def test_schedule_and_batch_are_the_published_ones(name):
    task, epochs, warmup, per_device, devices, accumulation, base_lr = PUBLISHED[name]
    recipe = load_finetune_arguments(name)
    optim = recipe.optim
    assert recipe.task.name == task
    assert (optim.epochs, optim.warmup_epochs, optim.min_lr) == (epochs, warmup, 0.0)
    assert (optim.batch_size, optim.gradient_accumulation) == (per_device, accumulation)
    assert optim.base_lr == base_lr
    effective = optim.batch_size * optim.gradient_accumulation * devices
    assert scaled_learning_rate(optim.base_lr, effective) == pytest.approx(RATES[name])
    assert f"meant for {devices} GPUs" in recipe.goal
    assert f"* N = {effective}." in recipe.goal
    assert optim.clip_grad_norm is None
    assert optim.mixed_precision == "no"


@pytest.mark.parametrize("name", PUBLISHED)
def test_optimisers_are_the_published_ones(name):
    optim = load_finetune_arguments(name).optim
    if name.endswith("_probe"):
        assert (optim.optimizer, optim.momentum, optim.weight_decay, optim.layer_decay) == ("lars", 0.9, 0.0, None)
    else:
        assert (optim.optimizer, optim.betas) == ("adamw", [0.9, 0.999])
        assert (optim.weight_decay, optim.layer_decay) == (0.05, 0.75)


@pytest.mark.parametrize("name", PUBLISHED)
def test_regularisation_is_the_published_one(name):
    recipe = load_finetune_arguments(name)
    tuned = name.endswith("_finetune")
    config = recipe.model.build_config()
    assert config.drop_path_rate == (0.2 if tuned else 0)
    assert recipe.task.mixup == (1.0 if tuned else 0)
    assert recipe.task.label_smoothing == (0.1 if name == "vggsound_finetune" else 0)
    assert recipe.task.drop_modality == 0
    assert not recipe.task.class_balanced
    assert recipe.task.freeze_encoder == name.endswith("_probe")
    assert config.classifier_input_norm == name.endswith("_probe")
    assert recipe.task.init_bias != name.endswith("_probe")
    assert config.classifier_loss == "joint"


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_are_the_published_ones(name):
    recipe = load_finetune_arguments(name)
    config = recipe.model.build_config()
    kind = "audioset" if name.startswith("audioset") else "vggsound"
    assert recipe.model.init_from == f"runs/{kind}_base"
    pretrained = load_arguments(f"{kind}_base")
    assert pretrained.run.output_dir == recipe.model.init_from
    earlier = pretrained.model.build_config()
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (768, 12, 224)
    for field in ("fusion_type", "fusion_layers", "fusion_attention_ratio", "fusion_mlp_ratio", "spectrogram_length"):
        assert getattr(config, field) == getattr(earlier, field)


def test_separation_has_the_published_target_and_leaves_test_clips_out():
    recipe = load_finetune_arguments("vggsound_music_separation")
    config = recipe.model.build_config()
    assert (config.separation_mask, config.separation_weighted_loss) == ("ratio", True)
    assert recipe.data.drop_overlap is True


def test_only_avss_names_classes():
    named = {name: load_finetune_arguments(name).task.semantic for name in ON_DISK}
    assert [name for name, semantic in named.items() if semantic] == ["avsbench_avss"]


@pytest.mark.parametrize("name", ON_DISK)
def test_data_sets_are_registered_and_support_the_task(name):
    recipe = load_finetune_arguments(name)
    assert (recipe.data.name, recipe.data.subset) == SOURCES[name]
    task = "recognition" if recipe.task.name == "retrieval" else recipe.task.name
    data = DATA_SETS[recipe.data.name]
    assert task in data.tasks
    own = set(recipe.data.source()) - {"name", "path", "train_size", "eval_size"}
    assert own <= data.keys


@pytest.mark.parametrize("name", ON_DISK)
def test_checkpoints_are_chosen_where_there_are_clips_to_choose_by(name):
    """AVSBench has a validation split; elsewhere data.validation_share must make one, or the last checkpoint counts."""
    recipe = load_finetune_arguments(name)
    if recipe.task.name != "retrieval":
        there = recipe.data.name == "avsbench" or recipe.data.validation_share is not None
        assert recipe.run.best == there
    assert recipe.data.eval_split == "test"


@pytest.mark.parametrize("name", FINETUNING)
def test_every_recipe_builds_its_model(name):
    recipe = load_finetune_arguments(name)
    task = TASKS[recipe.task.name]
    clips = SimpleNamespace(label_names=["ground", "bird", "drum"], multi_label=False, card="stand-in")
    config = recipe.model.build_config()
    for field, value in task.head_config(clips, recipe.task.semantic).items():
        setattr(config, field, value)
    with torch.device("meta"):
        model = task.MODEL(config)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    prefix = "" if recipe.task.name == "retrieval" else "deepavfusion."
    assert shapes[f"{prefix}fusion_tokens"][-1] == config.hidden_size
    if recipe.task.name == "recognition":
        assert config.num_labels == 3
    if recipe.task.name == "segmentation":
        assert config.num_labels == (3 if recipe.task.semantic else 1)


@pytest.mark.parametrize("name", ON_DISK)
def test_a_folder_that_is_not_there_is_told(name, origin, tmp_path, capsys):
    missing = tmp_path / "no such folder"
    assert cli.main(command_of(name, origin, tmp_path / "out", f"data.path={missing}")) == 2
    err = capsys.readouterr().err
    assert err.startswith("deepavfusion ")
    assert str(missing) in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ON_DISK)
def test_a_path_that_is_not_given_is_asked_for(name, origin, tmp_path, capsys):
    assert cli.main(command_of(name, origin, tmp_path / "out")) == 2
    assert "data.path is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "origin", "maker"),
    [
        ("finetune vggsound_finetune", "runs/vggsound_base", "deepavfusion pretrain vggsound_base"),
        ("finetune scenes_recognition", "runs/quickstart", "make quickstart"),
        ("finetune scenes_separation", "runs/scenes_localization", "deepavfusion finetune scenes_localization"),
        ("evaluate scenes_probe --model runs/scenes_probe", "runs/scenes_probe", "deepavfusion probe scenes_probe"),
        ("pretrain scenes_tiny model.init_from=runs/mine", "runs/mine", None),
        ("evaluate scenes_retrieval --model runs/a/scenes_tiny", "runs/a/scenes_tiny", None),
    ],
)
def test_a_model_that_was_not_trained_yet_is_told_with_what_makes_it(
    command, origin, maker, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sizes = ["data.train_size=8", "data.eval_size=8", "data.cache_dir=null"] if "scenes" in command else []
    assert cli.main([*command.split(), *(sizes or [f"data.path={tmp_path}"]), "run.cpu=true"]) == 2
    err = capsys.readouterr().err
    assert f"{origin} cannot be used: there is no model in that folder" in err
    assert ("makes it" not in err) if maker is None else f"`{maker}` makes it" in err


def test_retrieval_is_not_trained(origin, tmp_path, capsys):
    assert cli.main(["finetune", "vggsound_retrieval", f"run.output_dir={tmp_path / 'out'}"]) == 2
    assert "deepavfusion evaluate" in capsys.readouterr().err


def test_localization_without_boxes_needs_a_list(tmp_path):
    recipe = load_finetune_arguments("vggss_localization")
    (tmp_path / "vggss.json").write_text('[{"file": "abcdefghijk_000010", "bbox": [[0, 0, 0.5, 0.5]]}]')
    source = {**recipe.data.source(), "path": str(tmp_path)}
    with pytest.raises(ValueError, match="data.train_list names the clips to train on"):
        build_dataset(source, DeepAVFusionConfig(**TINY), "train", train=True, seed=0, task="localization")


def test_the_wrong_command_is_told(origin, tmp_path, capsys):
    out = f"run.output_dir={tmp_path / 'out'}"
    assert cli.main(["probe", "vggsound_finetune", out]) == 2
    assert "task.freeze_encoder=true" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="deepavfusion finetune vggsound_finetune"):
        load_arguments("vggsound_finetune")


def test_every_published_recipe_has_a_twin_on_scenes():
    twins = {load_finetune_arguments(name).task.name for name in FINETUNING if name.startswith("scenes_")}
    assert {load_finetune_arguments(name).task.name for name in ON_DISK} == twins == set(TASKS)
    assert load_finetune_arguments("scenes_probe").task.freeze_encoder


def documented_commands():
    """The commands of docs/data.md, as lists of words after `deepavfusion`."""
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^(?:deepavfusion |accelerate launch -m deepavfusion\.training\.)(.+)$", blocks, re.MULTILINE)
    return text, [line.split() for line in lines]


def test_the_data_sets_are_documented():
    text, commands = documented_commands()
    for name in (*DATA_SETS, *PRETRAINING, *ON_DISK):
        assert f"`{name}`" in text or f" {name} " in text, name
    assert {words[1] for words in commands} == {*PRETRAINING, *FINETUNING}


@pytest.mark.parametrize("words", documented_commands()[1], ids=" ".join)
def test_documented_commands_are_accepted(words):
    command, name, *rest = words
    if "--model" in rest:
        place = rest.index("--model")
        assert command == "evaluate"
        del rest[place : place + 2]
    if command == "pretrain":
        assert load_arguments(name, rest).recipe == name
    else:
        recipe = load_finetune_arguments(name, rest)
        assert (command == "probe") == recipe.task.freeze_encoder
        assert (command == "evaluate") or recipe.task.name != "retrieval"


FEW = [
    "data.max_broken=0",
    "optim.epochs=1",
    "optim.warmup_epochs=0",
    "optim.batch_size=2",
    "optim.gradient_accumulation=1",
    "run.eval_epochs=1",
    "run.examples=1",
]


def run_small(name, root, folder):
    """The numbers of a recipe's run on a small data set, from a tiny model."""
    torch.manual_seed(0)
    DeepAVFusionModel(DeepAVFusionConfig(**TINY)).save_pretrained(folder / "origin")
    words = command_of(name, folder / "origin", folder / "out", f"data.path={root}", *FEW)
    assert cli.main(words) == 0
    found = json.loads((folder / "out" / "evaluation.json").read_text())
    assert found["skipped"] == 0
    return found


def test_separation_runs_on_clips_as_they_are_documented(tmp_path):
    root = tmp_path / "data"
    ids = ["abcdefghijk_000000", "bbcdefghijk_000030", "cbcdefghijk_000000", "dbcdefghijk_000010"]
    instruments = ["harp", "oboe", "harp", "oboe"]
    for key, instrument, clip in zip(ids, instruments, make_clips(tmp_path / "made"), strict=True):
        put(clip, root / "clips" / f"playing_{instrument}" / f"{key}_000040.mp4")
    (root / "annotations").mkdir()
    listed = "".join(f"{key},{instrument}\n" for key, instrument in zip(ids, instruments, strict=True))
    (root / "annotations" / "vggmusic_train.txt").write_text(listed)
    pairs = f"source_1,source_2,class_1,class_2,sep_type\n{ids[0]},{ids[1]},harp,oboe,Easy\n"
    (root / "annotations" / "vggmusic_eval_ss.csv").write_text(pairs)
    found = run_small("vggsound_music_separation", root, tmp_path)
    assert (found["task"], found["num_clips"]) == ("separation", 2)
    written = load_finetune_arguments(str(tmp_path / "out" / "recipe.yaml"))
    assert (written.optim.layer_decay, written.data.drop_overlap) == (0.75, True)


def test_segmentation_with_classes_runs_on_frames_as_they_are_documented(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "label2idx.json").write_text(json.dumps({"background": 1, "cat": 2, "dog": 3}))
    lines = ["vid,uid,s_min,s_sec,a_obj,split,label"]
    for uid, split, label in (("a", "train", "v1s"), ("b", "train", "v2"), ("c", "val", "v1m"), ("d", "test", "v2")):
        lines.append(f"vid,{uid},0,5,dog_cat,{split},{label}")
        mask = np.zeros((48, 64), np.uint8)
        mask[:, :32] = 2
        write_picture(root / label / uid / "frames" / "0.jpg", np.full((48, 64, 3), 90, np.uint8))
        write_picture(root / label / uid / "labels_semantic" / "0.png", mask)
        write_sound(root / label / uid / "audio.wav", tone(16000, 1.0)[0])
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = run_small("avsbench_avss", root, tmp_path)
    assert (found["task"], found["num_clips"]) == ("segmentation", 1)
    assert 0 <= found["metrics"]["miou"] <= 1
