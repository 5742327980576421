"""Metrics by epoch for a custom training loop: collect, then plot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from efficientids_flax.train.logs.curves import MISSING, Points, draw, show

SPLITS = ("train", "val", "eval", "test")


class TrainingMetrics:
    """Collects values of metrics by name, and plots them.

    Attributes:
        history: name -> values; `train_loss`, `val_loss`, `train_acc`, `val_acc` and any other.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {
            name: [] for name in ("train_loss", "val_loss", "train_acc", "val_acc")
        }

    def update(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Append a value (a number, or an array with one element) to each of these metrics."""
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(float(value))

    def plot(self, save_path: str | Path | None = None) -> Any:
        """Plot the curves, one panel for each metric, with all its splits.

        Args:
            save_path: image file; its suffix determines the format. None: show a window, or an
                image below the cell of a notebook.

        Returns:
            None; without a path and a display (for example over ssh) the figure, to be saved with
            its `savefig`; a log message says so.

        Raises:
            ValueError: there is nothing to draw.
            ImportError: matplotlib is not installed.
        """
        panels: dict[str, dict[str, Points]] = {}
        for name, values in self.history.items():
            if values:
                split, _, rest = name.partition("_")
                metric = rest if split in SPLITS and rest else name
                steps = [float(index) for index in range(1, len(values) + 1)]
                panels.setdefault(metric, {})[name] = steps, values
        if not panels:
            raise ValueError("plot: no metric has a value yet")
        if save_path is None:
            return show(list(panels.values()), "epoch")
        if not draw(list(panels.values()), Path(save_path), "epoch"):
            raise ImportError(f"plot: {MISSING}")
        return None
