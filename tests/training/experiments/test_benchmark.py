"""The benchmarks run, and FLOPs grow as expected."""

import json
import multiprocessing
import sys
from types import SimpleNamespace

import pytest
import torch

from deepavfusion.training.experiments import benchmark_attention, measurement
from deepavfusion.training.experiments.benchmark import __main__ as benchmark
from deepavfusion.training.experiments.benchmark import cases, timing
from tests.media_factory import write_media

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory on a CPU is read from /proc")


def test_measurements_in_fresh_processes_return_or_are_reported():
    assert measurement.in_fresh_process(int, "7") == 7
    with pytest.raises(ValueError, match="not a number"):
        measurement.in_fresh_process(int, "not a number")


@pytest.fixture(scope="module")
def forked():
    """Measurements in processes of a server that has imported the benchmarks: as fresh, and ready at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([timing.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "multiprocessing", SimpleNamespace(get_context=lambda method: context))
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory, forked):
    path = tmp_path_factory.mktemp("benchmark") / "results.json"
    names = ["dense_block_half", "dense_block", "dense_block_double"]
    benchmark.main(["--size", "small", "--repeats", "1", "--threads", "1", "--cases", *names, "--output", str(path)])
    return json.loads(path.read_text())


def test_the_dense_block_grows_linearly_and_its_textbook_form_with_the_product(report):
    """In FLOPs, which the load of the machine cannot change: twice the patches cost two or four times as many."""
    rows = [case["forms"] for case in report["cases"].values()]
    flops = {form: [forms[form]["flops"] for forms in rows] for form in ("ours", "textbook")}
    assert flops["ours"][2] / flops["ours"][1] <= 2.0
    assert flops["textbook"][2] / flops["textbook"][1] > 3.5
    assert flops["ours"][1] * 20 < flops["textbook"][1]


def test_results_are_complete(report):
    for case in report["cases"].values():
        assert case["forms"]["ours"]["ours_is_faster_by"] == 1
        for form, row in case["forms"].items():
            assert (
                min(row[name] for name in ("seconds", "cpu_seconds", "ours_is_faster_by", "peak_bytes", "operations"))
                > 0
            ), form
        for form in ("ours", "textbook"):
            row = case["forms"][form]
            reached = row["flops"] / row["seconds"]  # the load of the machine decides how much
            assert row["fraction_of_peak"] == pytest.approx(reached / report["matrix_product_flops_per_second"])
    assert report["machine"]["threads"] == 1
    assert report["matrix_product_flops_per_second"] > 1e8


def test_compiled_forms_and_batch_sizes(forked, monkeypatch, capsys):
    monkeypatch.setattr(cases, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(benchmark, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(torch, "compile", lambda module: torch._dynamo.optimize("eager")(module))
    options = ["--size", "small", "--repeats", "1", "--threads", "1", "--cases", "dense_block", "--compile"]
    found = benchmark.main([*options, "--batch", "1", "2"])
    assert [case["batch"] for case in found["cases"].values()] == [1, 2]
    for case in found["cases"].values():
        forms = case["forms"]
        assert list(forms) == ["ours", "ours, bfloat16", "ours, compiled", "ours, bfloat16, compiled", "textbook"]
        for name, row in forms.items():
            assert (row["operations"] is None) == (row["peak_bytes"] is None) == ("compiled" in name), name
            assert row["flops"] == forms["textbook" if name == "textbook" else "ours"]["flops"]
        peak = found["matrix_product_flops_per_second_bfloat16"]
        row = forms["ours, bfloat16, compiled"]
        assert row["fraction_of_peak"] == pytest.approx(row["flops"] / row["seconds"] / peak)
    assert "matrix product peak in bfloat16, by autocast" in capsys.readouterr().out


def test_separation_is_timed_in_both_precisions(tmp_path, monkeypatch):
    clip = write_media(tmp_path / "clip.mp4", seconds=1.0)
    monkeypatch.setattr(timing, "fast_bfloat16", lambda device: True)
    options = ["--size", "small", "--repeats", "1", "--threads", "1", "--cases", "--recording", str(clip)]
    found = benchmark.main(options)
    assert found["cases"] == {}
    assert list(found["separation"]) == ["float32", "bfloat16"]
    assert min(found["separation"].values()) > 0


def test_attention_kernels_are_timed_by_tokens_and_precision(tmp_path, capsys):
    path = tmp_path / "results.json"
    benchmark_attention.main(
        ["--sizes", "tiny", "--tokens", "8", "16", "--repeats", "3", "--output", str(path)],
    )
    rows = json.loads(path.read_text())["sizes"]["tiny"]
    assert list(rows) == ["8", "16"]
    for row in rows.values():
        assert list(row) == [
            f"{precision}, {direction}"
            for precision in ("bfloat16", "float32")
            for direction in ("forward", "backward")
        ]
        assert all(cell[name] > 0 for cell in row.values() for name in cell)
    assert capsys.readouterr().out.count("tiny") == 2
