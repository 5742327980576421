"""The best items of one query without a look at clusters that cannot hold them.

Clusters are visited in order of an upper bound of their scores, and the visit ends when the k-th
best score found is above every bound that is left (branch and bound). For a query q, a member e of
a cluster with centre m and radius r (the largest |e - m|) over n members, Cauchy and Schwarz give

    q . e <= q . m + |q| r.

With a normaliser the score is the cluster's own plus `q . e - logsumexp_j(q . e_j)`, which is never
above 0, each probability being at most 1; and by Jensen the logsumexp is at least `log n + q . m`,
so that the difference is at most `|q| r - log n` as well. A soft cap c tanh(x / c) never falls and
never widens a difference, so that for capped logits the difference to each other member is at most
`2 |q| r`, and to the logsumexp at most `2 |q| r - log n`.

Letters: W width, K clusters, T tiles of R rows, S tiles of a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Offsets, Scored
from efficientids_flax.core.head.search.scan import best_of_tiles, best_tiles, scores_of_tiles

STEP_BYTES = 1 << 20  # of rows that are looked at in one step
FEWEST_TILES = 1 << 12  # below, a pass takes no time, unless
FEWEST_BYTES = 1 << 25  # the rows of the index are so many
MOST_FOUND = 256  # k above which too many tiles are among the best
# A tile costs more to visit than in a pass. Where the bounds leave more than this share of them
# once so much was tried, the pass takes over.
WORTH, TRIED = 0.3, 0.02
ROUNDING = 1e-5  # of all that a bound is made of: some tens of float32 roundings


class _State(NamedTuple):
    """What is known after some steps; tiles and clusters in order of the bounds.

    Attributes:
        visited: int [], tiles.
        best: float32 [T], the highest logit that may be found; -inf before the visit.
        highest, exponentials: float32 [K], of the visited tiles, see `Scored.offsets`.
        going, found: bool [], whether to go on; whether the best are among the visited.
        chosen: int [k], the best tiles.
    """

    visited: jax.Array
    best: jax.Array
    highest: jax.Array
    exponentials: jax.Array
    going: jax.Array
    found: jax.Array
    chosen: jax.Array


def fits(index: SearchIndex, asked: int, k: int) -> bool:
    """Whether it is worth trying: one query, many or large tiles, few items."""
    tiles = index.rows.shape[0]
    many = tiles >= FEWEST_TILES or 4 * index.rows.size >= FEWEST_BYTES
    many = many and index.clusters is not None
    return asked == 1 and many and k <= min(MOST_FOUND, tiles)


def bounded(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, k: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(bool [], whether the search came to an end; (ids [1, k], scores [1, k]) if it did).

    Args:
        index: of all items, with clusters.
        query: float32 [1, W].
        how: items are scored.
        allowed: which items may be found.
        k: how many.
    """
    count, rows, width = index.rows.shape
    bounds = upper_bounds(index, query, how)[0]
    order = jnp.argsort(-bounds)
    bounds, tiles = bounds[order], index.order.tiles[order]
    ends = jnp.cumsum(tiles)  # in the order of visits
    ranks = jnp.repeat(jnp.arange(len(order)), tiles, total_repeat_length=count)
    names = index.order.first[order][ranks] + jnp.arange(count) - (ends - tiles)[ranks]
    together = min(count, max(1, STEP_BYTES // (4 * rows * width)))
    sorted_how = how._replace(added=how.added[:, order])

    def step(number: Any, state: _State) -> _State:
        del number
        start = jnp.minimum(state.visited, count - together)
        places = start + jnp.arange(together)
        fresh = places >= state.visited  # the last step goes over some tiles once more
        own = jax.lax.dynamic_slice_in_dim(names, start, together)
        rank = jax.lax.dynamic_slice_in_dim(ranks, start, together)
        ids = index.order.ids[own]
        table = index.rows[own].reshape(-1, width)
        products = jnp.matmul(table, query[0], precision="highest").reshape(together, rows)
        logits = how.logits(products)
        there = allowed.of_tiles(0, own, ids) & ~jnp.isnan(logits)
        best = jnp.max(jnp.where(there, logits, -jnp.inf), axis=1)
        highest, exponentials = state.highest, state.exponentials
        if how.normalised:
            members = jnp.where((ids >= 0) & fresh[:, None], logits, -jnp.inf)
            top = jnp.max(members, axis=1)
            highest = state.highest.at[rank].max(top)
            shift = jnp.where(jnp.isneginf(highest), 0.0, highest)
            powers = jnp.sum(jnp.exp(members - shift[rank][:, None]), axis=1)
            exponentials = state.exponentials * jnp.exp(state.highest - shift)
            exponentials = exponentials.at[rank].add(powers)
        return state._replace(
            visited=start + together,
            best=jax.lax.dynamic_update_slice_in_dim(state.best, best, start, 0),
            highest=highest,
            exponentials=exponentials,
        )

    def offsets(state: _State) -> Offsets:
        return sorted_how.offsets(state.highest[None], state.exponentials[None])

    def look(state: _State) -> _State:
        """Whether what is left can hold any of the best."""
        complete = jnp.sum(ends <= state.visited)  # clusters
        best = jnp.where(ranks < complete, state.best, -jnp.inf)
        scores = scores_of_tiles(how, best[None], offsets(state).at(ranks))[0]
        values, chosen = best_tiles(scores, k)
        last = values[-1]
        left = bounds >= last
        found = ~jnp.any(left & (jnp.arange(len(bounds)) >= complete))
        needed = jnp.sum(jnp.where(left, tiles, 0))
        hopeless = (needed > WORTH * count) & (state.visited > TRIED * count)
        # Where more tiles than k share the last of the best scores, ids decide: a pass does that.
        several = (jnp.sum(scores >= last) > k) | jnp.isneginf(last)
        going = ~found & ~hopeless & (state.visited < count)
        return state._replace(going=going, found=found & ~several, chosen=chosen)

    def round_of_steps(state: _State) -> _State:
        steps = jnp.maximum(state.visited // together // 3, 1)
        return look(jax.lax.fori_loop(0, steps, step, state))

    zero = jnp.zeros(len(order), jnp.float32)
    state = _State(
        jnp.int32(0), jnp.full(count, -jnp.inf), zero - jnp.inf, zero, jnp.bool_(True),
        jnp.bool_(False), jnp.zeros(k, jnp.int32),
    )  # fmt: skip
    state = jax.lax.while_loop(lambda state: state.going, round_of_steps, state)
    own = Offsets(*(jnp.zeros_like(part).at[:, order].set(part) for part in offsets(state)))
    return state.found, best_of_tiles(index, query, how, allowed, names[state.chosen][None], own, k)


def upper_bounds(index: SearchIndex, query: jax.Array, how: Scored) -> jax.Array:
    """float32 [B, K]: no item of a cluster has a higher score.

    Args:
        index: with clusters.
        query: float32 [B, W].
        how: items are scored.
    """
    centre = jnp.einsum("bw,kw->bk", query, index.centres, precision="highest")
    length = jnp.linalg.norm(query, axis=1, keepdims=True)
    spread = length * index.radii
    # A small product of large vectors is rounded as much as a large one.
    size = length * jnp.linalg.norm(index.centres, axis=1) + spread + jnp.abs(how.added) + 1.0
    if how.normalised:
        distance = spread if how.inner is None else 2.0 * spread
        own = jnp.minimum(0.0, distance - jnp.log(index.order.counts.astype(jnp.float32)))
    else:
        own = centre + spread
    bound = own + how.added + ROUNDING * size
    none = jnp.zeros_like(bound)
    # A tanh in float32 falls by a rounding now and then.
    bound = how.scores(bound, Offsets(none, none)) + ROUNDING * (how.outer or 0.0)
    # Of a cluster with a member that is not finite nothing is known, and the others count.
    return jnp.where(jnp.isnan(bound), jnp.inf, bound)
