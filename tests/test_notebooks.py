"""The notebooks show what an execution of them gives, and `make notebooks` keeps what can be kept."""

import base64
import io
import json
import math
import os
import re
import shutil

import av
import nbformat
import numpy as np
import pytest
import torch
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from torch.nn.functional import cross_entropy

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionProcessor,
)
from deepavfusion.inference.media import wav
from notebooks import build

from .tiny import tiny_config
from .warm import warm_python

NOTEBOOKS = {path.stem[:2]: path for path in build.NOTEBOOKS}
TASKS = {
    "scenes_separation": DeepAVFusionForSourceSeparation,
    "scenes_localization": DeepAVFusionForSoundLocalization,
    "scenes_segmentation": DeepAVFusionForSemanticSegmentation,
}
# So little that the notebooks run in seconds.
SMALL = {
    "DEEPAVFUSION_EPOCHS": "4",
    "DEEPAVFUSION_STEPS": "8",
    "DEEPAVFUSION_BATCH": "4",
    "DEEPAVFUSION_PAIRS": "60",
}
# What is asked of each notebook after its last cell.
PROBES = {
    "01": "[list(outputs.last_hidden_state.shape), sorted(scenes), int(test.sum())]",
    "02": """{
        "losses": {part: losses for part, (_, losses) in compared.items()},
        "shapes": [list(first[name][0].shape) for name in NAMES],
        "visible": visible,
        "hidden": [int(reconstruct(3, 2)[0][f"{part}_mask"].sum()) for part in ("image", "audio")],
    }""",
    "03": """{
        "lengths": [len(mixture), *(len(result["audio"]) for result in separated)],
        "rates": [rate, *(result["sampling_rate"] for result in separated)],
        "apart": float(np.abs(separated[0]["audio"] - separated[1]["audio"]).max()),
        "improvements": [float(value) for value in improvements],
        "shown": [
            [float(np.abs(deepavfusion.load_clip(duet, timestamp).frames[0].astype(float) - source.frames[0]).mean())
             for source in sources] for timestamp in timestamps
        ],
        "objects": [[int(scene.sounding.sum()), len(scene.masks)] for scene in scenes],
        "targets": [int(target.sum()) for target in targets],
        "frames": [float(np.abs(result["frame"].astype(float) - scene.frames[0]).mean())
                   for found in (located, segmented) for result, scene in zip(found, scenes)],
        "shapes": [located[0]["heat_map"].shape, masks[0].shape, targets[0].shape],
        "heat": [float(located[0]["heat_map"].min()), float(located[0]["heat_map"].max())],
        "scores": [result["score"] for result in located],
        "ious": [float(iou) for iou in ious],
        "expected": [
            float((mask * target).sum() / np.maximum(mask, target).sum()) for mask, target in zip(masks, targets)
        ],
    }""",
    "04": """{
        "files": len(files),
        "parts": [len(parts["train"]), len(parts["test"])],
        "steps": trainer.state.global_step,
        "losses": [loss for _, loss in history],
        "labels": labels,
        "names": [model.config.id2label, model.config.label2id],
        "before": before, "after": after, "truth": parts["test"]["label"][:],
        "predictions": predictions,
        "logits": torch.cat([model.eval()(**collate([row])).logits for row in parts["test"]]).tolist(),
        "saved": sorted(path.name for path in (out / "model").iterdir()),
    }""",
    "05": """{
        "history": history.tolist(),
        "held out": len(held_out["pixel_values"]),
        "changed": sum(not torch.equal(a, b) for a, b in zip(
            model.parameters(), results["random weights"].parameters())),
        "pushed": In[-2],
    }""",
    "06": """{
        "sizes": [list(part.shape) for part in (*pairs, *gallery)],
        "correlations": correlations.tolist(),
        "closer": [float(paired.diagonal().mean() - paired.mean()) for paired in [
            similarity((pairs[0] - image_mean) @ image_map, (pairs[1] - sound_mean) @ sound_map)
        ]],
        "best": best, "ranks": ranks.tolist(),
        "first": spaces["one space"][:3].argmax(dim=1).tolist(),
    }""",
}
# The command without the seconds in which it loads what it publishes, which tests of publishing do.
COMMAND = """
import sys
from deepavfusion.inference.publishing import push
from deepavfusion_cli import main
push.load_alone = lambda folder: "The model"
sys.exit(main(sys.argv[1:]))
"""


