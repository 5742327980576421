"""Training curves: losses and other metrics by step, as an image file or on the screen."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.train.history import Rows

POINTS = 2000  # most points of a curve
GROUPS = ("loss", "accuracy", "recall_at_10", "ndcg_at_10")
SPLITS = ("", "train_", "val_", "eval_")
MISSING = "matplotlib is not installed: pip install 'efficientids-flax[plots]'"
Points = tuple[list[float], list[float]]  # steps, values


def save_curves(rows: Rows, path: Path) -> bool:
    """Draw the curves of a history; returns False without matplotlib, or if there are none.

    A curve has at most `POINTS` points: a longer one is averaged, and its label says over how many
    steps.

    Args:
        rows: rows of a history.
        path: image file; its suffix determines the format.
    """
    names = set(rows.names())
    groups = [[f"{split}{group}" for split in SPLITS] for group in GROUPS]
    panels = [
        dict(_curve(name, *rows.column(name)) for name in group if name in names)
        for group in groups
    ]
    return draw([panel for panel in panels if panel], path)


def _curve(name: str, steps: np.ndarray, values: np.ndarray) -> tuple[str, Points]:
    """(label, points) of a metric."""
    size = -(-len(steps) // POINTS)
    if size > 1:
        places = np.arange(0, len(steps), size)
        counts = np.diff(places, append=len(steps))
        steps, values = (np.add.reduceat(part, places) / counts for part in (steps, values))
        name = f"{name} (means of {size} steps)"
    return name, (steps.tolist(), values.tolist())


def draw(panels: Sequence[Mapping[str, Points]], path: Path, unit: str = "step") -> bool:
    """Draw panels side by side to a file; returns False without matplotlib or panels."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not panels:
        return False
    figure = Figure(**_layout(panels))
    FigureCanvasAgg(figure)
    _fill(figure, panels, unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def show(panels: Sequence[Mapping[str, Points]], unit: str = "step") -> Any:
    """Show panels in a window, or below the cell of a notebook.

    Returns:
        None; without a display (for example over ssh) the figure, for the caller to save.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plot: {MISSING}") from error
    backend = pyplot.get_backend()
    # A figure of pyplot's own would stay in memory, and its `show` would only warn.
    if backend.lower() in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
        figure = Figure(**_layout(panels))
        _fill(figure, panels, unit)
        logging.getLogger(__name__).warning(
            "there is no display for the figure (matplotlib's backend is %s): it is returned, and"
            " its savefig writes it",
            backend,
        )
        return figure
    _fill(pyplot.figure(**_layout(panels)), panels, unit)
    pyplot.show()
    return None


def _layout(panels: Sequence[Any]) -> dict[str, Any]:
    return {"figsize": (5 * len(panels), 4), "layout": "constrained"}


def _fill(figure: Any, panels: Sequence[Mapping[str, Points]], unit: str) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for name, (steps, values) in panel.items():
            axis.plot(steps, values, label=name, marker="." if len(steps) < 50 else None)
        axis.set_xlabel(unit)
        axis.legend()
        axis.grid(alpha=0.3)
