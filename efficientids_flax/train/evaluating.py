"""The part of `Trainer` that evaluates states, and keeps the best one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from efficientids_flax.core.head.measures import Scoring
from efficientids_flax.train.alarm import one_for_all
from efficientids_flax.train.directory import RunDirectory
from efficientids_flax.train.evaluation_data import EvaluationData, evaluations
from efficientids_flax.train.preparing import on_mesh
from efficientids_flax.train.state import KeptState, ModelConfig, Monitor, TrainState
from efficientids_flax.train.state.processes import together
from efficientids_flax.train.state.shared_batches import any_process
from efficientids_flax.train.step import Evaluator


class Evaluators:
    """Evaluators of one model, cached by ranking options; each compiles its own program."""

    def __init__(self, make: Callable[..., Evaluator], ranks: Mapping[str, Any]) -> None:
        """Makes no evaluator yet.

        Args:
            make: (scoring, exclude_seen) -> evaluator.
            ranks: the run's values of both.
        """
        self._make, self._ranks = make, dict(ranks)
        self._made: dict[tuple[Any, ...], Evaluator] = {}

    def get(self, **given: Any) -> Evaluator:
        """The run's evaluator, or one with other options where these are not None."""
        how = self._ranks | {name: value for name, value in given.items() if value is not None}
        key = tuple(how.values())
        if key not in self._made:
            self._made[key] = self._make(**how)
        return self._made[key]


class Evaluating(RunDirectory):
    """The part of `Trainer` that evaluates.

    Attributes:
        mesh: mesh of the run; None on one device.
    """

    mesh: Mesh | None
    _evaluators: Evaluators
    _reads: ModelConfig | None

    def evaluate(
        self,
        state: TrainState,
        dataset: Any,
        num_eval_batches: int | None = None,
        *,
        prefix: str = "eval_",
        scoring: Scoring | None = None,
        exclude_seen: bool | None = None,
    ) -> dict[str, float]:
        """Metrics over a dataset, without dropout: see `Evaluator`.

        Uses the averages of the parameters if `evaluate_average` says so, and the precision of the
        model as it was given, since that is what is exported and served.

        Args:
            state: the state to evaluate.
            dataset: dict batches, or a function that returns them. Of `ShuffledBatches` and
                `Batches` every row counts once, including an incomplete last batch.
            num_eval_batches: number of batches; None: all.
            prefix: prefix of the metrics' names.
            scoring, exclude_seen: see `TrainingOptions`; None: as configured for the run.
        """
        evaluator = self._evaluators.get(scoring=scoring, exclude_seen=exclude_seen)
        with one_for_all(), on_mesh(self.mesh):
            return evaluator(self._evaluated(state), dataset, num_eval_batches, prefix)

    def _evaluated(self, state: TrainState) -> dict[str, Any]:
        """The variables to evaluate."""
        return {**state.variables, "params": self.evaluated_params(state)}

    def _evaluations(
        self, state: TrainState, dataset: Any, monitor: Monitor
    ) -> EvaluationData | None:
        """The evaluation data of a run, checked before its first step.

        Raises:
            TypeError, ValueError: see `evaluations` and `EvaluationData.first`; or a batch lacks a
                field, or the evaluation does not report the monitored metric.
        """
        data = evaluations(dataset, self.options, fills=self._reads is not None)
        if data is not None:
            with together():
                first = data.first(required=jax.process_count() == 1)
            with on_mesh(self.mesh):
                if not any_process(first is not None):
                    raise ValueError(data.nothing)
                if first is None:  # only other processes have evaluation data
                    return data
                names = self._evaluators.get().names(state.variables, first)
            if self.options.monitors:
                monitor.check(names)
        return data

    def _measured(
        self, state: TrainState, data: EvaluationData, between: Callable[[], None]
    ) -> dict[str, float]:
        """Evaluate during training; without a directory, keep the best state in memory.

        Args:
            state, data: see `evaluate`.
            between: called after each batch; raises if the run should stop.
        """
        with on_mesh(self.mesh):
            found = self._evaluators.get()(self._evaluated(state), data, between=between)
        if self.options.keep_best and self.directory is None:
            self._kept = self._kept or KeptState(self.options)
            self._kept.look(state, found)
        return found
