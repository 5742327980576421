"""A pass over the catalogue, tile by tile: what each tile adds to the ranks of some labels.

A tile's scores are made, looked at and left while they are in the cache. The rank of a label needs
its own score first, to the bit as the tile makes it; so a pass begins at the first tile that has a
label, and counts once the last of them was seen: with labels in the order of their places few tiles
are seen twice, and of those what normalises within their clusters is kept. Under a full softmax in
several tiles, what normalises is known after all of them, and there are two passes.

Letters: Q positions, W width of query and tables, I items, K clusters, L tiles of N columns of R
slots, X excluded items.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.measures.counts import before, excluded_before, excluded_places
from efficientids_flax.core.head.measures.scores import (
    How,
    Scores,
    Total,
    by_column,
    logits_of,
    normalisers_of,
    scores_of,
)
from efficientids_flax.core.head.measures.tiles import Tiles, rows_of


class Asked(NamedTuple):
    """What is asked of the catalogue.

    Attributes:
        query: float32 [Q, W].
        label: int [Q], an item.
        known: bool [Q], whether it counts.
        exclude: int [Q, X], items that do not stand before it; others than [0, I) are none. None:
            none of all.
    """

    query: jax.Array
    label: jax.Array
    known: jax.Array
    exclude: jax.Array | None = None


_Kept = tuple[jax.Array, ...]  # float32 [L, N, Q] each, of `normalisers_of`


class Found(NamedTuple):
    """What a pass finds; [Q] each.

    Attributes:
        log_prob: float32, of the label.
        score: float32, what it is ranked by.
        before: int32, how many items stand before it.
        most: float32, the highest score of any item; -inf where it was not asked for.
        total: logsumexp of all logits under full softmax, the words left out.
        original_total: the same of 'original' scores, where it was asked for.
        sum: float32, of all logits, where it was asked for.
    """

    log_prob: jax.Array
    score: jax.Array
    before: jax.Array
    most: jax.Array
    total: Total
    original_total: Total
    sum: jax.Array


def sweep(asked: Asked, how: How, items: jax.Array, tiles: Tiles, table: jax.Array | None) -> Found:
    """What the catalogue says of some labels.

    Args:
        asked: of these positions.
        how: items are scored.
        items: [I, W].
        tiles: of `tiles_of`.
        table: of `table_of`.
    """
    count, slots, full = len(tiles.ids), tiles.slots, how.first is None
    places = jnp.asarray(tiles.places)
    place = places[asked.label]
    home = jnp.where(asked.known, place // slots, -1)
    first = jnp.minimum(jnp.min(jnp.where(home < 0, count, home)), count - 1)
    # Tiles that are looked at before anything is counted.
    ahead: Any = jnp.maximum(jnp.max(home), first) - first
    if full and not tiles.whole and not how.original:
        ahead = count - 1
    exclude = None
    if asked.exclude is not None:
        exclude = excluded_places(asked.exclude, asked.label, places, count * slots)
    columns, length = tiles.ids.shape[1:]
    column = jnp.arange(columns)[:, None]
    query = jnp.concatenate([asked.query.T, jnp.ones((1, len(place)))])
    # Of each column, so that no sum is over two axes (see `by_column`).
    nobody = jnp.zeros((columns, len(place)), jnp.int32)

    def look(number: Any, state: tuple[Found, _Kept]) -> tuple[Found, _Kept]:
        found, kept = state
        tile = (first + number) % count
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        rows = rows_of(items, tiles, tile, table)
        raw = jnp.matmul(rows, query, precision="highest").reshape(*ids.shape[:2], -1)
        logits = logits_of(how, tiles, tile, raw)
        normalisers: _Kept = ()
        if not full:
            before_now = tuple(x[tile] for x in kept)
            normalisers = jax.lax.cond(
                number < count,
                lambda: normalisers_of(how, tiles, tile, logits, raw),
                lambda: before_now,
            )
            kept = tuple(x.at[tile].set(y) for x, y in zip(kept, normalisers, strict=True))
        served, original = scores_of(how, tiles, tile, logits, raw, normalisers)
        if full or how.sums or how.total:
            earlier = found
            found = jax.lax.cond(
                number < count, lambda: _added_up(how, served, original, earlier), lambda: earlier
            )
        here, slot = home == tile, jnp.where(home == tile, place - tile * slots, 0)
        log_prob = jnp.where(here, served.at(slot), found.log_prob)
        score = jnp.where(here, original.at(slot), found.score) if how.original else log_prob
        found = found._replace(log_prob=log_prob, score=score)
        scores = original if how.original else served
        if full and not how.original:
            offsets = found.total.offsets(how.others)
            scores = Scores(served.base, offsets)
            score = Scores(log_prob[None, None], offsets).all()[0, 0]

        def counted() -> tuple[jax.Array, jax.Array]:
            own_column = here & (column == slot // length)
            more = before(scores, score, asked.label, ids, asked.known, own_column)
            if exclude is not None:
                start = tile * slots
                fewer = excluded_before(scores, score, asked.label, ids, exclude, start)
                more = more.at[0].add(-fewer)
            most = found.most
            if how.most:
                most = jnp.maximum(most, by_column(jnp.max, scores.all()))
            return more, most

        more, most = jax.lax.cond(number >= ahead, counted, lambda: (nobody, found.most))
        return found._replace(before=found.before + more, most=most), kept

    zero = jnp.zeros_like(place, jnp.float32)
    nothing = Total(zero - jnp.inf, zero)
    most = jnp.full(nobody.shape if how.most else (1, len(place)), -jnp.inf)
    start = Found(zero, zero, nobody, most, nothing, nothing, zero)
    found, _ = jax.lax.fori_loop(0, ahead + count, look, (start, _kept(how, tiles, len(place))))
    found = found._replace(before=jnp.sum(found.before, axis=0), most=jnp.max(found.most, axis=0))
    if full:  # until here that of a label is its logit
        offsets = found.total.offsets(how.others)
        log_prob = Scores(found.log_prob[None, None], offsets).all()[0, 0]
        found = found._replace(log_prob=log_prob, score=found.score if how.original else log_prob)
    return found


def _kept(how: How, tiles: Tiles, asked: int) -> _Kept:
    """Where the normalisers of all tiles are left for a second look."""
    if how.first is None:
        return ()
    shape = (*tiles.clusters.shape, asked)
    both = how.added is not None and how.corrected and how.cap
    return tuple(jnp.zeros(shape) for _ in range(4 if both else 2))


def _added_up(how: How, served: Scores, original: Scores | None, found: Found) -> Found:
    """With a tile's items in the sums over all of them."""
    if how.first is None:
        found = found._replace(total=found.total.joined(served.base))
    if how.sums:
        found = found._replace(sum=found.sum + served.sum_of_base())
    if how.total and how.first is not None:
        assert original is not None
        found = found._replace(original_total=found.original_total.joined(original.all()))
    return found
