"""Tracks the best value of a metric, for the best checkpoint and early stopping."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from efficientids_flax.train.options import TrainingOptions


class Monitor:
    """Follows one metric of the evaluations.

    Attributes:
        metric: its name.
        best: its best value; None before the first that is finite.
        waited: evaluations since the last improvement by at least `min_delta`.
    """

    def __init__(
        self, metric: str, mode: Literal["min", "max"], patience: int | None, min_delta: float
    ) -> None:
        self.metric, self.waited = metric, 0
        self.best: float | None = None
        self._beaten: float | None = None  # the value to improve on, for early stopping
        self._mode, self._sign = mode, 1.0 if mode == "min" else -1.0
        self._patience, self._min_delta = patience, min_delta

    @classmethod
    def of(cls, options: TrainingOptions) -> "Monitor":
        """As the options of a run say."""
        return cls(
            options.monitored,
            options.mode if options.monitors else "min",
            options.early_stopping_patience,
            options.early_stopping_min_delta,
        )

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Take an evaluation into account; returns whether it is the best so far.

        A value that is not finite is never the best, and counts as no improvement.

        Raises:
            ValueError: the evaluation lacks the metric.
        """
        self.check(metrics)
        value = metrics[self.metric]
        if math.isfinite(value) and self._is_less(value, self._beaten, self._min_delta):
            self._beaten, self.waited = value, 0
        else:
            self.waited += 1
        if not math.isfinite(value) or not self._is_less(value, self.best):
            return False
        self.best = value
        return True

    def check(self, names: Collection[str]) -> None:
        """Raises ValueError if the metric is not among those of an evaluation."""
        if self.metric not in names:
            raise ValueError(
                f"keep_best: the evaluation has no '{self.metric}'; it has"
                f" {', '.join(sorted(names))}"
            )

    @property
    def exhausted(self) -> bool:
        """Whether patience is exhausted."""
        return self._patience is not None and self.waited >= self._patience

    @property
    def ended(self) -> str:
        """Why a run ends, once patience is."""
        best = "has never been finite"
        if self.best is not None:
            best = f"has not been better than {self.best:.6g}"
        return f"{self.metric} {best} for {self.waited} evaluations"

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric, "mode": self._mode, "best": self.best, "waited": self.waited,
            "beaten": self._beaten,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from `state()`; ignored if that is of another metric, or another direction."""
        mode = state.get("mode", self._mode)  # release 2 did not write it
        if (state.get("metric"), mode) == (self.metric, self._mode):
            self.best, self.waited = state["best"], state["waited"]
            self._beaten = state.get("beaten", self.best)

    def lost(self, there: float | None) -> float | None:
        """The best value so far, if it is not that of the checkpoints there are, which count then.

        Args:
            there: the best value of those; None without any.
        """
        if self.best is None or there == self.best:
            return None
        lost, self.best = self.best, there
        return lost

    def begin_at(self, best: float | None) -> None:
        """Take the best value of the checkpoints there are, where no other is known."""
        if self.best is None and best is not None:
            self.best = self._beaten = best

    def _is_less(self, value: float, other: float | None, by: float = 0.0) -> bool:
        """Whether a value is better than another, which None never is."""
        return other is None or self._sign * value < self._sign * other - by
