"""The step of a run, compiled ahead of its first call, once for each shape of the batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efficientids_flax.core.batch import wrong_counts
from efficientids_flax.train.logs import operations
from efficientids_flax.train.optimizer import RATE, next_rate
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import (
    ModelConfig,
    TrainState,
    state_shardings,
    without_frozen,
)
from efficientids_flax.train.step.function import StepOptions, make_step
from efficientids_flax.train.step.nonfinite import SHAPE, missing_rows
from efficientids_flax.train.step.objectives import Objective
from efficientids_flax.train.step.returned import WRONG
from efficientids_flax.train.step.rows import RowUpdates, row_updates

FAULT = "process"  # name of one more count: processes that have no batch
LONGEST = 10  # steps whose metrics stay on the device, and whose batches are kept for diagnosis


class CompiledStep:
    """`step(state, frozen, batch, metrics)` -> (state, metrics).

    `state` is donated. `metrics`, float32 [LONGEST, M + F + 1], has one row for each of the last
    steps, the newest first, so that reading several steps takes one transfer. The last column says
    whether the next step may be taken.

    In a run of several processes, a process without a batch calls it with any batch and `fault`;
    then no process takes the step.

    Attributes:
        names: M names of the metrics, in order.
        fields: F names of fields, whose wrong values are counted in the columns after the metrics.
        flops: FLOPs of the last call, see `costs.operations`; 0.0 without matrix products.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        state: TrainState,
        batch: Any,
        *,
        learning_rate: Callable[[TrainState], jax.Array | None] = lambda state: None,
        mesh: Mesh | None = None,
        shardings: Any = None,
        rows: RowUpdates | None = None,
        look: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        """Compile for these arguments.

        Args:
            step: from `make_step`.
            state: gives shapes, dtypes and shardings.
            batch: a batch on the devices.
            learning_rate: state -> rate of its update, reported as one more metric; None: unknown.
                A step with a rate that is below 0, or no number, is not taken.
            mesh: mesh of the state.
            shardings: shardings of the state without frozen parameters, on a mesh.
            rows: how the item table is updated, if not as a whole.
            look: called with each batch of new shapes before compiling for it; may raise.
        """
        self._rows, self._look = rows, look
        if rows is not None:
            state = jax.eval_shape(rows.entered, state)

        @partial(jax.jit, inline=True)  # traced once for its names and for the program
        def measured(
            state: TrainState, frozen: Any, batch: Any, alive: jax.Array, *faults: jax.Array
        ) -> Any:
            count = sum(map(jnp.sum, faults), jnp.int32(0))
            # A NaN rate would show in the loss only one step later, after the state was saved.
            rate = learning_rate(state)
            known = jnp.float32(0) if rate is None else rate
            fine = (count == 0) & jnp.isfinite(known) & (known >= 0)
            new, alive, metrics = step(state, frozen, batch, alive & fine)
            if faults:
                metrics[f"{WRONG}{FAULT}"] = count
            if rate is not None:
                metrics[RATE] = rate
            return new, alive, metrics

        def packed(
            state: TrainState, frozen: Any, batch: Any, metrics: jax.Array, *faults: jax.Array
        ) -> Any:
            new, alive, found = measured(state, frozen, batch, metrics[0, -1] > 0, *faults)
            columns = [*self.names, *(f"{WRONG}{field}" for field in self.fields)]
            newest = jnp.stack([*(found[name] for name in columns), alive.astype(jnp.float32)])
            return new, jnp.concatenate([newest[jnp.newaxis], metrics[:-1]])

        whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        places = None if mesh is None else (shardings, whole)
        self._jitted = jax.jit(packed, donate_argnums=0, out_shardings=places)
        self._whole = whole
        several = mesh is not None and jax.process_count() > 1
        self._faults = {fault: _of_each(mesh, fault) if several else () for fault in (False, True)}
        arguments = (*without_frozen(state), batch)
        alive = jax.ShapeDtypeStruct((), bool, sharding=whole)
        shapes = jax.eval_shape(measured, *arguments, alive, *self._faults[False])
        self.names = tuple(sorted(name for name in shapes[2] if not name.startswith(WRONG)))
        self.fields = tuple(
            sorted(name.removeprefix(WRONG) for name in shapes[2] if name.startswith(WRONG))
        )
        arguments = (*arguments, self.none(), *self._faults[False])
        self.flops = 0.0
        self._compiled: dict[Any, tuple[Any, float]] = {}
        self._current = self._for(arguments)

    def entered(self, state: TrainState) -> TrainState:
        """The state in the layout that steps take; parts of the given one may be deleted."""
        return state if self._rows is None else self._rows.entered(state)

    def left(self, state: TrainState) -> TrainState:
        """A state of the steps in the layout that all else takes; the given one stays valid."""
        return state if self._rows is None else self._rows.left(state)

    def none(self) -> jax.Array:
        """The `metrics` argument of the first step: the step may be taken."""
        shape = LONGEST, len(self.names) + len(self.fields) + 1
        return jax.device_put(np.ones(shape, np.float32), self._whole)

    def ready(self, *arguments: Any) -> None:
        """Compile for these arguments if their shapes are new; raises what a call would raise."""
        arguments = (*arguments, *self._faults[False])
        if self._key(arguments) not in self._compiled:
            self._look(arguments[2])
            self._for(arguments)

    def __call__(self, *arguments: Any, fault: bool = False) -> Any:
        """See the class."""
        arguments = (*arguments, *self._faults[fault])
        try:
            return self._current(*arguments)
        except (TypeError, ValueError):
            known = self._compiled.get(self._key(arguments))
            if known is not None and known[0] is self._current:
                raise
            if known is None:
                self._look(arguments[2])
            self._current = self._for(arguments)
            return self._current(*arguments)

    def _for(self, arguments: tuple[Any, ...]) -> Any:
        key = self._key(arguments)
        if key not in self._compiled:
            traced = self._jitted.trace(*arguments)
            self._compiled[key] = traced.lower().compile(), operations(traced.jaxpr)
        found, self.flops = self._compiled[key]
        return found

    @staticmethod
    def _key(arguments: tuple[Any, ...]) -> Any:
        """The key of a program: names, shapes, dtypes and shardings of the batch."""
        return jax.tree.structure(arguments[2]), *(
            (jnp.shape(leaf), str(jnp.result_type(leaf)), str(getattr(leaf, "sharding", None)))
            for leaf in jax.tree.leaves(arguments[2])
        )


