"""Charts: values of the lines, cells and spectrograms drawn."""

import matplotlib
import numpy as np
import pytest
import torch

from deepavfusion.training.report import charts
from deepavfusion.training.report.charts import (
    confusion_matrix,
    log_mels,
    success_curves,
)
from deepavfusion.training.report.style import figure_png


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_confusion_matrix_normalizes_rows_and_leaves_empty_ones_gray():
    counts = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    figure = confusion_matrix(counts, ["$a_1$", "b", "c" * 60])
    axes = figure.axes[0]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[0.75, 0.25, 0], [np.nan] * 3, [0.5, 0, 0.5]])
    assert [text.get_text() for text in axes.texts] == ["75", "25", "50", "50"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:2] == ["$a_1$  (4)", "b  (0)"]
    assert len(names[2]) < 40
    assert figure_png(figure).startswith(b"\x89PNG")


def test_confusion_matrix_of_many_classes_has_no_numbers_and_ends_at_forty():
    figure = confusion_matrix(np.eye(40), [str(i) for i in range(40)])
    assert not figure.axes[0].texts
    with pytest.raises(ValueError, match="1 to 40 classes, got 41"):
        confusion_matrix(np.eye(41), [str(i) for i in range(41)])
    with pytest.raises(ValueError, match=r"counts \(2, 2\)"):
        confusion_matrix(np.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="non-negative"):
        confusion_matrix(-np.eye(2), ["a", "b"])


def test_success_curves_and_their_areas():
    figure = success_curves(
        {"model": torch.tensor([0.1, 0.5, 0.7, 1.0], dtype=torch.float64), "whole": [0.0] * 3}, baselines=["whole"]
    )
    axes = figure.axes[0]
    drawn = {name: values for name, values in lines(axes).items() if not name.startswith("_")}
    thresholds, fractions = (np.array(values) for values in drawn["model: 75.0 % at 0.5, AUC 59.4 %"])
    np.testing.assert_allclose(thresholds, np.arange(21) / 20)
    assert fractions[thresholds == 0.5] == 0.75  # 0.5 reaches 0.5
    assert fractions[0] == 1
    assert fractions[-1] == 0.25
    # The area: each image adds its cIoU and half a step, but for the one at the end: (0.125 + 0.525 + 0.725 + 1) / 4.
    assert "whole: 0.0 % at 0.5, AUC 2.5 %" in drawn
    with pytest.raises(ValueError, match="cIoU of each image"):
        success_curves({"model": [float("nan")]})


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
    # HTK: 1000 Hz is 999.99 mel of 2840.02; filter i is centered at the (i + 1)-th of 129 even steps.
    assert positions["1000"] == pytest.approx(999.9855 / 2840.0230 * 129 - 1, abs=1e-3)
    with pytest.raises(ValueError, match=r"\(mels, time\)"):
        log_mels({"x": np.zeros(4)})
    with pytest.raises(ValueError, match="at least one"):
        log_mels({})


def test_silence_alone_can_be_drawn():
    assert figure_png(log_mels({"silent": np.full((128, 64), -7.0)}))


def test_missing_values_are_gray_and_leave_the_scale_alone():
    values = np.random.default_rng(0).uniform(-3, 1, (16, 64))
    masked = np.where(np.arange(64) < 32, values, np.nan)
    image, whole = (log_mels({"x": panel}).axes[0].images[0] for panel in (masked, values))
    np.testing.assert_allclose(image.get_clim(), whole.get_clim(), atol=0.1)
    np.testing.assert_allclose(image.cmap(image.norm(np.ma.masked_invalid(masked)))[0, 40, :3], 128 / 255)


def test_many_spectrograms_break_into_rows():
    figure = log_mels({str(i): np.zeros((16, 64)) for i in range(5)})
    assert [axes.get_ylabel() for axes in figure.axes[:6]] == ["Hz", "", "", "", "Hz", ""]


