"""What the pages under docs/ show runs, and what they link to exists."""

import ast
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from transformers import pipeline

import deepavfusion
from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    processors,
)
from deepavfusion.inference import classify, embed, localize, segment, separate
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from deepavfusion.published_deepavfusion import RESULTS
from deepavfusion.training.data.scenes import CLASS_NAMES
from tests.media_factory import paint_gradients, write_kinds
from tests.modeling_deepavfusion.cases import save_model

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
OTHER_PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
INFERENCE = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
MODELS = {
    "runs/scenes_recognition": (
        DeepAVFusionForAudioVisualClassification,
        {"num_labels": len(CLASS_NAMES), "id2label": dict(enumerate(CLASS_NAMES))},
    ),
    "runs/scenes_separation": (DeepAVFusionForSourceSeparation, {}),
    "runs/scenes_segmentation": (DeepAVFusionForSemanticSegmentation, {"num_labels": 3, "hidden_size": 128}),
    "runs/scenes_localization": (DeepAVFusionForSoundLocalization, {}),
}
TASKS = {
    "classify": "audio-visual-classification",
    "separate": "audio-visual-source-separation",
    "segment": "audio-visual-segmentation",
    "localize": "sound-source-localization",
}
MAIN = {"classify": classify, "separate": separate, "segment": segment, "localize": localize, "embed": embed}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the models and files that the page names."""
    folder = tmp_path_factory.mktemp("docs")
    for name, (model_class, overrides) in MODELS.items():
        save_model(folder / name, model_class, **overrides)
    (folder / "runs" / "quickstart").symlink_to(folder / "runs" / "scenes_localization")
    write_kinds(folder, seconds=4.0, sound_seconds=4.0, silent_seconds=1.0, rate=22050, picture="cello.png")
    Image.fromarray(paint_gradients(0.5)).save(folder / "flute.png")
    for name in ("clip.mp4", "duet.mp4", "CLIP.mp4", "DUET.mp4"):
        (folder / name).write_bytes((folder / "clip.mov").read_bytes())
    return folder


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    return workplace


def anchors(page):
    """Anchors of the headings of a page that are the same on the site and where the repository is browsed."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        browsed, on_site = words.replace(" ", "-"), re.sub(r"[-\s]+", "-", words)
        if browsed == on_site:
            found.add(browsed)
    return found


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / name for name in OTHER_PAGES.values())], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_and_their_anchors_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        target = page.parent / link if link else page
        if re.match("[a-z]+:", link) or (target.exists() and not anchor):
            continue
        if not target.is_file() or anchor[1:] not in anchors(target):
            missing.append(link + anchor)
    assert missing == []


def navigation(entries):
    """Pages of the navigation of the site, in order."""
    for entry in entries:
        for content in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [content] if isinstance(content, str) else navigation(content)


def test_every_page_is_in_the_navigation_once():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]
    assert sorted(navigation(settings["nav"])) == sorted([*pages, *OTHER_PAGES])
    moved = ast.literal_eval(re.search(r"^MOVED = (.*)$", (ROOT / "docs" / "hooks.py").read_text(), re.MULTILINE)[1])
    assert {site: page for page, site in moved.items()} == OTHER_PAGES


def test_docstrings_of_the_reference_keep_no_markdown(monkeypatch):
    """Without mkdocs, of which the hooks only need names."""
    for name, names in (
        ("mkdocs", ()),
        ("mkdocs.config", ()),
        ("mkdocs.config.defaults", ("MkDocsConfig",)),
        ("mkdocs.structure", ()),
        ("mkdocs.structure.files", ("File", "Files")),
        ("mkdocs.structure.pages", ("Page",)),
    ):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**dict.fromkeys(names, object)))
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.rendered("(<code>`str`, *optional*, defaults to `&#34;gelu&#34;`</code>)") == (
        "(<code>str</code>, <em>optional</em>, defaults to <code>&#34;gelu&#34;</code>)"
    )
    assert hooks.rendered("a [<code>Model</code>] or [<code>~Base.load</code>]") == (
        "a <code>Model</code> or <code>load</code>"
    )
    kept = '<code>tuple[int, ...]</code> <code>a * b * c</code> <a href="x">[<em>y</em>]</a>'
    assert hooks.rendered(kept) == kept