def small_config(hidden_size: int) -> DeepAVFusionConfig:
    return tiny_config(
        hidden_size=hidden_size, image_size=64, num_mel_bins=64, spectrogram_length=192, audio_patch_size=16
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small pre-training model, as the quickstart saves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = small_config(hidden_size=64)
    DeepAVFusionForPreTraining(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(model_folder, tmp_path_factory):
    """Small models where the commands of the README and `make results` leave theirs."""
    folder, config = tmp_path_factory.mktemp("runs"), small_config(hidden_size=128)
    (folder / "quickstart").symlink_to(model_folder)
    (folder / "results").mkdir()
    config.id2label = {0: "sounding"}
    torch.manual_seed(0)
    for name, model_class in TASKS.items():
        place = folder / name if name != "scenes_localization" else folder / "results" / "localization-pretrained-0"
        model_class(config).save_pretrained(place)
        DeepAVFusionProcessor.from_config(config).save_pretrained(place)
    (folder / "scenes_localization" / "checkpoints").mkdir(parents=True)  # an interrupted training leaves no model
    return folder


@pytest.fixture(scope="module")
def executed(runs, tmp_path_factory):
    """The notebooks after an execution with small models, each ending with a cell that prints its `PROBES`.

    They share a kernel, whose imports take seconds, and which forgets the names of one before it executes the next.
    """
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "push.py").write_text(COMMAND)
    (folder / "deepavfusion").write_text(f'#!/bin/sh\nexec {warm_python()} {folder / "push.py"} "$@"\n')
    (folder / "deepavfusion").chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DEEPAVFUSION_")}
    variables |= SMALL | {
        "DEEPAVFUSION_RUNS": str(runs),
        "IPYTHONDIR": str(folder / "ipython"),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
    }
    notebooks, joined = {}, new_notebook()
    for number, path in NOTEBOOKS.items():
        notebooks[number] = build.code_cells(nbformat.read(path, as_version=4))
        probe = new_code_cell(f"import json\nprint(json.dumps({PROBES[number]}))")
        joined.cells += [new_code_cell("%reset -f"), *notebooks[number], probe]
    cells = iter(build.execute(joined, variables, timeout=300).cells)
    for number, committed in notebooks.items():
        next(cells)
        notebooks[number] = new_notebook(cells=[next(cells) for _ in range(len(committed) + 1)])
        build.clean(notebooks[number], {})
    return notebooks


@pytest.fixture
def probed(executed):
    """What the probe at the end of an executed notebook has found."""
    return lambda number: json.loads(executed[number].cells[-1].outputs[0].text)


def code(number):
    return [cell.source for cell in build.code_cells(nbformat.read(NOTEBOOKS[number], as_version=4))]


# What is committed.


def test_all_notebooks_are_executed_here():
    assert list(NOTEBOOKS) == ["01", "02", "03", "04", "05", "06"]
    tests = {name[-2:] for name in globals() if re.fullmatch(r"test_notebook_\d\d", name)}
    assert tests == set(NOTEBOOKS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_what_is_committed_was_executed(number):
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    assert build.faults(notebook, NOTEBOOKS[number].name) == []
    kinds = {kind for cell in build.code_cells(notebook) for kind in build.kinds(cell)}
    assert kinds >= ({"image", "audio"} if number != "05" else {"image", "text"})
    text = NOTEBOOKS[number].read_text(encoding="utf-8")
    assert "audio/wav" not in text
    assert "outputs shown" in " ".join(notebook.cells[0].source.split())  # and of which models they are


# Executions with small models.


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_outputs_are_of_the_kinds_that_are_committed(number, executed):
    committed = nbformat.read(NOTEBOOKS[number], as_version=4)
    found = [build.kinds(cell) for cell in executed[number].cells[:-1]]
    # A kernel of its own may warn of small models, what is committed must not.
    assert [[kind for kind in kinds if kind != "stderr"] for kinds in found] == [
        build.kinds(cell) for cell in build.code_cells(committed)
    ]


def test_notebook_01(probed):
    found = probed("01")
    tokens = 4 + 3 + 2  # of fusion, and those that aggregate image and audio
    assert found == [[1, tokens, 64], ["falling square", "falling triangle", "rising triangle", "trill square"], 64]


def test_notebook_02(probed):
    found = probed("02")
    for part, other in (("image", "sound"), ("audio", "image")):
        losses = found["losses"][part]
        assert list(losses) == [f"without {other}", f"with its {other}", f"with another {other}"]
        assert len(set(losses.values())) == 3  # the other modality is read
        assert min(losses.values()) > 0
    assert found["shapes"] == [[64, 64, 3]] * 3 + [[64, 192]] * 3
    assert found["visible"] == [6, 5]
    assert found["hidden"] == [64 * 61, 64 * 46]


def test_notebook_03(probed):
    found = probed("03")
    length, *lengths = found["lengths"]
    assert all(length <= separated < length + 1024 for separated in lengths)  # AAC's blocks
    assert found["rates"] == [16000] * 3
    assert found["apart"] > 0  # the output depends on the frame
    assert len(found["improvements"]) == 2
    assert all(math.isfinite(value) for value in found["improvements"])
    (first, other), (another, second) = found["shown"]
    assert max(first, second) < 8 < min(other, another)  # each timestamp shows its own source

    assert found["objects"] == [[1, 2]] * 3
    assert min(found["targets"]) > 0
    assert max(found["frames"]) < 8  # maps and masks belong to the frames shown
    assert found["shapes"] == [[64, 64]] * 3
    assert found["heat"] == pytest.approx([0, 1])
    assert all(0 < score < 1 for score in found["scores"])
    assert found["ious"] == pytest.approx(found["expected"])


def test_notebook_04(probed):
    found = probed("04")

    assert (found["files"], found["parts"]) == (24, [18, 6])
    assert found["steps"] == 8  # five batches of up to four are two steps an epoch
    assert len(found["losses"]) == 8
    assert sum(found["losses"][-3:]) < 0.9 * sum(found["losses"][:3])
    labels = ["hiss zigzag", "rising triangle"]
    assert found["labels"] == labels
    assert found["names"] == [{"0": labels[0], "1": labels[1]}, {labels[0]: 0, labels[1]: 1}]

    # With untrained towers and six clips, held-out scores need not improve, but must be correct.
    logits, truth, after = torch.tensor(found["logits"]), torch.tensor(found["truth"]), found["after"]
    assert after["eval_num_samples"] == 6
    assert after["eval_loss"] == pytest.approx(cross_entropy(logits, truth).item(), abs=1e-3)
    assert after["eval_top1"] == pytest.approx((logits.argmax(-1) == truth).float().mean().item())
    assert {"eval_map", "eval_auc"} <= set(after)
    assert after["eval_loss"] != found["before"]["eval_loss"]
    # The pipeline has read the saved model.
    for answer, row in zip(found["predictions"], logits[[0, 2, 5]], strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert scores == pytest.approx(dict(zip(labels, row.softmax(-1).tolist(), strict=True)), abs=1e-3)
    complete = {"config.json", "model.safetensors", "processor_config.json", "classification_deepavfusion.py"}
    assert complete <= set(found["saved"])


def test_notebook_05(probed):
    found = probed("05")
    losses = np.array(found["history"])
    assert losses.shape == (8, 2)
    assert losses[-1].sum() < losses[0].sum()
    assert found["held out"] == 32
    assert found["changed"] > 50
    assert "--dry-run" in found["pushed"]


def test_notebook_05_shows_what_would_be_uploaded():
    *_, push = build.code_cells(nbformat.read(NOTEBOOKS["05"], as_version=4))
    text = push.outputs[0].text
    assert "my_encoder -> ORG/NAME" in text
    assert "loads where this package is not installed" in text
    assert "nothing was uploaded (--dry-run)" in text


def test_notebook_06(probed):
    found = probed("06")
    assert found["sizes"] == [[60, 64], [60, 64], [60], [12, 64], [12, 64], [12]]
    assert all(0 <= value <= 1 for value in found["correlations"])
    assert [row[0] for row in found["best"]][:3] == found["first"]
    assert found["closer"][0] > 0.1  # the vectors of pairs, in the space that is learned from them
    assert all(0 <= rank < 12 for rank in found["ranks"])


# Models and folders of others.


@pytest.mark.parametrize("number", ["01", "02", "04", "06"])
def test_a_missing_model_is_told_in_a_line(number, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    for name in ("DEEPAVFUSION_MODEL", "DEEPAVFUSION_RUNS"):
        monkeypatch.delenv(name, raising=False)
    message = (
        r"^No model in \.\./runs/quickstart: `deepavfusion pretrain scenes_tiny run.* or set DEEPAVFUSION_MODEL .*\.$"
    )
    with pytest.raises(SystemExit, match=message):
        exec(code(number)[1], {})


def test_missing_models_of_tasks_are_told_in_a_line(runs, tmp_path, monkeypatch):
    for name in TASKS:
        monkeypatch.delenv(name.upper().replace("SCENES", "DEEPAVFUSION"), raising=False)
    monkeypatch.setenv("DEEPAVFUSION_RUNS", str(tmp_path))
    (tmp_path / "scenes_separation").symlink_to(runs / "scenes_separation")
    message = (
        r"^No model scenes_localization or scenes_segmentation in .*: `deepavfusion finetune scenes_localization`, "
    )
    with pytest.raises(SystemExit, match=message):
        exec(code("03")[1], {})
    monkeypatch.setenv("DEEPAVFUSION_LOCALIZATION", "lab/localization")
    monkeypatch.setenv("DEEPAVFUSION_SEGMENTATION", "lab/segmentation")
    names = {}
    exec(code("03")[1], names)
    assert list(names["models"].values()) == [
        str(tmp_path / "scenes_separation"),
        "lab/localization",
        "lab/segmentation",
    ]


def split_of(folder, model_folder, monkeypatch):
    """The names of notebook 04 after it has divided a folder of videos, which are not decoded."""
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    monkeypatch.setenv("DEEPAVFUSION_VIDEOS", str(folder))
    names = {}
    for source in code("04")[1:4]:
        exec(source.partition("\n\n\ndef collate")[0], names)
    return names


def test_classes_of_one_video_are_only_trained_on(model_folder, tmp_path, monkeypatch, capsys):
    for name in ("cat/1.mp4", "cat/2.mp4", "dog/1.mp4", *(f"owl/{index}.mp4" for index in range(9))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = split_of(tmp_path, model_folder, monkeypatch)
    assert "only trained on, as there is a single video of it: dog" in capsys.readouterr().out
    test, train = ([names["labels"][label] for label in names["parts"][part]["label"][:]] for part in ("test", "train"))
    assert sorted(test) == ["cat", "owl", "owl"]
    assert sorted(train) == ["cat", "dog", *["owl"] * 7]


@pytest.mark.parametrize(
    ("files", "message"),
    [((), "No videos in subfolders of "), (("cat/1.mp4", "dog/1.mp4"), "No class in .* has two vi")],
)
def test_a_folder_that_cannot_be_divided_is_told(files, message, model_folder, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=message):
        split_of(tmp_path, model_folder, monkeypatch)


# `make notebooks`.


def image_output(size=(300, 200), mode="RGBA"):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values, mode).save(file, format="png", pnginfo=None)
    return new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()}, metadata={"a": 1})


def player(waveform):
    data = base64.b64encode(wav(waveform, 16000)).decode()
    html = f'\n<audio controls="controls" >\n<source src="data:audio/wav;base64,{data}" type="audio/wav" />\n</audio>\n'
    return new_output("display_data", {"text/html": html, "text/plain": "<IPython.lib.display.Audio object>"})


def finished(*outputs):
    """A notebook with a head, an install line, and a cell with these outputs."""
    cells = [
        new_markdown_cell("# Title\n\nText.", id="cell-0"),
        new_code_cell("%pip install", execution_count=1, id="cell-1"),
        new_code_cell(
            "pass", execution_count=2, outputs=list(outputs), id="cell-2", metadata={"execution": {"a": "b"}}
        ),
    ]
    notebook = new_notebook(cells=cells, metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    build.put_head(notebook, "01_a.ipynb", build.repository())
    return notebook


def stream(text, name="stdout"):
    return new_output("stream", text=text, name=name)


BAR = "<div>\n <progress value='2' max='2'></progress>\n [2/2 00:01, Epoch 1/1]\n</div>\n"


def test_what_changes_is_left_out_and_the_rest_is_kept():
    outputs = [
        stream("waiting\rone\r\n"),
        stream("{'eval_loss': '0.5', 'eval_runtime': '1.2', 'eval_steps_per_second': '3', 'epoch': '1'}\n"),
        stream(
            "Loading weights:  50%|##   | 1/2 [00:00<00:00]\rLoading weights: 100%|####| 2/2 [00:00<00:00]", "stderr"
        ),
        stream("/home/me/work/runs/quickstart/model in /home/me/work\n"),
        new_output("display_data", {"text/html": BAR, "text/plain": "<IPython.core.display.HTML object>"}),
        new_output("display_data", {"text/html": BAR + "<table><tr><td>0.5</td></tr></table>", "text/plain": ""}),
        new_output("execute_result", {"text/plain": "<object at 0x7f00aabbccdd>"}, execution_count=7),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}),
    ]
    notebook = finished(*outputs)
    build.clean(notebook, {"/home/me/work/runs": "../runs", "/home/me/work": ".."})
    cell = notebook.cells[2]
    assert build.kinds(cell) == ["text", "table", "text", "text"]
    assert cell.outputs[0].text == "one\n{'eval_loss': '0.5', 'epoch': '1'}\n../runs/quickstart/model in ..\n"
    assert cell.outputs[1].data["text/html"].strip() == "<table><tr><td>0.5</td></tr></table>"
    assert cell.outputs[2].data["text/plain"] == "<object>"
    assert cell.metadata == {}
    assert notebook.metadata == build.METADATA
    assert build.faults(notebook, "01_a.ipynb") == []


def test_warnings_are_not_left_out():
    notebook = finished(stream("UserWarning: random weights\n", "stderr"))
    build.clean(notebook, {})
    (fault,) = build.faults(notebook, "01_a.ipynb")
    assert re.fullmatch(r"code cell 2 has an output of the kind stderr: 'UserWarning: random weights.*'", fault)


def test_images_become_small_and_stay_as_they_look():
    noisy, plain = image_output(), image_output((8, 8), "RGB")
    before = len(noisy.data["image/png"])
    notebook = finished(noisy, plain)
    build.clean(notebook, {})
    noisy, plain = (output.data for output in notebook.cells[2].outputs)
    assert list(noisy) == ["image/jpeg"]
    assert len(noisy["image/jpeg"]) < before / 3
    assert list(plain) == ["image/png"]
    with Image.open(io.BytesIO(base64.b64decode(plain["image/png"]))) as image:
        found = np.asarray(image.convert("RGB"))
    assert (found == np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).all()


def test_transparent_images_are_put_on_white():
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(file, format="png")
    kind, content = build.compressed_image(base64.b64encode(file.getvalue()).decode())
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.convert("RGB").getpixel((4, 4)) == (255, 255, 255)


def test_sounds_become_small_and_stay_as_they_sound():
    waveform = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32)
    notebook = finished(player(waveform))
    before = len(notebook.cells[2].outputs[0].data["text/html"])
    build.clean(notebook, {})
    html = notebook.cells[2].outputs[0].data["text/html"]
    assert build.kinds(notebook.cells[2]) == ["audio"]
    assert len(html) < before / 4
    (content,) = re.findall(r'<source src="data:audio/mp4;base64,([^"]+)" type="audio/mp4" />', html)
    with av.open(io.BytesIO(base64.b64decode(content))) as file:
        found = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(waveform) <= len(found) < len(waveform) + 4096
    middle = found[4000:20000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert np.sqrt(2 * np.square(middle).mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells: cells[2].update(execution_count=3), "were not executed once each"),
        (lambda cells: cells[2].update(execution_count=None), "were not executed once each"),
        (lambda cells: cells[1].update(source="%pip install deepavfusion"), "link and install line"),
        (lambda cells: cells[0].update(source="# Title\n\nText."), "link and install line"),
        (lambda cells: cells.insert(1, new_markdown_cell("text")), "link and install line"),
        (
            lambda cells: cells[2].outputs.append(new_output("error", ename="E", evalue="bad")),
            "of the kind error: 'bad'",
        ),
        (
            lambda cells: cells[2].outputs.append(stream("in /tmp/abc/x.mp4")),
            "names places of a machine: /tmp/abc/x.mp4",
        ),
        (lambda cells: cells[2].outputs.append(stream("x" * build.MAX_BYTES)), "bytes: expected less than 400,000"),
    ],
)
def test_what_must_not_be_committed(change, message):
    notebook = finished(stream("fine, 1/2, ../runs/quickstart and https://a.org/tmp/b\n"))
    build.clean(notebook, {})
    assert build.faults(notebook, "01_a.ipynb") == []
    change(notebook.cells)
    assert message in "; ".join(build.faults(notebook, "01_a.ipynb"))


