"""Exact top-k of one query by branch and bound: skip clusters that cannot hold the best items.

Clusters are visited in descending order of an upper bound on their scores, until the k-th best
score found is above all remaining bounds. For a query q and a member e of a cluster with centre m,
radius r (the largest |e - m|) and n members, the Cauchy-Schwarz inequality gives

    q . e <= q . m + |q| r.

With a normaliser the score is the cluster's own term plus `q . e - logsumexp_j(q . e_j)`. That
difference is a log-probability and never above 0. By Jensen's inequality the logsumexp is at least
`log n + q . m`, so the difference is at most `|q| r - log n` as well. A soft cap c tanh(x / c) is
monotonic and never widens a difference. So for capped logits the difference to each other member
is at most `2 |q| r`, and to the logsumexp at most `2 |q| r - log n`.

Letters: W width, K clusters, T tiles of R rows, S tiles of a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Offsets, Scored
from efficientids_flax.core.head.search.scan import best_of_tiles, best_tiles, scores_of_tiles

STEP_BYTES = 1 << 20  # bytes of rows that one step reads
# An index with fewer tiles and fewer bytes than these is scanned: that is fast enough.
FEWEST_TILES = 1 << 12
FEWEST_BYTES = 1 << 25
MOST_FOUND = 256  # for larger k too many tiles are needed
# A tile costs more here than in a scan. If after the share TRIED of the tiles the bounds still
# leave more than the share WORTH of them, the scan takes over.
WORTH, TRIED = 0.3, 0.02
ROUNDING = 1e-5  # margin relative to a bound's terms: some tens of float32 roundings


class _State(NamedTuple):
    """State after some steps; tiles and clusters are in order of the bounds.

    Attributes:
        visited: int [], number of tiles visited.
        best: float32 [T], highest logit of the items that may be returned; -inf if not visited.
        highest, exponentials: float32 [K], over the visited tiles, see `Scored.offsets`.
        going, found: bool [], whether to go on; whether the search ended with the best items.
        chosen: int [k], the best tiles so far.
    """

    visited: jax.Array
    best: jax.Array
    highest: jax.Array
    exponentials: jax.Array
    going: jax.Array
    found: jax.Array
    chosen: jax.Array


def fits(index: SearchIndex, asked: int, k: int) -> bool:
    """Whether to try branch and bound: one query, many or large tiles, small k."""
    tiles = index.rows.shape[0]
    many = tiles >= FEWEST_TILES or 4 * index.rows.size >= FEWEST_BYTES
    many = many and index.clusters is not None
    return asked == 1 and many and k <= min(MOST_FOUND, tiles)


def bounded(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, k: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(done bool [], (ids [1, k], scores [1, k])); the items are only valid if `done` is True.

    Args:
        index: an index with clusters.
        query: float32 [1, W].
        how: how items are scored.
        allowed: which items may be returned.
        k: number of items to return.
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
        fresh = places >= state.visited  # the last step overlaps the one before
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
        """Decide whether unvisited clusters can still hold any of the best."""
        complete = jnp.sum(ends <= state.visited)  # clusters
        best = jnp.where(ranks < complete, state.best, -jnp.inf)
        scores = scores_of_tiles(how, best[None], offsets(state).at(ranks))[0]
        values, chosen = best_tiles(scores, k)
        last = values[-1]
        left = bounds >= last
        found = ~jnp.any(left & (jnp.arange(len(bounds)) >= complete))
        needed = jnp.sum(jnp.where(left, tiles, 0))
        hopeless = (needed > WORTH * count) & (state.visited > TRIED * count)
        # If tiles tie at the k-th best score, ids decide, which only the scan can do.
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
    """Upper bound on the scores of each cluster's items, float32 [B, K].

    Args:
        index: an index with clusters.
        query: float32 [B, W].
        how: how items are scored.
    """
    centre = jnp.einsum("bw,kw->bk", query, index.centres, precision="highest")
    length = jnp.linalg.norm(query, axis=1, keepdims=True)
    spread = length * index.radii
    # The margin depends on the vectors' lengths: a small product of large vectors has the rounding
    # error of a large one.
    size = length * jnp.linalg.norm(index.centres, axis=1) + spread + jnp.abs(how.added) + 1.0
    if how.normalised:
        distance = spread if how.inner is None else 2.0 * spread
        own = jnp.minimum(0.0, distance - jnp.log(index.order.counts.astype(jnp.float32)))
    else:
        own = centre + spread
    bound = own + how.added + ROUNDING * size
    none = jnp.zeros_like(bound)
    # In float32, tanh is monotonic only up to rounding.
    bound = how.scores(bound, Offsets(none, none)) + ROUNDING * (how.outer or 0.0)
    # A cluster with a member that is not finite has no bound; its other members still count.
    return jnp.where(jnp.isnan(bound), jnp.inf, bound)
