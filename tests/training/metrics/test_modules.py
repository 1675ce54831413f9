"""The metrics as modules of `evaluate`: values, offline use, concurrent use, and errors."""

import configparser
import inspect
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.training import metrics
from deepavfusion.training.metrics.separation import bss_eval, si_sdr
from tests.isolated import run_python

ROOT = Path(__file__).parents[3]
PREAMBLE = """
import json, os, socket, sys

os.environ |= {"HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def refuse(*arguments, **options):
    raise AssertionError(f"a connection was tried: {arguments}")


socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
"""


def everything(seed):
    """Scores by all metrics of random samples, added in two parts."""
    import numpy as np

    from deepavfusion.training import metrics

    generator = np.random.default_rng(seed)
    waveforms = generator.standard_normal((3, 2, 2000))
    maps, truth = generator.random((4, 8, 8)), generator.random((4, 8, 8)) > 0.5
    scores = generator.random((12, 4))
    inputs = {
        "source_separation": (waveforms + 0.1 * waveforms[:, ::-1], waveforms),
        "audio_visual_segmentation": (maps, truth),
        "sound_localization": (maps, truth),
        "audio_visual_classification": (scores, np.arange(12) % 4),
        "audio_visual_retrieval": (scores, scores + 0.3 * generator.random((12, 4))),
    }
    loaded = {name: metrics.load(name) for name in inputs}
    for half in (0, 1):
        for name, pair in inputs.items():
            predictions, references = (values[half * len(values) // 2 :][: len(values) // 2 + half] for values in pair)
            loaded[name].add_batch(predictions=predictions, references=references)
    return {name: metric.compute() for name, metric in loaded.items()}


def folders():
    """Every metric's folder loads through `evaluate` itself."""
    import evaluate

    from deepavfusion.training import metrics

    for name in metrics.MODULES:
        assert evaluate.load(str(metrics.module_path(name).parent)).name == name


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory):
    """Temporary caches; modules already imported from the user's caches are imported again."""
    evaluate = pytest.importorskip("evaluate")
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        patch.setattr(sys, "path", list(sys.path))
        for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
            patch.delitem(sys.modules, name)
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
            del sys.modules[name]


def _score(name, predictions, references, kind=None, **options):
    return metrics.load(name, kind).compute(predictions=predictions, references=references, **options)


def test_offline_and_in_parallel(tmp_path):
    source = f"{PREAMBLE}\n{inspect.getsource(everything)}\n{inspect.getsource(folders)}"
    source += "\nfolders()\nprint(json.dumps(everything(int(sys.argv[1]))))"
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda seed: run_python(source, seed, home=tmp_path), (0, 1))
    # The two share one cache, and yet each saw its own samples alone.
    for seed, text in enumerate(runs):
        expected, found = everything(seed), json.loads(text.splitlines()[-1])
        assert set(found) == set(metrics.MODULES)
        for name in metrics.MODULES:
            assert found[name] == pytest.approx(expected[name]), name
    assert expected["source_separation"]["num_mixtures"] == 3
    assert expected["sound_localization"]["num_sounding"] == 4
    assert expected["audio_visual_classification"]["num_samples"] == 12


def test_the_functions_do_not_need_evaluate(tmp_path):
    source = """
import importlib, sys
from pathlib import Path
from deepavfusion.training import metrics

for path in Path(metrics.__file__).parent.glob("*.py"):
    importlib.import_module(f"deepavfusion.training.metrics.{path.stem}")
try:
    metrics.load("source_separation")
except ImportError as error:
    print(error)
"""
    text = run_python(source, home=tmp_path, hidden=("evaluate",))
    assert text.strip() == "The metric source_separation requires `evaluate`: pip install evaluate scikit-learn"


def test_names_and_files():
    folders = {path.parent.name for path in (ROOT / "training" / "metrics").glob("*/*.py")}
    assert folders == set(metrics.MODULES)
    assert all(metrics.module_path(name).is_file() for name in metrics.MODULES)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    assert {f"deepavfusion.training.metrics.{name}" for name in folders} <= set(packages)
    with pytest.raises(
        ValueError, match="Unknown metric 'bleu'. Valid metrics: audio_visual_classification, .*separation"
    ):
        metrics.load("bleu")


