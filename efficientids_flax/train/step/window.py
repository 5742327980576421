"""Metrics and times of the steps between two reports."""

import time
from dataclasses import dataclass, field
from operator import add
from typing import Any

from efficientids_flax.train.step.returned import FINITE

clock = time.perf_counter


@dataclass
class Window:
    """Steps since the last report; times in seconds.

    Attributes:
        steps: number of steps.
        metrics: metrics of `CompiledStep` after the last step; on the device.
        batches: the batch of each step, kept for diagnosis.
        last: number of the last step.
        flops: FLOPs of the steps, see `CompiledStep`.
        waited: time spent waiting for data.
        aside: time spent in evaluations and checkpoints.
        saving: time spent in checkpoints alone.
    """

    steps: int = 0
    metrics: Any = None
    batches: list[Any] = field(default_factory=list)
    last: int = 0
    flops: float = 0.0
    waited: float = 0.0
    aside: float = 0.0
    saving: float = 0.0


class Totals:
    """Sums over the windows since the last log; keeps no batch."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._since, self._untimed = clock(), 0
        self._begin()

    def begin(self, tokens: int, flops: float) -> None:
        """Start the clock after the first step, so that compilation does not count in the speed.

        Args:
            tokens, flops: those of the first step.
        """
        self._since, self._untimed = clock(), 1
        self._work = [-tokens, -flops]

    def add(self, window: Window, rows: list[list[float]], tokens: int) -> None:
        """Add a window.

        Args:
            window: the window that ended.
            rows: its metrics [steps][M], read from the device.
            tokens: tokens of its batches; 0 if they have none.
        """
        place = self._names.index(FINITE)
        for row in rows:
            number = 0 if row[place] else 1
            self._counts[number] += 1
            self._sums[number] = [*map(add, self._sums[number], row)]
        self._times = [*map(add, self._times, (window.aside, window.waited, window.saving))]
        self._work = [*map(add, self._work, (tokens, window.flops))]

    def take(self, peak: float | None) -> dict[str, float]:
        """Means over the steps that were finite, and speeds; then start from zero.

        Args:
            peak: peak FLOP/s of the devices; None: unknown.
        """
        now = clock()
        taken, skipped = self._counts
        sums, count = (self._sums[0], taken) if taken else (self._sums[1], skipped)
        values = {name: total / count for name, total in zip(self._names, sums, strict=True)}
        del values[FINITE]
        if skipped:
            values["skipped_steps"] = float(skipped)
        aside, waited, saving = self._times
        timed, seconds = taken + skipped - self._untimed, now - self._since - aside
        if timed and seconds > 0:
            tokens, flops = self._work
            values |= _speeds(timed / seconds, tokens / seconds, flops / seconds, peak)
            values["data_wait_ms"] = 1e3 * waited / timed
            values["checkpoint_ms"] = 1e3 * saving / timed
        self._since, self._untimed = now, 0
        self._begin()
        return values

    def _begin(self) -> None:
        self._counts = [0, 0]  # finite steps, other steps
        self._sums = [[0.0] * len(self._names) for _ in self._counts]
        self._times = [0.0, 0.0, 0.0]
        self._work = [0.0, 0.0]  # tokens, operations


def _speeds(steps: float, tokens: float, flops: float, peak: float | None) -> dict[str, float]:
    """Speed metrics by name, from rates per second."""
    values = {"steps_per_second": steps, "step_ms": 1e3 / steps}
    if tokens > 0:
        values["tokens_per_second"] = tokens
    if flops > 0:
        values["flops_per_second"] = flops
        if peak:
            values["mfu"] = flops / peak
    return values
