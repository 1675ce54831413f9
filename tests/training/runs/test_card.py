"""Model cards: their metadata, their facts, and that the templates are shipped."""

import configparser
import importlib.metadata
import platform
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.inference.publishing.contents import referred_files
from deepavfusion.inference.publishing.latency import device_name, forward_time
from deepavfusion.tasks_deepavfusion import TASKS
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.report.report import Example, ExampleImage
from deepavfusion.training.report.tables import Table
from deepavfusion.training.runs.card import TEMPLATE, model_license, write_card
from deepavfusion.training.runs.records import initial_weights, package_versions, training_summary
from deepavfusion.training.tasks import Evaluation
from tests.tiny import tiny_config

ROOT = Path(__file__).parents[3]
PIPELINES = {task.name: task.pipeline for task in TASKS.values() if task.pipeline}
VERSIONS = {"python": "3.11.7", "torch": "2.9"}


def record(task, **changes):
    """Content of an evaluation.json."""
    return {
        "task": task, "date": "2024-05-06", "split": "test", "protocol": "How it was measured.",
        "metrics": {"top1": 0.51234}, "versions": VERSIONS,
        "training": {
            "initial_weights": "random", "steps": 10, "effective_batch": 8, "clips_seen": 1280, "seconds": 3661.0,
            "samples_per_second": 12.34, "device": "1 x cpu (2 threads)", "mixed_precision": "no",
            "forward": {"seconds": 0.01234, "device": "cpu (2 threads)"}, "skipped_clips": {"a.mp4": "broken"},
        },
        "data": {"name": "scenes", "description": "built-in <scenes>: 4 clips"},
        "architecture": {
            "parameters": 5_250_000, "encoder_parameters": 4_100_000, "weight_bytes": 21_000_000,
            "multiply_accumulates": 345_600_000, "labels": [], "hidden_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 2, "fusion_type": "factorized", "fusion_layers": "all", "fusion_tokens": 32,
            "frame": "64 x 64", "spectrogram": "64 mels x 96 steps", "image_patches": 64, "audio_patches": 24,
            "norm_patch_loss": True, "pretraining_objective": "reconstruction",
        },
        **changes,
    }  # fmt: skip


DETAILS = (
    "| parameters | 5.2 M, of which encoder 4.1 M |",
    "| memory of the weights | 21 MB |",
    "| compute | 0.346 GMACs (multiply-accumulates) a clip, without masks |",
    "| latency | 12.3 ms for a forward pass, batch of 1, float32, cpu (2 threads) |",
    "| training data | synthetic scenes that the package generates (built-in &lt;scenes>: 4 clips) |",
    "| clips seen | 1,280 (repeats counted), in 10 steps of 8 |",
    "1:01:01 (12.3 clips per second), 1 x cpu (2 threads)",
    "How it was measured.\n\n### First\n\n| from | top-1 |",
    "A note.\n\n### Second",
    "12 clips of the test split; 1 could not be read.",
    "- Trained on synthetic scenes that the package generates (built-in &lt;scenes>: 4 clips). Do not expect",
    "- Clips that could not be read: 1, listed in `evaluation.json`.",
    "(`pip install .` in a clone of it)",
    "- The data are synthetic scenes",
    "Weights: apache-2.0. The code in this repository: apache-2.0. The scenes that it was trained on are generated",
    "Not intended for recognizing or watching people",
    "Versions: python 3.11.7, torch 2.9.\n",
    "@inproceedings{mo2024deepavfusion,",
)


