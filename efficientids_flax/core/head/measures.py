"""What an evaluation asks of some positions: entropy and rank of each label, in float32.

All is made of one product of the queries with the item table, which stands in the order of `slots`.
Scores are those that `search` and `retrieve` rank by, operation by operation.

Letters: W width of query and tables, V words, I items, K clusters, N columns of R slots, X excluded
items; `...` any leading axes.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.hierarchical import first_pass_logits
from efficientids_flax.core.head.passed import HeadInputs
from efficientids_flax.core.head.slots import Slots
from efficientids_flax.core.metrics import NEVER
from efficientids_flax.losses import smoothed_cross_entropy

Scoring = Literal["log_probs", "original"]
SCORINGS = get_args(Scoring)


class Measures(NamedTuple):
    """Of labels.

    Attributes:
        entropy: float32 [...], cross entropy without training's smoothing; 0 of a label that is out
            of range.
        rank: int32 [...], how many items stand before the label, an item; `NEVER` of a word, of an
            item that is out of range, or whose score is NaN or -inf.
        best: bool [...], whether the label is the best of words and items.
        squares: float32 [...], of the log-normaliser, for the z-loss; 0 where there is none.
    """

    entropy: jax.Array
    rank: jax.Array
    best: jax.Array
    squares: jax.Array


def measure(
    head: Head,
    inputs: HeadInputs,
    table: jax.Array,
    slots: Slots,
    labels: jax.Array,
    is_item: jax.Array,
    *,
    scoring: Scoring = "log_probs",
    exclude: jax.Array | None = None,
) -> Measures:
    """Measures of labels; scores of the whole catalogue are there at once, for these positions.

    Args:
        head: of the model.
        inputs: of these positions: query [..., W], word logits [..., V].
        table: of `table_of`.
        slots: of `slots_of`.
        labels: int [...].
        is_item: [...], 1 where the label is an item.
        scoring: see `inference.Filters`: 'log_probs' as served, words in the denominator;
            'original' as configured, words without a chance.
        exclude: int [..., X], items that do not stand before the label; others than [0, I) have no
            effect, the label itself is never left out.
    """
    config, cap = head.config, head.config.soft_cap_logits
    inputs = _float32(inputs)
    words, clusters = inputs.word_logits, inputs.clusters
    item = is_item > 0
    known = item & (labels >= 0) & (labels < config.num_items)
    label = jnp.where(known, labels, 0)
    place = jnp.asarray(slots.places)[label]
    there = jnp.asarray(slots.ids >= 0).reshape(-1)
    raw = jnp.einsum(
        "...w,iw->...i", inputs.query, table, precision="highest",
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    logits = soft_cap(raw, cap)
    highest, rest = _normalisers(logits, slots)
    word_scores = None if words is None else soft_cap(words, cap)
    if clusters is None:
        total = rest
        if word_scores is not None:
            lifted = jax.nn.logsumexp(word_scores, axis=-1, keepdims=True) - highest
            total = jnp.logaddexp(rest, lifted)
        served, word_log_probs = _Scores(logits, slots, (-highest, -total)), word_scores
        if word_scores is not None:
            word_log_probs = word_scores - (highest + total)
    else:
        with jax.default_matmul_precision("highest"):
            first = jax.nn.log_softmax(first_pass_logits(words, inputs.query, clusters, cap))
        split = first.shape[-1] - slots.num_clusters
        served = _Scores(logits, slots, (-highest, first[..., split:] - rest))
        word_log_probs = first[..., :split] if split else None
    scores, word_scores = served, word_log_probs
    if scoring == "original" or (config.z_loss_weight and clusters is not None):
        found = _original(head, inputs, raw, slots, highest + rest)
    else:
        found = None
    if scoring == "original":
        assert found is not None
        scores = _Scores(found, slots)
        if words is not None:
            word_scores = jnp.full(words.shape, -cap if cap else -jnp.inf, jnp.float32)
    own = scores.at(place[..., None])[..., 0]
    rank, most = _rank(scores, own, label), jnp.max(scores.columns(), axis=(-2, -1))
    best = known & (rank == 0) & jnp.isfinite(own)
    if word_scores is not None:
        word = jnp.max(word_scores, axis=-1)
        is_best = (jnp.argmax(word_scores, axis=-1) == labels) & (word >= most)
        is_best &= ~jnp.isnan(own)  # of some item: a query of NaN makes all of them so
        best = jnp.where(item, best & (own > word), is_best)
    if exclude is not None:
        rank = rank - _excluded(scores, own, label, exclude)
    rank = jnp.where(known & ~jnp.isnan(own) & (own > -jnp.inf), rank, NEVER)
    entropy = _entropy(head, inputs, served, word_log_probs, found, labels, item, place, scoring)
    squares = jnp.zeros(labels.shape, jnp.float32)
    if config.z_loss_weight:
        every = jnp.where(there, logits if found is None else found, -jnp.inf)
        normaliser = jax.nn.logsumexp(every, axis=-1)
        if words is not None and cap:
            lowest = -cap + jnp.log(float(words.shape[-1]))
            normaliser = jnp.logaddexp(normaliser, lowest)
        squares = jnp.square(normaliser)
    return Measures(entropy, rank, best, squares)


def _float32(inputs: HeadInputs) -> HeadInputs:
    rows, inputs = inputs.rows, inputs._replace(rows=None)
    made = jax.tree.map(lambda x: x.astype(jnp.float32), inputs)
    return made._replace(rows=rows)


def _normalisers(logits: jax.Array, slots: Slots) -> tuple[jax.Array, jax.Array]:
    """[..., R N] -> [..., K] twice: a cluster's highest logit, and what normalises the rest."""
    columns = _columns(logits, slots)
    highest = _segments(jax.ops.segment_max, jnp.max, jnp.max(columns, axis=-2), slots)
    shift = _of_columns(highest, slots)[..., None, :]
    shares = jnp.where(slots.ids >= 0, jnp.exp(columns - shift), 0.0)
    total = jnp.sum(jax.lax.optimization_barrier(shares), axis=-2)
    return highest, jnp.log(_segments(jax.ops.segment_sum, jnp.sum, total, slots))


