"""Push, pull, load: the real `huggingface_hub` client against a local stand-in of the Hub's HTTP interface."""

import json

import pytest
import torch
from huggingface_hub import ModelCard

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel, DeepAVFusionProcessor
from tests.modeling_deepavfusion.cases import assert_outputs_equal, make_inputs, make_model

from .hub_server import HubServer
from .isolated import run_isolated, run_python

PUBLISH = """
import sys
from pathlib import Path

import torch
from huggingface_hub import HfApi
from transformers import Trainer, TrainingArguments

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel, DeepAVFusionProcessor

folder = Path(sys.argv[1])
commits = {}
model = DeepAVFusionModel.from_pretrained(folder / "encoder")
commits["first"] = model.push_to_hub("tester/encoder").oid
with torch.no_grad():
    model.fusion_tokens.mul_(2)
commits["second"] = model.push_to_hub("tester/encoder", commit_message="Double the fusion tokens").oid
model.save_pretrained(folder / "doubled", push_to_hub=True, repo_id="tester/saved-and-pushed")

model.push_to_hub("tester/complete")
DeepAVFusionProcessor.from_config(model.config).push_to_hub("tester/complete")

DeepAVFusionProcessor.from_config(model.config).push_to_hub("tester/processor-first")
model.add_model_tags("own")
model.push_to_hub("tester/processor-first")

arguments = TrainingArguments(
    output_dir=str(folder / "trained"), hub_model_id="tester/trained", use_cpu=True, report_to="none"
)
processor = DeepAVFusionProcessor.from_config(model.config)
Trainer(model=model, args=arguments, processing_class=processor).push_to_hub(license="mit", commit_message="Trained")

api = HfApi()
api.create_repo("tester/pretraining")
for name in ("uploaded", "unchanged"):
    commits[name] = api.upload_folder(repo_id="tester/pretraining", folder_path=folder / "pretraining").oid
torch.save(commits, folder / "commits.pt")
"""

PULL = """
import sys
from pathlib import Path

import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoProcessor

folder = Path(sys.argv[1])
commits = torch.load(folder / "commits.pt", weights_only=True)
inputs = torch.load(folder / "inputs.pt", weights_only=True)
outputs, errors = {}, {}
repositories = ["tester/encoder", "tester/saved-and-pushed", "tester/pretraining", "tester/complete"]

def load(name, auto_class, *arguments, **options):
    model = auto_class.from_pretrained(*arguments, trust_remote_code=True, **options)
    if arguments[0] in repositories:  # of one commit there is one copy of the code; of a folder each class has its own
        config = AutoConfig.from_pretrained(*arguments, trust_remote_code=True, **options)
        assert isinstance(config, type(model).config_class)
    with torch.no_grad():
        outputs[name] = dict(model(**inputs[type(model).__name__]))

load("newest", AutoModel, "tester/encoder")
load("first", AutoModel, "tester/encoder", revision=commits["first"])
load("second", AutoModel, "tester/encoder", revision=commits["second"])
load("saved and pushed", AutoModel, "tester/saved-and-pushed")
load("complete", AutoModel, "tester/complete")
load("pretraining", AutoModelForPreTraining, "tester/pretraining")
load("encoder of pretraining", AutoModel, "tester/pretraining")
local = snapshot_download("tester/pretraining", local_dir=folder / "snapshot")
load("snapshot", AutoModelForPreTraining, local)
single = hf_hub_download("tester/encoder", "model.safetensors", revision=commits["first"])
(folder / "single.safetensors").write_bytes(Path(single).read_bytes())

processor = AutoProcessor.from_pretrained("tester/complete", trust_remote_code=True)
arrays = torch.load(folder / "arrays.pt", weights_only=True)
processed = dict(processor(images=arrays["picture"], audio=arrays["sound"], sampling_rate=16000))

def fail(name, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        errors[name] = (type(error).__name__, str(error))

fail("no repository", AutoModel.from_pretrained, "tester/absent", trust_remote_code=True)
fail("no revision", AutoModel.from_pretrained, "tester/encoder", revision="absent", trust_remote_code=True)
fail("no file", hf_hub_download, "tester/encoder", "absent.txt")
fail("no trust", AutoModel.from_pretrained, "tester/encoder", trust_remote_code=False)
fail("no permission", HfApi(token="hf_wrong").create_repo, "tester/other")
torch.save({"outputs": outputs, "processed": processed, "errors": errors}, folder / "pulled.pt")
"""


@pytest.fixture(scope="module")
def models():
    return {
        "encoder": make_model(DeepAVFusionModel, seed=1),
        "pretraining": make_model(DeepAVFusionForPreTraining, seed=2, fusion_type="dense"),
    }


@pytest.fixture(scope="module")
def arrays():
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8, generator=generator)
    return {"picture": picture, "sound": torch.rand(20_000, generator=generator) - 0.5}


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def folder(hub, models, arrays, tmp_path_factory):
    """Where one process, which has this package, pushed from, and another, which has not, left what it pulled."""
    folder = tmp_path_factory.mktemp("work")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    inputs = {type(model).__name__: make_inputs(model.config, type(model)) for model in models.values()}
    torch.save(inputs, folder / "inputs.pt")
    torch.save(arrays, folder / "arrays.pt")
    run_python(PUBLISH, str(folder), home=tmp_path_factory.mktemp("publisher"), endpoint=hub.endpoint)
    run_isolated(PULL, str(folder), home=tmp_path_factory.mktemp("reader"), endpoint=hub.endpoint)
    return folder


