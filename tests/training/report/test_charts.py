"""Charts of a report: the drawn lines, cells and spectrograms hold what was given."""

import json

import matplotlib
import numpy as np
import pytest
import torch

from deepavfusion.inference.media import png
from deepavfusion.training.report.charts import (
    confused_pairs,
    confusion_counts,
    confusion_matrix,
    learning_curves,
    log_mels,
    precision_recall,
    success_curves,
)


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_confusion_counts():
    counts = confusion_counts(torch.tensor([0, 0, 2, 2, 2]), [0, 1, 2, 2, 0], 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 0, 0], [1, 0, 2]])
    with pytest.raises(ValueError, match=r"classes 0\.\.2, got 0\.\.3"):
        confusion_counts([0, 3], [0, 1], 3)
    with pytest.raises(ValueError, match="one length"):
        confusion_counts([0, 1], [0], 3)


def test_confusion_matrix_normalises_rows_and_leaves_empty_ones_grey():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    figure = confusion_matrix(counts, ["$a_1$", "b", "c" * 60])
    axes = figure.axes[0]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[0.75, 0.25, 0], [np.nan] * 3, [0.5, 0, 0.5]])
    assert [text.get_text() for text in axes.texts] == ["75", "25", "50", "50"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:2] == ["$a_1$  (4)", "b  (0)"]
    assert len(names[2]) < 40
    assert png(figure).startswith(b"\x89PNG")


def test_confusion_matrix_of_many_classes_has_no_numbers_and_ends_at_forty():
    figure = confusion_matrix(np.eye(40), [str(i) for i in range(40)])
    assert not figure.axes[0].texts
    with pytest.raises(ValueError, match="got 41: use confused_pairs"):
        confusion_matrix(np.eye(41), [str(i) for i in range(41)])
    with pytest.raises(ValueError, match=r"Expected counts \(2, 2\)"):
        confusion_matrix(np.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="none negative"):
        confusion_matrix(-np.eye(2), ["a", "b"])


def test_confused_pairs_are_the_most_frequent_first():
    counts = np.diag([10.0] * 309)
    counts[5, 8], counts[7, 2], counts[3, 1] = 5, 10, 1
    columns, rows = confused_pairs(counts, [f"c{i}" for i in range(309)], limit=2)
    assert len(columns) == 6
    assert rows == [["c7", "c2", "10", "50 %", "50 %", "20"], ["c5", "c8", "5", "33 %", "67 %", "15"]]
    assert confused_pairs(np.eye(3), ["a", "b", "c"])[1] == []


