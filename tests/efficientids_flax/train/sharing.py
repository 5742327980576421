"""Trainers that share what they compile: in most tests several of the same arguments follow."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficientids_flax.train.evaluating import Evaluators
from efficientids_flax.train.keys import run_key
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import TrainState
from efficientids_flax.train.step import CompiledStep
from efficientids_flax.train.trainer import Trainer

DEFAULT = TrainingOptions()
# Options that no step depends on.
ASIDE = ("log_every", "eval_every", "save_every", "keep_best", "allow_changes", "progress")


class Sharing(Trainer):
    """A Trainer with the first state and the programs of one before it that had the same arguments.

    States are copied, and programs are functions: nothing of a run is shared. What a test replaces
    in the product does not tell Trainers apart; such tests need a model or a loss of their own.
    """

    evaluators: ClassVar[dict[Any, Evaluators]] = {}
    firsts: ClassVar[dict[Any, TrainState]] = {}
    steps: ClassVar[dict[Any, CompiledStep]] = {}

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        aside = replace(self.options, **{name: getattr(DEFAULT, name) for name in ASIDE})
        frozen = options.get("frozen_params")
        # Of an `nnx.Module`, which may change, and with arrays, like none but itself.
        alone = "init_args" in options or isinstance(self.given_model, nnx.Module)
        self._like = (
            self.given_model, self.optimizer, self._loss_fn, self._learning_rate, self.mesh, aside,
            tuple(frozen) if isinstance(frozen, list) else frozen, self if alone else None,
        )  # fmt: skip
        self._evaluators = self.evaluators.setdefault(self._like, self._evaluators)

    def _begun(self, rng: Any, sample_batch: Any, **given: Any) -> TrainState:
        if given["params"] is not None or given["opt_state"] is not None or given["step"]:
            return super()._begun(rng, sample_batch, **given)
        leaves, form = jax.tree.flatten((jax.random.key_data(run_key(rng)), sample_batch))
        numbers = [(x.shape, x.dtype.str, x.tobytes()) for x in map(np.asarray, leaves)]
        key = (*self._like, form, tuple(numbers))
        if key not in self.firsts:
            self.firsts[key] = super()._begun(rng, sample_batch, **given)
        return jax.tree.map(jnp.copy, self.firsts[key])

    def _compiled(self, state: Any, batch: Any) -> CompiledStep:
        given = state, self._place(batch)
        leaves = [(jax.typeof(x), getattr(x, "sharding", None)) for x in jax.tree.leaves(given)]
        key = (*self._like, jax.tree.structure(given), tuple(leaves))
        if self._step is None and key in self.steps:
            self._step = _copied(self.steps[key], self._check_later)
        elif self._step is None:
            self.steps[key] = _copied(super()._compiled(state, batch), lambda batch: None)
        return super()._compiled(state, batch)


def _copied(step: CompiledStep, look: Callable[[Any], None]) -> CompiledStep:
    made = copy(step)
    made._look, made._compiled = look, dict(step._compiled)
    return made
