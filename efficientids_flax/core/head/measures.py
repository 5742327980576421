"""What an evaluation asks of some positions: entropy and rank of each label, in float32.

All is made of one product of the queries with the item table. In a hierarchical softmax the table
stands in the order of the clusters, each filled up to whole rows of R slots, so that sums over a
cluster are sums over neighbours. Scores are those that `retrieve` ranks by, operation by operation.

Letters: W width of query and tables, V words, I items, K clusters, N rows of R slots (of a full
softmax one row of I), X excluded items; `...` any leading axes.
"""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.computation import Head, HeadInputs
from efficientids_flax.core.head.hierarchical import first_pass_logits
from efficientids_flax.core.metrics import NEVER
from efficientids_flax.losses import smoothed_cross_entropy

Scoring = Literal["log_probs", "original"]
SCORINGS = get_args(Scoring)
LONGEST_ROW = 32


class Slots(NamedTuple):
    """Where each item stands; of a full softmax in its own order.

    Attributes:
        ids: int32 [N, R], the item of each slot, -1 where there is none.
        clusters: int32 [N], of each row.
        places: int32 [I], the slot of each item among N x R.
        num_clusters: K.
    """

    ids: np.ndarray
    clusters: np.ndarray
    places: np.ndarray
    num_clusters: int


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