def test_the_reference_lists_every_public_name_once():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "api")
    shown = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert len(shown) == len(set(shown))
    classes = {f"{cls.__module__}.{cls.__name__}" for cls in pipelines().values()}
    public = {f"deepavfusion.{name}" for name in deepavfusion.__all__ if name != "__version__"} | classes
    public |= {f"deepavfusion.processors.{name}" for name in set(processors.__all__) - set(deepavfusion.__all__)}
    assert public <= set(shown)
    for name in shown:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_model_zoo_states_sizes_of_the_classes():
    """The columns of parameters of docs/models.md, and of the table at the top of README."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    sizes = {"vggsound": (0.25, 1.0), "as2m": (1.0, 4.0)}
    with torch.device("meta"):
        for column, (attention, mlp) in enumerate(sizes.values()):
            ratios = {"fusion_attention_ratio": attention, "fusion_mlp_ratio": mlp}
            config = DeepAVFusionConfig.from_size("base", **ratios)
            model = DeepAVFusionForPreTraining(config)
            for part in (model.deepavfusion, model):
                millions = f"{sum(p.numel() for p in part.parameters()) / 1e6:.1f} M"
                (row,) = re.findall(rf"^\| `{type(part).__name__}`.*$", page, re.MULTILINE)
                assert millions in row.split("|")[2 + column]
            name = f"deepavfusion_vitb_{list(sizes)[column]}_ep200"
            assert f"| `{name}` | {millions} |" in (ROOT / "README.md").read_text(encoding="utf-8")
        for cls, labels in (
            (DeepAVFusionForAudioVisualClassification, 309),
            (DeepAVFusionForSourceSeparation, 2),
            (DeepAVFusionForSemanticSegmentation, 1),
        ):
            model = cls(DeepAVFusionConfig.from_size("base", num_labels=labels))
            (row,) = re.findall(rf"^\| .* \| `{cls.__name__}`.*$", page, re.MULTILINE)
            assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M" in row


def test_the_model_zoo_states_the_published_results_that_cards_do():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \| not measured here \| `(\w+)` \|$", page, re.MULTILINE)
    assert {recipe for _, recipe in rows} > set(RESULTS)
    assert re.findall(r"^deepavfusion \w+ (\w+) data.path=\w+ model.init_from=converted$", page, re.MULTILINE) == list(
        dict.fromkeys(recipe for _, recipe in rows)
    )
    for recipe, result in RESULTS.items():
        text = next(text for text, name in rows if name == recipe).split(" | ")
        for metric in result.metrics:
            for place, value in enumerate(result.cells(metric)):
                assert value == "–" or value.partition(" ")[0] in text[2 + place], (recipe, metric)


def test_the_pipelines_give_what_the_page_says(here):
    (snippet,) = re.findall(r"```python\n(.*?)```", INFERENCE, re.DOTALL)
    names = {"waveform": np.zeros(44100, np.float32)}
    exec(snippet, names)
    rows = re.findall(r"^\| `([a-z-]+)` \| .*? \| .*?`\{(.*?)\}`", INFERENCE, re.MULTILINE)
    assert {task for task, _ in rows} == set(pipelines())
    for task, fields in rows:
        fits = [name for name, (cls, _) in MODELS.items() if cls.__name__ == pipelines()[task].model_name]
        found = pipeline(task, model=(fits or ["runs/quickstart"])[0])("clip.mp4")
        assert set(re.findall(r'"(\w+)"', fields)) == set(found[0] if isinstance(found, list) else found), task


def test_the_outputs_shown_have_the_fields_and_labels_of_the_real_ones(here):
    (snippet,) = re.findall(r"```python\n(.*?)```", INFERENCE, re.DOTALL)
    names = {"waveform": np.zeros(44100, np.float32)}
    exec(snippet, names)
    shown = re.findall(r"^(\w+\(.*\))\n# \[(.*)\]$", snippet, re.MULTILINE)
    assert [call.partition("(")[0] for call, _ in shown] == ["classify", "separate", "localize"]
    for call, output in shown:
        results = eval(call, names)
        assert len(results) == len(re.findall(r"\{.*?\}", output)), call
        assert set(re.findall(r"'(\w+)': ", output)) == set(results[0]), call
    labels = re.findall(r"'label': '(.*?)'", INFERENCE)
    assert labels
    assert set(labels) <= set(CLASS_NAMES) & {entry["label"] for entry in names["classify"]("clip.mp4", top_k=None)}


def test_the_ecosystem_page_shows_what_comes_out(here):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    section = page.partition("## Processor and datasets")[2].partition("\n## ")[0]
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {}
    exec(snippet, names)
    shown = re.findall(r"^([^ #\n].*)  # (\[.*\])$", snippet, re.MULTILINE)
    assert len(shown) == 2
    for expression, value in shown:
        assert eval(expression, names) == eval(value)


def test_the_commands_run(here, capsys):
    (here / "videos").mkdir()
    for name in ("clip.mp4", "duet.mp4"):
        shutil.copy(here / name, here / "videos")
    lines = re.findall(r"^deepavfusion .*$", INFERENCE, re.MULTILINE)
    assert {line.split()[1] for line in lines} == set(MAIN)
    for line in lines:
        words = line.partition("  #")[0].split()
        assert MAIN[words[1]].main(words[2:]) == 0, capsys.readouterr().err
    assert {path.name for path in (here / "streams").iterdir()} == {"clip.safetensors", "duet.safetensors"}
    assert any((here / "sounds").glob("*flute.wav"))


def documented_keys(command, what):
    """The keys of an output in the table of the page."""
    (row,) = re.findall(rf"^\| `{command}` \| ([^|]*{what}[^|]*) \| ([^|]*) \|$", INFERENCE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row[1]))


@pytest.mark.parametrize("file", ["clip.mp4", "cello.png"])
def test_the_keys_of_all_outputs_are_those_of_the_table(here, tmp_path, capsys, file):
    """A photo has no timestamps, and no audio."""
    timeless, name = file == "cello.png", file.partition(".")[0]
    out = ["--out", str(tmp_path)]
    times = {"timestamps"} if timeless else set()
    assert classify.main([file, "--model", "runs/scenes_recognition", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found, *found["labels"][0]} == documented_keys("classify --json", "JSON") - times
    assert embed.main([file, "--model", "runs/quickstart", *out]) == 0
    with safe_open(tmp_path / f"{name}.safetensors", "pt") as stored:
        absent = times | ({"audio"} if timeless else set())
        assert set(stored.keys()) == documented_keys("embed", "tensors of") - absent
        assert set(stored.metadata()) == documented_keys("embed", "metadata of")
        assert set(json.loads(stored.metadata()["shapes"])) == set(stored.keys())
    title = name if timeless else f"{name}_at_2.00s"
    for command, model, kinds in (
        ("segment", "runs/scenes_segmentation", ("mask", "overlay")),
        ("localize", "runs/scenes_localization", ("heat",)),
    ):
        assert MAIN[command].main([file, "--model", model, *out]) == 0
        for kind in kinds:
            texts = set(Image.open(tmp_path / f"{title}_{kind}.png").info) - {"transparency"}
            assert texts == (set() if timeless else documented_keys(command, kind))
    names = {path.name for path in tmp_path.iterdir()}
    films = set() if timeless else {f"{name}_overlay.mp4", f"{name}_heat.mp4"}
    images = {f"{title}_{kind}.png" for kind in ("mask", "overlay", "heat")}
    assert names == {f"{name}.safetensors", f"{name}_mask.json", f"{name}_heat.json", *images, *films}


_BY_LABEL = ("labels", "colors")


def keys_of(value):
    """All keys in a record, but for names of labels."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {key for name, item in value.items() if name not in _BY_LABEL for key in keys_of(item)}


