"""`deepavfusion push`: what is uploaded, what is refused, and the real client against a stand-in of the Hub."""

import json
import shutil

import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, constants
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForAudioVisualClassification, DeepAVFusionProcessor
from deepavfusion.card_deepavfusion import license_text, model_card
from deepavfusion.inference.publishing import checks
from deepavfusion.inference.publishing.checks import find_faults, private_paths
from deepavfusion.inference.publishing.contents import find_contents, referred_files
from deepavfusion.inference.publishing.hub import Upload
from deepavfusion.inference.publishing.loading import LoadingError, load_alone
from deepavfusion.inference.publishing.push import _published_card
from tests.hub_server import ORGANIZATION, READ_TOKEN, HubServer, Repository
from tests.isolated import run_isolated, run_python
from tests.modeling_deepavfusion.cases import make_inputs, make_labels, make_model, save_model

# Runs commands one after another in one process, for importing torch takes seconds: prints code and output of each.
COMMANDS = """
import contextlib, io, json, os, sys
from unittest import mock
from huggingface_hub import constants
import deepavfusion_cli as cli
from deepavfusion.inference.publishing import push

if sys.argv[2] == "without loading":
    push.load_alone = lambda folder: "The model"
answers = []
for words, environment in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    offline = environment.get("HF_HUB_OFFLINE") == "1"
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(constants, "HF_HUB_OFFLINE", offline),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.main(["push", *words])
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
PULL = """
import sys
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor

name, revision, folder = sys.argv[1:]
model = AutoModelForVideoClassification.from_pretrained(name, revision=revision, trust_remote_code=True)
AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
with torch.no_grad():
    torch.save(model(**torch.load(f"{folder}/inputs.pt", weights_only=True)).logits, f"{folder}/logits.pt")
