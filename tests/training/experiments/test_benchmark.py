"""The benchmarks run, and FLOPs grow as expected."""

import json
import multiprocessing
import sys
from types import SimpleNamespace

import pytest

from deepavfusion.training.experiments import benchmark, benchmark_attention, measurement
from tests.training.test_finetune import SIZES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory on a CPU is read from /proc")


def test_measurements_in_fresh_processes_return_or_are_reported():
    assert measurement.in_fresh_process(int, "7") == 7
    with pytest.raises(ValueError, match="not a number"):
        measurement.in_fresh_process(int, "not a number")


@pytest.fixture(scope="module")
def forked():
    """Measurements in processes of a server that has imported the benchmarks: as fresh, and ready at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([benchmark.__name__, benchmark_attention.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "multiprocessing", SimpleNamespace(get_context=lambda method: context))
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory, forked):
    path = tmp_path_factory.mktemp("benchmark") / "results.json"
    cases = ["dense_block_half", "dense_block", "dense_block_double"]
    benchmark.main(["--size", "small", "--repeats", "1", "--threads", "1", "--cases", *cases, "--output", str(path)])
    return json.loads(path.read_text())


def test_the_dense_block_grows_linearly_and_its_textbook_form_with_the_product(report):
    """In FLOPs, which the load of the machine cannot change: twice the patches cost two or four times as many."""
    flops = {form: [report["cases"][name][form]["flops"] for name in report["cases"]] for form in ("ours", "textbook")}
    assert flops["ours"][2] / flops["ours"][1] <= 2.0
    assert flops["textbook"][2] / flops["textbook"][1] > 3.5
    assert flops["ours"][1] * 20 < flops["textbook"][1]


def test_results_are_complete(report):
    for case in report["cases"].values():
        for form in ("ours", "textbook"):
            assert case[form]["seconds"] > 0
            assert case[form]["peak_bytes"] > 0
            reached = case[form]["flops"] / case[form]["seconds"]  # the load of the machine decides how much
            assert case[form]["share_of_peak"] == pytest.approx(reached / report["matrix_product_flops_per_second"])
    assert report["machine"]["threads"] == 1
    assert report["matrix_product_flops_per_second"] > 1e8


def test_attention_of_a_recipe_is_timed_in_every_combination(tmp_path, capsys, forked):
    path = tmp_path / "results.json"
    small = [*(f"model.{name}={value}" for name, value in SIZES.items()), "optim.batch_size=4"]
    benchmark_attention.main(["scenes_recognition", "--repeats", "3", "--output", str(path), "--overrides", *small])
    found = json.loads(path.read_text())["recipes"]["scenes_recognition"]
    assert list(found) == ["sdpa, float32", "eager, float32", "sdpa, bfloat16", "eager, bfloat16"]
    assert found["sdpa, float32"]["ratios"] == [1, 1, 1]
    for row in found.values():
        assert row["seconds"] > 0
        assert row["speedup"] > 0
        assert row["peak_bytes"] > 0
    assert capsys.readouterr().out.count("scenes_recognition") == 4
