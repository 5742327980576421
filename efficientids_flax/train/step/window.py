"""Some steps of the loop: their metrics on the device, and where their time went."""

import time
from dataclasses import dataclass, field
from typing import Any

from efficientids_flax.train.step.function import FINITE

clock = time.perf_counter


@dataclass
class Window:
    """Steps since a report; times in seconds.

    Attributes:
        steps: how many.
        metrics: of `CompiledStep`, after the last of them; on the device.
        batches: of each step, where they may be asked for again.
        last: step that ended it.
        waited: for data.
        aside: in evaluations and checkpoints.
        saving: in checkpoints alone.
    """

    steps: int = 0
    metrics: Any = None
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
        self._rows: list[list[float]] = []
        self._since, self._untimed = clock(), 0

    def begin(self) -> None:
        """The first step is done: compiling and the like are not part of the speed."""
        self._since, self._untimed = clock(), 1

    def add(self, window: Window, rows: list[list[float]]) -> None:
        """One more window and its metrics [steps][M], which have just been read."""
        self._windows.append(window)
        self._rows += rows

    def take(self, tokens: int, flops: float | None, peak: float | None) -> dict[str, float]:
        """Means over the steps that were finite, and speeds; begins anew.

        Args:
            tokens: of a step, 0 if batches have none.
            flops, peak: of a step, and of the devices a second.
        """
        rows, windows, now = self._rows, self._windows, clock()
        place = self._names.index(FINITE)
        finite = [row for row in rows if row[place]]
        columns = zip(*(finite or rows), strict=True)
        values = {
            name: sum(column) / len(column)
            for name, column in zip(self._names, columns, strict=True)
        }
        del values[FINITE]
        if len(finite) < len(rows):
            values["skipped_steps"] = float(len(rows) - len(finite))
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