def slots_of(clustering: ClusteringInfo | None, items: int) -> Slots:
    """Where the items of a head stand.

    Args:
        clustering: None under full softmax.
        items: I.
    """
    own = np.arange(items, dtype=np.int32)
    if clustering is None:
        return Slots(own[None], np.zeros(1, np.int32), own, 1)
    cluster_of = np.asarray(clustering.cluster_of)
    sizes = np.bincount(cluster_of, minlength=clustering.num_clusters)
    # Rows as long as keeps what is filled up at about an eighth.
    mean = max(items // max(len(sizes), 1), 1)
    length = min(LONGEST_ROW, 1 << max(mean // 4, 1).bit_length() - 1)
    rows = -(-sizes // length)
    first = np.concatenate([[0], np.cumsum(rows)])
    order = np.argsort(cluster_of, kind="stable")
    before = np.concatenate([[0], np.cumsum(sizes)])[cluster_of[order]]
    places = np.empty(items, np.int32)
    places[order] = first[cluster_of[order]] * length + np.arange(items) - before
    ids = np.full(first[-1] * length, -1, np.int32)
    ids[places] = own
    clusters = np.repeat(np.arange(len(sizes), dtype=np.int32), rows)
    return Slots(ids.reshape(-1, length), clusters, places, len(sizes))


def table_of(inputs: HeadInputs, slots: Slots) -> jax.Array:
    """The item table in the order of the slots, float32 [N R, W]."""
    items = inputs.items.astype(jnp.float32)
    return (
        items
        if slots.num_clusters == 1 and slots.ids.shape[0] == 1
        else (items[np.maximum(slots.ids, 0).reshape(-1)])
    )


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
    logits = jnp.where(there, soft_cap(raw, cap), -jnp.inf)
    highest, rest = _normalisers(logits, slots)
    word_scores = None if words is None else soft_cap(words, cap)
    if clusters is None:
        total = rest
        if word_scores is not None:
            lifted = jax.nn.logsumexp(word_scores, axis=-1, keepdims=True) - highest
            total = jnp.logaddexp(rest, lifted)
        served, word_log_probs = _spread(logits, slots, -highest, -total), word_scores
        if word_scores is not None:
            word_log_probs = word_scores - (highest + total)
    else:
        with jax.default_matmul_precision("highest"):
            first = jax.nn.log_softmax(first_pass_logits(words, inputs.query, clusters, cap))
        split = first.shape[-1] - slots.num_clusters
        served = _spread(logits, slots, -highest, first[..., split:] - rest)
        word_log_probs = first[..., :split] if split else None
    scores, word_scores = served, word_log_probs
    if scoring == "original" or (config.z_loss_weight and clusters is not None):
        found = _original(head, inputs, raw, there, slots, highest + rest)
    else:
        found = None
    if scoring == "original":
        assert found is not None
        scores = found
        if words is not None:
            word_scores = jnp.full(words.shape, -cap if cap else -jnp.inf, jnp.float32)
    own = jnp.take_along_axis(scores, place[..., None], axis=-1)
    rank, most = _rank(scores, own, label, slots), jnp.max(scores, axis=-1)
    own = own[..., 0]
    best = known & (rank == 0) & jnp.isfinite(own)
    if word_scores is not None:
        word = jnp.max(word_scores, axis=-1)
        is_best = (jnp.argmax(word_scores, axis=-1) == labels) & (word >= most)
        best = jnp.where(item, best & (own > word), is_best)
    if exclude is not None:
        rank = rank - _excluded(scores, own, label, slots, exclude)
    rank = jnp.where(known & ~jnp.isnan(own) & (own > -jnp.inf), rank, NEVER)
    entropy = _entropy(head, inputs, served, word_log_probs, found, labels, item, place, slots,
                       scoring)  # fmt: skip
    squares = jnp.zeros(labels.shape, jnp.float32)
    if config.z_loss_weight:
        every = logits if found is None else found
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
    """[..., N R] -> [..., K] twice: a cluster's highest logit, and what normalises the rest."""
    rows = logits.reshape(*logits.shape[:-1], *slots.ids.shape)
    highest = jnp.max(rows, axis=-1)  # [..., N]
    if slots.num_clusters > 1 or slots.ids.shape[0] > 1:
        highest = _segments(jax.ops.segment_max, highest, slots)
    of_rows = highest[..., slots.clusters]
    shift = jnp.where(jnp.isneginf(of_rows), 0.0, of_rows)
    total = jnp.sum(jnp.exp(rows - shift[..., None]), axis=-1)
    if slots.num_clusters > 1 or slots.ids.shape[0] > 1:
        total = _segments(jax.ops.segment_sum, total, slots)
    return highest, jnp.log(total)


def _segments(reduce: Any, values: jax.Array, slots: Slots) -> jax.Array:
    """[..., N] -> [..., K]."""
    leading = values.shape[:-1]
    flat = values.reshape(-1, values.shape[-1]).T
    return reduce(flat, slots.clusters, slots.num_clusters).T.reshape(*leading, slots.num_clusters)


def _spread(logits: jax.Array, slots: Slots, *offsets: jax.Array) -> jax.Array:
    """Logits [..., N R] and in turn what is added to those of each cluster, [..., K]."""
    rows = logits.reshape(*logits.shape[:-1], *slots.ids.shape)
    for offset in offsets:
        rows = rows + offset[..., slots.clusters][..., None]
    return rows.reshape(logits.shape)


def _original(
    head: Head, inputs: HeadInputs, raw: jax.Array, there: jax.Array, slots: Slots,
    normaliser: jax.Array,
) -> jax.Array:  # fmt: skip
    """`Head.scores` in the order of the slots, -inf where there is no item."""
    cap, scores = head.config.soft_cap_logits, raw
    if inputs.clusters is not None:
        first = jnp.einsum("...w,kw->...k", inputs.query, inputs.clusters, precision="highest")
        scores = _spread(raw, slots, first)
        if head.config.use_correction:
            if cap:  # that of the scores is not in their normaliser
                highest, rest = _normalisers(jnp.where(there, raw, -jnp.inf), slots)
                normaliser = highest + rest
            scores = _spread(scores, slots, -normaliser)
    return jnp.where(there, soft_cap(scores, cap), -jnp.inf)


def _rank(scores: jax.Array, own: jax.Array, label: jax.Array, slots: Slots) -> jax.Array:
    """How many items score more, or as much and have a lower id."""
    lower = jnp.asarray(slots.ids).reshape(-1) < label[..., None]
    before = (scores > own) | ((scores == own) & lower)
    return jnp.sum(before, axis=-1, dtype=jnp.int32)


def _excluded(
    scores: jax.Array, own: jax.Array, label: jax.Array, slots: Slots, exclude: jax.Array
) -> jax.Array:
    """How many of the excluded items, each once, `_rank` has counted before the label."""
    ids = jnp.sort(exclude, axis=-1)
    again = jnp.concatenate([jnp.zeros_like(ids[..., :1], bool), ids[..., 1:] == ids[..., :-1]], -1)
    counts = ~again & (ids >= 0) & (ids < slots.places.shape[0]) & (ids != label[..., None])
    places = jnp.asarray(slots.places)[jnp.clip(ids, 0, slots.places.shape[0] - 1)]
    theirs, own = jnp.take_along_axis(scores, places, axis=-1), own[..., None]
    before = (theirs > own) | ((theirs == own) & (ids < label[..., None]))
    return jnp.sum(counts & before, axis=-1, dtype=jnp.int32)


def _entropy(
    head: Head, inputs: HeadInputs, served: jax.Array, words: jax.Array | None,
    original: jax.Array | None, labels: jax.Array, item: jax.Array, place: jax.Array,
    slots: Slots, scoring: Scoring,
) -> jax.Array:  # fmt: skip
    """Cross entropy of each label, float32 [...]."""
    config = head.config
    inside = (labels >= 0) & (labels < config.num_items)
    if inputs.clusters is None and scoring == "original" and words is not None:
        assert original is not None  # which leaves the words no chance
        cap = config.soft_cap_logits
        words = jnp.full(words.shape, -cap if cap else -jnp.inf, jnp.float32)
        every = jax.nn.log_softmax(jnp.concatenate([words, original], axis=-1))
        words, served = every[..., : words.shape[-1]], every[..., words.shape[-1] :]
    elif config.label_smoothing_in_eval and inputs.clusters is not None:
        return head.cross_entropy(inputs, labels, item, training=False)
    own = jnp.take_along_axis(served, place[..., None], axis=-1)[..., 0]
    if words is None:
        found = jnp.where(item & inside, -own, 0.0)
    else:
        known = (labels >= 0) & (labels < words.shape[-1])
        index = jnp.where(known & ~item, labels, 0)[..., None]
        word = jnp.take_along_axis(words, index, axis=-1)[..., 0]
        found = jnp.where(item, jnp.where(inside, -own, 0.0), jnp.where(known, -word, 0.0))
    if not config.label_smoothing_in_eval or not config.label_smoothing:
        return found
    vocab = 0 if words is None else words.shape[-1]
    every = served if words is None else jnp.concatenate([words, served], axis=-1)
    classes = jnp.where(item, jnp.where(inside, vocab + labels, -1), labels)
    return smoothed_cross_entropy(every, classes, config.label_smoothing)
