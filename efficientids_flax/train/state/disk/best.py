"""Which checkpoint is the best one: by one finite metric, in one direction."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from efficientids_flax.train.direction import Mode, settled_mode


class Best:
    """Finds the best checkpoint, and preserves it alone: a policy of Orbax'.

    Checkpoints that were not evaluated, or whose metric is not finite, are never the best.

    Attributes:
        metric: None: no checkpoint is the best.
        since: step up to which evaluations were others, and are not compared with.
    """

    def __init__(self, metric: str | None, mode: Mode | None = None) -> None:
        """By this metric.

        Raises:
            ValueError: see `settled_mode`.
        """
        self.since = 0
        self.follow(metric, mode)

    def follow(self, metric: str | None, mode: Mode | None) -> None:
        """Go by this metric from now on; raises as the class."""
        self.metric, self.mode = metric, mode
        self._sign = -1.0 if metric is not None and settled_mode(metric, mode) == "max" else 1.0

    def step(self, metrics: Mapping[int, Mapping[str, float] | None]) -> int | None:
        """The best step of step -> metrics, the first of several that are equal."""
        if self.metric is None:
            return None
        found = {
            step: self._sign * values[self.metric]
            for step, values in metrics.items()
            if step > self.since and values and math.isfinite(values.get(self.metric, math.nan))
        }
        return min(found, key=lambda step: (found[step], step)) if found else None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One truth value a checkpoint."""
        del context
        best = self.step({found.step: found.metrics for found in checkpoints})
        return [found.step == best for found in checkpoints]