def test_heads_follow_the_address_of_the_repository():
    link, install = build.head("01_a.ipynb", "https://github.com/lab/repo")
    assert link == "[Open in Colab](https://colab.research.google.com/github/lab/repo/blob/main/notebooks/01_a.ipynb)"
    assert install == '%pip install --quiet "deepavfusion[train] @ git+https://github.com/lab/repo"'
    link, install = build.head("01_a.ipynb", None)
    assert link.startswith("[Open in Colab](https://colab.research.google.com/): upload this file there")
    assert install == '%pip install --quiet --editable "..[train]"'
    notebook = finished()
    for address in ("https://github.com/lab/repo", None, "https://github.com/lab/repo"):
        for _ in range(2):
            build.put_head(notebook, "01_a.ipynb", address)
        link, install = build.head("01_a.ipynb", address)
        assert notebook.cells[0].source == f"# Title\n\n{link}\n\nText."
        assert notebook.cells[1].source == install


def test_the_address_is_that_of_the_citation(tmp_path, monkeypatch):
    shutil.copy(build.ROOT / "CITATION.cff", tmp_path)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    with open(tmp_path / "CITATION.cff", "a") as file:
        file.write('\nrepository-code: "https://github.com/lab/repo.git/"\n')
    assert build.repository() == "https://github.com/lab/repo"


