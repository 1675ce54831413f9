"""Recipes and overrides: what they give, and what they refuse."""

import pytest
import yaml

from deepavfusion import DeepAVFusionConfig
from deepavfusion.training.config.commands import COMMANDS
from deepavfusion.training.config.recipe import (
    Recipe,
    RecipeError,
    load_recipe,
    recipe_command,
    recipe_goal,
    recipe_names,
)


def test_every_command_has_its_recipes():
    scenes = ["scenes_align", "scenes_jepa", "scenes_tiny", "scenes_tiny_long"]
    assert recipe_names("pretrain") == ["audioset_base", "folder", *scenes, "vggsound_base"]
    assert recipe_names("probe") == ["audioset_probe", "scenes_probe", "vggsound_probe"]
    assert recipe_command("scenes_retrieval") == "evaluate"
    assert recipe_command("no_such_recipe") is None
    own = {command: {name for name in recipe_names(command) if recipe_command(name) == command} for command in COMMANDS}
    assert set(recipe_names("finetune")) == own["finetune"]
    assert set(recipe_names("evaluate")) == own["finetune"] | own["probe"] | own["evaluate"]


def test_evaluate_accepts_what_was_finetuned_and_probed():
    assert load_recipe("evaluate", "scenes_recognition").command == "finetune"
    assert load_recipe("evaluate", "scenes_probe").command == "probe"
    with pytest.raises(RecipeError, match="use `deepavfusion pretrain scenes_tiny`"):
        load_recipe("evaluate", "scenes_tiny")


def test_overrides_are_typed_like_their_fields():
    overrides = [
        "optim.base_lr=1e-4",
        "optim.epochs=2",
        "run.trackers=wandb",
        "optim.mixed_precision=no",
        "data.path=1",
    ]
    recipe = load_recipe("pretrain", "folder", overrides)
    assert recipe.optim.base_lr == 1e-4
    assert isinstance(recipe.optim.epochs, float)
    assert recipe.run.trackers == ["wandb"]
    assert recipe.optim.mixed_precision == "no"
    assert recipe.data.path == "1"
    assert load_recipe("pretrain", "scenes_tiny", ["data.difficulty=null"]).data.difficulty is None


def test_the_warmup_is_given_in_epochs_or_as_a_fraction(tmp_path):
    published = load_recipe("finetune", "vggsound_finetune").optim
    assert (published.warmup_epochs, published.warmup_fraction, published.warmup) == (20, None, 20)
    changed = load_recipe("finetune", "vggsound_finetune", ["optim.warmup_fraction=0.1", "optim.epochs=5"])
    assert (changed.optim.warmup_epochs, changed.optim.warmup) == (None, 0.5)
    back = load_recipe("finetune", "folder_recognition", ["optim.warmup_epochs=4"]).optim
    assert (back.warmup_fraction, back.warmup) == (None, 4)
    file = tmp_path / "both.yaml"
    file.write_text("# Goal: none.\ncommand: finetune\noptim: {warmup_epochs: 1, warmup_fraction: 0.1}\n")
    with pytest.raises(RecipeError, match="warmup_epochs and optim.warmup_fraction are mutually exclusive"):
        load_recipe("finetune", str(file))


@pytest.mark.parametrize("epochs", ["1", "10", "0.5", "1e1", "1000"])
@pytest.mark.parametrize("name", [name for command in ("pretrain", "finetune") for name in recipe_names(command)])
def test_the_warmup_of_every_recipe_follows_its_length(name, epochs):
    whole = load_recipe(recipe_command(name), name).optim
    optim = load_recipe(recipe_command(name), name, [f"optim.epochs={epochs}"]).optim
    assert optim.warmup / optim.epochs == pytest.approx(whole.warmup / whole.epochs)


