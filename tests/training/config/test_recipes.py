"""The recipes that come with the package: they parse, hold the published numbers, and fit models and data sets."""

import re
from importlib import resources
from types import SimpleNamespace

import pytest
import torch

from deepavfusion.training.config.recipe import load_recipe, recipe_command, recipe_names
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion.training.runs.optimization import scaled_learning_rate
from deepavfusion.training.tasks import TASKS
from deepavfusion_cli.early.recipes import settings, warmup
from deepavfusion_cli.recipes import all_recipes

PRETRAINING = recipe_names("pretrain")
FINETUNING = recipe_names("evaluate")
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
    "is3_localization": ("is3", None),
    "folder_recognition": ("folder", None),
    "folder_separation": ("folder", None),
}


def load(name, overrides=()):
    return load_recipe(recipe_command(name), name, overrides)


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


@pytest.mark.parametrize("name", [*PRETRAINING, *FINETUNING])
def test_a_recipe_reads_back_as_it_is_written(name, tmp_path):
    recipe = load(name)
    path = tmp_path / f"{name}.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(recipe.command, str(path)) == recipe


@pytest.mark.parametrize("name", all_recipes())
def test_settings_that_are_known_without_torch_are_those_of_the_recipe(name):
    command, task = recipe_command(name), load(name).task.name
    lines = [[], ["run.seed=3", "optim.batch_size=4", "data.eval_size=5"]]
    lines += [["data.name=folder", "data.path=videos"]] * (task not in ("segmentation", "localization"))
    lines += [["optim.epochs=7", "model.hidden_size=64"], ["optim.warmup_epochs=1"]] * (command != "evaluate")
    for words in lines:
        recipe, known = load_recipe(command, name, words), settings(name, words)
        if command != "evaluate":
            known[1]["run"]["output_dir"] = recipe.run.output_dir  # named after the recipe by default
            assert warmup(known[1]["optim"]) == recipe.optim.warmup
        assert {"command": known[0], **known[1]} == recipe.to_dict()


@pytest.mark.parametrize("name", ON_DISK)
def test_comments_do_not_claim_what_was_not_run(name):
    goal = load(name).goal
    assert "Not run yet" in goal
    numbers = EXPECTED.get(name)
    if numbers is None:
        paragraph = goal.partition("Expected:")[2].partition("\n\n")[0]
        assert not re.search(r"\d\.\d|\d %| dB", paragraph), "a number that nobody published"
    else:
        assert all(number in goal for number in numbers)
        assert "published" in goal
        assert "not reproduced yet" in goal


@pytest.mark.parametrize("name", ON_DISK)
def test_the_command_of_the_comment_names_the_recipe(name):
    recipe = load(name)
    command = recipe.command
    forms = (rf"^deepavfusion {command} {name} ", rf"^accelerate launch -m deepavfusion.training.{command} {name} ")
    assert any(re.search(form, recipe.goal, re.MULTILINE) for form in forms)
    for override in re.findall(r"\b((?:data|model|run|task|optim)\.\w+=\S+)", recipe.goal):
        load(name, [override.rstrip(").")])  # raises for keys and values that do not exist


@pytest.mark.parametrize(
    ("name", "effective", "ratios"), [("vggsound_base", 512, (0.25, 1.0)), ("audioset_base", 2048, (1.0, 4.0))]
)
def test_pretraining_is_the_published_one(name, effective, ratios):
    recipe = load(name)
    batch = recipe.optim.batch_size * recipe.optim.gradient_accumulation * 8
    assert batch == effective
    assert scaled_learning_rate(recipe.optim.base_lr, batch) == pytest.approx(1.5e-4 * effective / 256)
    assert (recipe.optim.epochs, recipe.optim.warmup_epochs, recipe.optim.weight_decay) == (200.0, 40.0, 0.05)
    assert recipe.optim.betas == [0.9, 0.95]
    config = recipe.model.build_config()
    assert (config.fusion_attention_ratio, config.fusion_mlp_ratio) == ratios
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (768, 12, 224)


@pytest.mark.parametrize("name", PUBLISHED)
def test_schedule_and_batch_are_the_published_ones(name):
    task, epochs, warmup, per_device, devices, accumulation, base_lr = PUBLISHED[name]
    recipe = load(name)
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
def test_optimizers_are_the_published_ones(name):
    optim = load(name).optim
    if name.endswith("_probe"):
        assert (optim.optimizer, optim.momentum, optim.weight_decay, optim.layer_decay) == ("lars", 0.9, 0.0, None)
    else:
        assert (optim.optimizer, optim.betas) == ("adamw", [0.9, 0.999])
        assert (optim.weight_decay, optim.layer_decay) == (0.05, 0.75)