def test_missing_models_are_named_with_their_commands(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPAVFUSION_RUNS", str(tmp_path))
    (tmp_path / "scenes_separation").symlink_to(runs / "scenes_separation")
    assert build.main(["01", "03"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {tmp_path} lacks models that the notebooks show: "
        "quickstart (`deepavfusion pretrain scenes_tiny_long run.output_dir=runs/quickstart`), "
        "scenes_localization (`deepavfusion finetune scenes_localization`), "
        "scenes_segmentation (`deepavfusion finetune scenes_segmentation`)"
    )
    assert build.needed_models(nbformat.read(NOTEBOOKS["05"], as_version=4)) == []
    with pytest.raises(SystemExit):
        build.main(["07"])


def test_a_notebook_that_fails_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "01_a.ipynb"
    path.write_text(nbformat.writes(finished(stream("before\n"))))
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise CellExecutionError("cell 2 failed", "Error", "no model")

    monkeypatch.setattr(build, "execute", fail)
    with pytest.raises(build.NotebookError, match=r"^01_a.ipynb: cell 2 failed"):
        build.build(path, tmp_path)
    monkeypatch.setattr(build, "execute", lambda *args, **kwargs: finished(stream("bad\n", "stderr")))
    with pytest.raises(build.NotebookError, match="stderr: 'bad"):
        build.build(path, tmp_path)
    assert path.read_bytes() == before
    monkeypatch.setattr(build, "execute", lambda *args, **kwargs: finished(stream("after\n")))
    assert build.build(path, tmp_path) == path.stat().st_size
    assert nbformat.read(path, as_version=4).cells[2].outputs[0].text == "after\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["01_a.ipynb"]


@pytest.mark.slow
@pytest.mark.parametrize("number", NOTEBOOKS)
def test_building_again_changes_nothing(number, runs, tmp_path, monkeypatch):
    """With kernels that import everything themselves, and the command as it is."""
    monkeypatch.setattr(build, "MAX_BYTES", 2 * build.MAX_BYTES)  # images of hardly trained models are noise
    results = tmp_path / "runs"
    results.mkdir()
    for name in ("quickstart", "scenes_separation", "scenes_segmentation"):
        (results / name).symlink_to(runs / name)
    (results / "scenes_localization").symlink_to(runs / "results" / "localization-pretrained-0")
    path = tmp_path / NOTEBOOKS[number].name
    shutil.copy(NOTEBOOKS[number], path)
    build.build(path, results)
    first = path.read_bytes()
    build.build(path, results)
    assert path.read_bytes() == first
    executed, committed = (nbformat.read(place, as_version=4) for place in (path, NOTEBOOKS[number]))
    assert [build.kinds(cell) for cell in executed.cells if cell.cell_type == "code"] == [
        build.kinds(cell) for cell in committed.cells if cell.cell_type == "code"
    ]