def test_samples_may_come_one_by_one_or_as_tensors():
    generator = np.random.default_rng(0)
    maps, truth = generator.random((6, 8, 8)), generator.random((6, 8, 8)) > 0.5
    sounds = generator.standard_normal((3, 2, 1500))
    mixed = sounds + 0.2 * sounds[:, ::-1]
    cases = [
        ("sound_localization", None, maps, truth),
        ("audio_visual_segmentation", None, maps, truth.astype(float)),
        ("audio_visual_segmentation", "semantic", (5 * maps).astype(int), (3 * maps[::-1]).astype(int)),
        ("source_separation", None, mixed, sounds),
    ]
    for name, kind, predictions, references in cases:
        expected = _score(name, predictions, references, kind)
        assert _score(name, torch.tensor(predictions), torch.tensor(references), kind) == expected
        assert _score(name, predictions.tolist(), references.tolist(), kind) == pytest.approx(expected)
        metric = metrics.load(name, kind, keep_in_memory=False)
        for prediction, reference in zip(predictions, references, strict=True):
            metric.add(prediction=prediction, reference=reference)
        assert len(metric) == len(references)
        assert metric.compute() == expected
        with pytest.raises(ValueError, match="Nothing to score"):
            metric.compute()  # scored samples are gone


def test_arrays_are_scored_when_they_come_and_not_kept():
    metric, other = metrics.load("sound_localization"), metrics.load("sound_localization")
    heat, truth = np.random.default_rng(0).random((2, 3, 64, 64))
    expected = other.compute(predictions=heat, references=np.round(truth))
    changing = heat.copy()
    metric.add_batch(predictions=changing, references=np.round(truth))
    changing[:] = np.nan
    with pytest.raises(ValueError, match="Prediction 4: row 0 contains NaN"):
        metric.add_batch(predictions=[heat[0], changing[0]], references=truth[:2])
    assert len(metric) == 3  # nothing of the batch with an error
    metric.add_batch(predictions=[], references=[])
    assert metric.compute() == expected


def test_no_files_are_left(tmp_path):
    rows = np.eye(4)
    for name, samples in (("sound_localization", rows[None]), ("audio_visual_retrieval", rows)):
        metrics.load(name, cache_dir=str(tmp_path)).compute(predictions=samples, references=samples)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_modules_combine():
    evaluate = pytest.importorskip("evaluate")
    heat, truth = np.random.default_rng(0).random((2, 3, 8, 8))
    pair = {"predictions": heat, "references": np.round(truth)}
    names = ("sound_localization", "audio_visual_segmentation")
    both = evaluate.combine([metrics.load(name) for name in names], force_prefix=True)
    both.add_batch(**pair)
    found = both.compute()
    for name in names:
        for key, value in _score(name, *pair.values()).items():
            assert found[f"{name}_{key}"] == value


def test_source_separation(caplog):
    generator = np.random.default_rng(0)
    lengths = (3000, 2000, 2500, 1500)
    sources = [generator.standard_normal((2, length)) for length in lengths]
    estimates = [rows + 0.3 * rows[::-1] + 0.1 * generator.standard_normal(rows.shape) for rows in sources]
    sources[1][0] = 0
    estimates[2][1] = 0
    found = _score("source_separation", estimates, sources)
    counts = {name: found.pop(name) for name in ("num_mixtures", "skipped", "silent_sources", "silent_estimates")}
    assert counts == {"num_mixtures": 2, "skipped": 2, "silent_sources": 1, "silent_estimates": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "Skipped mixtures with silent sources: 1.",
        "Skipped mixtures with silent estimates: 2.",
    ]
    rows = []
    for index in (0, 3):
        mixture = np.broadcast_to(sources[index].sum(0), (2, lengths[index]))
        after, before = (bss_eval(sources[index], values) for values in (estimates[index], mixture))
        plain, mixed = (si_sdr(sources[index], values) for values in (estimates[index], mixture))
        rows.append([*after, plain, after[0] - before[0], plain - mixed])
    expected = np.concatenate(rows, axis=1).mean(1)
    names = ("sdr", "sir", "sar", "si_sdr", "sdri", "si_sdri")
    assert found == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-9)


def test_perfect_separation_is_finite():
    sources = np.random.default_rng(0).standard_normal((1, 2, 2000))
    found = _score("source_separation", sources, sources, mixtures=sources[:, 0])
    assert np.isfinite(list(found.values())).all()
    assert found["si_sdr"] > 150


def test_the_mixture_itself_gains_nothing():
    sources = np.random.default_rng(0).standard_normal((2, 2, 2000))
    mixtures = 0.5 * sources.sum(1) + 0.1
    estimates = np.repeat(mixtures[:, None], 2, axis=1)
    found = _score("source_separation", estimates, sources, mixtures=list(mixtures))
    assert found["si_sdri"] == pytest.approx(0, abs=1e-6)
    assert found["sdri"] == pytest.approx(0, abs=1e-4)
    assert found["si_sdr"] == pytest.approx(0, abs=0.5)