@pytest.mark.parametrize("command", ["localize", "segment", "separate", "classify"])
def test_the_keys_of_all_records_are_those_of_the_table(here, tmp_path, command):
    (name,) = (name for name, (cls, _) in MODELS.items() if cls.__name__ == pipelines()[TASKS[command]].model_name)
    assert MAIN[command].main(["clip.mp4", "--model", name, "--out", str(tmp_path)]) == 0
    (record,) = tmp_path.glob("*.json")
    (table,) = re.findall(r"^\| record of \| keys \|$(.*?)\n\n", INFERENCE, re.MULTILINE | re.DOTALL)
    stored = json.loads(record.read_text())
    labels = {"score", "label"} if command == "classify" else set()
    assert keys_of(stored) - labels <= set(re.findall(r"`(\w+)`", table)) | {"mask", "overlay", "heat"}
    assert all((tmp_path / file).is_file() for file in stored["files"])
    rows = [row for row in table.splitlines() if row.startswith(f"| `{command}`")]
    assert set(re.findall(r"`(\w+)`", rows[0])) - {command} <= keys_of(stored)


def test_every_row_of_what_works_with_what_is_a_test():
    page = ROOT / "docs" / "ecosystem.md"
    rows = re.findall(
        r"^\| [a-z_-]+ \| .* \| \[test\]\((.*?)\) `(\w+)` \|$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 5
    missing = [name for file, name in rows if f"def {name}(" not in (page.parent / file).read_text(encoding="utf-8")]
    assert missing == []
