"""A pass over the catalogue, tile by tile, that adds up the ranks of some labels.

A tile's scores are computed, used and dropped while they are in the cache. To rank a label, its own
score must be known first, equal to the bit to the one computed with its tile. So the pass begins at
the first tile that holds a label, and starts counting once it has seen the last one that does; the
tiles before that are visited again at the end. If labels are sorted by their places, these are few.
Under a full softmax the normaliser is the same for all items, so labels are ranked by logits.

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
    """The labels to rank.

    Attributes:
        query: float32 [Q, W].
        label: int [Q], an item id.
        known: bool [Q], whether the label counts.
        exclude: int [Q, X], items that do not count as ranking before the label; ids outside [0, I)
            are ignored. None: nothing is excluded.
    """

    query: jax.Array
    label: jax.Array
    known: jax.Array
    exclude: jax.Array | None = None


class Found(NamedTuple):
    """Results of a pass; [Q] each.

    Attributes:
        log_prob: float32, log-probability of the label.
        score: float32, the score that the label is ranked by; under full softmax its logit.
        before: int32, how many items rank before the label.
        most: float32, the highest such score of any item; -inf if not asked for.
        total: under full softmax, logsumexp of all items' logits, without words.
        original_total: logsumexp of the 'original' scores, if asked for.
        sum: float32, sum of all logits, if asked for.
    """

    log_prob: jax.Array
    score: jax.Array
    before: jax.Array
    most: jax.Array
    total: Total
    original_total: Total
    sum: jax.Array


def sweep(asked: Asked, how: How, items: jax.Array, tiles: Tiles, table: jax.Array | None) -> Found:
    """Score and rank labels against the catalogue.

    Args:
        asked: the labels and their queries.
        how: how items are scored.
        items: [I, W].
        tiles: from `tiles_of`.
        table: from `table_of`.
    """
    count, slots, full = len(tiles.ids), tiles.slots, how.first is None
    places = jnp.asarray(tiles.places)
    place = places[asked.label]
    home = jnp.where(asked.known, place // slots, -1)
    first = jnp.minimum(jnp.min(jnp.where(home < 0, count, home)), count - 1)
    # Number of tiles that are visited before counting starts.
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
    if full:  # normalise: until here `log_prob` is the label's logit
        offsets = found.total.offsets(how.others)
        found = found._replace(log_prob=Scores(found.log_prob[None, None], offsets).all()[0, 0])
    return found


def _added_up(how: How, served: Scores, original: Scores | None, found: Found, when: Any) -> Found:
    """Add a tile's items to the sums over all items, if `when`."""
    if how.first is None:
        found = found._replace(total=found.total.joined(Scores(served.base), when))
    if how.sums:
        found = found._replace(sum=found.sum + served.sum_of_base(when))
    if how.total and how.first is not None:
        assert original is not None
        found = found._replace(original_total=found.original_total.joined(original, when))
    return found