def _columns(values: jax.Array, slots: Slots) -> jax.Array:
    """[..., R N] -> [..., R, N]."""
    return values.reshape(*values.shape[:-1], *slots.ids.shape)


def _of_columns(values: jax.Array, slots: Slots) -> jax.Array:
    """[..., K] -> [..., N], looked up once and not again for each slot.

    With an index for each row, so that the rows come to lie as those of the logits do: a plain
    `values[..., clusters]` has the columns outside, and each slot would be read from afar.
    """
    index = jnp.broadcast_to(slots.clusters, (*values.shape[:-1], len(slots.clusters)))
    return jax.lax.optimization_barrier(jnp.take_along_axis(values, index, axis=-1))


def _segments(by_cluster: Any, of_all: Any, values: jax.Array, slots: Slots) -> jax.Array:
    """[..., N] -> [..., K]."""
    # Else the two sums would become one, which no vector unit takes.
    values = jax.lax.optimization_barrier(values)
    if slots.num_clusters == 1:
        return of_all(values, axis=-1, keepdims=True)
    flat = values.reshape(-1, values.shape[-1]).T
    found = by_cluster(flat, slots.clusters, slots.num_clusters)
    return found.T.reshape(*values.shape[:-1], slots.num_clusters)


class _Scores(NamedTuple):
    """Scores of all items: logits, and in turn what is added to those of each cluster.

    They are not there as an array: what reads them adds as it goes, in the same order everywhere.

    Attributes:
        logits: [..., R N].
        slots: where each item stands.
        offsets: [..., K] each.
    """

    logits: jax.Array
    slots: Slots
    offsets: tuple[jax.Array, ...] = ()

    def columns(self) -> jax.Array:
        """[..., R, N]."""
        columns = _columns(self.logits, self.slots)
        for offset in self.offsets:
            columns = columns + _of_columns(offset, self.slots)[..., None, :]
        return columns

    def at(self, places: jax.Array) -> jax.Array:
        """Those of slots [..., X]."""
        found = jnp.take_along_axis(self.logits, places, axis=-1)
        clusters = jnp.asarray(self.slots.clusters)[places % self.slots.ids.shape[1]]
        for offset in self.offsets:
            found = found + jnp.take_along_axis(offset, clusters, axis=-1)
        return found

    def whole(self) -> jax.Array:
        """[..., R N]."""
        return self.columns().reshape(self.logits.shape)


