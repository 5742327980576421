"""Metrics that a loop of one's own collects, and their picture: in a file, shown, or returned."""

import logging
import sys

import numpy as np
import pytest

from efficientids_flax.train.logs.training_metrics import TrainingMetrics

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def metrics():
    """Three epochs of the four names that stand there from the start."""
    found = TrainingMetrics()
    for epoch in range(3):
        values = {"train_loss": 1 / (epoch + 1), "val_loss": 0.5}
        found.update(values | {"train_acc": 0.1 * epoch, "val_acc": np.float32(1)})
    return found


def curves(figure):
    """Names of the curves of each panel."""
    return [[line.get_label() for line in axis.get_lines()] for axis in figure.axes]


TWO_PANELS = [["train_loss", "val_loss"], ["train_acc", "val_acc"]]


def test_values_are_collected():
    metrics = TrainingMetrics()
    metrics.update({"train_loss": 1.0, "val_acc": np.float32(1)})
    metrics.update({"train_loss": 0.5, "recall": 0.25})
    assert metrics.history["train_loss"] == [1, 0.5]
    assert metrics.history["val_acc"] == [1]
    assert metrics.history["recall"] == [0.25]
    assert metrics.history["train_acc"] == []


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no metric has a value yet"):
        TrainingMetrics().plot(tmp_path / "none.png")
    with pytest.raises(ValueError, match="no metric has a value yet"):
        TrainingMetrics().plot()


def test_drawn_into_a_file(metrics, tmp_path):
    assert metrics.plot(save_path=tmp_path / "curves" / "out.png") is None
    assert (tmp_path / "curves" / "out.png").read_bytes().startswith(b"\x89PNG")
    metrics.plot(str(tmp_path / "out.svg"))
    assert b"<svg" in (tmp_path / "out.svg").read_bytes()


def test_without_a_display_the_figure_comes_back(metrics, monkeypatch, caplog, tmp_path):
    """As in a script over ssh: no warning, which may be an error; no figure left in memory."""
    monkeypatch.setattr(pyplot, "get_backend", lambda: "agg")
    with caplog.at_level(logging.WARNING):
        figure = metrics.plot()
    assert "there is no display for the figure" in caplog.text
    assert curves(figure) == TWO_PANELS
    assert not pyplot.get_fignums()
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("backend", ["QtAgg", "module://matplotlib_inline.backend_inline"])
def test_shown_where_there_is_a_display(metrics, monkeypatch, backend):
    """And not returned, or a notebook would show it twice."""
    shown = []
    monkeypatch.setattr(pyplot, "get_backend", lambda: backend)
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(curves(pyplot.gcf())))
    try:
        assert metrics.plot() is None
    finally:
        pyplot.close("all")
    assert shown == [TWO_PANELS]


def test_without_matplotlib(metrics, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for path in (None, tmp_path / "curves.png"):
        with pytest.raises(ImportError, match=r"^plot: .*pip install 'efficientids-flax\[plots\]'"):
            metrics.plot(path)
