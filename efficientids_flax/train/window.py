"""Some steps of the loop: their results on the device, and where their time went."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from efficientids_flax.train.step import FINITE

clock = time.perf_counter


@dataclass
class Window:
    """Steps since a report; times in seconds.

    Attributes:
        results: of each step, float32 [M] on the device.
        batches: of each step, where they may be asked for again.
        last: step that ended it.
        waited: for data.
        aside: in evaluations and checkpoints.
        saving: in checkpoints alone.
    """

    results: list[Any] = field(default_factory=list)
    batches: list[Any] = field(default_factory=list)
    last: int = 0
    waited: float = 0.0
    aside: float = 0.0
    saving: float = 0.0


class Totals:
    """Windows since the last log, and what they amount to."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._windows: list[Window] = []
        self._rows: list[np.ndarray] = []
        self._since, self._untimed = clock(), 0

    def begin(self) -> None:
        """The first step is done: compiling and the like are not part of the speed."""
        self._since, self._untimed = clock(), 1

    def add(self, window: Window, rows: np.ndarray) -> None:
        """One more window and its results [steps, M], which have just been read."""
        self._windows.append(window)
        self._rows.append(rows)

    def take(self, tokens: int, flops: float | None, peak: float | None) -> dict[str, float]:
        """Means over the steps that were finite, and speeds; begins anew.

        Args:
            tokens: of a step, 0 if batches have none.
            flops, peak: of a step, and of the devices a second.
        """
        rows, windows, now = np.concatenate(self._rows), self._windows, clock()
        finite = rows[:, self._names.index(FINITE)] > 0
        means = (rows[finite] if finite.any() else rows).mean(axis=0)
        values = dict(zip(self._names, means.tolist(), strict=True))
        del values[FINITE]
        if not finite.all():
            values["skipped_steps"] = float((~finite).sum())
        count = len(rows) - self._untimed
        seconds = now - self._since - sum(window.aside for window in windows)
        if count and seconds > 0:
            values |= _speeds(count / seconds, tokens, flops, peak)
            values["data_wait_ms"] = 1e3 * sum(window.waited for window in windows) / count
            values["checkpoint_ms"] = 1e3 * sum(window.saving for window in windows) / count
        self._windows, self._rows, self._since, self._untimed = [], [], now, 0
        return values


def _speeds(rate: float, tokens: int, flops: float | None, peak: float | None) -> dict[str, float]:
    values = {"steps_per_second": rate, "step_ms": 1e3 / rate}
    if tokens:
        values["tokens_per_second"] = tokens * rate
    if flops:
        values["flops_per_second"] = flops * rate
        if peak:
            values["mfu"] = flops * rate / peak
    return values
