"""The step of a run, compiled ahead of its first call, once for each shape of the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efficientids_flax.train.train_state import TrainState, without_frozen


class CompiledStep:
    """`step(state, frozen, batch, alive)` -> (state, alive, metrics float32 [M]).

    `state` is donated. Metrics come as one array, so that reading them is one transfer a step.

    Attributes:
        names: M names of the metrics, in order.
        flops: of one call, all devices together, as the compiler counts them; a loop whose trip
            count it does not know counts once. None: not known.
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

        def packed(state: TrainState, frozen: Any, batch: Any, alive: jax.Array) -> Any:
            new, alive, metrics = measured(state, frozen, batch, alive)
            return new, alive, jnp.stack([metrics[name] for name in self.names])

        whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        places = None if mesh is None else (shardings, whole, whole)
        self._jitted = jax.jit(packed, donate_argnums=0, out_shardings=places)
        self._whole = whole
        arguments = (*without_frozen(state), batch, self.true())
        self.names = tuple(sorted(jax.eval_shape(measured, *arguments)[2]))
        self._compiled: dict[Any, Any] = {}
        self._current = self._for(arguments)
        self.flops = _flops(self._current)

    def true(self) -> jax.Array:
        """The first `alive`."""
        return jnp.asarray(True) if self._whole is None else jax.device_put(True, self._whole)

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
            self._compiled[key] = self._jitted.lower(*arguments).compile()
        return self._compiled[key]

    @staticmethod
    def _key(arguments: tuple[Any, ...]) -> Any:
        """What differs between batches: shapes, dtypes, places."""
        return tuple(
            (jnp.shape(leaf), str(jnp.result_type(leaf)), str(getattr(leaf, "sharding", None)))
            for leaf in jax.tree.leaves(arguments[2])
        )


def _flops(compiled: Any) -> float | None:
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    flops = (analysis or {}).get("flops", 0.0)
    return flops * jax.device_count() if flops > 0 else None
