"""Brings two arrays to one shape, and finds padding in them."""

import numpy as np

from parity_tests.recording import Pass


def rows_of(axes: str, shape: tuple[int, ...], one: Pass) -> np.ndarray | None:
    """Positions of a recorded array that are not padding, as a bool that broadcasts; None for all.

    Args:
        axes: letters of its axes, see `names.table`.
        shape: shape of the array.
        one: the pass, which has the `paddings`.
    """
    paddings = one.inputs.get("paddings")
    if len(axes) + 1 == len(shape):
        axes = axes.replace("N", "J.")  # heads in groups
    if paddings is None or len(axes) != len(shape) or not np.any(paddings):
        return None
    valid = np.asarray(paddings) == 0
    if "G" in axes and "U" in axes:  # groups of tokens, in the order of the batch
        places = [axes.index("G"), axes.index("U")]
        if shape[places[0]] * shape[places[1]] != valid.size:
            return None
        sizes = [size if place in places else 1 for place, size in enumerate(shape)]
        return valid.reshape(sizes)
    if "B" not in axes or shape[axes.index("B")] != valid.shape[0]:
        return None
    rows = None
    for letter in "TS":
        if letter in axes and shape[axes.index(letter)] == valid.shape[1]:
            sizes = [1] * len(shape)
            sizes[axes.index("B")], sizes[axes.index(letter)] = valid.shape
            own = valid.reshape(sizes)
            rows = own if rows is None else rows & own
    return rows


def aligned(ours: np.ndarray, recorded: np.ndarray) -> np.ndarray | None:
    """Ours in the recorded shape, if only axes of size 1 or a repeated batch differ; else None."""
    if ours.shape == recorded.shape:
        return ours
    squeezed = tuple(size for size in ours.shape if size != 1)
    if squeezed == tuple(size for size in recorded.shape if size != 1):
        return ours.reshape(recorded.shape)
    split = recorded.ndim == ours.ndim + 1 and ours.shape[2:] == recorded.shape[3:]
    if split and ours.size == recorded.size:  # heads [N] recorded as groups of heads [J, N/J]
        return ours.reshape(recorded.shape)
    if ours.ndim == recorded.ndim and ours.shape[0] == 1 and ours.shape[1:] == recorded.shape[1:]:
        return np.broadcast_to(ours, recorded.shape)
    return None
