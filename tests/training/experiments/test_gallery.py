"""The gallery: cases chosen by rule from stored predictions, as a page with images and audio."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForAudioVisualClassification
from deepavfusion.inference.files import UnreadableError
from deepavfusion.inference.folder import FolderError
from deepavfusion.processors import load_clip
from deepavfusion.training import evaluate
from deepavfusion.training.config.recipe import RecipeError
from deepavfusion.training.experiments.gallery import __main__ as gallery
from deepavfusion.training.experiments.gallery.choice import MEASURES, PERCENTILES, choose, typical_pair
from deepavfusion.training.experiments.gallery.figures import StripScene, distribution, strip
from deepavfusion.training.experiments.gallery.page import MARK, with_score
from deepavfusion.training.experiments.gallery.sources import load_source
from deepavfusion.training.report.predictions import pack, read_table
from tests.training.data.scenes.thing_factory import write_things
from tests.training.test_finetune import SIZES
from tests.training.test_verify import EVALUATIONS, SMALL, run_evaluation, run_pretraining

TASKS = ("recognition", "localization", "separation", "segmentation")


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Folder with an evaluation of an untrained model under the name of a run."""
    folder = tmp_path_factory.mktemp("gallery")
    run_evaluation("recognition", tmp_path_factory.mktemp("recognition")).rename(folder / "scenes_recognition")
    return folder