def _original(
    head: Head, inputs: HeadInputs, raw: jax.Array, slots: Slots,
    normaliser: jax.Array,
) -> jax.Array:  # fmt: skip
    """`Head.scores` in the order of the slots."""
    cap, scores = head.config.soft_cap_logits, raw
    if inputs.clusters is not None:
        first = jnp.einsum("...w,kw->...k", inputs.query, inputs.clusters, precision="highest")
        scores = _Scores(raw, slots, (first,)).whole()
        if head.config.use_correction:
            if cap:  # that of the scores is not in their normaliser
                highest, rest = _normalisers(raw, slots)
                normaliser = highest + rest
            scores = _Scores(scores, slots, (-normaliser,)).whole()
    return soft_cap(scores, cap)


def _rank(scores: _Scores, own: jax.Array, label: jax.Array) -> jax.Array:
    """How many items score more, or as much and have a lower id."""
    ids = jnp.asarray(scores.slots.ids)
    # In the shape of the columns from the start: what is turned around is not added up on the way.
    columns, own, label = scores.columns(), own[..., None, None], label[..., None, None]
    before = ((columns > own) | ((columns == own) & (ids < label))) & (ids >= 0)
    counts = jnp.sum(before, axis=-2, dtype=jnp.int32)
    return jnp.sum(jax.lax.optimization_barrier(counts), axis=-1)


def _excluded(scores: _Scores, own: jax.Array, label: jax.Array, exclude: jax.Array) -> jax.Array:
    """How many of the excluded items, each once, `_rank` has counted before the label."""
    known = jnp.asarray(scores.slots.places)
    ids = jnp.sort(exclude, axis=-1)
    again = jnp.concatenate([jnp.zeros_like(ids[..., :1], bool), ids[..., 1:] == ids[..., :-1]], -1)
    counts = ~again & (ids >= 0) & (ids < known.shape[0]) & (ids != label[..., None])
    theirs, own = scores.at(known[jnp.clip(ids, 0, known.shape[0] - 1)]), own[..., None]
    before = (theirs > own) | ((theirs == own) & (ids < label[..., None]))
    return jnp.sum(counts & before, axis=-1, dtype=jnp.int32)


def _entropy(
    head: Head, inputs: HeadInputs, served: _Scores, words: jax.Array | None,
    original: jax.Array | None, labels: jax.Array, item: jax.Array, place: jax.Array,
    scoring: Scoring,
) -> jax.Array:  # fmt: skip
    """Cross entropy of each label, float32 [...]."""
    config, places = head.config, served.slots.places
    inside = (labels >= 0) & (labels < config.num_items)
    smooth = config.label_smoothing_in_eval
    if smooth and inputs.clusters is not None:
        return head.cross_entropy(inputs, labels, item, training=False)
    every_item = None
    if smooth or (inputs.clusters is None and scoring == "original" and words is not None):
        every_item, place = served.whole()[..., places], jnp.where(inside, labels, 0)
        if scoring == "original" and words is not None:  # which leaves the words no chance
            assert original is not None
            cap = config.soft_cap_logits
            lowest = jnp.full(words.shape, -cap if cap else -jnp.inf, jnp.float32)
            every = jnp.concatenate([lowest, original[..., places]], axis=-1)
            every = jax.nn.log_softmax(every)
            words, every_item = every[..., : words.shape[-1]], every[..., words.shape[-1] :]
        own = jnp.take_along_axis(every_item, place[..., None], axis=-1)[..., 0]
    else:
        own = served.at(place[..., None])[..., 0]
    if words is None:
        found = jnp.where(item & inside, -own, 0.0)
    else:
        known = (labels >= 0) & (labels < words.shape[-1])
        index = jnp.where(known & ~item, labels, 0)[..., None]
        word = jnp.take_along_axis(words, index, axis=-1)[..., 0]
        found = jnp.where(item, jnp.where(inside, -own, 0.0), jnp.where(known, -word, 0.0))
    if every_item is None or not smooth or not config.label_smoothing:
        return found
    vocab = 0 if words is None else words.shape[-1]
    every = every_item if words is None else jnp.concatenate([words, every_item], axis=-1)
    classes = jnp.where(item, jnp.where(inside, vocab + labels, -1), labels)
    return smoothed_cross_entropy(every, classes, config.label_smoothing)
