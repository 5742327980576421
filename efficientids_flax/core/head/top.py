"""Top-k of given scores, with filters on the items.

Ties go to the lower id, as in the original's top-k. Letters: B queries, I items, C items of a
chunk, X excluded items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

NONE = -1  # id in place of an item that is not there


class TopItems(NamedTuple):
    """Items, best first.

    Attributes:
        ids: int32 [..., k]; -1 if fewer than k items were left.
        scores: float32 [..., k]; -inf where the id is -1.
    """

    ids: jax.Array
    scores: jax.Array


def top_items(
    scores: jax.Array,
    k: int,
    *,
    exclude: jax.Array | None = None,
    allowed: jax.Array | None = None,
) -> TopItems:
    """The k items with the highest scores; items that score -inf or NaN are never returned.

    Args:
        scores: [..., I], higher is better.
        k: number of items to return.
        exclude: int [..., X], ids to leave out; ids outside [0, I) have no effect.
        allowed: bool [I] or [..., I], items that may be returned.

    Raises:
        ValueError: k is not in [1, I]; shapes do not fit.
    """
    count = scores.shape[-1]
    check_filters(scores.shape[:-1], count, k, exclude, allowed)
    flat = scores.reshape(-1, count).astype(jnp.float32)
    rows = flat.shape[0]
    if exclude is not None:
        exclude = exclude.reshape(rows, exclude.shape[-1])
    if allowed is not None and allowed.ndim > 1:
        allowed = allowed.reshape(rows, count)
    values, places = best_of(filtered(flat, jnp.int32(0), exclude, allowed), k)
    found = named(places, values)
    return TopItems(*(part.reshape(*scores.shape[:-1], k) for part in found))


def check_filters(
    leading: tuple[int, ...],
    count: int,
    k: int,
    exclude: jax.Array | None,
    allowed: jax.Array | None,
) -> None:
    """Raise ValueError if k or the filters do not fit.

    Args:
        leading: leading axes of the queries.
        count: I.
        k, exclude, allowed: see `top_items`.
    """
    if not 1 <= k <= count:
        raise ValueError(f"k: expected in [1, {count}], the number of items, found {k}")
    if exclude is not None and exclude.shape[:-1] != leading:
        raise ValueError(f"exclude: found {list(exclude.shape)}, expected {[*leading, 'X']}")
    if allowed is not None and allowed.shape not in ((count,), (*leading, count)):
        raise ValueError(
            f"allowed: found {list(allowed.shape)}, expected {[count]} or {[*leading, count]}"
        )


def filtered(
    scores: jax.Array,
    start: jax.Array,
    exclude: jax.Array | None,
    allowed: jax.Array | None,
) -> jax.Array:
    """Set scores [B, C] of a chunk that begins at item `start` to -inf where filtered out."""
    rows, size = scores.shape
    if exclude is not None:
        place = exclude - start
        place = jnp.where((place >= 0) & (place < size), place, size)  # `size` is dropped
        scores = scores.at[jnp.arange(rows)[:, None], place].set(-jnp.inf, mode="drop")
    if allowed is not None:
        part = jax.lax.dynamic_slice_in_dim(allowed, start, size, axis=-1)
        scores = jnp.where(part, scores, -jnp.inf)
    return scores


def best_of(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """(values, columns) of the k highest of [B, C]; among equals the earlier column comes first."""
    # top_k sorts -0 below 0, and NaN as the largest.
    scores = jnp.where(scores == 0.0, 0.0, jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    values, places = jax.lax.top_k(scores, k)
    return values, places


def named(ids: jax.Array, values: jax.Array) -> TopItems:
    """`TopItems` of ids and scores, with id `NONE` where the score is -inf."""
    return TopItems(jnp.where(jnp.isneginf(values), NONE, ids).astype(jnp.int32), values)