def test_classification_of_one_and_of_several_labels():
    scores = np.array([[0.1, 0.5, 0.4], [0.9, 0.2, 0.3], [0.2, 0.3, 0.5]])
    found = _score("audio_visual_classification", scores, [1, 2, 0], top_k=(1, 2, 5))
    assert {key: value for key, value in found.items() if key not in ("map", "auc")} == {
        "top1": pytest.approx(1 / 3),
        "top2": pytest.approx(2 / 3),
        "num_samples": 3,
        "num_scored_classes": 3,
        "num_skipped_classes": 0,
    }
    assert "top5" not in found  # there are three classes
    labels = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1]])
    found = _score("audio_visual_classification", scores, labels, "multi_label")
    # All classes in order; the third is everywhere, so it has no score.
    assert found == {
        "precision_at_1": 1.0,
        "map": 1.0,
        "auc": 1.0,
        "num_samples": 3,
        "num_scored_classes": 2,
        "num_skipped_classes": 1,
    }


def test_retrieval():
    sounds = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    frames = np.array([[2.0, 0.1], [0.1, 3.0], [-1.0, 0.0]])
    found = _score("audio_visual_retrieval", sounds, frames, cutoffs=(1, 2))
    assert found == {
        "audio_to_image_r1": pytest.approx(2 / 3),
        "audio_to_image_r2": pytest.approx(2 / 3),
        "audio_to_image_median_rank": 1,
        "image_to_audio_r1": pytest.approx(2 / 3),
        "image_to_audio_r2": 1.0,
        "image_to_audio_median_rank": 1,
        "chance_r1": pytest.approx(1 / 3),
        "chance_r2": pytest.approx(2 / 3),
        "num_samples": 3,
    }


def test_binary_segmentation_of_images_of_several_sizes():
    probabilities = [np.array([[0.9, 0.6, 0.2]]), np.array([[0.9], [0.1]])]
    truths = [np.array([[1, 0, 0]]), np.array([[0], [0]])]
    found = _score("audio_visual_segmentation", probabilities, truths)
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["f_avsbench"] == found["published_f"] == pytest.approx(1)
    assert found["f"] == pytest.approx(0.5)  # the empty image's precision and recall are 0 here
    assert found["published_miou"] == pytest.approx(1 / 2)
    assert (found["num_images"], found["num_images_without_foreground"]) == (2, 1)
    empty = _score("audio_visual_segmentation", probabilities[1:], truths[1:])
    assert empty == {"miou": 0.5, "f": 0, "num_images": 1, "num_images_without_foreground": 1}


def test_semantic_segmentation():
    truth, found = [[[0, 1, 255]], [[0, 0, 0]]], [[[0, 1, 2]], [[0, 2, 2]]]
    result = _score("audio_visual_segmentation", found, truth, "semantic", num_classes=3)
    assert result["miou"] == pytest.approx((2 / 4 + 1 + 0) / 3)
    assert result["published_miou"] == 1  # the image without foreground, the only one with errors, is skipped
    assert result["num_images_without_foreground"] == 1


def test_localization_with_negatives():
    truth = np.zeros((3, 4, 4))
    truth[0, :2, :2] = truth[1, :2] = 1
    heat = np.full((3, 4, 4), 0.1)
    heat[0, :2, :2], heat[1, :2, :2], heat[2, :1, :] = 0.9, 0.7, 0.8
    found = _score("sound_localization", heat, truth)
    # cIoU 1 and 1/2 at the absolute threshold; the negative's confidence lies between theirs.
    assert found["ciou_50"] == 1
    assert found["auc"] == pytest.approx(0.5 * 1 + 0.5 * (10 * 0.05 + 0.05 / 2))
    assert found["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["max_f1"] == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert (found["whole_ciou_50"], found["centre_ciou_50"]) == (0.5, 0)
    assert (found["num_sounding"], found["num_negatives"]) == (2, 1)
    # Nothing is misplaced, so SLAVC counts the same; its recall starts at the second image.
    assert found["slavc_max_f1"] == found["max_f1"]
    assert found["slavc_ap"] == pytest.approx(2 / 3 * (1 - 1 / 2))
    assert "ap" not in _score("sound_localization", heat[:2], truth[:2])


def test_threshold_of_localization():
    heat, truth = np.array([[[0.9, 0.4, 0.2, 0.1]]]), np.array([[[1.0, 1.0, 0.0, 0.0]]])
    for threshold, share in ((0.4, 1.0), (0.15, 1.0), (0.95, 0.0)):
        metric = metrics.load("sound_localization", threshold=threshold)
        found = metric.compute(predictions=heat, references=truth)
        assert (found["ciou_50"], found["median_ciou_50"]) == (share, 1.0)


@pytest.mark.parametrize("name", ["audio_visual_retrieval", "sound_localization"])
def test_several_processes_collect_into_one(tmp_path, name):
    """Two objects act as two processes: the first one computes the metric over the samples of both."""
    samples = np.random.default_rng(0).random((8, 4) if name == "audio_visual_retrieval" else (8, 4, 4))
    options = {"num_process": 2, "experiment_id": "both", "cache_dir": str(tmp_path)}

    def run(process):
        metric = metrics.load(name, process_id=process, **options)
        part = slice(4 * process, 4 * process + 4)
        metric.add_batch(predictions=samples[part], references=samples[part])
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (0, 1))
    assert second is None
    assert first == _score(name, samples, samples)


