"""A pass over the catalogue, tile by tile: what each tile adds to the ranks of some labels.

A tile's scores are made, looked at and left while they are in the cache. The rank of a label needs
its own score first, to the bit as the tile makes it; so a pass begins at the first tile that has a
label, and counts once the last of them was seen: with labels in the order of their places few tiles
are seen twice. Under a full softmax what normalises is the same for all items, so labels are ranked
by logits.

Letters: Q positions, W width of query and tables, I items, K clusters, N columns of R slots, X
excluded items.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.measures.columns import highest
from efficientids_flax.core.head.measures.counts import before, excluded_before, excluded_places
from efficientids_flax.core.head.measures.scores import How, Scores, Total, scores_of
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


class Found(NamedTuple):
    """What a pass finds; [Q] each.

    Attributes:
        log_prob: float32, of the label.
        score: float32, what it is ranked by: under full softmax its logit.
        before: int32, how many items stand before it.
        most: float32, the highest such score of any item; -inf where it was not asked for.
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
    exclude = None
    if asked.exclude is not None:
        exclude = excluded_places(asked.exclude, asked.label, places, count * slots)
    query = jnp.concatenate([asked.query.T, jnp.ones((1, len(place)))])

    def look(number: Any, found: Found) -> Found:
        tile = (first + number) % count
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        rows = rows_of(items, tiles, tile, table)
        raw = jnp.einsum("ws,wq->sq", rows, query, precision="highest")
        raw = raw.reshape(*ids.shape[:2], -1)
        served, original = scores_of(how, tiles, tile, raw, number < ahead + count)
        found = _added_up(how, served, original, found, number < count)
        here, slot = home == tile, jnp.where(home == tile, place - tile * slots, 0)
        log_prob = jnp.where(here, served.at(slot), found.log_prob)
        score = jnp.where(here, original.at(slot), found.score) if how.original else log_prob
        found = found._replace(log_prob=log_prob, score=score)
        scores = original if how.original else served

        counts = number >= ahead
        more = before(scores, score, asked.label, ids, asked.known, here, counts)
        if exclude is not None:
            out = excluded_before(scores, score, asked.label, ids, exclude, tile * slots)
            more -= jnp.where(counts, out, 0)
        most = found.most
        if how.most:
            most = jnp.maximum(most, jnp.max(highest(scores.all()), axis=0))
        return found._replace(before=found.before + more, most=most)

    zero = jnp.zeros_like(place, jnp.float32)
    nothing = Total(zero - jnp.inf, zero)
    start = Found(zero, zero, zero.astype(jnp.int32), nothing.near, nothing, nothing, zero)
    found = jax.lax.fori_loop(0, ahead + count, look, start)
    if full:  # until here that of a label is its logit
        offsets = found.total.offsets(how.others)
        found = found._replace(log_prob=Scores(found.log_prob[None, None], offsets).all()[0, 0])
    return found


def _added_up(how: How, served: Scores, original: Scores | None, found: Found, when: Any) -> Found:
    """With a tile's items in the sums over all of them, if `when`."""
    if how.first is None:
        found = found._replace(total=found.total.joined(Scores(served.base), when))
    if how.sums:
        found = found._replace(sum=found.sum + served.sum_of_base(when))
    if how.total and how.first is not None:
        assert original is not None
        found = found._replace(original_total=found.original_total.joined(original, when))
    return found