@pytest.fixture(scope="module")
def runs(one, tmp_path_factory):
    """Folder with evaluations of all tasks."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "evaluations").mkdir()
    (folder / "scenes_recognition").symlink_to(one / "scenes_recognition")
    for task in (*TASKS[1:], "retrieval"):
        name = f"evaluations/scenes_{task}-quickstart" if task == "retrieval" else f"scenes_{task}"
        run_evaluation(task, tmp_path_factory.mktemp(task)).rename(folder / name)
    run_pretraining(tmp_path_factory.mktemp("pretraining")).rename(folder / "quickstart")
    return folder


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "gallery"
    assert gallery.main(["--runs", str(runs), "--out", str(out), "--strip", str(out.with_name("strip.webp"))]) == 0
    return out / "index.md"


def test_cases_are_at_percentiles_of_the_scores():
    scores = np.random.default_rng(0).permutation(101).astype(float)
    for higher in (True, False):
        found = {case.name: case.score for case in choose(scores, higher)}
        assert found == {name: part if higher else 100 - part for name, part in PERCENTILES.items()}
        assert all(scores[case.place] == case.score for case in choose(scores, higher))
    gaps = np.array([np.nan, 0.5, np.nan, 0.5])
    assert [case.place for case in choose(gaps)] == [3, 1, 1, 1]
    with pytest.raises(ValueError, match="Expected clips with scores, got none"):
        choose(np.full(3, np.nan))


def test_scores_of_clips_follow_from_their_rows():
    scores = MEASURES["recognition"].scores
    joint = np.array([0.1, 0.7, 0.2])
    np.testing.assert_allclose(scores([{"label": np.int64(1), "joint": joint}]), [0.7])
    np.testing.assert_allclose(scores([{"label": np.array([1.0, 0, 1]), "joint": joint}]), [0.15])
    rows = [{"own": 0.5, "sounding": True}, {"own": 0.9, "sounding": False}]
    np.testing.assert_array_equal(MEASURES["localization"].scores(rows), [0.5, np.nan])
    np.testing.assert_array_equal(MEASURES["separation"].scores(["silent source", {"si_sdri": 3.0}]), [np.nan, 3])
    classes = {"own": np.zeros((2, 3)), "maps": {"own": pack(np.eye(2))}, "target": pack(np.ones((2, 2)))}
    np.testing.assert_array_equal(MEASURES["segmentation"].scores([{"own": 0.25}, classes]), [0.25, 0.5])
    rows = [{"image": image, "audio": audio} for image, audio in zip(np.eye(2), [[0.4, 0.5], [0, 1]], strict=True)]
    np.testing.assert_array_equal(MEASURES["retrieval"].scores(rows), [2, 1])
    losses = [{"losses": {"image_loss": 0.25, "audio_loss": 0.5, "image_oracle_loss": 9.0}}]
    np.testing.assert_array_equal(MEASURES["pretraining"].scores(losses), [0.75])


@pytest.mark.slow
def test_the_page_shows_every_task_with_images_and_audio(runs, page):
    text = page.read_text(encoding="utf-8")
    titles = ["Reconstruction", *(task.capitalize() for task in TASKS), "Retrieval"]
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == titles
    assert re.findall(r"^- `(.*)`$", text, re.MULTILINE) == [*gallery.THINGS_RUNS.values()]
    linked = set(re.findall(r"\]\((media/[^)]*)\)", text)) | set(re.findall(r'src="(media/[^"]*)"', text))
    assert linked == {f"media/{path.name}" for path in (page.parent / "media").iterdir()}
    sections = dict(zip(titles, text.split("\n### ")[1:], strict=True))
    for title, section in sections.items():
        cases = re.findall(r"^\*\*(\w+)\*\*", section, re.MULTILINE)
        assert cases == list(PERCENTILES), title
        players = re.findall(r"<audio [^>]*>", section)
        assert len(players) >= len(cases)
        for path in re.findall(r"\]\((media/[^)]*\.(?:png|webp))\)", section):
            Image.open(page.parent / path).verify()
    for path in (page.parent / "media").glob("*.m4a"):
        assert load_clip(path.read_bytes(), seconds=60, require="audio").waveform.size
    # The score of each case is that of its clip in the predictions.
    rows, _ = read_table(runs / "scenes_localization" / "predictions" / "clips.parquet")
    shown = re.findall(r"^\*\*\w+\*\* .*: cIoU ([\d.]+ %)$", sections["Localization"], re.MULTILINE)
    assert set(shown) <= {f"{100 * row['own']:.1f} %" for row in rows}
    assert shown == sorted(shown, key=lambda text: -float(text.partition(" ")[0]))
    assert Image.open(page.parent.with_name("strip.webp")).size[0] > 500


@pytest.mark.slow
def test_shown_clips_are_those_of_the_scores(runs):
    """What an example says of its clip agrees with the stored prediction."""
    source = load_source(runs / "scenes_separation")
    cases = source.cases()
    for case, example in zip(cases, source.examples(cases), strict=True):
        assert example.text == f"SI-SDR improvement {case.score:.2f} dB"
        assert example.title == source.task.clips.__getitems__([case.place])[0]["path"]


def test_a_gallery_is_replaced_and_nothing_else(one, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    words = ["--runs", str(one), "--out"]
    assert gallery.main([*words, str(own)]) == 0
    before = {path: path.read_bytes() for path in own.rglob("*.*")}
    (own / "media" / "stale-0.webp").touch()
    (own / "media" / "Notes.txt").touch()
    assert gallery.main([*words, str(own)]) == 0
    assert (own / "media" / "Notes.txt").exists()
    (own / "media" / "Notes.txt").unlink()
    assert {path: path.read_bytes() for path in own.rglob("*.*")} == before
    other.mkdir()
    (other / "index.md").write_text("# Mine")
    with pytest.raises(FolderError, match="holds files and no gallery: name another --out"):
        gallery.main([*words, str(other)])
    assert [path.read_text() for path in other.iterdir()] == ["# Mine"]


def test_missing_runs_are_named(one, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert gallery.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "`make quickstart` makes the first one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "runs" / "scenes_recognition").symlink_to(one / "scenes_recognition")
    strip = tmp_path / "strip.webp"
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--strip", str(strip)]
    assert gallery.main(words) == 0
    text = (tmp_path / "out" / "index.md").read_text(encoding="utf-8")
    assert text.startswith(MARK)
    assert [command for command in gallery.RUNS.values() if f"- `{command}`" in text] == [
        command for name, command in gallery.RUNS.items() if name != "scenes_recognition"
    ]
    assert not strip.exists()
    assert "finetune scenes_separation, deepavfusion finetune scenes_localization" in capsys.readouterr().err


def test_other_data_than_those_of_the_evaluation_are_refused(one, tmp_path):
    folder = tmp_path / "run"
    folder.symlink_to(one / "scenes_recognition")
    record = json.loads((folder / "evaluation.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.name != "evaluation.json":
            (copy / path.name).symlink_to(path)
    (copy / "evaluation.json").write_text(json.dumps({**record, "evaluated_data": "other clips"}))
    with pytest.raises(UnreadableError, match="expected the data of its evaluation, 8 clips"):
        load_source(copy)


def test_things_are_shown_with_the_run_that_was_trained_on_them(one, tmp_path):
    things = write_things(tmp_path / "things", ["cat", "dog", "fox"])
    names = {"num_labels": 3, "id2label": {0: "cat", 1: "dog", 2: "fox"}}
    torch.manual_seed(0)
    DeepAVFusionForAudioVisualClassification(DeepAVFusionConfig(**SIZES, **names)).save_pretrained(tmp_path / "model")
    out = tmp_path / "things_recognition"
    words = [*EVALUATIONS["recognition"][2], "--model", str(tmp_path / "model"), "--out", str(out), *SMALL]
    assert evaluate.main([*words, "data.eval_size=6", f"data.things={things}"]) == 0
    page = tmp_path / "page"
    assert gallery.main(["--runs", str(tmp_path), "--things", str(out), "--out", str(page)]) == 0
    text = (page / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == ["Recognition on things"]
    assert "Open Clip Art" not in text
    assert set(re.findall(r"true: (\w+)", text)) <= {"cat", "dog", "fox"}
    assert len(list((page / "media").glob("things-recognition-*.m4a"))) == len(PERCENTILES)
    with pytest.raises(RecipeError, match="scenes_recognition was evaluated without data.things"):
        gallery.main(["--things", str(one / "scenes_recognition"), "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
    assert gallery.main(["--runs", str(tmp_path), "--out", str(page)]) == 0
    text = (page / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == ["Recognition on things"]
    assert "Open Clip Art" in text
    missing = [name for name, command in gallery.THINGS_RUNS.items() if f"- `{command}`" in text]
    assert missing == ["things_localization", "things_separation", "things_segmentation"]


def test_scores_where_lower_is_better_are_drawn_with_the_best_on_the_right():
    scores = np.array([0.1, 0.2, 0.9, np.nan])
    for name, inverted in (("pretraining", True), ("localization", False)):
        measure = MEASURES[name]
        (axes,) = distribution(scores, choose(scores, measure.higher), measure).axes
        assert axes.xaxis_inverted() == inverted
        assert sum(patch.get_height() for patch in axes.patches) == 3
        assert axes.get_title(loc="left") == "3 scores"


def test_the_strip_shows_the_typical_pair_on_one_axis():
    scores = np.array([1.0, 3.0, np.nan, 9.0, 5.0, 5.0, -8.0, 8.0, 7.0, 0.0])  # means 2, none, 5, 0 and 3.5
    assert typical_pair(scores) == 0
    assert typical_pair(scores[:8]) == 0
    assert typical_pair(np.append(scores, [6.0, 6.0])) == 4
    with pytest.raises(ValueError, match="Expected a pair of clips with scores, got none"):
        typical_pair(np.array([np.nan, 1.0]))
    generator = np.random.default_rng(0)
    frames, overlays = generator.integers(0, 256, (2, 2, 3, 8, 8, 3), dtype=np.uint8)
    mixture, *separated = generator.normal(size=(3, 16, 48))
    parts = zip(frames, overlays, separated, strict=True)
    axes = strip([StripScene(f"scene {k}", *each) for k, each in enumerate(parts)], mixture, 1.5, 8000.0).axes
    assert [a.get_title() for a in axes[:3]] == ["0.25 s", "0.75 s", "1.2 s"]
    assert [a.get_ylabel() for a in axes[:12:3]] == ["scene 0", "what sounds", "scene 1", "what sounds"]
    images = np.stack([frames, overlays], 1).reshape(12, 8, 8, 3)  # each scene's frames, below them its overlays
    for panel, image in zip(axes, images, strict=False):
        np.testing.assert_array_equal(panel.images[0].get_array(), image)
    titles = ["mixture", "separated by the frame of scene 0", "separated by the frame of scene 1"]
    assert [a.get_title(loc="left") for a in axes[12:]] == titles
    for panel, values in zip(axes[12:], [mixture, *separated], strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), values)
        assert panel.get_xlim() == (0, 1.5)
        assert panel.images[0].get_clim() == axes[12].images[0].get_clim()


@pytest.mark.parametrize(
    ("text", "score", "shown"),
    [
        ("cIoU 89.2 %; of two objects", "cIoU 89.1 %", "cIoU 89.1 %; of two objects"),
        ("SI-SDR improvement -0.06 dB", "-0.07 dB", "SI-SDR improvement -0.07 dB"),
        ("true: a", "probability 100 %", "probability 100 %; true: a"),
        ("", "IoU 5.9 %", "IoU 5.9 %"),
    ],
)
def test_a_case_has_its_stored_score_once(text, score, shown):
    assert with_score(text, score) == shown
