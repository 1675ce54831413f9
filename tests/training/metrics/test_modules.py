"""The metrics as modules of `evaluate`: what they compute, without the network, side by side, and what they refuse."""

import configparser
import inspect
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

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
    """What all metrics say of samples drawn from the seed, given in two parts."""
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


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory):
    """Nothing is left in the user's caches; modules that were loaded from there before are loaded anew."""
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
    metric = metrics.load(name, kind)
    metric.add_batch(predictions=predictions, references=references)
    return metric.compute(**options)


def test_offline_and_in_parallel(tmp_path):
    source = f"{PREAMBLE}\n{inspect.getsource(everything)}\nprint(json.dumps(everything(int(sys.argv[1]))))"
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
    assert text.strip() == "The metric source_separation needs `evaluate`: pip install deepavfusion[eval]"


def test_names_and_files():
    folders = {path.parent.name for path in (ROOT / "training" / "metrics").glob("*/*.py")}
    assert folders == set(metrics.MODULES)
    assert all(metrics.module_path(name).is_file() for name in metrics.MODULES)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    assert {f"deepavfusion.training.metrics.{name}" for name in folders} <= set(packages)
    with pytest.raises(ValueError, match="no metric 'bleu': expected one of audio_visual_classification, .*separation"):
        metrics.load("bleu")


def test_source_separation():
    generator = np.random.default_rng(0)
    lengths = (3000, 2000, 2500, 1500)
    sources = [generator.standard_normal((2, length)) for length in lengths]
    estimates = [rows + 0.3 * rows[::-1] + 0.1 * generator.standard_normal(rows.shape) for rows in sources]
    sources[1][0] = 0
    estimates[2][1] = 0
    found = _score("source_separation", estimates, sources)
    counts = {name: found.pop(name) for name in ("num_mixtures", "silent_sources", "silent_estimates")}
    assert counts == {"num_mixtures": 2, "silent_sources": 1, "silent_estimates": 1}
    rows = []
    for index in (0, 3):
        mixture = np.broadcast_to(sources[index].sum(0), (2, lengths[index]))
        after, before = (bss_eval(sources[index], values) for values in (estimates[index], mixture))
        plain, mixed = (si_sdr(sources[index], values) for values in (estimates[index], mixture))
        rows.append([*after, plain, after[0] - before[0], plain - mixed])
    expected = np.concatenate(rows, axis=1).mean(1)
    names = ("sdr", "sir", "sar", "si_sdr", "sdri", "si_sdri")
    assert found == pytest.approx(dict(zip(names, expected, strict=True)), abs=1e-4)


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
    assert {key: found[key] for key in ("top1", "top2", "num_samples", "num_scored_classes")} == {
        "top1": pytest.approx(1 / 3),
        "top2": pytest.approx(2 / 3),
        "num_samples": 3,
        "num_scored_classes": 3,
    }
    assert "top5" not in found  # there are three classes
    labels = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1]])
    found = _score("audio_visual_classification", scores, labels, "multi_label")
    # All classes in order; the third is everywhere, so it has no score.
    assert found == {"hit1": 1.0, "map": 1.0, "auc": 1.0, "num_samples": 3, "num_scored_classes": 2}


def test_retrieval():
    sounds = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    frames = np.array([[2.0, 0.1], [0.1, 3.0], [-1.0, 0.0]])
    found = _score("audio_visual_retrieval", sounds, frames, cuts=(1, 2))
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


def test_binary_segmentation_of_pictures_of_several_sizes():
    probabilities = [np.array([[0.9, 0.6, 0.2]]), np.array([[0.9], [0.1]])]
    truths = [np.array([[1, 0, 0]]), np.array([[0], [0]])]
    found = _score("audio_visual_segmentation", probabilities, truths)
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["f_avsbench"] == found["published_f"] == pytest.approx(1)
    assert found["f"] == pytest.approx(0.5)  # the empty picture's precision and recall are 0 here
    assert found["published_miou"] == pytest.approx(1 / 2)
    assert (found["num_pictures"], found["num_without_foreground"]) == (2, 1)
    empty = _score("audio_visual_segmentation", probabilities[1:], truths[1:])
    assert empty == {"miou": 0.5, "f": 0, "num_pictures": 1, "num_without_foreground": 1}


