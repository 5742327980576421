"""The step of a run, compiled ahead of its first call, once for each shape of the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efficientids_flax.train.logs import operations
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import TrainState, state_shardings, without_frozen
from efficientids_flax.train.step.function import FINITE, StepOptions, make_step
from efficientids_flax.train.step.objective import Objective

LONGEST = 100  # steps whose metrics are left on the device


class CompiledStep:
    """`step(state, frozen, batch, metrics)` -> (state, metrics).

    `state` is donated. `metrics` float32 [LONGEST, M] are those of the last steps, the newest
    first: however many steps are read at a time, it is one transfer. What `finite` says of the
    newest is whether the next one may be taken.

    Attributes:
        names: M names of the metrics, in order.
        flops: of one call, see `costs.operations`; None: it has no matrix products.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        state: TrainState,
        batch: Any,
        *,
        learning_rate: Callable[[Any], Any] | float | None = None,
        mesh: Mesh | None = None,
        shardings: Any = None,
    ) -> None:
        """Compile for these arguments.

        Args:
            step: of `make_step`.
            state: where it lies, and what it holds.
            batch: placed.
            learning_rate: one more metric, by the number of steps.
            mesh: that the state lies on.
            shardings: of the state without frozen parameters, on a mesh.
        """

        def measured(state: TrainState, frozen: Any, batch: Any, alive: jax.Array) -> Any:
            new, alive, metrics = step(state, frozen, batch, alive)
            if learning_rate is not None:
                rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
                metrics["learning_rate"] = jnp.asarray(rate, jnp.float32)
            return new, alive, metrics

        def packed(state: TrainState, frozen: Any, batch: Any, metrics: jax.Array) -> Any:
            alive = metrics[0, self.names.index(FINITE)] > 0
            new, _, found = measured(state, frozen, batch, alive)
            newest = jnp.stack([found[name] for name in self.names])
            return new, jnp.concatenate([newest[jnp.newaxis], metrics[:-1]])

        whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        places = None if mesh is None else (shardings, whole)
        self._jitted = jax.jit(packed, donate_argnums=0, out_shardings=places)
        self._whole = whole
        arguments = (*without_frozen(state), batch)
        shapes = jax.eval_shape(measured, *arguments, jax.ShapeDtypeStruct((), bool))
        self.names = tuple(sorted(shapes[2]))
        arguments = (*arguments, self.none())
        self.flops: float | None = None
        self._compiled: dict[Any, Any] = {}
        self._current = self._for(arguments)

    def none(self) -> jax.Array:
        """The metrics before the first step: all was well."""
        return jax.device_put(np.ones((LONGEST, len(self.names)), np.float32), self._whole)

    def __call__(self, *arguments: Any) -> Any:
        """See the class."""
        try:
            return self._current(*arguments)
        except (TypeError, ValueError):
            if self._key(arguments) in self._compiled and (
                self._compiled[self._key(arguments)] is self._current
            ):
                raise
            self._current = self._for(arguments)
            return self._current(*arguments)

    def _for(self, arguments: tuple[Any, ...]) -> Any:
        key = self._key(arguments)
        if key not in self._compiled:
            traced = self._jitted.trace(*arguments)
            self.flops = operations(traced.jaxpr) or None
            self._compiled[key] = traced.lower().compile()
        return self._compiled[key]

    @staticmethod
    def _key(arguments: tuple[Any, ...]) -> Any:
        """What differs between batches: shapes, dtypes, places."""
        return tuple(
            (jnp.shape(leaf), str(jnp.result_type(leaf)), str(getattr(leaf, "sharding", None)))
            for leaf in jax.tree.leaves(arguments[2])
        )


def compile_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    options: TrainingOptions,
    state: TrainState,
    batch: Any,
    *,
    learning_rate: Callable[[Any], Any] | float | None = None,
    mesh: Mesh | None = None,
) -> CompiledStep:
    """The step of a run.

    Args:
        objective: the module and its loss.
        optimizer: of the trained parameters.
        options: of the run.
        state, batch, learning_rate, mesh: see `CompiledStep`.
    """
    how = StepOptions(
        accumulation=options.gradient_accumulation_steps,
        mixed_precision=options.use_mixed_precision and not objective.own,
        remat=options.use_remat and not objective.own,
        on_nonfinite=options.on_nonfinite,
    )
    places = None
    if mesh is not None:
        places = state_shardings(without_frozen(state)[0], mesh, objective.config)
    return CompiledStep(
        make_step(objective.loss, objective.module.apply, optimizer, how),
        state,
        batch,
        learning_rate=learning_rate,
        mesh=mesh,
        shardings=places,
    )
