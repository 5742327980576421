"""The best value of a metric so far, and how long ago it was: best checkpoint, early stopping."""

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from efficientids_flax.train.options import TrainingOptions


class Monitor:
    """Follows one metric of the evaluations.

    Attributes:
        metric: its name.
        best: its best value; None before the first.
        waited: evaluations since then.
    """

    def __init__(
        self, metric: str, mode: Literal["min", "max"], patience: int | None, min_delta: float
    ) -> None:
        self.metric, self.best, self.waited = metric, None, 0
        self._sign = 1.0 if mode == "min" else -1.0
        self._patience, self._min_delta = patience, min_delta
        self.best: float | None

    @classmethod
    def of(cls, options: TrainingOptions) -> "Monitor":
        """As the options of a run say."""
        return cls(
            options.monitored,
            options.best_mode,
            options.early_stopping_patience,
            options.early_stopping_min_delta,
        )

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Look at an evaluation; whether it is the best.

        Raises:
            ValueError: it lacks the metric.
        """
        self.check(metrics)
        value = metrics[self.metric]
        best = math.inf if self.best is None else self._sign * self.best
        if self._sign * value < best - self._min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    def check(self, names: Collection[str]) -> None:
        """Raises ValueError if the metric is not among those of an evaluation."""
        if self.metric not in names:
            raise ValueError(
                f"keep_best: the evaluation has no '{self.metric}'; it has"
                f" {', '.join(sorted(names))}"
            )

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and self.waited >= self._patience

    def state(self) -> dict[str, Any]:
        """As JSON values."""
        return {"metric": self.metric, "best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`; of another metric there is nothing to go on from."""
        if state.get("metric") == self.metric:
            self.best, self.waited = state["best"], state["waited"]