def test_semantic_segmentation():
    truth, found = [[[0, 1, 255]], [[0, 0, 0]]], [[[0, 1, 2]], [[0, 2, 2]]]
    result = _score("audio_visual_segmentation", found, truth, "semantic", num_classes=3)
    assert result["miou"] == pytest.approx((2 / 4 + 1 + 0) / 3)
    assert result["published_miou"] == 1  # the picture without foreground, the only one with errors, is skipped
    assert result["num_without_foreground"] == 1


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
    assert "ap" not in _score("sound_localization", heat[:2], truth[:2])


def test_several_processes_collect_into_one(tmp_path):
    """Two objects stand for two processes: what both were given is scored together, by the first."""
    sounds = np.random.default_rng(0).standard_normal((8, 4))
    options = {"num_process": 2, "experiment_id": "both", "cache_dir": str(tmp_path)}

    def run(process):
        metric = metrics.load("audio_visual_retrieval", process_id=process, **options)
        part = slice(4 * process, 4 * process + 4)
        metric.add_batch(predictions=sounds[part], references=sounds[part])
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (0, 1))
    assert second is None
    assert first["num_samples"] == 8
    assert first["audio_to_image_r1"] == 1


BAD = np.array([[0.2, np.nan], [0.1, 0.4]])


@pytest.mark.parametrize(
    ("name", "kind", "predictions", "references", "options", "message"),
    [
        ("source_separation", None, [BAD], [BAD + 1], {}, "Predictions 0: row 0 holds NaN"),
        ("source_separation", None, [np.ones((2, 5))], [np.ones((2, 6))], {}, r"\(2, 5\), references \(2, 6\)"),
        ("source_separation", None, [[[1, 2], [1]]], [np.ones((2, 2))], {}, "Predictions 0: 2 rows of length 1, 2"),
        ("source_separation", None, [np.zeros((2, 5))], [np.zeros((2, 5))], {}, "of 1, 1 have a silent source"),
        ("source_separation", None, [np.ones((1, 5))], [np.ones((1, 5))], {"mixtures": []}, "0 mixtures for 1"),
        ("audio_visual_classification", None, BAD, [0, 1], {}, "Predictions: row 0 holds NaN"),
        ("audio_visual_classification", None, [[1, 2], [1]], [0, 1], {}, "Predictions: 2 rows of length 1, 2"),
        ("audio_visual_classification", None, [[1, 2]], [2], {}, "2 .. 2: expected 0 .. 1"),
        ("audio_visual_classification", "multi_label", [[1, 2]], [[1]], {}, r"\(1, 2\), references \(1, 1\)"),
        ("audio_visual_classification", "several", [], [], {}, "'several': expected 'single_label'"),
        ("audio_visual_retrieval", None, BAD, BAD, {}, "Predictions: row 0 holds NaN"),
        ("audio_visual_retrieval", None, [[1, 2]], [[1]], {}, r"\(1, 2\) and \(1, 1\)"),
        ("audio_visual_segmentation", None, [BAD], [BAD > 0], {}, "Prediction 0: row 0 holds NaN"),
        ("audio_visual_segmentation", None, [[[3.0]]], [[[1]]], {}, "not logits"),
        ("audio_visual_segmentation", None, [[[0.5]]], [[[2]]], {}, "Reference 0 holds other values than 0 and 1"),
        ("audio_visual_segmentation", None, [[[0.5]]], [[[1, 1]]], {}, r"\(1, 1\), the truth \(1, 2\)"),
        ("audio_visual_segmentation", "semantic", [[[1]]], [[[1]]], {}, r"expected compute\(num_classes"),
        ("audio_visual_segmentation", "semantic", [[[1]]], [[[2]]], {"num_classes": 2}, "2 .. 2, .*: expected 0 .. 1"),
        ("sound_localization", None, [BAD], [BAD > 0], {}, "Prediction 0: row 0 holds NaN"),
        ("sound_localization", None, [[[0.5]]], [[[0.0]]], {}, "Nothing sounds in any of the 1"),
        ("sound_localization", None, [[[0.5]]], [[[1.0, 1.0]]], {}, r"\(1, 1\), the consensus map \(1, 2\)"),
        ("sound_localization", None, [[[0.5]]], [[[4.0]]], {}, "expected 0..1"),
        ("sound_localization", None, [[[0.5]]], [[[1.0]], [[1.0]]], {}, "Mismatch in the number"),
    ],
)
def test_refusals(name, kind, predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        _score(name, predictions, references, kind, **options)
