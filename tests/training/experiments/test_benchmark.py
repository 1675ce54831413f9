"""The benchmarks run, and FLOPs grow as expected."""

import json
import sys

import pytest

from deepavfusion.training.experiments import benchmark, benchmark_attention, measurement
from tests.training.test_finetune import SIZES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory on a CPU is read from /proc")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
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
            assert 0 < case[form]["share_of_peak"] < 1.5
    assert report["machine"]["threads"] == 1
    assert report["matrix_product_flops_per_second"] > 1e8


def test_attention_of_a_recipe_is_timed_in_every_combination(tmp_path, capsys):
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


def test_failed_measurements_are_reported():
    with pytest.raises(ValueError, match="not a number"):
        measurement.in_fresh_process(int, "not a number")
