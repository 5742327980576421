"""What training carries from step to step: parameters, optimizer state, collections, random key."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from efficientids_flax.train.keys import key_data
from efficientids_flax.train.optimizer import Predicate, merge, partition, renewed
from efficientids_flax.tree import flatten, unflatten

OPTIMIZER = "opt_state/"  # before the paths of its leaves
Frozen = Sequence[str] | Predicate | None  # patterns of `freeze.matcher`, or of a path


@struct.dataclass
class TrainState:
    """State of a run; the jitted step takes one and returns the next.

    Attributes:
        step: int32 [], number of steps taken, including skipped ones.
        trained: parameters with gradients and optimizer state.
        frozen: the other parameters; never donated, never changed.
        opt_state: optimizer state of `precise`.
        model_state: the model's other collections, such as `batch_stats`.
        rng: uint32 key data; step n draws from `fold_in(key, n)`, so that a resumed run draws the
            same numbers.
        master: float32 copies of the trained parameters in half precision, which the optimizer
            updates and `trained` rounds; empty without any.
    """

    step: jax.Array
    trained: dict[str, Any]
    frozen: dict[str, Any]
    opt_state: Any
    model_state: dict[str, Any]
    rng: jax.Array
    master: dict[str, Any] = struct.field(default_factory=dict)

    @property
    def precise(self) -> dict[str, Any]:
        """The trained parameters as the optimizer updates them: master copies where there are."""
        return merge(self.trained, self.master) if self.master else self.trained

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
        master_weights: bool = True,
    ) -> "TrainState":
        """A state at `step`, with a fresh optimizer state unless one is given.

        Args:
            params: nested dicts of all parameters.
            optimizer: initialises the optimizer state of the trained parameters.
            rng: key of the run, typed or not.
            frozen: which parameters are not trained.
            model_state: further collections.
            step: number of steps taken before.
            opt_state: optimizer state at that step; floats are cast to float32 where a fresh state
                has float32.
            master_weights: keep float32 copies of trained parameters in half precision.

        Raises:
            ValueError: a pattern fits no parameter; nothing is left to train.
        """
        trained, kept = split_parameters(params, frozen)
        if not trained:
            raise ValueError("frozen parameters: all are frozen, nothing is left to train")
        master = half_precision(trained) if master_weights else {}
        made = cls(
            step=jnp.asarray(step, jnp.int32),
            trained=trained,
            frozen=kept,
            opt_state=opt_state,
            model_state=dict(model_state or {}),
            rng=key_data(rng),
            master=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), master),
        )
        if opt_state is None:
            opt_state = optimizer.init(made.precise)
        elif master:
            fresh = jax.eval_shape(optimizer.init, made.precise)
            if jax.tree.structure(opt_state) == jax.tree.structure(fresh):  # else `update` tells
                opt_state = jax.tree.map(_widened, opt_state, fresh)
        return made.replace(opt_state=opt_state)  # pyright: ignore[reportAttributeAccessIssue]


def refuse_used(state: TrainState) -> None:
    """Raises ValueError if an earlier call of `train` was given this state, and used it up."""
    if isinstance(state.step, jax.Array) and state.step.is_deleted():
        raise ValueError(
            "state: was given to `train`, which trained on with its arrays; go on with the state"
            " that `train` returned, or with `trainer.last_state` where it was told to stop"
        )


def with_optimizer(
    optimizer: optax.GradientTransformation,
) -> Callable[[TrainState, Collection[str], int | None], TrainState]:
    """A function that fills in the leaves of this optimizer's state that a checkpoint lacks.

    Returns:
        (state, paths of the missing leaves in the checkpoint, number of updates, or None if it is
        that of the steps) -> state, see `renewed`.
    """

    def whole(state: TrainState, missing: Collection[str], taken: int | None) -> TrainState:
        if not missing:
            return state
        own = [path.removeprefix(OPTIMIZER) for path in missing]
        count = state.step if taken is None else taken
        made = renewed(optimizer, state.precise, state.opt_state, own, count)
        return state.replace(opt_state=made)  # pyright: ignore[reportAttributeAccessIssue]

    return whole


def half_precision(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with fewer than 32 bits, whose small updates would be rounded away."""

    def is_half(leaf: Any) -> bool:
        return jnp.issubdtype(leaf.dtype, jnp.floating) and jnp.finfo(leaf.dtype).bits < 32

    return unflatten({path: leaf for path, leaf in flatten(params).items() if is_half(leaf)})


def _widened(leaf: Any, like: Any) -> Any:
    """A leaf of an optimizer state, cast to float32 if `like` is float32."""
    floats = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jnp.asarray(leaf, like.dtype) if floats and like.dtype == jnp.float32 else leaf


def split_parameters(
    params: Mapping[str, Any], frozen: Frozen
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained, frozen) parameters, each nested dicts without the other's leaves.

    Raises:
        ValueError: a pattern fits no parameter.
    """
    if not callable(frozen):
        return partition(params, frozen) if frozen else (unflatten(flatten(params)), {})
    leaves = flatten(params)
    trained = unflatten({path: leaf for path, leaf in leaves.items() if not frozen(path)})
    return trained, unflatten({path: leaf for path, leaf in leaves.items() if frozen(path)})


def without_frozen(state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """(the state without frozen parameters, the frozen parameters); the former may be donated."""
    return state.replace(frozen={}), state.frozen  # pyright: ignore[reportAttributeAccessIssue]