BAD = np.array([[0.2, np.nan], [0.1, 0.4]])


@pytest.mark.parametrize(
    ("name", "kind", "predictions", "references", "options", "message"),
    [
        ("source_separation", None, [BAD], [BAD + 1], {}, "Predictions 0: row 0 contains NaN"),
        ("source_separation", None, [np.ones((2, 5))], [np.ones((2, 6))], {}, r"\(2, 5\) and \(2, 6\)"),
        ("source_separation", None, [[[1, 2], [1]]], [np.ones((2, 2))], {}, "Predictions 0: .*2 rows of length 1, 2"),
        (
            "source_separation",
            None,
            [np.zeros((2, 5))],
            [np.zeros((2, 5))],
            {},
            "of 1 mixtures, 1 have a silent source",
        ),
        (
            "source_separation",
            None,
            [np.ones((1, 5))],
            [np.ones((1, 5))],
            {"mixtures": []},
            "'references': 1, 'mixtures': 0",
        ),
        ("source_separation", None, [BAD + 1], None, {}, "same number .*'references': None}"),
        ("audio_visual_classification", None, BAD, [0, 1], {}, "Predictions: row 0 contains NaN"),
        ("audio_visual_classification", None, [[1, 2], [1]], [0, 1], {}, "Predictions: .*2 rows of length 1, 2"),
        ("audio_visual_classification", None, [[1, 2]], [2], {}, r"labels in 0\.\.1, got 2\.\.2"),
        ("audio_visual_classification", "multi_label", [[1, 2]], [[1]], {}, r"\(1, 2\) and \(1, 1\)"),
        ("audio_visual_classification", "several", [], [], {}, "'several'. Valid configurations: 'single_label'"),
        ("audio_visual_retrieval", None, BAD, BAD, {}, "Predictions: row 0 contains NaN"),
        ("audio_visual_retrieval", None, [[1, 2]], [[1]], {}, r"\(1, 2\) and \(1, 1\)"),
        ("audio_visual_segmentation", None, [BAD], [BAD > 0], {}, "Prediction 0: row 0 contains NaN"),
        ("audio_visual_segmentation", None, [[[3.0]]], [[[1]]], {}, "are these logits"),
        ("audio_visual_segmentation", None, [[[0.5]]], [[[2]]], {}, r"0 and 1 only in reference 0, got \[2\.0\]"),
        ("audio_visual_segmentation", None, [[[0.5]]], [[[1, 1]]], {}, r"\(1, 1\) and \(1, 2\)"),
        ("audio_visual_segmentation", None, np.ones((1, 1, 4, 4)), np.ones((1, 1, 4, 4)), {}, r"got \(1, 4, 4\)"),
        ("audio_visual_segmentation", "semantic", [[[1]]], [[[-1]]], {}, r"targets in -1\.\.-1"),
        ("audio_visual_segmentation", "semantic", [[[1]]], [[[2]]], {"num_classes": 2}, r"classes 0\.\.1, got up to 2"),
        ("sound_localization", None, [BAD], [BAD > 0], {}, "Prediction 0: row 0 contains NaN"),
        ("sound_localization", None, [[[0.5]]], [[[0.0]]], {}, "none of 1 images has a sounding object"),
        ("sound_localization", None, [[[0.5]]], [[[1.0, 1.0]]], {}, r"\(1, 1\) and \(1, 2\)"),
        ("sound_localization", None, [[[0.5]]], [[[4.0]]], {}, "map in 0..1"),
        ("sound_localization", None, [], [], {}, "Nothing to score"),
        ("sound_localization", None, [[[0.5]]], [[[1.0]], [[1.0]]], {}, "'predictions': 1, 'references': 2"),
    ],
)
def test_refusals(name, kind, predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        _score(name, predictions, references, kind, **options)