@pytest.mark.parametrize(
    ("override", "message"),
    [("optim.warmup_fraction=1", "below 1"), ("optim.warmup_epochs=-1", "of at least 0")],
)
def test_a_warmup_of_no_sensible_length_is_an_error(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("finetune", "folder_recognition", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optim.epoch=3",
            "Unknown option optim.epoch. Did you mean optim.epochs.*Valid options: optimizer, base_lr",
        ),
        ("model.hidden_siz=3", "Did you mean model.hidden_size.*Valid options: size, init_from.*fusion_type"),
        ("model.config=3", "Unknown option model.config"),
        (
            "optimizer.epochs=3",
            "Unknown section 'optimizer'.*Did you mean optim.epochs.*Valid sections: task, model",
        ),
        ("command.name=probe", "Unknown section 'command'"),
        ("epochs=3", "expected section.key=value. Did you mean optim.epochs=3?"),
        ("--epoch=3", "Did you mean optim.epochs=3?"),
        ("optm.epochs=3", "Unknown section .optm. .*Did you mean optim.epochs?"),
        ("data.hidden_size=3", "Unknown option data.hidden_size. Did you mean model.hidden_size?"),
        ("optim.epochs", "expected section.key=value"),
        ("optim.epochs=many", "optim.epochs is 'many': expected a number"),
        ("optim.batch_size=1.5", "optim.batch_size is 1.5: expected a whole number"),
        ("optim.batch_size=true", "optim.batch_size is true: expected a whole number"),
        ("run.cpu=1", "run.cpu is 1: expected true or false"),
        ("data.cache_dir=[a]", "expected text or null"),
        ("run.seed=null", "run.seed is null: expected a whole number"),
        ("optim.batch_size=0", "optim.batch_size is 0: expected a number above 0"),
        ("optim.mixed_precision=fp8", "expected one of auto, no, bf16, fp16"),
        ("data.name=imagenet", "data.name is 'imagenet': expected one of scenes, folder.* for task 'pretraining'"),
        ("data.name=avsbench", "data.name is 'avsbench': expected one of scenes, folder.* for task 'pretraining'"),
        ("task.name=separation", "task.name is 'separation': expected pretraining for `deepavfusion pretrain`"),
        ("optim.betas=[0.9]", "expected two numbers"),
        ("optim.betas=[0.9, high]", "optim.betas is 'high': expected a number"),
        ("run.seed=[", "not valid YAML"),
        (
            "task.masks=[{weight:",
            "^The value in 'task.masks=\\[{weight:' is not valid YAML [^\n]*: quote values that contain spaces: "
            "'task.masks=\\[...\\]'.$",
        ),
        ("task.masks={audio:1}", "needs a space after the colon: 'audio: 1'"),
        ("task.masks=[{weight: 1, audio:1}]", "needs a space after the colon: 'audio: 1'"),
        ("optim.lr=0.1", "Unknown option optim.lr. Did you mean optim.base_lr?"),
        ("optim.learning_rate=0.1", "Unknown option optim.learning_rate. Did you mean optim.base_lr?"),
        ("--learning-rate=0.1", "Use optim.base_lr=0.1"),
        ("model=runs/x", "Use model.init_from=runs/x"),
    ],
)
def test_invalid_overrides_report_what_was_expected(override, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load_recipe("pretrain", "scenes_tiny", [override])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "runs/x"], "Argument '--model': expected section.key=value. Use model.init_from=runs/x."),
        (["--model=runs/x"], "Use model.init_from=runs/x."),
        (["--out", "runs/y"], "Use run.output_dir=runs/y."),
        (["--output", "runs/y", "run.seed=1"], "Use run.output_dir=runs/y."),
        (["--output", "run.seed=1"], "Use run.output_dir=...."),
        (["run.seed=1", "--model"], "Use model.init_from=...."),
    ],
)
@pytest.mark.parametrize(("command", "name"), [("pretrain", "scenes_tiny"), ("finetune", "scenes_recognition")])
def test_flags_of_other_commands_are_answered_with_options(command, name, words, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(command, name, words)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("command", "name", "override", "message"),
    [
        ("pretrain", "scenes_tiny", "run.num_examples=3", "option run.num_examples for command 'pretrain'"),
        ("pretrain", "scenes_tiny", "model.separation_mask=binary", "model.separation_mask for task 'pretraining'"),
        (
            "pretrain",
            "folder",
            "data.noise=0.1",
            "Unknown option data.noise for dataset 'folder'. Valid options: name, p",
        ),
        ("pretrain", "scenes_tiny", "data.path=x", "option data.path for dataset 'scenes'"),
        ("finetune", "scenes_recognition", "task.semantic=true", "option task.semantic for task 'recognition'"),
        ("finetune", "scenes_recognition", "task.mixing=1", "Unknown option task.mixing. Did you mean task.mixup"),
        ("finetune", "scenes_recognition", "task.label_smoothing=1", "expected a number of at least 0 and below 1"),
        ("finetune", "scenes_recognition", "task.modality_dropout=-0.1", "expected a number of at least 0 and below 1"),
        ("finetune", "scenes_recognition", "task.drop_modality=0.1", "Did you mean task.modality_dropout"),
        ("finetune", "scenes_recognition", "optim.optimizer=sgd", "expected one of adamw, muon, lars"),
        ("finetune", "scenes_recognition", "task.name=recogniton", "task.name is 'recogniton': expected one of recog"),
        ("finetune", "scenes_recognition", "run.demo=true", "option run.demo for command 'finetune'"),
        ("finetune", "scenes_separation", "task.mixup=1", "option task.mixup for task 'separation'"),
        ("finetune", "scenes_separation", "task.init_bias=false", "option task.init_bias for task 'separation'"),
        ("finetune", "scenes_separation", "model.init_image=x", "option model.init_image for task 'separation'"),
        ("finetune", "scenes_separation", "task.name=retrieval", "for `deepavfusion finetune`"),
        ("probe", "scenes_probe", "task.freeze_encoder=false", "a probe needs task.freeze_encoder=true"),
        ("evaluate", "scenes_retrieval", "optim.epochs=3", "option optim.epochs for command 'evaluate'"),
        ("finetune", "flickr_localization", "data.validation_fraction=1", "expected a number above 0 and below 1"),
    ],
)
def test_options_that_do_not_apply_are_unknown(command, name, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(command, name, [override])
    assert message in str(caught.value)


def test_an_option_that_does_not_apply_may_stand_at_its_default():
    recipe = load_recipe("finetune", "scenes_separation", ["task.mixup=0", "data.path=null"])
    assert (recipe.task.mixup, recipe.data.path) == (0.0, None)
    assert "mixup" not in recipe.to_dict()["task"]


@pytest.mark.parametrize("override", ["model.patch_size=7", "model.fusion_type=late"])
def test_an_impossible_model_is_refused(override):
    with pytest.raises(RecipeError, match="Invalid model section: [a-z]") as error:
        load_recipe("pretrain", "scenes_tiny", [override]).model.build_config()
    assert "validator" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("hidden_size=wide", "a whole number"),
        ("image_size=[64, big]", "a whole number"),
        ("layer_norm_eps=small", "a number"),
    ],
)
def test_fields_of_the_model_are_converted_as_other_options(override, expected):
    with pytest.raises(RecipeError, match=rf"model\.{override.partition('=')[0]} is .*expected {expected}"):
        load_recipe("pretrain", "scenes_tiny", [f"model.{override}"])


