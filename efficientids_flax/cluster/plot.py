"""Draws a clustering: sizes, and how close the items of each cluster are."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from efficientids_flax.cluster.summary import Summary
from efficientids_flax.whole_files import write_whole


def save_plot(summary: Summary, path: str | os.PathLike[str]) -> None:
    """Draw a clustering.

    On the left a histogram of sizes; on the right, if there are embeddings, each cluster's variance
    against its size, relative to the variance of all items.

    Args:
        summary: what to show.
        path: a file in a format of matplotlib, such as .png or .svg.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib cannot write this format.
        OSError: the file cannot be written; no partial file is left.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'efficientids-flax[plots]'"
        ) from error
    about = len(summary.within) > 0 and bool(summary.total)
    figure = Figure(figsize=(9 if about else 5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if about else 1, squeeze=False)[0]
    ranges = summary.histogram()
    axes[0].bar(
        [(low + high) / 2 for low, high, _ in ranges],
        [count for _, _, count in ranges],
        width=[high - low + 0.9 for low, high, _ in ranges],
        color="#4477aa",
    )
    axes[0].yaxis.get_major_locator().set_params(integer=True)
    median = float(np.median(summary.sizes))
    axes[0].axvline(median, color="#222222", linewidth=1, label=f"median {median:g}")
    axes[0].set(xlabel="items in the cluster", ylabel="clusters",
                title=f"{summary.method}: {len(summary.sizes)} clusters")  # fmt: skip
    axes[0].legend(frameon=False)
    if about:
        assert summary.variance is not None
        share = summary.within / summary.variance
        axes[1].scatter(summary.sizes, share, s=12, alpha=0.6, color="#aa3377")
        axes[1].axhline(summary.share, color="#222222", linewidth=1,
                        label=f"all clusters {summary.share:.2f}")  # fmt: skip
        axes[1].set(xlabel="items in the cluster", ylabel="variance within / of all items",
                    title="How near its items are", ylim=(0, None))  # fmt: skip
        axes[1].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    place, drawn = Path(path), io.BytesIO()
    figure.savefig(drawn, dpi=120, format=place.suffix[1:] or None)
    try:
        write_whole(place, drawn.getvalue())
    except OSError as error:
        raise OSError(f"{place}: cannot be written ({error.strerror or error})") from error
