"""`deepavfusion verify`: every number of an evaluation follows from its predictions, and a changed one is named."""

import json
import re
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.training import evaluate, finetune, pretrain, verify
from deepavfusion.training.data.scenes import CLASS_NAMES
from deepavfusion.training.report.predictions import pack, read_table, unpack, write_table
from deepavfusion.training.tasks import Segmentation, Separation
from tests.media_factory import write_media

from .stand_in import TINY_RECIPE
from .test_finetune import SIZES, arguments

CLASSES = {"num_labels": len(CLASS_NAMES), "id2label": dict(enumerate(CLASS_NAMES))}
SMALL = ["data.num_workers=0", "data.cache_dir=null", "optim.batch_size=8", "run.cpu=true"]
SMALL += ["run.num_examples=1", "optim.mixed_precision=no"]
# Name -> model, fields of its configuration, recipe and overrides of the evaluation of that model, which is untrained.
EVALUATIONS = {
    "recognition": (DeepAVFusionForAudioVisualClassification, CLASSES, ["scenes_recognition"]),
    "several labels": (
        DeepAVFusionForAudioVisualClassification,
        {**CLASSES, "problem_type": "multi_label_classification"},
        ["scenes_recognition", "data.max_sounding=2"],
    ),
    "separation": (DeepAVFusionForSourceSeparation, {}, ["scenes_separation"]),
    "segmentation": (DeepAVFusionForSemanticSegmentation, {"num_labels": 1}, ["scenes_segmentation"]),
    "classes of pixels": (
        DeepAVFusionForSemanticSegmentation,
        {"num_labels": len(CLASS_NAMES) + 1},
        ["scenes_segmentation", "task.semantic=true"],
    ),
    "localization": (DeepAVFusionForSoundLocalization, {}, ["scenes_localization"]),
    "retrieval": (DeepAVFusionForPreTraining, {}, ["scenes_retrieval"]),
}
RUNS = (*EVALUATIONS, "pretraining")
# Run -> words of what `verify` names as not derived, or taken as stored.
NAMED = {
    "pretraining": ["before", "ceilings", "training", "reconstruction losses of each clip", "best possible losses"],
}


def run_evaluation(name, folder):
    model_class, fields, (recipe, *overrides) = EVALUATIONS[name]
    torch.manual_seed(0)
    model = model_class(DeepAVFusionConfig(**SIZES, **fields))
    model.save_pretrained(folder / "model")
    out = folder / "evaluation"
    words = [recipe, "--model", str(folder / "model"), "--out", str(out), "data.eval_size=8", *SMALL, *overrides]
    assert evaluate.main(words) == 0
    return out


