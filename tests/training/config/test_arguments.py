"""Recipes and overrides: what they give, and what they refuse."""

import dataclasses

import pytest
import yaml

from deepavfusion import DeepAVFusionConfig
from deepavfusion.training.config.arguments import (
    DataArguments,
    ModelArguments,
    OptimArguments,
    PretrainArguments,
    RunArguments,
    load_arguments,
)
from deepavfusion.training.config.recipe import RecipeError, recipe_names
from deepavfusion.training.runs.optimization import scaled_learning_rate

RECIPES = ["audioset_base", "folder", "scenes_tiny", "vggsound_base"]


def test_the_recipes_are_found():
    assert recipe_names(PretrainArguments) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_parse_build_a_configuration_and_say_goal_cost_and_expectation(name):
    args = load_arguments(name)
    assert isinstance(args.model.build_config(), DeepAVFusionConfig)
    for word in ("Goal:", "Cost:", "Expected:"):
        assert word in args.goal
    assert args.run.output_dir.endswith(name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_written_recipe_reads_back_the_same(name, tmp_path):
    args = load_arguments(name, ["optim.epochs=3", "model.fusion_layers=[0, 1]"])
    path = tmp_path / f"{name}.yaml"
    path.write_text(args.to_yaml())
    assert load_arguments(str(path)) == args


@pytest.mark.parametrize(
    ("name", "effective", "ratios"), [("vggsound_base", 512, (0.25, 1.0)), ("audioset_base", 2048, (1.0, 4.0))]
)
def test_published_recipes_hold_the_published_numbers(name, effective, ratios):
    args = load_arguments(name)
    batch = args.optim.batch_size * args.optim.gradient_accumulation * 8
    assert batch == effective
    assert scaled_learning_rate(args.optim.base_lr, batch) == pytest.approx(1.5e-4 * effective / 256)
    assert (args.optim.epochs, args.optim.warmup_epochs, args.optim.weight_decay) == (200.0, 40.0, 0.05)
    assert args.optim.betas == [0.9, 0.95]
    config = args.model.build_config()
    assert (config.fusion_attention_ratio, config.fusion_mlp_ratio) == ratios
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (768, 12, 224)


def test_overrides_are_typed_like_their_fields():
    args = load_arguments(
        "scenes_tiny",
        ["optim.base_lr=1e-4", "optim.epochs=2", "run.trackers=wandb", "optim.mixed_precision=no", "data.path=123"],
    )
    assert args.optim.base_lr == 1e-4
    assert isinstance(args.optim.epochs, float)
    assert args.run.trackers == ["wandb"]
    assert args.optim.mixed_precision == "no"
    assert args.data.path == "123"
    assert load_arguments("scenes_tiny", ["data.difficulty=null"]).data.difficulty is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.epoch=3", "Did you mean epochs.*Valid: base_lr, min_lr, epochs"),
        ("model.hidden_siz=3", "Did you mean hidden_size.*Valid: size, init_from.*fusion_type"),
        ("model.separation_mask=binary", "Unknown key model.separation_mask"),
        ("model.config=3", "Unknown key model.config"),
        ("optimizer.epochs=3", "Unknown section 'optimizer'.*Valid: model, data, optim, run"),
        ("epochs=3", "expected section.key=value"),
        ("optim.epochs", "expected section.key=value"),
        ("optim.epochs=many", "optim.epochs is 'many' .str.: expected float"),
        ("optim.batch_size=1.5", "optim.batch_size is 1.5 .float.: expected int"),
        ("optim.batch_size=true", "expected int"),
        ("run.cpu=1", "run.cpu is 1 .int.: expected bool"),
        ("data.path=[a]", "expected str or nothing"),
        ("run.seed=null", "run.seed is None .NoneType.: expected int"),
        ("optim.batch_size=0", "expected a positive number"),
        ("optim.mixed_precision=fp8", "expected one of no, bf16, fp16"),
        ("run.trackers=[mlflow]", "expected tensorboard or wandb"),
        ("data.name=imagenet", "expected one of scenes, folder"),
        ("optim.betas=[0.9]", "expected two numbers"),
        ("run.seed=[", "not YAML"),
    ],
)
def test_unusable_overrides_say_what_was_expected(override, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        load_arguments("scenes_tiny", [override])


@pytest.mark.parametrize(
    "override", ["model.patch_size=7", "model.fusion_type=late", "model.hidden_size=wide", "model.size=tiny"]
)
def test_an_impossible_model_is_refused(override):
    with pytest.raises(RecipeError, match="does not give a configuration"):
        load_arguments("scenes_tiny", [override]).model.build_config()


def test_two_origins_exclude_each_other():
    with pytest.raises(RecipeError, match="exclude each other"):
        load_arguments("scenes_tiny", ["model.init_from=a", "model.init_image=b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "expected sections"),
        ("model: 3\n", "expected key: value"),
        ("train: {}\n", "Unknown section"),
        ("a: [", "not YAML"),
    ],
)
def test_unusable_recipe_files_are_refused(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_arguments(str(path))


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(RecipeError, match="Did you mean scenes_tiny.*vggsound_base"):
        load_arguments("scene_tiny")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_arguments("missing.yaml")


def test_the_data_source_holds_what_was_set():
    args = load_arguments("folder", ["data.path=clips", "data.validation_share=0.2"])
    assert args.data.source() == {"name": "folder", "path": "clips", "validation_share": 0.2}


def test_every_argument_is_documented():
    import ast
    import inspect

    from deepavfusion.training.config import arguments

    tree = ast.parse(inspect.getsource(arguments))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for cls in (ModelArguments, DataArguments, OptimArguments, RunArguments):
        body = classes[cls.__name__].body
        fields = {field.name for field in dataclasses.fields(cls)}
        for node, following in zip(body, body[1:]):
            if isinstance(node, ast.AnnAssign) and node.target.id in fields:
                assert isinstance(getattr(following, "value", None), ast.Constant), f"{cls.__name__}.{node.target.id}"


def test_yaml_of_a_run_starts_with_its_goal():
    args = load_arguments("folder")
    text = args.to_yaml()
    assert text.startswith("# Goal: pre-train a small model")
    assert set(yaml.safe_load(text)) == {"model", "data", "optim", "run"}


def test_a_public_recipe_tells_no_folders():
    args = load_arguments("folder", ["data.path=/home/me/clips", "run.output_dir=/home/me/out"])
    text = args.to_yaml(public=True)
    assert "/home/me" not in text
    assert "null" not in text
    assert text.startswith("# Goal: ")
    assert "Cost:" not in text
    assert "Expected:" not in text
    assert yaml.safe_load(text)["optim"] == {k: v for k, v in args.to_dict()["optim"].items() if v is not None}