@pytest.mark.parametrize("name", PUBLISHED)
def test_regularization_is_the_published_one(name):
    recipe = load(name)
    tuned = name.endswith("_finetune")
    config = recipe.model.build_config()
    assert config.drop_path_rate == (0.2 if tuned else 0)
    assert recipe.task.mixup == (1.0 if tuned else 0)
    assert recipe.task.label_smoothing == (0.1 if name == "vggsound_finetune" else 0)
    assert recipe.task.modality_dropout == 0
    assert not recipe.task.class_balanced
    assert recipe.task.freeze_encoder == name.endswith("_probe")
    assert config.classifier_input_norm == name.endswith("_probe")
    assert recipe.task.init_bias != name.endswith("_probe")
    assert config.classifier_loss == "joint"


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_are_the_published_ones(name):
    recipe = load(name)
    config = recipe.model.build_config()
    kind = "audioset" if name.startswith("audioset") else "vggsound"
    assert recipe.model.init_from == f"runs/{kind}_base"
    pretrained = load(f"{kind}_base")
    assert pretrained.run.output_dir == recipe.model.init_from
    earlier = pretrained.model.build_config()
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (768, 12, 224)
    for field in ("fusion_type", "fusion_layers", "fusion_attention_ratio", "fusion_mlp_ratio", "spectrogram_length"):
        assert getattr(config, field) == getattr(earlier, field)


def test_separation_has_the_published_target_and_leaves_test_clips_out():
    recipe = load("vggsound_music_separation")
    config = recipe.model.build_config()
    assert (config.separation_mask, config.separation_weighted_loss) == ("ratio", True)
    assert recipe.data.drop_overlap is True


def test_only_avss_names_classes():
    named = {name: load(name).task.semantic for name in ON_DISK}
    assert [name for name, semantic in named.items() if semantic] == ["avsbench_avss"]


@pytest.mark.parametrize("name", ON_DISK)
def test_data_sets_are_registered_and_support_the_task(name):
    recipe = load(name)
    assert (recipe.data.name, recipe.data.subset) == SOURCES[name]
    task = "recognition" if recipe.task.name == "retrieval" else recipe.task.name
    data = DATA_SETS[recipe.data.name]
    assert task in data.tasks
    own = set(recipe.data.source()) - {"name", "path", "train_size", "eval_size"}
    assert own <= data.options


@pytest.mark.parametrize("name", ON_DISK)
def test_checkpoints_are_chosen_where_there_are_clips_to_choose_by(name):
    """AVSBench has a validation split; elsewhere data.validation_fraction makes one, or the last checkpoint counts."""
    recipe = load(name)
    if recipe.command != "evaluate":
        there = recipe.data.name == "avsbench" or recipe.data.validation_fraction is not None
        assert recipe.run.keep_best == there
    assert recipe.data.eval_split == "test"


@pytest.mark.parametrize(
    ("name", "objective"), [("scenes_tiny", "reconstruction"), ("scenes_align", "align"), ("scenes_jepa", "jepa")]
)
def test_pretraining_on_scenes_differs_in_the_objective(name, objective):
    recipe = load(name)
    config = recipe.model.build_config()
    assert config.pretraining_objective == objective
    tiny = load("scenes_tiny").model.build_config()
    assert (config.hidden_size, config.image_size, config.num_patches) == (128, 64, tiny.num_patches)
    assert TASKS["pretraining"].depends_on_batch(recipe, config) == (objective != "reconstruction")
    with torch.device("meta"):
        parameters = dict(TASKS["pretraining"].MODEL(config).named_parameters())
    assert any("_decoder." in key for key in parameters) == (objective != "jepa")
    if objective != "reconstruction":
        assert (recipe.data.coupling, recipe.data.augment) == (0.97, False)


@pytest.mark.parametrize("name", FINETUNING)
def test_every_recipe_builds_its_model(name):
    recipe = load(name)
    task = TASKS[recipe.task.name]
    clips = SimpleNamespace(label_names=["ground", "bird", "drum"], multi_label=False, card="stand-in")
    config = recipe.model.build_config()
    for field, value in task.head_config(clips, recipe).items():
        setattr(config, field, value)
    with torch.device("meta"):
        model = task.MODEL(config)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert shapes[f"{task.ENCODER}fusion_tokens"][-1] == config.hidden_size
    if recipe.task.name == "recognition":
        assert config.num_labels == 3
    if recipe.task.name == "segmentation":
        assert config.num_labels == (3 if recipe.task.semantic else 1)


def test_every_published_recipe_has_a_twin_on_scenes():
    twins = {load(name).task.name for name in FINETUNING if name.startswith("scenes_")}
    assert {load(name).task.name for name in ON_DISK} == twins == set(TASKS) - {"pretraining"}
    assert load("scenes_probe").task.freeze_encoder
