"""The second pass of a hierarchical softmax: losses of labels among the members of their clusters.

Each position of a batch is scored against all members of its label's cluster. A gather for every
position moves P M W numbers forward and scatters as many backward; where these are many, most of
them are copies, and the clusters are visited instead (`grouped`). All that the backward pass then
has to do is to multiply the gradient that was made on the way by a number.

Letters: P positions, W width of queries, E width of the table, I items, K clusters, M slots of the
largest cluster.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from efficientids_flax.core.clustering import PADDING
from efficientids_flax.core.head.grouped import (
    Adapter,
    Labels,
    Loss,
    gradients_by_cluster,
    losses_by_cluster,
)

GATHERED_SHARE = 4  # members of all positions that are gathered: at most the catalogue by this
MOST_PADDING = 4  # how many times the table its padded form [K, M] may be
GATHERED = 1 << 26  # numbers that a gather may hold at a time


class Losses(NamedTuple):
    """Losses of positions.

    Attributes:
        each: float32 [P]; 0 where there is no label.
        total: float32 [], the sum of `each` times the weights. Where clusters are visited, its
            gradient costs no further visit, that of `each` does. None without weights.
    """

    each: jax.Array
    total: jax.Array | None


def _as_it_is(rows: jax.Array) -> jax.Array:
    return rows


AS_IT_IS = Adapter(_as_it_is)


def member_losses(
    loss: Loss,
    query: jax.Array,
    rows: jax.Array,
    labels: Labels,
    weights: jax.Array | None = None,
    adapter: Adapter = AS_IT_IS,
) -> Losses:
    """Losses of each position's label among the members of its cluster.

    Args:
        loss: of the products of the queries with the members of their cluster, position by
            position; where there is no member the products have no meaning.
        query: [P, W].
        rows: [I, E], of the items.
        labels: of the positions.
        weights: float32 [P], of the positions in the total; None where that is not wanted.
        adapter: makes vectors of width W of the rows.
    """
    labels = jax.tree.map(jnp.asarray, labels)
    positions, (count, slots) = query.shape[0], labels.members.shape
    few = positions * slots * GATHERED_SHARE <= rows.shape[0]
    if few or count * slots > MOST_PADDING * rows.shape[0]:
        if positions * slots > rows.shape[0]:
            rows, adapter = adapter(rows), AS_IT_IS
        each = _gathered(loss, query, rows, adapter, labels)
        return Losses(each, None if weights is None else weights @ each)
    if weights is None:
        return Losses(_each(loss, query, rows, adapter, labels), None)
    each, total = _weighted(loss, query, rows, adapter, weights, labels)  # pyright: ignore[reportGeneralTypeIssues]
    return Losses(each, total)


def _gathered(
    loss: Loss, query: jax.Array, rows: jax.Array, adapter: Adapter, labels: Labels
) -> jax.Array:
    """By a gather for every position, as many positions at a time as `GATHERED` allows."""
    (positions, width), (count, slots) = query.shape, labels.members.shape
    most = max(1, GATHERED // (slots * width))

    def some(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        own, clusters, places = given
        chosen = labels.members[jnp.minimum(clusters, count - 1)]
        products = jnp.einsum("pw,pmw->pm", own, adapter(rows[jnp.maximum(chosen, 0)]))
        return jnp.where(clusters < count, loss(products, places, chosen > PADDING), 0.0)

    given = query, labels.clusters, labels.slots
    if positions <= most:
        return some(given)
    # `batch_size` makes one more call for the rest; without checkpoint all gathers would be kept.
    each = jax.checkpoint(lambda given: some(jax.tree.map(lambda x: x[None], given))[0])
    return jax.lax.map(each, given, batch_size=most)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _each(
    loss: Loss, query: jax.Array, rows: jax.Array, adapter: Adapter, labels: Labels
) -> jax.Array:
    """Losses [P]."""
    return losses_by_cluster(loss, query, rows, adapter, labels)


def _each_forward(loss: Loss, *given: Any) -> tuple[jax.Array, Any]:
    return _each(loss, *given), given


def _each_backward(loss: Loss, given: Any, weights: jax.Array) -> tuple[Any, ...]:
    query, rows, adapter, labels = given
    return *gradients_by_cluster(loss, query, rows, adapter, weights, labels)[1], None


_each.defvjp(_each_forward, _each_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted(
    loss: Loss,
    query: jax.Array,
    rows: jax.Array,
    adapter: Adapter,
    weights: jax.Array,
    labels: Labels,
) -> tuple[jax.Array, jax.Array]:
    """(Losses [P], their weighted sum)."""
    each = losses_by_cluster(loss, query, rows, adapter, labels)
    return each, weights @ each


def _weighted_forward(loss: Loss, *given: Any) -> tuple[tuple[jax.Array, jax.Array], Any]:
    given = jax.tree.map(
        lambda leaf: leaf.value, given, is_leaf=lambda leaf: isinstance(leaf, CustomVJPPrimal)
    )
    each, gradients = gradients_by_cluster(loss, *given)
    return (each, given[3] @ each), (given, each, gradients)


def _weighted_backward(loss: Loss, kept: Any, arriving: tuple[Any, Any]) -> tuple[Any, ...]:
    (query, rows, adapter, _, labels), each, gradients = kept
    of_each, of_total = arriving
    if isinstance(of_total, SymbolicZero):
        of_total = jnp.zeros((), jnp.float32)
    *gradients, of_weights = jax.tree.map(
        lambda gradient: gradient * of_total.astype(gradient.dtype), (*gradients, each)
    )
    if not isinstance(of_each, SymbolicZero):  # somebody differentiates the losses one by one
        more = gradients_by_cluster(loss, query, rows, adapter, of_each, labels)[1]
        gradients = jax.tree.map(jnp.add, gradients, list(more))
    return *gradients, of_weights, None


_weighted.defvjp(_weighted_forward, _weighted_backward, symbolic_zeros=True)