@pytest.mark.parametrize("norms", [(0.513, 0.512), (0.01, 100.0)])
def test_training_curves_show_the_records(tmp_path, monkeypatch, norms):
    figures = []
    monkeypatch.setattr(charts, "figure_png", lambda figure: figures.append(figure) or figure_png(figure))
    losses = {"image_loss": 0.4, "audio_loss": 0.6}
    train = [{**losses, "epoch": i, "learning_rate": 1e-3, "grad_norm": norm} for i, norm in enumerate(norms)]
    evaluations = [{**losses, "epoch": 1, "probe": {"fusion": {"accuracy": 0.5}}}]
    charts.training_curves(train, evaluations, {"accuracy": 0.1}, tmp_path / "c.png", "title")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    loss, probe, rate, norm = figures[0].axes
    assert lines(loss)["audio, training"] == ([0, 1], [0.6, 0.6])
    assert lines(loss)["image, held out"] == ([1], [0.4])
    assert lines(probe)["fusion"] == ([1], [50])
    assert list(norm.get_lines()[0].get_ydata()) == list(norms)
    labels = [text.get_text() for text in (*norm.get_yticklabels(), *norm.get_yticklabels(minor=True))]
    assert any(labels)
    assert not any("$" in label for label in labels)


def test_logarithmic_losses_have_plain_numbers(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts, "figure_png", lambda figure: figures.append(figure) or figure_png(figure))
    record = {"image_loss": 0.4, "audio_loss": 0.6, "alignment_loss": 4.0, "learning_rate": 1e-3, "grad_norm": 1.0}
    train = [{**record, "epoch": 0}, {**record, "epoch": 1}]
    charts.training_curves(train, [], None, tmp_path / "c.png", "title")
    loss = figures[0].axes[0]
    labels = [text.get_text() for text in (*loss.get_yticklabels(), *loss.get_yticklabels(minor=True))]
    assert loss.get_yscale() == "log"
    assert any(labels)
    assert not any("$" in label for label in labels)


def test_curves_of_fine_tuning_show_the_records(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts, "figure_png", lambda figure: figures.append(figure) or figure_png(figure))
    train = [{"epoch": i / 10, "loss": 1.0 / (i + 1), "learning_rate": 1e-3 * i} for i in range(50)]
    evaluations = [{"epoch": 1.0, "top1": 0.25, "loss": 2.0}, {"epoch": 2.0, "top1": 0.5}]
    charts.finetuning_curves(train, evaluations, "top1", tmp_path / "c.png", "title")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    loss, score, rate = figures[0].axes
    assert list(loss.get_lines()[0].get_ydata()) == [record["loss"] for record in train]
    assert (list(score.get_lines()[0].get_xdata()), list(score.get_lines()[0].get_ydata())) == ([1.0, 2.0], [0.25, 0.5])
    assert score.get_ylabel() == "top-1 accuracy"
    assert list(rate.get_lines()[0].get_xdata()) == [record["epoch"] for record in train]
    charts.finetuning_curves(train, [], "top1", tmp_path / "none.png", "title")
    assert not figures[1].axes[1].get_lines()
    assert [text.get_text() for text in figures[1].axes[1].texts] == ["no scores"]


@pytest.mark.parametrize(("records", "marked"), [(1, True), (50, False)])
def test_curves_of_few_records_mark_them(tmp_path, monkeypatch, records, marked):
    """A single record has no line that could be seen."""
    figures = []
    monkeypatch.setattr(charts, "figure_png", lambda figure: figures.append(figure) or figure_png(figure))
    losses = {"loss": 1.0, "image_loss": 0.4, "audio_loss": 0.6}
    train = [{**losses, "epoch": i, "learning_rate": 1e-3, "grad_norm": 1.0} for i in range(records)]
    charts.training_curves(train, [], None, tmp_path / "pretraining.png", "title")
    charts.finetuning_curves(train, [], "top1", tmp_path / "finetuning.png", "title")
    drawn = [line for figure in figures for axes in figure.axes for line in axes.get_lines()]
    assert len(drawn) == 6
    assert all((line.get_marker() not in ("", "None", None)) == marked for line in drawn)


def test_the_process_keeps_its_own_style():
    before = dict(matplotlib.rcParams)
    confusion_matrix(np.eye(2), ["a", "b"])
    assert dict(matplotlib.rcParams) == before
