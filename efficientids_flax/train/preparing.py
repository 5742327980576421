"""The part of `Trainer` that prepares a run: the first state, and the compiled step."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from jax.sharding import Mesh

from efficientids_flax.array_checks import has_values
from efficientids_flax.config import EfficientIDSConfig, PromptConfig
from efficientids_flax.core.batch import check_batch
from efficientids_flax.core.model_checks import check_pretrained
from efficientids_flax.stored import Prompted
from efficientids_flax.train.batches import checked_batch, digest_of_batch
from efficientids_flax.train.logs import tell
from efficientids_flax.train.optimizer import averaged_params
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import (
    BatchPlacer,
    DataCursor,
    Frozen,
    ModelConfig,
    PeekedCursor,
    TrainState,
)
from efficientids_flax.train.state.processes import ProcessFault, all_states, is_primary, together
from efficientids_flax.train.step import (
    CompiledStep,
    Spec,
    batch_spec,
    check_like,
    compile_step,
    length_of,
    repeating,
)
from efficientids_flax.train.step.initial_state import initial_state
from efficientids_flax.train.step.objectives import Objective

ALONE = (
    "model: is trained on histories without words, and an export of it is asked so; to ask it here,"
    " give its configuration prompt=PromptConfig(), or `recommend` adds the original's words"
)
SAME_ROWS = (
    "batch: process {} brings the same first rows as process 0, which count twice then; each is to"
    " read a share of its own: ShuffledBatches(process=(index, count))"
)


class Preparing:
    """The part of `Trainer` that makes the first state and the compiled step.

    Attributes:
        mesh: mesh of the run; None on one device.
        options: options of the run.
        optimizer: optimizer of the trained parameters.
        given_model: the model as the caller gave it.
        prompt: how histories became training rows; None: as the model's settings say.
    """

    mesh: Mesh | None
    options: TrainingOptions
    optimizer: optax.GradientTransformation
    given_model: nn.Module | nnx.Module
    prompt: Prompted | None
    _objective: Objective
    _frozen: Frozen
    _learning_rate: Callable[[Any], Any] | float | None
    _reads: ModelConfig | None
    _place: BatchPlacer
    _kept: Any = None
    _stopped: tuple[int, dict[str, Any]] | None = None  # early: after which step, and why
    _spec: Spec | None = None
    _step: CompiledStep | None = None
    _longest: int = 0  # T of the batches so far
    _shown: Prompted | None = None  # by the sample batch

    def create_train_state(
        self,
        rng: jax.Array,
        sample_batch: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        opt_state: Any = None,
        step: int = 0,
    ) -> TrainState:
        """The initial state; each leaf is created with its sharding.

        Args:
            rng: key of the initial parameters and of dropout, of any kind.
            sample_batch: a batch of this process like those of training; it may have fewer rows.
            params: all or some of the parameters, instead of random ones, or of those of an
                `nnx.Module`.
            opt_state, step: of a continued run; needs all parameters.

        Raises:
            ValueError: a batch that the model does not accept; parameters that do not fit the
                model; a frozen language model (`model_name`) without parameters; `evaluate_average`
                without averages.
        """
        sample_batch = checked_batch(sample_batch, "batch")
        parts = self.options.gradient_accumulation_steps
        self._spec = batch_spec(sample_batch, parts)
        self._longest = length_of(self._spec) or 0
        self._kept = self._stopped = None
        self._check_values(sample_batch)
        self._shown = _shown_prompt(self._reads, sample_batch)
        silent = self.prompt is not None or self._shown is None
        if not silent and getattr(self._reads, "prompt", None) != PromptConfig() and is_primary():
            tell(self.options.progress, ALONE)
        check_pretrained(self.given_model, params)
        with on_mesh(self.mesh):
            made = initial_state(
                self._objective,
                self.optimizer,
                rng,
                sample_batch,
                frozen=self._frozen,
                frozen_dtype=self.options.frozen_dtype,
                master_weights=self.options.master_weights,
                mesh=self.mesh,
                params=params,
                opt_state=opt_state,
                step=step,
            )
        if self.options.evaluate_average:  # raises if there are none, not only after the run
            jax.eval_shape(averaged_params, made.opt_state, made.params)
        return made

    def _compiled(self, state: TrainState, batch: Any) -> CompiledStep:
        """The step, compiled in the first call."""
        if self._step is None:
            self._step = compile_step(
                self._objective,
                self.optimizer,
                self.options,
                state,
                self._place(batch),
                learning_rate=self._learning_rate,
                mesh=self.mesh,
                reads=self._reads,
                look=self._check_later,
            )
        return self._step

    def _peeked(self, cursor: DataCursor) -> PeekedCursor:
        """The training data, after checking that the step can take its first batch.

        If the batch of one process is wrong, all processes raise. All must bring batches of the
        same shape, since each compiles its own program, which divides means by its own rows.

        Raises:
            ValueError: batches unlike the sample, or each other; values out of range; no batch.
        """
        with together():
            peeked = PeekedCursor(cursor)
            self._check_first(peeked.batch)
            found = batch_spec(peeked.batch)
        own = {path: list(shape) for path, (shape, _) in sorted(found.items())}
        digest = digest_of_batch(peeked.batch) if jax.process_count() > 1 else None
        first, *others = all_states({"shapes": own, "digest": digest})
        for number, other in enumerate(others, 1):
            if (shapes := other["shapes"]) != first["shapes"]:
                raise ProcessFault(
                    f"batch: process {number} has {shapes}, process 0 has {first['shapes']}; each"
                    " must bring as many rows of the same shape"
                )
            if digest is not None and other["digest"] == first["digest"] and is_primary():
                tell(self.options.progress, SAME_ROWS.format(number), warns=True)
        return peeked

    def _check_first(self, batch: Any) -> None:
        """Check the first batch, and warn of labels that repeat the input.

        Raises:
            ValueError: the first batch is unlike the sample, or has values out of range.
        """
        if self._spec is None:
            raise ValueError("train: call create_train_state first, with a sample batch")
        check_like(batch, self._spec, self.options.gradient_accumulation_steps)
        self._check_values(batch)
        if self._reads is not None and is_primary() and (told := repeating(batch)):
            tell(self.options.progress, told, warns=True)

    def _check_later(self, batch: Any) -> None:
        """Raises ValueError if a batch of another shape has other fields than the sample."""
        assert self._spec is not None
        check_like(batch, self._spec, self.options.gradient_accumulation_steps, first=False)
        self._longest = max(self._longest, length_of(batch_spec(batch)) or 0)

    def _check_values(self, batch: Mapping[str, Any]) -> None:
        """Ids in range and masks of 0 and 1, where the model says what they are."""
        if self._reads is not None:
            check_batch(self._reads, batch, labels=True)


def _shown_prompt(config: ModelConfig | None, batch: Mapping[str, Any]) -> Prompted | None:
    """No words, if a model with words gets histories without any, and no placeholder after them.

    Then its export is to be asked in the same way, and not with the original's words.
    """
    marks = batch.get("input_item_weights")
    if not isinstance(config, EfficientIDSConfig) or marks is None or not has_values(marks):
        return None
    there = np.asarray(batch.get("paddings", np.zeros(np.shape(marks)))) == 0
    known = np.asarray(batch.get("inputs_indicator", marks)) > 0
    alone = ((np.asarray(marks) > 0) & known)[there].all()
    return Prompted(PromptConfig()) if alone else None


def on_mesh(mesh: Mesh | None) -> AbstractContextManager[Any]:
    """The context in which a run computes: the mesh, if there is one."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)