@pytest.fixture(scope="module")
def pulled(folder):
    return torch.load(folder / "pulled.pt", weights_only=True)


def assert_same_files(files, folder):
    """The repository's files are those of the folder, byte by byte, but for the card and git's attributes."""
    names = {path.name for path in folder.iterdir() if path.is_file()} - {"README.md"}
    assert names >= {"config.json", "model.safetensors", "modeling_deepavfusion.py"}
    assert set(files) - {"README.md", ".gitattributes"} == names
    for name in names:
        assert files[name].content == (folder / name).read_bytes(), name


def test_what_was_pushed_arrived(hub, folder):
    names = ["complete", "encoder", "pretraining", "processor-first", "saved-and-pushed", "trained"]
    assert sorted(hub.repositories) == [f"tester/{name}" for name in names]
    _, first = hub.repositories["tester/encoder"].at(torch.load(folder / "commits.pt")["first"])
    assert_same_files(first, folder / "encoder")
    assert_same_files(hub.repositories["tester/encoder"].files, folder / "doubled")
    assert_same_files(hub.repositories["tester/saved-and-pushed"].files, folder / "doubled")
    assert_same_files(hub.repositories["tester/pretraining"].files, folder / "pretraining")
    weights = hub.repositories["tester/encoder"].files["model.safetensors"]
    assert weights.is_large
    assert weights.content != first["model.safetensors"].content


def test_every_push_is_one_commit_and_nothing_new_is_none(hub, folder):
    commits = torch.load(folder / "commits.pt", weights_only=True)
    titles = [title for _, title, _ in hub.repositories["tester/encoder"].commits]
    assert titles == ["initial", "Upload model", "Double the fusion tokens"]
    assert commits["unchanged"] == commits["uploaded"]
    assert len(hub.repositories["tester/pretraining"].commits) == 2


@pytest.mark.parametrize("name", ["encoder", "complete", "saved-and-pushed", "processor-first", "trained"])
def test_a_pushed_model_has_a_card_that_describes_it(hub, folder, name):
    text = hub.repositories[f"tester/{name}"].files["README.md"].content.decode()
    card = ModelCard(text)
    fields = card.data.to_dict()
    assert fields["library_name"] == "transformers"
    assert fields["pipeline_tag"] == "feature-extraction"
    assert {"deepavfusion", "custom_code"} <= set(fields["tags"])
    assert ("own" in fields["tags"]) == (name in ("processor-first", "trained"))  # of `add_model_tags`
    assert f'repository = "tester/{name}"' in text
    assert f"\n# {name}\n" in text
    assert "nformation needed" not in text.lower()
    assert "automatically generated" not in text


def test_a_trainer_pushes_model_processor_and_card(hub, folder):
    repository = hub.repositories["tester/trained"]
    assert repository.commits[-1][1] == "Trained"
    card = ModelCard(repository.files["README.md"].content.decode())
    assert card.data.to_dict()["license"] == "mit"
    assert "## Training\n\nTrained with the `Trainer` of transformers." in card.text
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(repository.files)


def test_what_was_pulled_is_what_was_pushed(folder):
    for path in (folder / "pretraining").iterdir():
        assert (folder / "snapshot" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (folder / "single.safetensors").read_bytes() == (folder / "encoder" / "model.safetensors").read_bytes()


def test_models_load_by_name(pulled, models, folder):
    doubled = DeepAVFusionModel.from_pretrained(folder / "doubled")
    sources = {
        "newest": doubled,
        "first": models["encoder"],
        "second": doubled,
        "saved and pushed": doubled,
        "complete": doubled,
        "pretraining": models["pretraining"],
        "encoder of pretraining": models["pretraining"].deepavfusion,
        "snapshot": models["pretraining"],
    }
    assert set(pulled["outputs"]) == set(sources)
    for name, model in sources.items():
        with torch.no_grad():
            expected = dict(model(**make_inputs(model.config, type(model))))
        assert_outputs_equal(pulled["outputs"][name], expected, rtol=0, atol=0)
    assert not torch.equal(pulled["outputs"]["first"]["last_hidden_state"], expected_of(doubled))


def expected_of(model):
    with torch.no_grad():
        return model(**make_inputs(model.config)).last_hidden_state


def test_processors_load_by_name(hub, pulled, models, arrays):
    titles = [title for _, title, _ in hub.repositories["tester/complete"].commits]
    assert titles == ["initial", "Upload model", "Upload processor"]
    processor = DeepAVFusionProcessor.from_config(models["encoder"].config)
    expected = processor(images=arrays["picture"], audio=arrays["sound"], sampling_rate=16000)
    assert_outputs_equal(pulled["processed"], dict(expected), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("no repository", "OSError", ["tester/absent", "not a valid model identifier"]),
        ("no revision", "OSError", ["absent", "tester/encoder", "not a valid git identifier"]),
        ("no file", "RemoteEntryNotFoundError", ["tester/encoder", "absent.txt"]),
        ("no trust", "ValueError", ["tester/encoder", "trust_remote_code=True"]),
        ("no permission", "HfHubHTTPError", ["401"]),
    ],
)
def test_errors_say_what_is_wrong(pulled, name, kind, words):
    found_kind, message = pulled["errors"][name]
    assert found_kind == kind, message
    for word in words:
        assert word in message


def test_configuration_on_the_hub_names_its_code(hub, folder):
    stored = json.loads(hub.repositories["tester/encoder"].files["config.json"].content)
    files = hub.repositories["tester/encoder"].files
    for reference in stored["auto_map"].values():
        assert f"{reference.split('.')[0]}.py" in files