RECORDS = [
    {"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0, "lr": 0.1, "samples_per_second": 9.0},
    {"kind": "train", "step": 2, "epoch": 1.0, "loss": 1.0, "lr": 0.2, "samples_per_second": 9.0},
    {
        "kind": "evaluation",
        "step": 2,
        "epoch": 1.0,
        "loss": 1.5,
        "probe": {"fusion": {"accuracy": 0.4}},
        "chance": None,
    },
]


def test_learning_curves_of_a_metrics_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    figure = learning_curves(path)
    panels = {axes.get_title("left"): axes for axes in figure.axes if axes.get_lines()}
    assert list(panels) == ["loss", "lr", "probe.fusion.accuracy"]
    assert lines(panels["loss"]) == {"training": ([0.5, 1.0], [2.0, 1.0]), "held out": ([1.0], [1.5])}
    assert legend(panels["loss"]) == ["training", "held out"]
    assert lines(panels["probe.fusion.accuracy"]) == {"held out": ([1.0], [0.4])}
    assert panels["lr"].get_xlabel() == "epoch"


def test_learning_curves_of_a_trainer_and_by_name():
    history = [
        {"loss": 1.0, "step": 5},
        {"eval_loss": 0.5, "eval_runtime": 3.0, "step": 5},
        {"train_loss": 2, "step": 9},
    ]
    figure = learning_curves(history, {"loss": "Cross entropy"})
    (axes,) = figure.axes
    assert axes.get_title("left") == "Cross entropy"
    assert axes.get_xlabel() == "step"
    assert lines(axes) == {"training": ([5, 9], [1, 2]), "held out": ([5], [0.5])}


def test_learning_curves_say_what_is_missing():
    with pytest.raises(ValueError, match=r"Expected quantities among \['loss', 'lr', .*\['top1'\]"):
        learning_curves(RECORDS, ["top1"])
    with pytest.raises(ValueError, match="an epoch or a step"):
        learning_curves([{"loss": 1.0}])
    with pytest.raises(ValueError, match="got none"):
        learning_curves([])


def test_success_curves_and_their_areas():
    figure = success_curves(
        {"model": torch.tensor([0.1, 0.5, 0.7, 1.0], dtype=torch.float64), "whole": [0.0] * 3}, baselines=["whole"]
    )
    axes = figure.axes[0]
    drawn = {name: values for name, values in lines(axes).items() if not name.startswith("_")}
    thresholds, shares = (np.array(values) for values in drawn["model: 75.0 % at 0.5, AUC 59.4 %"])
    np.testing.assert_allclose(thresholds, np.arange(21) / 20)
    assert shares[thresholds == 0.5] == 0.75  # 0.5 reaches 0.5
    assert shares[0] == 1
    assert shares[-1] == 0.25
    # The area: each image adds its cIoU and half a step, but for the one at the end: (0.125 + 0.525 + 0.725 + 1) / 4.
    assert "whole: 0.0 % at 0.5, AUC 2.5 %" in drawn
    with pytest.raises(ValueError, match="cIoU of every image"):
        success_curves({"model": [float("nan")]})


def test_precision_recall():
    figure = precision_recall({"a": ([0.5, 1.0], torch.tensor([1.0, 0.0])), "b": ([0, 1], [1, 0])}, {"a": 0.812})
    axes = figure.axes[0]
    assert lines(axes)["a, AP 81.2 %"] == ([1.0, 0.0], [0.5, 1.0])
    assert legend(axes) == ["a, AP 81.2 %", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("recall", "precision")


def test_log_mels_share_a_scale_and_have_seconds_and_hertz():
    generator = np.random.default_rng(0)
    mixture, found = generator.uniform(-3, 1, (128, 192)), torch.randn(1, 128, 96)
    figure = log_mels({"mixture": mixture, "separated": found})
    first, second = figure.axes[:2]
    np.testing.assert_array_equal(first.images[0].get_array(), mixture)
    np.testing.assert_allclose(second.images[0].get_array(), found[0].numpy())
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert first.images[0].origin == "lower"
    assert first.get_xlim() == (0, 3)
    assert second.get_xlim() == (0, 1.5)
    assert (first.get_xlabel(), first.get_ylabel()) == ("seconds", "Hz")
    positions = dict(zip([text.get_text() for text in first.get_yticklabels()], first.get_yticks()))
    # HTK: 1000 Hz is 999.99 mel of 2840.02; filter i is centred at the (i + 1)-th of 129 even steps.
    assert positions["1000"] == pytest.approx(999.9855 / 2840.0230 * 129 - 1, abs=1e-3)
    with pytest.raises(ValueError, match=r"\(mels, time\)"):
        log_mels({"x": np.zeros(4)})
    with pytest.raises(ValueError, match="at least one"):
        log_mels({})


def test_silence_alone_can_be_drawn():
    assert png(log_mels({"silent": np.full((128, 64), -7.0)}))


def test_many_spectrograms_break_into_rows():
    figure = log_mels({str(i): np.zeros((16, 64)) for i in range(5)})
    assert [axes.get_ylabel() for axes in figure.axes[:6]] == ["Hz", "", "", "", "Hz", ""]


def test_the_process_keeps_its_own_style():
    before = dict(matplotlib.rcParams)
    confusion_matrix(np.eye(2), ["a", "b"])
    assert dict(matplotlib.rcParams) == before