def _of_each(mesh: Mesh | None, fault: bool) -> tuple[jax.Array, ...]:
    """Int32 [devices], filled by each process with its own `fault`."""
    assert mesh is not None
    own = np.full(mesh.local_mesh.size, fault, np.int32)
    places = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return (jax.make_array_from_process_local_data(places, own),)


def compile_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    options: TrainingOptions,
    state: TrainState,
    batch: Any,
    *,
    learning_rate: Callable[[Any], Any] | float | None = None,
    mesh: Mesh | None = None,
    reads: ModelConfig | None = None,
    look: Callable[[Any], None] = lambda batch: None,
) -> CompiledStep:
    """Make and compile the step of a run.

    Args:
        objective: the module and its loss.
        optimizer: optimizer of the trained parameters.
        options: options of the run.
        state, batch, mesh: see `CompiledStep`.
        learning_rate: see `next_rate`.
        reads: model configuration that batches are checked against; None: no checks of values.
        look: see `CompiledStep`.
    """
    how = StepOptions(
        accumulation=options.gradient_accumulation_steps,
        mixed_precision=options.use_mixed_precision and not objective.own,
        remat=options.use_remat and not objective.own,
        on_nonfinite=options.on_nonfinite,
    )

    def count_wrong(batch: Any) -> Any:
        found = {} if reads is None else wrong_counts(reads, batch)
        return found if jax.process_count() == 1 else {**found, SHAPE: missing_rows(batch)}

    def rate(state: TrainState) -> jax.Array | None:
        return next_rate(learning_rate, optimizer, state.precise, state.opt_state, state.step)

    places = None
    if mesh is not None:
        places = state_shardings(without_frozen(state)[0], mesh, objective.config)
    rows = row_updates(options.item_updates, objective.items, optimizer, state, batch, mesh)
    return CompiledStep(
        make_step(objective.loss, objective.module.apply, optimizer, how, count_wrong, rows),
        state,
        batch,
        learning_rate=rate,
        mesh=mesh,
        shardings=places,
        rows=rows,
        look=look,
    )