def written(folder, content, recipe, examples=()):
    tables = [Table("First", ["from", "top-1"], [["joint", "50 %"]], "A note."), Table("Second", ["n"], [[1]])]
    task, protocol = content["task"], content["protocol"]
    evaluation = Evaluation(
        task,
        protocol,
        content["metrics"],
        12,
        data="built-in <scenes>: 12 clips",
        tables=tables,
        skipped={"b.mp4": "broken"},
        examples=list(examples),
    )
    write_card(folder, "tiny", content, evaluation, recipe, ["Trained long."])
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in text
    assert text.endswith("```\n")
    assert recipe.to_yaml(public=True).strip() in text
    sections = ["Use", "Details", "Results", "Intended use", "Limits", "License", "Recipe", "Citation"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == sections
    card = ModelCard.load(folder / "README.md")
    for result in card.data.eval_results or ():
        assert (result.dataset_name, result.dataset_split) == ("built-in <scenes>: 12 clips", "test")
    return card, text


@pytest.mark.parametrize(
    ("recipe", "words", "license"),
    [
        ("scenes_recognition", ["model.init_from=null"], "apache-2.0"),
        ("scenes_recognition", ["model.init_from=own"], "apache-2.0"),
        ("scenes_recognition", ["model.init_from=other"], None),
        ("scenes_recognition", ["model.init_from=bare"], None),
        ("scenes_recognition", ["model.init_from=ORG/NAME"], None),
        ("scenes_recognition", ["model.init_from=null", "data.things=THINGS"], None),
        ("scenes_recognition", ["model.init_from=other", "run.license=mit"], "mit"),
        ("folder_recognition", ["model.init_from=null", "data.path=VIDEOS"], None),
        ("folder_recognition", ["model.init_from=own", "data.path=VIDEOS"], None),
        ("folder_recognition", ["model.init_from=own", "data.path=VIDEOS", "run.license=cc-by-4.0"], "cc-by-4.0"),
        ("vggsound_finetune", ["model.init_from=null", "data.path=VGGSOUND"], None),
        ("folder_recognition", ["model.init_from=own", "data.name=shards", "data.path=PREPARED"], None),
    ],
)
def test_a_license_is_stated_where_somebody_has_chosen_it(recipe, words, license, tmp_path, monkeypatch):
    """The package's own scenes are under its license; nobody has said what that of somebody's videos allows."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"own": "license: apache-2.0", "other": "license: mit", "bare": "tags: [video]"}.items():
        Path(name).mkdir()
        Path(name, "README.md").write_text(f"---\n{text}\n---\n# A\n")
    recipe = load_recipe("finetune", recipe, words)
    assert model_license(recipe) == license
    content = record("recognition", data={"name": recipe.data.name, "description": "clips"})
    card, text = written(tmp_path, content, recipe)
    assert card.data.to_dict().get("license") == license
    assert (f"Weights: {license}. The" if license else "No license is stated for the weights. The") in text
    following = training_summary(content, tmp_path, (), license).splitlines()[-1]
    assert following.endswith(f"ORG/NAME{'' if license else ' --license LICENSE'} --dry-run")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("ORG/NAME", ["ORG/NAME"]), ("null", None), ("runs/scenes_tiny_long", None), ("folder/model", None)],
)
def test_the_hub_knows_from_which_model_and_data_a_run_started(origin, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder/model").mkdir(parents=True)
    Path("runs/scenes_tiny_long").mkdir(parents=True)
    words = [f"model.init_from={origin}"]
    card, _ = written(tmp_path, record("recognition"), load_recipe("finetune", "scenes_recognition", words))
    assert (card.data.base_model, card.data.datasets) == (expected, None)
    recipe = load_recipe("finetune", "vggsound_finetune", [*words, "data.path=VGGSOUND"])
    card, _ = written(tmp_path, record("recognition"), recipe)
    assert (card.data.base_model, card.data.datasets) == (expected, ["mteb/VGGSound"])


def test_the_next_commands_can_be_copied(tmp_path):
    folder = tmp_path / 'my <b>&"run'
    content = record("recognition")
    *_, first, last = training_summary(content, folder, ("classify {clip} --model {folder}",), "mit").splitlines()
    assert shlex.split(first)[-4:] == ["classify", "CLIP.mp4", "--model", str(folder)]
    assert shlex.split(last)[-4:] == ["push", str(folder), "ORG/NAME", "--dry-run"]


@pytest.mark.parametrize(("norm_patch_loss", "standardized"), [("none", False), (False, False), ("channel", True)])
def test_the_card_says_which_targets_are_standardized(tmp_path, norm_patch_loss, standardized):
    content = record("pretraining", metrics={"loss": 0.5}, ceilings=None)
    content["architecture"]["norm_patch_loss"] = norm_patch_loss
    _, text = written(tmp_path, content, load_recipe("pretrain", "scenes_tiny", []))
    assert ("Targets are standardized" in text) == standardized


def test_card_of_a_pretrained_model(tmp_path):
    scores = {f"{name}_accuracy": 0.378 for name in ("fusion", "image", "audio", "all")}
    ceilings = {"audio": {"single_object_accuracy": 0.5}, "chance": {"single_object_accuracy": 0.0625}}
    content = record("pretraining", metrics={"loss": 0.5, **scores, "chance_accuracy": 0.0625}, ceilings=ceilings)
    card, text = written(tmp_path, content, load_recipe("pretrain", "scenes_tiny", []))
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.metrics == ["accuracy"]
    assert [(result.metric_name, result.metric_value) for result in card.data.eval_results] == [
        (f"1-NN accuracy ({name})", 0.378) for name in ("fusion", "image", "audio", "all")
    ]
    more = (
        'repository = "runs/scenes_tiny"',
        "| upper bound with | accuracy (one object) |",
        "| audio | 50.0 % |",
        "| neither | 6.2 % |",
        "with the mean and contrast of the original, which the model does not know.",
        "`deepavfusion pretrain`, 2024-05-06",
    )
    for fact in (*DETAILS, *more):
        assert fact in text, fact


def test_card_of_a_model_pretrained_without_labels(tmp_path):
    content = record("pretraining", metrics={"loss": 0.5}, data={"name": "folder", "description": "videos"})
    content["training"] |= {"steps": 1, "clips_seen": 1, "effective_batch": 1, "skipped_clips": {}}
    card, text = written(tmp_path, content, load_recipe("pretrain", "folder", ["data.path=videos"]))
    assert card.data.eval_results is None
    assert "| clips seen | 1 (repeats counted), in 1 step of 1 |" in text
    assert "- Trained on videos that the trainer of this model provided (videos). Do not" in text
    assert "The videos that it was trained on are not described here" in text
    assert "could not be read:" not in text
    assert "synthetic" not in text


@pytest.mark.parametrize(
    ("output_dir", "shown"), [("runs/mine/", "runs/mine"), ("/home/me/mine", "path/to/tiny"), ("mine", "mine")]
)
def test_card_loads_the_folder_from_where_the_run_was_started(output_dir, shown, tmp_path):
    for command, recipe in (("pretrain", "scenes_tiny"), ("finetune", "scenes_recognition")):
        task = "pretraining" if command == "pretrain" else "recognition"
        _, text = written(tmp_path, record(task), load_recipe(command, recipe, [f"run.output_dir={output_dir}"]))
        assert f'"{shown}"' in text.partition("## Details")[0]
        assert "/home/me" not in text


@pytest.mark.parametrize("task", PIPELINES)
def test_card_of_a_finetuned_model(tmp_path, task):
    card, text = written(tmp_path, record(task), load_recipe("finetune", f"scenes_{task}", ["model.init_from=null"]))
    (result,) = card.data.eval_results
    assert result.metric_name == "top-1 accuracy"
    assert (result.task_name, result.metric_type, result.metric_value) == (PIPELINES[task], "top1", 0.5123)
    assert PIPELINES[task] in card.data.tags
    use = f'pipeline("{PIPELINES[task]}", model="runs/scenes_{task}", trust_remote_code=True)'
    for fact in (*DETAILS, use, "`deepavfusion finetune`, 2024-05-06. Trained long."):
        assert fact in text, fact


def test_controls_are_no_results_on_the_hub(tmp_path):
    metrics = {"ciou_50": 0.8, "shuffled_ciou_50": 0.1, "centre_ciou_50": 0.3}
    recipe = load_recipe("finetune", "scenes_localization", ["model.init_from=null"])
    card, _ = written(tmp_path, record("localization", metrics=metrics), recipe)
    assert [result.metric_type for result in card.data.eval_results] == ["ciou_50"]
    (results,) = (tmp_path / ".eval_results").iterdir()
    assert re.findall("task_id: (.*)", results.read_text()) == ["localization/ciou_50"]


def test_a_recipe_with_published_results_has_them_in_columns_of_their_own(tmp_path):
    content = record("separation", metrics={"sdr": 4.0, "sir": 5.126, "si_sdr": 3.0})
    content["data"] = {"name": "vggsound_music", "description": "VGGSound-Music"}
    recipe = load_recipe("finetune", "vggsound_music_separation", ["data.path=x"])
    _, text = written(tmp_path, content, recipe)
    for line in (
        "| metric | this model | published code, pre-trained on VGGSound | published code, pre-trained on AudioSet",
        "| SDR | 4.00 dB | 5.79 dB | 6.93 dB |",
        "| SIR | 5.13 dB | 8.24 dB | 9.93 dB |",
    ):
        assert line in text, line
    assert "| SAR |" not in text  # not measured
    (tmp_path / "other").mkdir()
    _, other = written(tmp_path / "other", record("separation"), load_recipe("finetune", "scenes_separation", []))
    assert "published" not in other


@pytest.mark.parametrize(("name", "options", "shown"), [
    ("scenes_separation", [], True),
    ("scenes_separation", ["data.things=THINGS"], False),
    ("folder_separation", ["data.path=videos", "model.init_from=null"], False),
])  # fmt: skip
def test_an_example_of_scenes_is_shown_and_none_of_others(tmp_path, name, options, shown):
    frame, tone = np.zeros((4, 6, 3), np.uint8), np.zeros(160, np.float32)
    example = Example("clip", [ExampleImage(frame, 'the "frame"')], [("separated <sound>", tone, 16000)], "6 dB")
    content = record("separation", data={"name": name.partition("_")[0], "description": "clips"})
    _, text = written(tmp_path, content, load_recipe("finetune", name, options), [example])
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("example/*")}
    assert files == ({"example/0_the_frame.png", "example/0_separated_sound.wav"} if shown else set())
    assert files <= referred_files(tmp_path)
    assert ("A held-out clip, not chosen: " in text) == shown
    assert ("generated by the package, under apache-2.0" in text) == shown
    assert "<sound>" not in text


def test_absolute_paths_of_initial_weights_are_not_shown(tmp_path):
    recipe = load_recipe("pretrain", "scenes_tiny", ["model.init_image=/home/me/first", "model.init_audio=ORG/second"])
    content = record("pretraining", metrics={})
    content["training"] |= {"initial_weights": initial_weights(recipe.model)}
    _, text = written(tmp_path, content, recipe)
    assert "/home/me" not in text
    assert "| initial weights | first, ORG/second |" in text


def test_a_scene_in_the_folder_is_shown(tmp_path):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "clip.mp4").touch()
    _, text = written(tmp_path, record("pretraining", metrics={}), load_recipe("pretrain", "scenes_tiny", []))
    assert '<video src="scene/clip.mp4" width="256" controls></video>' in text
    assert "scene/clip.mp4" in referred_files(tmp_path)
    things = load_recipe("pretrain", "scenes_tiny", ["data.things=THINGS"])
    _, text = written(tmp_path, record("pretraining", metrics={}), things)
    assert "scene/clip.mp4" not in text


def test_time_of_a_forward_pass():
    model = DeepAVFusionForPreTraining(tiny_config()).train()
    model.deepavfusion.forward = None  # as accelerate replaces it, by one under autocast
    found = forward_time(model, torch.device("cpu"))
    assert 0 < found["seconds"] < 10
    assert found["device"] == device_name(torch.device("cpu"))
    assert all(module.training for module in model.modules())


def test_templates_are_shipped():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    shipped = set()
    for package, patterns in setup["options.package_data"].items():
        folder = ROOT / package.replace("deepavfusion.", "").replace(".", "/")
        for pattern in patterns.split():
            shipped |= set(folder.glob(pattern))
    templates = {path for path in (ROOT / "training").glob("**/templates/*") if path.is_file()}
    assert TEMPLATE in templates
    assert templates <= shipped


def test_device_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda", 1)) == "GPU 1"
    for threads, text in ((1, "cpu (1 thread)"), (2, "cpu (2 threads)")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == text
    assert device_name(torch.device("mps")) == "mps"


def test_versions_name_absent_packages(monkeypatch):
    monkeypatch.setattr("deepavfusion.training.runs.records._PACKAGES", ("jinja2", "no-such-package"))
    assert package_versions() == {
        "python": platform.python_version(),
        "jinja2": importlib.metadata.version("jinja2"),
        "no-such-package": "absent",
    }


@pytest.mark.parametrize(
    ("masks", "always"), [("[]", True), ("[{audio: 2}]", True), ("[{image: 0, weight: 1}, {}]", False)]
)
def test_modalities_are_always_present_unless_masks_hide_one(tmp_path, masks, always):
    recipe = load_recipe("pretrain", "scenes_tiny", [f"task.masks={masks}"])
    _, text = written(tmp_path, record("pretraining", metrics={}), recipe)
    assert ("Both modalities were always present in training." in text) == always