def test_numbers_that_yaml_reads_as_text_are_numbers():
    model = load_recipe("pretrain", "scenes_tiny", ["model.layer_norm_eps=1e-5"]).model
    assert model.build_config().layer_norm_eps == 1e-5


def test_two_origins_exclude_each_other():
    with pytest.raises(RecipeError, match="mutually exclusive"):
        load_recipe("pretrain", "scenes_tiny", ["model.init_from=a", "model.init_image=b"])


@pytest.mark.parametrize(("command", "task"), [("pretrain", "pretraining"), ("finetune", "recognition")])
def test_the_task_defaults_to_the_first_of_the_command(tmp_path, command, task):
    path = tmp_path / "mine.yaml"
    path.write_text(f"command: {command}\n")
    assert load_recipe(command, str(path)).task.name == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "expected sections"),
        ("command: pretrain\nmodel: 3\n", "expected key: value"),
        ("command: pretrain\ntrain: {}\n", "Unknown section"),
        ("a: [", "not valid YAML"),
        ("task: {name: pretraining}\n", "names no command: add the line `command: pretrain`"),
        ("command: train\n", "is 'train': expected one of pretrain, finetune, probe, evaluate"),
        ("command: pretrain\ntask: {name: recognition}\n", "task.name is 'recognition': expected pretraining"),
        ("command: [pretrain]\n", "expected one of pretrain"),
    ],
)
def test_invalid_recipe_files_are_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe("pretrain", str(path))


