"""Losses of labels among the members of their clusters; the forward pass computes the gradient too.

The backward pass then only multiplies that gradient by the incoming scalar.

Letters: P positions, W width of queries, E width of the table, I items.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second import spread
from efficientids_flax.core.head.second.by_cluster import Adapter, Given, Places
from efficientids_flax.core.head.second.entropy import Entropy
from efficientids_flax.core.head.second.visits import Labels


class Losses(NamedTuple):
    """Losses of positions.

    Attributes:
        each: float32 [P]; 0 where there is no label.
        total: float32 [], weighted sum of `each`; None without weights. Differentiate this one: its
            gradient is already computed, that of `each` takes another pass.
    """

    each: jax.Array
    total: jax.Array | None


def _as_it_is(rows: jax.Array) -> jax.Array:
    return rows


AS_IT_IS = Adapter(_as_it_is)


def member_losses(
    entropy: Entropy,
    clustering: ClusteringInfo,
    query: jax.Array,
    rows: jax.Array,
    labels: Labels,
    weights: jax.Array | None = None,
    adapter: Adapter = AS_IT_IS,
    places: Places | None = None,
) -> Losses:
    """Losses of each position's label among the members of its cluster.

    Args:
        entropy: soft cap and smoothing.
        clustering: the cluster of each item.
        query: [P, W].
        rows: [I, E], the item table.
        labels: label of each position.
        weights: float32 [P], weights of the positions in the total; None: no total.
        adapter: maps rows to width W.
        places: if given, its `values` get the gradient by the rows and `rows` gets none; `rows` is
            then in cluster order.
    """
    labels = jax.tree.map(jnp.asarray, labels)
    if weights is None:
        return Losses(_each(entropy, clustering, query, rows, adapter, labels, places), None)
    each, total = _weighted(  # pyright: ignore[reportGeneralTypeIssues]
        entropy, clustering, query, rows, adapter, weights, labels, places
    )
    return Losses(each, total)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _each(
    entropy: Entropy,
    clustering: ClusteringInfo,
    query: jax.Array,
    rows: jax.Array,
    adapter: Adapter,
    labels: Labels,
    places: Places | None,
) -> jax.Array:
    """Losses [P]."""
    nothing = jnp.zeros(query.shape[0], jnp.float32)
    return spread.losses(entropy, clustering, Given(query, rows, adapter, labels, nothing, places))


def _each_forward(entropy: Entropy, clustering: ClusteringInfo, *given: Any) -> Any:
    return _each(entropy, clustering, *given), given


def _each_backward(
    entropy: Entropy, clustering: ClusteringInfo, given: Any, weights: jax.Array
) -> tuple[Any, ...]:
    query, rows, adapter, labels, places = given
    whole = Given(query, rows, adapter, labels, weights, places)
    found = spread.losses_and_gradients(entropy, clustering, whole)
    query, rows, adapter, places = _by_argument(tuple(found[1]), places)
    return query, rows, adapter, None, places


_each.defvjp(_each_forward, _each_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _weighted(
    entropy: Entropy,
    clustering: ClusteringInfo,
    query: jax.Array,
    rows: jax.Array,
    adapter: Adapter,
    weights: jax.Array,
    labels: Labels,
    places: Places | None,
) -> tuple[jax.Array, jax.Array]:
    """(Losses [P], their weighted sum)."""
    given = Given(query, rows, adapter, labels, weights, places)
    each = spread.losses(entropy, clustering, given)
    return each, weights @ each


def _weighted_forward(
    entropy: Entropy, clustering: ClusteringInfo, *given: Any
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    query, rows, adapter, weights, labels, places = jax.tree.map(
        lambda leaf: leaf.value, given, is_leaf=lambda leaf: isinstance(leaf, CustomVJPPrimal)
    )
    whole = Given(query, rows, adapter, labels, weights, places)
    each, gradients = spread.losses_and_gradients(entropy, clustering, whole)
    return (each, weights @ each), (whole, each, tuple(gradients))


def _weighted_backward(
    entropy: Entropy, clustering: ClusteringInfo, kept: Any, arriving: tuple[Any, Any]
) -> tuple[Any, ...]:
    given, each, gradients = kept
    of_each, of_total = arriving
    if isinstance(of_total, SymbolicZero):
        of_total = jnp.zeros((), jnp.float32)
    *gradients, of_weights = jax.tree.map(
        lambda gradient: gradient * of_total.astype(gradient.dtype), (*gradients, each)
    )
    if not isinstance(of_each, SymbolicZero):  # the caller also differentiates `each`
        whole = given._replace(weights=of_each)
        more = spread.losses_and_gradients(entropy, clustering, whole)[1]
        gradients = jax.tree.map(jnp.add, gradients, list(more))
    query, rows, adapter, places = _by_argument(tuple(gradients), given.places)
    return query, rows, adapter, of_weights, None, places


def _by_argument(gradients: tuple[Any, ...], places: Places | None) -> tuple[Any, ...]:
    """Gradients by (query, rows, adapter, places): those of the rows go to `places` if given."""
    query, rows, adapter = gradients
    if places is None:
        return query, rows, adapter, None
    return query, None, adapter, Places(rows, None)  # pyright: ignore[reportArgumentType]


_weighted.defvjp(_weighted_forward, _weighted_backward, symbolic_zeros=True)
