"""One training step: a pure function of state and batch, with accumulation and mixed precision."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer import merge
from efficientids_flax.train.state import TrainState
from efficientids_flax.train.step.returned import (
    FINITE,
    WEIGHT,
    WRONG,
    Metrics,
    negative,
    returned,
)
from efficientids_flax.train.step.rows import RowUpdates, with_row_gradients
from efficientids_flax.tree import flatten, unflatten

Batch = Mapping[str, Any]
# (params, batch, model_state, rng, apply_fn) -> (loss [], metrics of scalars, model_state)
LossFn = Callable[..., tuple[jax.Array, Mapping[str, Any], Mapping[str, Any]]]
OnNonFinite = Literal["stop", "skip"]

SMALL = 1 << 16  # gradients up to this size are concatenated to compute the norm


class StepOptions(NamedTuple):
    """How a step is computed.

    Attributes:
        accumulation: number of parts that a batch is split into and computed one after another.
        mixed_precision: parameters and floats of the batch are cast to bfloat16 for the model;
            stored parameters, gradients and optimizer stay float32.
        remat: recompute activations in the backward pass, all except matrix products.
        on_nonfinite: a step whose loss or gradient is not finite never changes parameters. 'skip'
            counts it as a step and goes on (as PAXml does). 'stop' does not count it and refuses
            all later steps; a batch with wrong values always does that.
    """

    accumulation: int = 1
    mixed_precision: bool = False
    remat: bool = False
    on_nonfinite: OnNonFinite = "stop"


def make_step(
    loss_fn: LossFn,
    apply_fn: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    options: StepOptions,
    count_wrong: Callable[[Batch], Mapping[str, jax.Array]] = lambda batch: {},
    rows: RowUpdates | None = None,
) -> Callable[..., tuple[TrainState, jax.Array, Metrics]]:
    """The step, not jitted.

    Args:
        loss_fn: takes the whole tree of parameters; its `metrics` are scalars.
        apply_fn: passed to `loss_fn`.
        optimizer: for the trained parameters; also gets `loss` and `value`.
        options: see `StepOptions`.
        count_wrong: batch -> (field -> int32 []), counts of values that forbid a step, such as ids
            out of range, which a model would clip. Each is a metric, named `WRONG` + field.
        rows: updates only the rows of the item table that a batch touches; the state is then laid
            out by `RowUpdates.entered`. None: all rows.

    Returns:
        `step(state, frozen, batch, alive)` -> (state, alive, metrics). `frozen` holds the
        parameters that `state` lacks. `alive`, bool [], is False once a step has ended the run.
        Metrics are float32 []: `loss`, `grad_norm`, `finite` (whether the step was taken), and the
        loss function's own.
    """
    optimizer = optax.with_extra_args_support(optimizer if rows is None else rows.by_row.update)

    def objective(
        trained: Any, frozen: Any, batch: Batch, model_state: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        params = merge(trained, frozen) if frozen else trained
        apply = apply_fn
        if rows is not None:
            params, apply = with_row_gradients(params, apply_fn)
        if options.mixed_precision:
            params, batch = to_half(params), to_half(batch)
        found = loss_fn(params, NamedBatch(batch), model_state, rng, apply)
        loss, metrics, state = returned(found)
        return loss.astype(jnp.float32), (metrics, _collections(state, model_state))

    if options.remat:
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        objective = jax.checkpoint(objective, policy=policy)
    differentiate = jax.value_and_grad(objective, has_aux=True)

    def gradients(state: TrainState, trained: Any, frozen: Any, batch: Batch, rng: Any) -> Any:
        """(loss, metrics, model state, gradients) of a batch, in one or more parts."""
        if options.accumulation == 1:
            (loss, (metrics, new)), found = differentiate(
                trained, frozen, batch, state.model_state, rng
            )
            if WEIGHT in metrics:
                metrics = {**metrics, f"{WRONG}{WEIGHT}": negative(metrics[WEIGHT])}
            return loss, metrics, new, found
        parts = jax.tree.map(lambda x: _parts(x, options.accumulation), batch)

        def one(model_state: Any, given: Any) -> Any:
            index, part = given
            (loss, (metrics, new)), found = differentiate(
                trained, frozen, part, model_state, jax.random.fold_in(rng, index)
            )
            weight = jnp.asarray(metrics.get(WEIGHT, 1.0), jnp.float32)
            # A part without any weight may have a NaN loss (0 / 0).
            return new, (
                (weight, negative(weight)),
                jax.tree.map(
                    lambda x: jnp.where(weight == 0, 0, x * weight), (loss, metrics, found)
                ),
            )

        def add(carry: Any, given: Any) -> Any:
            model_state, sums = carry
            model_state, found = one(model_state, given)
            return (model_state, jax.tree.map(jnp.add, sums, found)), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(one, state.model_state, (jnp.int32(0), first))[1]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        numbered = (jnp.arange(options.accumulation), parts)
        (new, ((weight, below), sums)), _ = jax.lax.scan(add, (state.model_state, zeros), numbered)
        divisor = jnp.where(weight > 0, weight, 1.0)
        loss, metrics, found = jax.tree.map(lambda x: (x / divisor).astype(x.dtype), sums)
        if WEIGHT in metrics:
            metrics |= {WEIGHT: weight, f"{WRONG}{WEIGHT}": below}
        return loss, metrics, new, found

    def step(
        state: TrainState, frozen: Any, batch: Batch, alive: jax.Array
    ) -> tuple[TrainState, jax.Array, Metrics]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        opened = None if rows is None else rows.opened(state, frozen, batch)
        trained = state.trained
        if opened is not None:
            state, trained, frozen = opened.state, opened.trained, opened.frozen
        loss, metrics, model_state, found = gradients(state, trained, frozen, batch, rng)
        norm = global_norm(found)
        metrics |= {f"{WRONG}{name}": count for name, count in count_wrong(batch).items()}
        wrong = [count for name, count in metrics.items() if name.startswith(WRONG)]
        known = sum(wrong, jnp.int32(0)) == 0
        weighed = jnp.isfinite(metrics.get(WEIGHT, 0.0))
        finite = known & jnp.isfinite(loss) & jnp.isfinite(norm) & weighed
        stops = options.on_nonfinite == "stop"
        taken = finite & alive
        alive = alive & (finite if stops else known)
        tables = None
        if opened is not None:
            found, tables = opened.updated(found, norm, taken)

        def update() -> tuple[Any, Any, Any]:
            given = _as_precise(found, state.precise) if state.master else found
            updates, opt_state = _updated(optimizer, given, state, loss)
            return optax.apply_updates(state.precise, updates), opt_state, model_state

        old = (state.precise, state.opt_state, state.model_state)
        precise, opt_state, model_state = _if(taken, update, old)
        new = state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            step=state.step + alive.astype(jnp.int32),
            opt_state=opt_state,
            model_state=model_state,
            **_rounded(precise, state),
        )
        if opened is not None and tables is not None:
            new = opened.closed(new, tables)
        metrics |= {"loss": loss, "grad_norm": norm, FINITE: taken}
        return new, alive, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    return step


def _updated(
    optimizer: optax.GradientTransformationExtraArgs, found: Any, state: TrainState, loss: jax.Array
) -> tuple[Any, Any]:
    """(Updates, the optimizer's next state), from the gradients of a step.

    Raises:
        ValueError: the optimizer asks for more than a step has.
    """
    try:
        return optimizer.update(found, state.opt_state, state.precise, loss=loss, value=loss)
    except TypeError as error:
        if "required keyword-only argument" not in str(error):
            raise
        raise ValueError(
            f"optimizer: {error}, which a step does not have: it computes one loss and gradient."
            " Line searches, as in lbfgs, need more; choose an optimizer without one"
        ) from error


def _rounded(precise: Mapping[str, Any], like: TrainState) -> dict[str, Any]:
    """State fields `trained` (cast to the state's dtypes) and `master` from updated parameters."""
    if not like.master:
        return {"trained": precise}
    leaves, kept = flatten(precise), flatten(like.master)
    trained = jax.tree.map(lambda x, old: x.astype(old.dtype), precise, like.trained)
    return {"trained": trained, "master": unflatten({path: leaves[path] for path in kept})}


def _as_precise(gradients: Any, precise: Any) -> Any:
    """Gradients cast to the dtypes of the parameters they update."""
    return jax.tree.map(lambda x, like: x.astype(like.dtype), gradients, precise)


class NamedBatch(dict[str, Any]):
    """A batch whose KeyError lists the fields that it has."""

    def __missing__(self, name: str) -> Any:
        """Raises KeyError with the names of the fields."""
        raise KeyError(f"batch: has no field '{name}'; it has {', '.join(sorted(self))}")


def _if(taken: jax.Array, update: Callable[[], Any], old: Any) -> Any:
    """`update()` where `taken`, else the old values.

    On CPUs a branch: with `jnp.where` XLA computes moments twice and copies them, since the update
    of the parameters reads the old ones, and that costs a tenth of a small step. On other devices a
    branch would wait for the host, and `jnp.where` costs nothing.
    """
    if jax.default_backend() == "cpu":
        return jax.lax.cond(taken, update, lambda: old)
    return jax.tree.map(lambda new, kept: jnp.where(taken, new, kept), update(), old)


def global_norm(tree: Any) -> jax.Array:
    """Norm over all leaves together, float32 []."""
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
    small: list[jax.Array] = []
    # Not on a mesh, where this would gather them; nor on CPUs, where copies cost more than ops.
    if jax.default_backend() != "cpu" and jax.sharding.get_abstract_mesh().size <= 1:
        small = [leaf.ravel() for leaf in leaves if leaf.size <= SMALL]
        leaves = [leaf for leaf in leaves if leaf.size > SMALL]
    if small:
        leaves.append(jnp.concatenate(small))
    squares = [jnp.sum(jnp.square(leaf)) for leaf in leaves]
    return jnp.sqrt(sum(squares, jnp.float32(0.0)))


def _collections(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The new collections, cast to the dtypes of the old ones."""
    if jax.tree.structure(dict(new)) != jax.tree.structure(dict(old)):
        raise ValueError(
            f"loss function: the model state that it returns has {sorted(new)}, the one that it was"
            f" given {sorted(old)}; their trees must be the same"
        )
    return jax.tree.map(lambda x, like: x.astype(like.dtype), dict(new), dict(old))


def to_half(tree: Any) -> Any:
    """float32 leaves as bfloat16."""

    def cast(x: Any) -> Any:
        return x.astype(jnp.bfloat16) if jnp.result_type(x) == jnp.float32 else x

    return jax.tree.map(cast, tree)


def _parts(x: Any, count: int) -> Any:
    """[B, ...] -> [count, B / count, ...]: part i has rows i, i + count, ...

    With this order each device of a mesh keeps its own rows in every part.
    """
    rows = x.shape[0] // count
    return x.reshape(rows, count, *x.shape[1:]).swapaxes(0, 1)