def run_pretraining(folder):
    """By alignment, which is evaluated by losses, retrieval, nearest neighbors and probes."""
    (folder / "recipe.yaml").write_text(TINY_RECIPE)
    out = folder / "run"
    words = [
        "optim.epochs=1",
        "model.pretraining_objective=align",
        "task.probe_labels=[8, 16, 2000]",
        "data.max_objects=1",
    ]
    assert pretrain.main([str(folder / "recipe.yaml"), f"run.output_dir={out}", *words]) == 0
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes one of `RUNS` once and returns its folder."""
    done = {}

    def make(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("runs")
            done[name] = run_evaluation(name, folder) if name in EVALUATIONS else run_pretraining(folder)
        return done[name]

    return make


@pytest.fixture
def folder(made, request, tmp_path):
    """A copy of the folder of a run, which the test may change."""
    return shutil.copytree(made(request.param), tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


def test_probes_on_fewer_labels_than_the_recipe_says_are_named(made):
    folder = made("pretraining")
    record = json.loads((folder / "evaluation.json").read_text())
    (note,) = record["notes"]
    assert note.startswith(
        "Linear probes are fitted on 8 and 16 labels, not on 2,000, as task.probe_labels says: there are "
    )
    assert f"there are {record['data']['train_clips']} training clips (data.train_size)" in note
    for page in ("README.md", "report.html"):
        assert "not on 2,000, as task.probe_labels says" in (folder / page).read_text()


@pytest.mark.parametrize(("folder", "name"), [(name, name) for name in RUNS], indirect=["folder"])
def test_every_number_is_derived_anew(folder, name, capsys):
    assert verify.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((folder / "evaluation.json").read_text())["metrics"]
    found = verify.verify(folder)
    assert found.differences == []
    assert found.verified >= len(stored) + 2
    assert f"{found.verified:,} numbers of {folder} derived anew from the predictions: all agree" in printed
    named = re.findall(r"^(?:not derived|taken as stored): (.+): .+", printed, re.MULTILINE)
    assert [word in line for word, line in zip(NAMED.get(name, []), named, strict=True)] == [True] * len(named)


@pytest.mark.parametrize("folder", list(RUNS), indirect=True)
def test_every_metric_that_is_changed_is_named(folder, capsys):
    path = folder / "evaluation.json"
    record = json.loads(path.read_text())
    changed = {name: value + 2e-6 for name, value in record["metrics"].items()}
    path.write_text(json.dumps({**record, "metrics": changed}))
    differing = [found for found in verify.verify(folder).differences if found.file == "evaluation.json"]
    assert {found.name for found in differing} == {f"metrics.{name}" for name in changed}
    for found in differing:
        name = found.name.removeprefix("metrics.")
        assert found.stored == changed[name]
        assert found.derived == pytest.approx(record["metrics"][name], abs=1e-6)
    assert verify.main([str(folder)]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) > len(differing)
    assert re.search(rf"metrics\.{re.escape(name)} is \S+ in evaluation.json, but is \S+ anew", told)
    path.write_text(json.dumps({**record, "metrics": {**record["metrics"], "made_up": 0.5}}))
    (found,) = verify.verify(folder).differences
    assert str(found).startswith("metrics.made_up is 0.5 in evaluation.json, but cannot be derived")


@pytest.mark.parametrize("folder", ["recognition"], indirect=True)
def test_counts_and_protocol_are_compared(folder):
    path = folder / "evaluation.json"
    record = json.loads(path.read_text())
    changes = {"num_clips": 9, "left_out": {"silent": 1}, "skipped": 1, "protocol": "Another one."}
    for name, value in changes.items():
        path.write_text(json.dumps({**record, name: value}))
        assert [found.name.partition(".")[0] for found in verify.verify(folder).differences] == [name]


@pytest.mark.parametrize("folder", ["recognition", "several labels", "retrieval"], indirect=True)
def test_a_changed_prediction_changes_the_numbers(folder):
    path = folder / "predictions" / "clips.parquet"
    rows, about = read_table(path)
    for row in rows:
        if "joint" in row:
            row["joint"] = row["joint"][::-1].copy()
        else:
            row["image"] = row["audio"]
    write_table(path, rows, about)
    assert verify.verify(folder).differences


@pytest.mark.parametrize("folder", ["segmentation", "classes of pixels", "localization"], indirect=True)
def test_scores_of_frames_are_derived_from_the_maps(folder):
    path = folder / "predictions" / "clips.parquet"
    rows, about = read_table(path)
    rows[3]["own"] = rows[3]["own"] + 1
    write_table(path, rows, about)
    names = [difference.name for difference in verify.verify(folder).differences]
    assert any(re.match(r"own.* of clip 3$", name) for name in names)


@pytest.mark.parametrize("folder", ["separation"], indirect=True)
def test_scores_of_mixtures_are_derived_from_correlations(folder):
    path = folder / "predictions" / "clips.parquet"
    rows, about = read_table(path)
    scored = [index for index, row in enumerate(rows) if not isinstance(row, str)]
    first, second = (rows[index] for index in scored[:2])
    first["correlations"] = pack(unpack(first["correlations"])[::-1])
    second["products"]["oracle"] *= 2
    write_table(path, rows, about)
    names = {difference.name for difference in verify.verify(folder).differences}
    expected = {"sdr": scored[0], "sir": scored[0], "sar": scored[0], "sdri": scored[0], "oracle": scored[1]}
    assert names == {f"{score} of clip {index}" for score, index in expected.items()}


def test_correlations_of_many_mixtures_are_not_kept(made):
    rows, _ = read_table(made("separation") / "predictions" / "clips.parquet")
    scored = [row for row in rows if not isinstance(row, str)]
    assert all("correlations" in row for row in scored)
    assert all(len(row["correlations"]["zlib"]) < 33000 for row in scored)
    generator = np.random.default_rng(0)
    sounds = {name: generator.standard_normal(2000) for name in scored[0]["products"]}
    for mixtures, kept in ((4096, True), (4097, False)):
        task = Separation(range(mixtures), None)
        row = task._row(sounds, full=True)
        assert ("correlations" in row) == kept
        assert task.rescore(row).keys() == row.keys() - {"products", "correlations", "energies"} - (
            set() if kept else {"sdr", "sir", "sar", "sdri"}
        )
        assert list(task.taken_as_stored({"clips": ["silent source", row]})) == (
            [] if kept else ["sdr, sir, sar, sdri"]
        )


@pytest.mark.parametrize("folder", ["pretraining"], indirect=True)
def test_bounds_are_derived_from_the_errors_of_clips(folder):
    path = folder / "predictions" / "bounds.parquet"
    rows, about = read_table(path)
    rows[0]["audio"]["redrawn"] += 0.1
    write_table(path, rows, about)
    names = {difference.name for difference in verify.verify(folder).differences}
    assert {"metrics.audio_bound_true", "metrics.audio_bound_saved"} <= names
    assert not any("image" in name for name in names)


def test_maps_of_many_frames_are_not_kept(made, monkeypatch):
    rows, _ = read_table(made("segmentation") / "predictions" / "clips.parquet")
    assert all("maps" in row for row in rows)
    task = Segmentation(range(10), None)
    assert task._keeps_maps(2**24)
    assert not task._keeps_maps(2**25)
    assert task.rescore({"own": 0.5}) == {}
    assert list(task.taken_as_stored({"clips": [{"own": 0.5}]})) == ["scores of frames"]


@pytest.mark.parametrize("folder", ["pretraining"], indirect=True)
def test_what_is_published_is_compared(folder):
    record = json.loads((folder / "evaluation.json").read_text())
    (file,) = (folder / ".eval_results").iterdir()
    entries = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    card = ModelCard.load(folder / "README.md").data.eval_results
    assert len(entries) == len(card) > 3
    for entry, result in zip(entries, card, strict=True):
        assert entry.dataset_id == "deepavfusion/scenes"
        task, _, name = entry.task_id.partition("/")
        assert task == record["task"]
        assert entry.value == record["metrics"][name]
        assert result.metric_value == round(entry.value, 4)
        assert entry.date == record["date"]
        assert f"of the {record['split']} split" in entry.notes
    text = file.read_text()
    file.write_text(text.replace(f"value: {entries[0].value}", "value: 0.123456", 1))
    (found,) = verify.verify(folder).differences
    assert (found.file, found.stored) == (f".eval_results/{file.name}", 0.123456)
    file.write_text(text)
    readme = (folder / "README.md").read_text()
    (folder / "README.md").write_text(readme.replace(f"value: {card[0].metric_value}", "value: 0.4321", 1))
    (found,) = verify.verify(folder).differences
    assert (found.file, found.stored) == ("README.md", 0.4321)
    for other in {result.metric_value for result in card} - {card[0].metric_value}:  # the number of another metric
        (folder / "README.md").write_text(readme.replace(f"value: {card[0].metric_value}", f"value: {other}", 1))
        (found,) = verify.verify(folder).differences
        assert (found.file, found.stored, round(found.derived, 4)) == ("README.md", other, card[0].metric_value)


def test_windows_of_files_are_derived_too(tmp_path, capsys):
    """A folder of files, whose clips are also scored by several windows."""
    for label in ("one", "two"):
        for index in range(4):
            path = tmp_path / "videos" / label / f"{index}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_media(path)
    out = tmp_path / "out"
    given = [f"data.path={tmp_path / 'videos'}", "data.validation_fraction=0.5", "task.dense_windows=2"]
    given += ["optim.epochs=1", *(f"model.{name}={json.dumps(value)}" for name, value in SIZES.items())]
    assert finetune.main(["folder_recognition", *arguments("null", out, *given)]) == 0
    assert any(name.startswith("dense_") for name in json.loads((out / "evaluation.json").read_text())["metrics"])
    assert (out / "predictions" / "dense.parquet").is_file()
    assert verify.verify(out).differences == []
    alone = (
        "evaluated once, at the end: as run.keep_best=false, run.eval_epochs only says how often checkpoints are saved"
    )
    assert f"held out: 4 clips of data.eval_split=test, {alone}\n" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["recognition"], indirect=True)
def test_folders_without_predictions_are_refused_in_one_line(folder, tmp_path, capsys):
    def told():
        assert verify.main([str(folder)]) == 2
        return capsys.readouterr().err

    file = folder / "predictions" / "clips.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert re.fullmatch(r"deepavfusion verify: \S+clips.parquet.* Evaluate the model again\.\n", told())
    file.write_bytes(content[:20] + bytes(100) + content[120:])
    assert re.fullmatch(r"deepavfusion verify: \S+clips.parquet.* Evaluate the model again\.\n", told())
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), file)
    assert "clips.parquet holds no predictions that can be read" in told()
    file.unlink()
    assert "holds no predictions/clips.parquet: it was evaluated by an earlier version" in told()
    (folder / "evaluation.json").write_text("{}")
    assert "evaluation.json" in told()
    (folder / "evaluation.json").unlink()
    assert "holds no evaluation.json: expected the folder of a run or of an evaluation" in told()
    folder = tmp_path / "absent"
    assert "absent cannot be used: there is no such folder" in told()


def test_tables_keep_values_types_and_shapes(tmp_path):
    rows = [
        {"a": 0.1, "b": 3, "c": True, "d": "text", "e": b"\0\1", "f": None, "s": {"x": np.float64(2), "y": [1.5, 2.5]}},
        "left out",
        {"a": float("nan"), "b": np.int64(4), "f": None, "t": [torch.ones(2, 3), torch.zeros(2)]},
        {"a": 1e-300, "g": np.arange(6, dtype=np.int16).reshape(2, 3), "h": np.float32(0.1), "i": torch.tensor(7)},
    ]
    write_table(tmp_path / "rows.parquet", rows, {"what": [1, None, "x"]})
    found, about = read_table(tmp_path / "rows.parquet")
    assert about == {"what": [1, None, "x"]}
    assert found[1] == "left out"
    assert {k: v for k, v in found[0].items() if k != "s"} == {k: v for k, v in rows[0].items() if k != "s"}
    assert found[0]["s"] == {"x": 2.0, "y": [1.5, 2.5]}
    assert np.isnan(found[2]["a"])
    assert found[2]["b"] == 4
    assert [type(part) for part in found[2]["t"]] == [torch.Tensor] * 2
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found[2]["t"], rows[2]["t"], strict=True))
    assert found[3]["a"] == 1e-300
    assert found[3]["g"].dtype == np.int16
    assert (found[3]["g"] == rows[3]["g"]).all()
    assert found[3]["h"] == rows[3]["h"]
    assert found[3]["h"].dtype == np.float32
    assert found[3]["i"].shape == ()
    with pytest.raises(TypeError, match="got object"):
        write_table(tmp_path / "other.parquet", [{"a": object()}], {})
    with pytest.raises(ValueError, match="in every row"):
        write_table(tmp_path / "other.parquet", [{"a": np.zeros(2)}, {"a": np.zeros(3)}], {})
