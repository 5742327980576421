"""How a trainer evaluates its states, and which of them it keeps as the best."""

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
    """Evaluators of one model, by how they rank; each compiles its own."""

    def __init__(self, make: Callable[..., Evaluator], ranks: Mapping[str, Any]) -> None:
        """Nothing is made yet.

        Args:
            make: (scoring, exclude_seen) -> evaluator.
            ranks: both, of the run.
        """
        self._make, self._ranks = make, dict(ranks)
        self._made: dict[tuple[Any, ...], Evaluator] = {}

    def get(self, **given: Any) -> Evaluator:
        """That of the run, or another one where something is given that is not None."""
        how = self._ranks | {name: value for name, value in given.items() if value is not None}
        key = tuple(how.values())
        if key not in self._made:
            self._made[key] = self._make(**how)
        return self._made[key]


class Evaluating(RunDirectory):
    """The part of `Trainer` that deals with evaluations.

    Attributes:
        mesh: that the run is spread over; None on one device.
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
        model as it was given, which is exported and served.

        Args:
            state: of the run.
            dataset: dict batches, or a function that returns them. Every row of `ShuffledBatches`
                and `Batches` counts once, the last ones too.
            num_eval_batches: how many batches; None: all.
            prefix: prefix of the names.
            scoring, exclude_seen: see `TrainingOptions`; None: as the run has them.
        """
        evaluator = self._evaluators.get(scoring=scoring, exclude_seen=exclude_seen)
        with one_for_all(), on_mesh(self.mesh):
            return evaluator(self._evaluated(state), dataset, num_eval_batches, prefix)

    def _evaluated(self, state: TrainState) -> dict[str, Any]:
        """The variables that are evaluated."""
        return {**state.variables, "params": self.evaluated_params(state)}

    def _evaluations(
        self, state: TrainState, dataset: Any, monitor: Monitor
    ) -> EvaluationData | None:
        """The evaluation data of a run, looked at before its first step.

        Raises:
            TypeError, ValueError: see `evaluations` and `EvaluationData.first`; the evaluation
                lacks a field, or the metric that the run goes by.
        """
        data = evaluations(dataset, self.options, fills=self._reads is not None)
        if data is not None:
            with together():
                first = data.first(required=jax.process_count() == 1)
            with on_mesh(self.mesh):
                if not any_process(first is not None):
                    raise ValueError(data.nothing)
                if first is None:  # another process has some
                    return data
                names = self._evaluators.get().names(state.variables, first)
            if self.options.monitors:
                monitor.check(names)
        return data

    def _measured(
        self, state: TrainState, data: EvaluationData, between: Callable[[], None]
    ) -> dict[str, float]:
        """An evaluation while training; the best state is kept where there is no directory.

        Args:
            state, data: see `evaluate`.
            between: called after each batch; raises if the run is to stop.
        """
        with on_mesh(self.mesh):
            found = self._evaluators.get()(self._evaluated(state), data, between=between)
        if self.options.keep_best and self.directory is None:
            self._kept = self._kept or KeptState(self.options)
            self._kept.look(state, found)
        return found