"""
LEFT_OUT = (
    "checkpoints/checkpoint-2/model.safetensors",
    "checkpoints/checkpoint-2/optimizer.pt",
    "checkpoint-4/trainer_state.json",
    "optimizer.safetensors",
    "training_args.bin",
    "tensorboard/events.out.tfevents.1",
    "console.log",
    "clips/clip.mp4",
    "sound.wav",
    "unused.png",
    "recipe.yaml",
    "notes.txt",
    ".cache/huggingface/upload/README.md.metadata",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier with its processor, card and results, and what else lies in folders of runs."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model = save_model(folder, DeepAVFusionForAudioVisualClassification, seed=3)
    result = EvalResult(
        task_type="video-classification",
        dataset_type="scenes",
        dataset_name="scenes",
        metric_type="top1",
        metric_value=0.5123,
    )
    metadata = {"license": "apache-2.0", "model_name": "tiny", "eval_results": [result]}
    figure = ("Results", "![curve](figures/curve.png)\n\nAll numbers are in `evaluation.json`.")
    card = model_card(model, "tiny", "runs/tiny", metadata=metadata, sections=[figure])
    (folder / "README.md").write_text(str(card), encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps({"metrics": {"top1": 0.51234, "top5": 0.9}}))
    for name in (*LEFT_OUT, "figures/curve.png", "LICENSE", ".gitignore", ".lock"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    return folder


def test_rounded_results_are_those_of_the_evaluation():
    """Also where a float lies half a unit of the last digit from its rounded value."""
    for number in (32, 160, 800, 20_000):
        for value in (k / number for k in range(number + 1)):
            assert checks._equal(round(value, 4), value)
            assert not checks._equal(round(value, 4) + 2e-4, value)


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def push(hub, tmp_path):
    """Runs commands, each as words, or as words and variables of the environment; gives code, output and errors."""

    def run(*commands, loading="without loading", endpoint=hub.endpoint):
        pairs = [command if isinstance(command, tuple) else (command, {}) for command in commands]
        words = json.dumps([[list(map(str, words)), environment] for words, environment in pairs])
        printed = run_python(COMMANDS, words, loading, home=tmp_path / "home", endpoint=endpoint)
        return [tuple(answer) for answer in json.loads(printed.splitlines()[-1])]

    return run


def code_files(folder):
    return {path.name for path in folder.glob("*_deepavfusion.py")}


def published(folder):
    named = {"config.json", "model.safetensors", "processor_config.json", "README.md", "evaluation.json", "LICENSE"}
    return named | {"figures/curve.png"} | code_files(folder)


def test_contents(folder):
    contents = find_contents(folder)
    assert set(contents.published) == published(folder)
    assert not contents.missing
    left_out = {name: reason for reason, names in contents.left_out.items() for name in names}
    assert set(left_out) == set(LEFT_OUT)
    assert left_out["checkpoints/checkpoint-2/optimizer.pt"] == "checkpoints of the training"
    assert left_out["optimizer.safetensors"] == "state of the training"
    assert left_out["training_args.bin"] == "state of the training"
    assert left_out["tensorboard/events.out.tfevents.1"] == left_out["console.log"] == "logs"
    assert left_out["clips/clip.mp4"] == left_out["sound.wav"] == left_out["unused.png"] == "media"
    assert left_out["notes.txt"] == "others"
    lines = "\n".join(contents.lines())
    assert f"{len(code_files(folder))} files of code" in lines
    for text in (" 7 bytes  LICENSE", "checkpoints of the training: checkpoint-4/, checkpoints/ (", "notes.txt"):
        assert text in lines


def test_a_folder_of_which_files_are_left_out_is_named_once(tmp_path):
    """Whatever they are, with their number and size."""
    for name, size in {"config.json": 1, "scene/clip.wav": 900, "scene/clip.npz": 90, "scene/frame/0.png": 9}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    for name in ("scene/clip.safetensors", "a.log", "b.log"):
        (tmp_path / name).write_bytes(b"x")
    lines = find_contents(tmp_path).lines()
    assert lines[-2:] == [
        "  logs: a.log, b.log (2 files, 2 bytes)",
        "  others, weights in another format, media: scene/ (4 files, 1 kB)",
    ]
    assert sum("scene/" in line for line in lines) == 1


@pytest.mark.parametrize(
    "name",
    [
        "predictions/clips.parquet",
        "predictions/nearest_neighbours.parquet",
        "training_clips.parquet",
        "nearest_neighbours.json",
        "onnx/model.onnx",
        "onnx/model.onnx.data",
        "tiny.onnx",
    ],
)
def test_what_verifies_and_what_runs_a_model_is_published(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"content")
    assert set(find_contents(folder).published) == published(folder) | {name}


def test_patterns_add_and_remove_files(folder):
    contents = find_contents(folder, ["notes.txt", "clips/"], ["figures/*"])
    assert set(contents.published) == published(folder) - {"figures/curve.png"} | {"notes.txt", "clips/clip.mp4"}
    assert contents.left_out["--exclude"] == ["figures/curve.png"]


def test_links_of_cards_and_reports(tmp_path):
    (tmp_path / "README.md").write_text(
        "![a](a.png) [b](docs/b.md#part) <img src='c.png'> [d](https://x.org/d.png) [e](#use) ![f](<f.png>)\n"
        "[g](../g.txt) [docs](docs/) [h](/h.txt) ![i](data:image/png;base64,AA) ![j](j%201.png 'title')\n"
        "```\n[k](k.png)\n```\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text("![l](l.png)")
    (tmp_path / "report.html").write_text('<audio src="m.wav"></audio><a href="n.html?x=1">n</a>')
    expected = {"a.png", "docs/b.md", "c.png", "f.png", "j 1.png", "docs/l.png", "m.wav", "n.html"}
    assert referred_files(tmp_path) == expected | {"docs"}
    assert set(find_contents(tmp_path).missing) == expected - {"docs/b.md"}


@pytest.mark.parametrize(("revision", "branch"), [(None, "main"), ("next", "next")])
def test_players_of_a_card_load_from_the_hub(revision, branch):
    card = '<video src="scene/clip.mp4" controls></video> <img src="https://x.org/a.png"> ![b](b.png)'
    text = _published_card(card, Upload("me/tiny", revision=revision), None)
    place = f"{constants.ENDPOINT}/me/tiny/resolve/{branch}/scene/clip.mp4"
    assert text == card.replace("scene/clip.mp4", place)


def test_a_whole_folder_has_no_faults(folder):
    assert find_faults(find_contents(folder), (folder / "README.md").read_text()) == []


def edit(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def remove(name):
    return lambda folder: (folder / name).unlink()


def shard(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write(name, text):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


FAULTS = {
    "no weights": (remove("model.safetensors"), "model.safetensors is not there"),
    "no processor": (remove("processor_config.json"), "processor_config.json is not there"),
    "no shard": (shard, "model.safetensors.index.json names model-00002-of-00002.safetensors, which is not there"),
    "damaged weights": (write("model.safetensors", "{}"), "model.safetensors: "),
    "damaged settings": (write("config.json", "[]"), "config.json holds something other than a JSON object"),
    "no code": (remove("auto_deepavfusion.py"), "auto_deepavfusion.py, which config.json refers to, is not there"),
    "no imported code": (remove("masking_deepavfusion.py"), "masking_deepavfusion.py, which "),
    "no pipelines": (remove("pipelines_deepavfusion.py"), "pipelines_deepavfusion.py, which "),
    "no map": (edit("config.json", '"auto_map"', '"no_map"'), "config.json has no auto_map"),
    "no card": (remove("README.md"), "README.md is not there"),
    "no metadata": (edit("README.md", "---", "***"), "README.md names no license"),
    "broken metadata": (edit("README.md", "tags:", "tags: [unclosed"), "README.md: its metadata cannot be read"),
    "broken results": (edit("README.md", "- name: tiny\n", ""), "README.md: its metadata cannot be read"),
    "no license": (edit("README.md", "license: apache-2.0\n", ""), "README.md names no license"),
    "library": (edit("README.md", "library_name: transformers", "library_name: timm"), "expected `library_name: tran"),
    "no task": (edit("README.md", "pipeline_tag", "other_tag"), "README.md has no pipeline_tag"),
    "no tag": (edit("README.md", "- custom_code\n", ""), "README.md: expected custom_code among its tags"),
    "placeholder": (edit("README.md", "## Limits", "More information needed\n\n## Limits"), "still holds the placeho"),
    "no example": (edit("README.md", "```python", "```"), "README.md shows no Python code"),
    "lost figure": (remove("figures/curve.png"), "refers to figures/curve.png, which is not there"),
    "no results": (remove("evaluation.json"), "README.md gives top1 = 0.5123: expected this result in evaluation.json"),
    "other results": (edit("evaluation.json", "0.51234", "0.5"), "README.md gives top1 = 0.5123: expected this resu"),
    "embellished": (edit("README.md", "0.5123", "0.5125"), "in evaluation.json, found 0.51234"),
    "leaderboard": (
        write(".eval_results/a.yaml", "- dataset: {id: a/b, task_id: c}\n  value: 51.9\n"),
        ".eval_results/a.yaml gives c = 51.9: expected this result in evaluation.json, found none",
    ),
    "damaged leaderboard": (write(".eval_results/a.yaml", "- value: 1\n"), ".eval_results/a.yaml cannot be read"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(folder, name):
    change, expected = FAULTS[name]
    change(folder)
    card = folder / "README.md"
    faults = find_faults(find_contents(folder), card.read_text() if card.is_file() else "")
    assert any(expected in fault for fault in faults), faults
    assert all("\n" not in fault for fault in faults)
    if name not in ("no metadata", "library"):
        assert len(faults) == 1 or all(expected in fault for fault in faults), faults


def test_licenses(folder):
    text = (folder / "README.md").read_text()
    contents = find_contents(folder)
    assert find_faults(contents, text, "apache-2.0") == []
    assert find_faults(contents, text.replace("license: apache-2.0\n", ""), "mit") == []
    assert find_faults(contents, text, "mit") == [
        "README.md names the license apache-2.0, --license mit: correct one of them"
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eval_results.json", {"eval_top1": 0.51234}),
        ("all_results.json", {"test_top1": 0.51234}),
        ("trainer_state.json", {"log_history": [{"eval_top1": 0.2}, {"eval_top1": 0.51234, "step": 4}]}),
    ],
)
def test_results_of_a_plain_trainer(folder, name, content):
    (folder / "evaluation.json").unlink()
    (folder / name).write_text(json.dumps(content))
    write(".eval_results/a.yaml", "- dataset: {id: a/b, task_id: c}\n  value: 51.234\n")(folder)
    assert find_faults(find_contents(folder), (folder / "README.md").read_text()) == []


def test_the_folder_of_a_plain_trainer_can_be_published(tmp_path):
    model = make_model(DeepAVFusionForAudioVisualClassification, num_hidden_layers=1)
    columns = make_inputs(model.config, batch=4) | make_labels(model.config, type(model), batch=4)
    data = [{name: column[index] for name, column in columns.items()} for index in range(4)]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True),
        eval_dataset=data,
        processing_class=DeepAVFusionProcessor.from_model(model),
    )
    trainer.save_model()
    trainer.save_metrics("eval", trainer.evaluate())
    trainer.create_model_card(license="mit", dataset="my videos", dataset_tags="my-videos")
    contents, card = find_contents(tmp_path), (tmp_path / "README.md").read_text()
    assert "type: loss" in card
    assert find_faults(contents, card) == []
    assert contents.left_out == {"state of the training": ["training_args.bin"]}
    (tmp_path / "eval_results.json").unlink()
    (tmp_path / "all_results.json").unlink()
    (fault,) = find_faults(find_contents(tmp_path), card)
    assert fault.startswith("README.md gives loss = ")


def test_paths_of_this_machine_are_named(folder):
    assert private_paths(find_contents(folder)) == []
    edit("evaluation.json", '"metrics"', f'"origin": "{folder.resolve().parent}/other", "metrics"')(folder)
    assert private_paths(find_contents(folder)) == ["evaluation.json"]
    edit("evaluation.json", f"{folder.resolve().parent}/other", "/data/clips/a.mp4")(folder)
    assert private_paths(find_contents(folder)) == []
    for path, expected in (("/data/clips", ["evaluation.json"]), ("/data/clip", []), ("hf://data", []), (3, [])):
        (folder / "recipe.yaml").write_text(f"data: {{path: {path}}}")
        assert private_paths(find_contents(folder)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            edit("outputs_deepavfusion.py", "from dataclasses", "import deepavfusion\nfrom dataclasses"),
            "No module named",
        ),
        (lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"}), "lack"),
        (edit("processor_config.json", "feature_extractor", "feature"), "feature_extractor"),
    ],
)
def test_what_cannot_be_loaded_alone(folder, change, expected):
    change(folder)
    with pytest.raises(LoadingError, match=expected) as raised:
        load_alone(folder)
    assert str(raised.value).startswith("it cannot be loaded where the package is not installed: ")
    assert "\n" not in str(raised.value)


def test_a_dry_run_contacts_nobody(push, hub, folder):
    before = {path: path.stat().st_mtime for path in folder.rglob("*")}
    (code, out, err), (refused, _, message) = push(
        [folder, "tester/tiny", "--dry-run"],
        [folder.parent, "tester/tiny", "--dry-run"],
        loading="with loading",
    )
    assert (code, err) == (0, "")
    assert "shows frames and audio" not in out
    for text in ("model.safetensors", "DeepAVFusionForAudioVisualClassification loads where", "nothing was uploaded"):
        assert text in out
    assert not hub.requests
    assert before == {path: path.stat().st_mtime for path in folder.rglob("*")}
    assert refused == 2
    assert message.startswith(
        f"deepavfusion push: {folder.parent} cannot be published: there is no model in that folder; "
    )


def test_clips_in_a_report_are_noted(push, folder):
    (folder / "report.html").write_text('<audio src="data:audio/mp4;base64,AAAA">')
    (code, out, _), (_, without, _) = push(
        [folder, "tester/tiny", "--dry-run"],
        [folder, "tester/tiny", "--dry-run", "--exclude", "report.html"],
        loading="with loading",
    )
    assert code == 0
    note = "report.html shows frames and audio of clips; --exclude report.html leaves it out"
    assert (note in " ".join(out.split()), note in " ".join(without.split())) == (True, False)


def test_push_and_pull(push, hub, folder, tmp_path):
    ((code, out, err),) = push([folder, "tester/tiny", "--commit-message", "First"], loading="with loading")
    assert (code, err) == (0, "")
    repository = hub.repositories["tester/tiny"]
    assert set(repository.files) == published(folder)
    for name in published(folder) - {"README.md"}:
        assert repository.files[name].content == (folder / name).read_bytes(), name
    assert [title for _, title, _ in repository.commits] == ["initial", "First"]
    assert repository.tags == {"v1": repository.commits[-1][0]}
    assert (repository.private, repository.gated) == (False, False)
    assert out.endswith(f'published at {hub.endpoint}/tester/tiny\nrevision="v1" names this version\n')
    card = repository.files["README.md"].content.decode()
    assert 'model="tester/tiny", trust_remote_code=True)\n' in card
    expected = (folder / "README.md").read_text().replace("  # this folder, or its name on the Hub", "")
    assert card == expected.replace('"runs/tiny"', '"tester/tiny"')
    model = DeepAVFusionForAudioVisualClassification.from_pretrained(folder)
    torch.save(model.dummy_inputs, tmp_path / "inputs.pt")
    run_isolated(PULL, "tester/tiny", "v1", str(tmp_path), home=tmp_path / "reader", endpoint=hub.endpoint)
    with torch.no_grad():
        expected = model(**model.dummy_inputs).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=0, atol=0)


def test_what_a_repository_holds_is_replaced_on_request_alone(push, hub, folder):
    place = [folder, f"{ORGANIZATION}/tiny"]
    first, again, same, named = push(place, place, [*place, "--overwrite"], [*place, "--overwrite", "--tag", "v1"])
    repository = hub.repositories["lab/tiny"]
    assert (first[0], same[0]) == (0, 0)
    assert (again[0], named[0]) == (2, 2)
    assert again[2].startswith("deepavfusion push: lab/tiny holds a model already (commit ")
    assert "--overwrite" in again[2]
    assert named[2] == "deepavfusion push: lab/tiny has a tag v1 already: name another one by --tag\n"
    assert len(repository.commits) == 2  # what has not changed is not committed again
    assert set(repository.tags) == {"v1"}
    repository.files["NOTES.txt"] = repository.files["LICENSE"]  # of somebody else
    weights = load_file(folder / "model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, folder / "other", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "other").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    second, third = push([*place, "--overwrite"], [*place, "--overwrite", "--no-tag"])
    assert (second[0], third[0]) == (0, 0)
    assert set(repository.tags) == {"v1", "v2"}
    # The earlier weights, beside which the new ones would not be read, are gone; other files stay.
    assert "model.safetensors" not in repository.files
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "NOTES.txt"} <= set(repository.files)
    assert "model.safetensors" in repository.at("v1")[1]


def test_private_and_gated_repositories(push, hub, folder):
    answers = push(
        [folder, "tester/private", "--private"],
        [folder, "tester/gated", "--gated", "manual"],
        [folder, "tester/both", "--gated", "auto", "--private"],
        [folder, "tester/public"],
        [folder, "tester/public", "--private", "--overwrite"],
        [folder, "tester/private", "--private", "--overwrite", "--tag", "best"],
    )
    assert [code for code, _, _ in answers] == [0, 0, 0, 0, 2, 0]
    found = {name: (repository.private, repository.gated) for name, repository in hub.repositories.items()}
    assert found == {
        "tester/private": (True, False),
        "tester/gated": (False, "manual"),
        "tester/both": (True, "auto"),
        "tester/public": (False, False),
    }
    assert "tester/public exists and is public" in answers[4][2]
    assert set(hub.repositories["tester/private"].tags) == {"v1", "best"}
    paths = [path for method, path in hub.requests if "tester/gated" in path and method in ("PUT", "POST")]
    settings, commit = "/api/models/tester/gated/settings", "/api/models/tester/gated/commit/main"
    assert paths.index(settings) < paths.index(commit)  # nobody can download it before


def test_branches_and_pull_requests(push, hub, folder):
    hub.repositories["other/tiny"] = Repository()
    answers = push(
        [folder, "tester/tiny", "--revision", "trial"],
        [folder, "tester/tiny"],
        [folder, "tester/tiny", "--revision", "trial", "--overwrite", "--exclude", "LICENSE", "--tag", "trial-1"],
        [folder, "other/tiny", "--create-pr", "--commit-description", "Better"],
        [folder, "other/absent", "--create-pr"],
        [folder, "other/tiny", "--create-pr", "--tag", "v1"],
    )
    assert [code for code, _, _ in answers] == [2, 0, 0, 0, 2, 2]
    assert answers[0][2] == "deepavfusion push: tester/tiny does not exist: push it once without --revision\n"
    assert answers[4][2] == "deepavfusion push: other/absent does not exist: push it once without --create-pr\n"
    assert "a pull request cannot be tagged" in answers[5][2]
    repository = hub.repositories["tester/tiny"]
    assert "LICENSE" in repository.files
    assert "LICENSE" not in repository.at("trial")[1]
    assert repository.tags == {"v1": repository.commits[-1][0], "trial-1": repository.at("trial")[0]}
    assert f"proposed at {hub.endpoint}/other/tiny/discussions/1" in answers[3][1]
    assert hub.repositories["other/tiny"].files == {}
    assert "model.safetensors" in hub.repositories["other/tiny"].at("refs/pr/1")[1]
    assert hub.repositories["other/tiny"].tags == {}


def test_a_license_that_the_card_lacks(push, hub, folder):
    edit("README.md", "license: apache-2.0\n", "")(folder)
    edit("README.md", "Weights: apache-2.0.", license_text(None).partition(" The ")[0])(folder)
    before = (folder / "README.md").read_text()
    refused, accepted, invalid = push(
        [folder, "tester/tiny"],
        [folder, "tester/tiny", "--license", "mit"],
        [folder, "tester/other", "--license", "none-such"],
    )
    assert (refused[0], accepted[0], invalid[0]) == (2, 0, 2)
    assert "names no license" in refused[2]
    assert '"license" must be one of the licenses of the Hub' in invalid[2]
    assert len(invalid[2].splitlines()) == 1
    card = ModelCard(hub.repositories["tester/tiny"].files["README.md"].content.decode())
    assert card.data.get("license") == "mit"
    assert "Weights: mit. The code" in card.text
    assert "No license" not in card.text
    assert card.data.get("eval_results")[0].metric_value == 0.5123
    assert (folder / "README.md").read_text() == before


def test_errors_of_the_hub_are_one_line(push, hub, folder):
    place = [folder, "tester/tiny"]
    answers = push(
        (place, {"HF_TOKEN": ""}),
        (place, {"HF_TOKEN": "hf_unknown"}),
        (place, {"HF_TOKEN": READ_TOKEN}),
        [folder, "nobody/tiny"],
        (place, {"HF_HUB_OFFLINE": "1"}),
    )
    expected = [
        "there is no token for the Hub: log in by `hf auth login`, or set HF_TOKEN",
        "the Hub does not accept the token (Invalid user token): log in",
        "the token may not write to tester/tiny (",
        "the token may not write to nobody/tiny (",
        "the environment forbids to contact the Hub: unset HF_HUB_OFFLINE",
    ]
    for (code, _, err), text in zip(answers, expected, strict=True):
        assert code == 2
        assert err.startswith(f"deepavfusion push: {text}"), err
        assert len(err.splitlines()) == 1
    assert not hub.repositories


def test_a_hub_that_is_down_or_out_of_reach(push, hub, folder):
    hub.failing = 503
    ((code, _, err),) = push([folder, "tester/tiny"])
    assert (code, len(err.splitlines())) == (1, 1)
    assert err.startswith("deepavfusion push: the Hub answered 503 (The Hub is down)"), err
    ((code, _, err),) = push([folder, "tester/tiny"], endpoint="http://127.0.0.1:9")
    assert code == 1
    assert err.startswith("deepavfusion push: the Hub (http://127.0.0.1:9) cannot be reached (")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["absent", "a/b"], "absent cannot be published: there is no such folder"),
        ([".", "name"], "name: expected ORG/NAME"),
        ([".", "a/b/c"], "a/b/c: expected ORG/NAME"),
        ([".", "a--b/c"], "a--b/c: expected ORG/NAME"),
        ([".", "a/b", "--license", "LICENSE"], "--license=LICENSE: expected an identifier of the Hub, e.g. apache-2.0"),
        ([".", "ORG/NAME"], "ORG/NAME stands for the Hub id of your repository: name it, or pass --dry-run."),
        ([".", "a/b", "--create-pr", "--tag", "v1"], "a pull request cannot be tagged"),
        ([".", "a/b", "--tag", "x", "--no-tag"], "not allowed with argument"),
        ([".", "a/b", "--gated", "yes"], "invalid choice: 'yes'"),
        ([".", "a/b", "--dryrun"], "did you mean --dry-run?"),
    ],
)
def test_command_lines(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    try:
        code = cli.main(["push", *words])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert expected in capsys.readouterr().err
