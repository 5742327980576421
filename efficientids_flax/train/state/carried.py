"""What training carries from step to step: parameters, optimizer state, collections, random key."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from efficientids_flax.train.optimizer import Predicate, merge, partition
from efficientids_flax.tree import flatten, unflatten

Frozen = Sequence[str] | Predicate | None  # patterns of `freeze.matcher`, or of a path


@struct.dataclass
class TrainState:
    """State of a run; the jitted step takes one and returns the next.

    Attributes:
        step: int32 [], steps that were taken, skipped ones included.
        trained: parameters with gradients and optimizer state.
        frozen: the others; never donated, never changed.
        opt_state: of the optimizer, over `trained`.
        model_state: the model's other collections, such as `batch_stats`.
        rng: uint32 key data; step n draws from `fold_in(key, n)`, so that a run that goes on draws
            what it would have drawn.
    """

    step: jax.Array
    trained: dict[str, Any]
    frozen: dict[str, Any]
    opt_state: Any
    model_state: dict[str, Any]
    rng: jax.Array

    @property
    def params(self) -> dict[str, Any]:
        """All parameters, as the model takes them."""
        return merge(self.trained, self.frozen) if self.frozen else self.trained

    @property
    def variables(self) -> dict[str, Any]:
        """Everything that `model.apply` takes."""
        return {"params": self.params, **self.model_state}

    @classmethod
    def create(
        cls,
        params: Mapping[str, Any],
        optimizer: optax.GradientTransformation,
        *,
        rng: jax.Array,
        frozen: Frozen = None,
        model_state: Mapping[str, Any] | None = None,
        step: int = 0,
        opt_state: Any = None,
    ) -> "TrainState":
        """A state at `step`, with a fresh optimizer state where none is given.

        Args:
            params: nested dicts of all parameters.
            optimizer: makes the optimizer state of the trained ones.
            rng: key of the run, typed or not.
            frozen: which parameters are not trained.
            model_state: further collections.
            step: steps that were taken before.
            opt_state: of those steps.

        Raises:
            ValueError: a pattern that fits no parameter; nothing is left to train.
        """
        trained, kept = split_parameters(params, frozen)
        if not trained:
            raise ValueError("frozen parameters: all are frozen, nothing is left to train")
        return cls(
            step=jnp.asarray(step, jnp.int32),
            trained=trained,
            frozen=kept,
            opt_state=optimizer.init(trained) if opt_state is None else opt_state,
            model_state=dict(model_state or {}),
            rng=key_data(rng),
        )


def split_parameters(
    params: Mapping[str, Any], frozen: Frozen
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained, frozen) parameters, each nested dicts without the other's leaves.

    Raises:
        ValueError: a pattern that fits no parameter.
    """
    if not callable(frozen):
        return partition(params, frozen) if frozen else (unflatten(flatten(params)), {})
    leaves = flatten(params)
    trained = unflatten({path: leaf for path, leaf in leaves.items() if not frozen(path)})
    return trained, unflatten({path: leaf for path, leaf in leaves.items() if frozen(path)})


def key_data(rng: jax.Array) -> jax.Array:
    """The numbers of a key, typed or not; uint32, as checkpoints hold them."""
    typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(rng) if typed else jnp.asarray(rng, jnp.uint32)


def without_frozen(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """(the state with no frozen parameters, these): the former may be donated."""
    return state.replace(frozen={}), state.frozen  # pyright: ignore[reportAttributeAccessIssue]