def test_a_recipe_file_needs_only_command_and_task(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("command: pretrain\ntask: {name: pretraining}\n")
    recipe = load_recipe("pretrain", str(path))
    assert (recipe.name, recipe.goal, recipe.run.output_dir) == ("mine", "", "runs/mine")
    assert isinstance(recipe.model.build_config(), DeepAVFusionConfig)


def test_an_unknown_recipe_lists_those_of_the_command():
    with pytest.raises(RecipeError, match="Did you mean scenes_tiny.*vggsound_base") as caught:
        load_recipe("pretrain", "scene_tiny")
    assert "vggsound_finetune" not in str(caught.value)
    with pytest.raises(RecipeError, match="no recipe file"):
        load_recipe("pretrain", "missing.yaml")


def test_the_data_source_holds_what_was_set():
    recipe = load_recipe("pretrain", "folder", ["data.path=clips", "data.validation_fraction=0.2"])
    assert recipe.data.source() == {
        "name": "folder",
        "path": "clips",
        "temporal_jitter": True,
        "validation_fraction": 0.2,
    }


def test_a_written_recipe_reads_back_with_its_overrides(tmp_path):
    recipe = load_recipe("pretrain", "vggsound_base", ["optim.epochs=3", "model.fusion_layers=[0, 1]"])
    path = tmp_path / "vggsound_base.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe("pretrain", str(path)) == recipe


def test_yaml_of_a_run_holds_the_goal_and_what_applies():
    recipe = load_recipe("pretrain", "folder")
    text = recipe.to_yaml()
    assert text.startswith("# Goal: pre-train a small model")
    written = yaml.safe_load(text)
    assert list(written) == ["command", "task", "model", "data", "optim", "run"]
    assert written == recipe.to_dict()
    assert written["task"] == {"name": "pretraining", "masks": [], "probe_labels": []}
    assert "noise" not in written["data"]
    assert "num_examples" not in written["run"]
    assert written["model"]["decoder_hidden_size"] == 256


def test_a_public_recipe_has_no_local_paths():
    recipe = load_recipe("pretrain", "folder", ["data.path=/home/me/clips", "run.output_dir=/home/me/out"])
    text = recipe.to_yaml(public=True)
    assert "/home/me" not in text
    assert "null" not in text
    assert text.startswith("# Goal: ")
    assert "Cost:" not in text
    assert "Expected:" not in text
    assert yaml.safe_load(text)["optim"] == {k: v for k, v in recipe.to_dict()["optim"].items() if v is not None}


def test_a_goal_is_one_line():
    goal = recipe_goal("audioset_base")
    assert goal.startswith("published pre-training on AudioSet-2M")
    assert goal.endswith("effective batch 2048.")


def test_recipes_are_built_without_a_file():
    with pytest.raises(RecipeError, match="command is 'train'"):
        Recipe(name="mine", goal="", command="train")
    assert Recipe(name="mine", goal="", command="finetune").task.name == "recognition"


def test_options_of_a_recipe_stay_with_its_data_set():
    recipe = load_recipe("finetune", "music_separation", ["data.name=folder", "data.path=x"])
    assert (recipe.data.name, recipe.data.subset) == ("folder", None)
    assert load_recipe("finetune", "music_separation").data.subset == "solo"
    recipe = load_recipe("finetune", "scenes_separation", ["data.name=folder", "data.path=x"])
    assert recipe.data.name == "folder"
    with pytest.raises(RecipeError, match=r"Unknown option data\.subset"):
        load_recipe("finetune", "music_separation", ["data.name=folder", "data.path=x", "data.subset=solo"])
