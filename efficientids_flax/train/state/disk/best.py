"""Chooses the best checkpoint, by one finite metric in one direction."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from efficientids_flax.train.direction import Mode, settled_mode


class Best:
    """An Orbax policy that preserves the best checkpoint alone.

    Checkpoints that were not evaluated, or whose metric is not finite, are never the best.

    Attributes:
        metric: name of the metric; None: no checkpoint is the best.
        since: checkpoints up to this step were evaluated differently, and are never the best.
    """

    def __init__(self, metric: str | None, mode: Mode | None = None) -> None:
        """Choose by a metric.

        Args:
            metric: its name, or None.
            mode: whether the least or the greatest value is best; None: as the name implies.

        Raises:
            ValueError: see `settled_mode`.
        """
        self.since = 0
        self.follow(metric, mode)

    def follow(self, metric: str | None, mode: Mode | None) -> None:
        """Choose by this metric from now on; arguments and errors as for the class."""
        self.metric, self.mode = metric, mode
        self._sign = -1.0 if metric is not None and settled_mode(metric, mode) == "max" else 1.0

    def step(self, metrics: Mapping[int, Mapping[str, float] | None]) -> int | None:
        """The best step, given step -> metrics; the first if several are equal, None if none is."""
        if self.metric is None:
            return None
        found = {
            step: self._sign * values[self.metric]
            for step, values in metrics.items()
            if step > self.since and values and math.isfinite(values.get(self.metric, math.nan))
        }
        return min(found, key=lambda step: (found[step], step)) if found else None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each checkpoint, whether it is the best."""
        del context
        best = self.step({found.step: found.metrics for found in checkpoints})
        return [found.step == best for found in checkpoints]
