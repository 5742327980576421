"""Entropy and rank of each label in an evaluation, in float32.

One pass of the queries over the item table gives both. Scores equal those that `search` and
`retrieve` rank by, up to rounding.

Letters: Q positions, W width of query and tables, V words, I items, K clusters, X excluded items.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.hierarchical import first_pass_logits
from efficientids_flax.core.head.measures.scores import How
from efficientids_flax.core.head.measures.sweep import Asked, Found, sweep
from efficientids_flax.core.head.measures.tiles import Tiles
from efficientids_flax.core.head.passed import HeadInputs
from efficientids_flax.core.metrics import NEVER

Scoring = Literal["log_probs", "original"]
SCORINGS = get_args(Scoring)


class Measures(NamedTuple):
    """Measures of labels.

    Attributes:
        entropy: float32 [Q], cross entropy, smoothed only with `label_smoothing_in_eval`; 0 for
            labels out of range.
        rank: int32 [Q], how many items rank before the label; `NEVER` if the label is a word, out
            of range, or scores NaN or -inf.
        best: bool [Q], whether the label is the best of words and items.
        squares: float32 [Q], squared logsumexp for the z-loss; 0 without a z-loss.
    """

    entropy: jax.Array
    rank: jax.Array
    best: jax.Array
    squares: jax.Array


def measure(
    head: Head,
    inputs: HeadInputs,
    tiles: Tiles,
    labels: jax.Array,
    is_item: jax.Array,
    *,
    table: jax.Array | None = None,
    scoring: Scoring = "log_probs",
    exclude: jax.Array | None = None,
) -> Measures:
    """Measure labels, holding the scores of one tile at a time.

    Args:
        head: the model's head.
        inputs: the head's inputs at these positions: query [Q, W], word logits [Q, V].
        tiles: from `tiles_of`. If labels are sorted by their places, few tiles are visited twice.
        labels: int [Q].
        is_item: [Q], 1 where the label is an item.
        table: from `table_of`.
        scoring: see `inference.Filters`. 'log_probs': as served, with words in the denominator;
            'original': as configured, with words scored -inf (or -cap).
        exclude: int [Q, X], items that do not count as ranking before the label. Ids outside [0, I)
            have no effect, and the label itself is never excluded.
    """
    config, cap = head.config, head.config.soft_cap_logits
    inputs = _float32(inputs)
    item = is_item > 0
    known = item & (labels >= 0) & (labels < config.num_items)
    original, full = scoring == "original", inputs.clusters is None
    how = _how(head, inputs, tiles, scoring)
    asked = Asked(inputs.query, jnp.where(known, labels, 0), known, exclude)
    found = sweep(asked, how.sweep, inputs.items, tiles, table)
    own, words = found.score, how.words
    scored = own if original else found.log_prob
    best = known & (found.before == 0) & jnp.isfinite(scored)
    if words is not None:
        scores = words
        if original:
            scores = _no_chance(words, cap)
        word = jnp.max(scores, axis=-1)
        is_best = (jnp.argmax(scores, axis=-1) == labels) & (word >= found.most)
        best = jnp.where(item, best & (own > word), is_best)
    if words is not None and full:  # normalise: under full softmax they are logits until here
        words = words - found.total.value(how.sweep.others)[:, None]
    rank = jnp.where(known & ~jnp.isnan(scored) & (scored > -jnp.inf), found.before, NEVER)
    entropy = _entropy(head, inputs, how, found, words, labels, item)
    return Measures(entropy, rank, best, _squares(head, inputs, found))


class _How(NamedTuple):
    """How labels are measured.

    Attributes:
        sweep: how items are scored.
        words: float32 [Q, V], log-probabilities of the first softmax; under full softmax their
            logits (-inf or -cap with 'original' scoring). None without words.
    """

    sweep: How
    words: jax.Array | None


def _how(head: Head, inputs: HeadInputs, tiles: Tiles, scoring: Scoring) -> _How:
    config, cap = head.config, head.config.soft_cap_logits
    original, words, clusters = scoring == "original", inputs.word_logits, inputs.clusters
    has_words, regular = words is not None, bool(config.z_loss_weight)
    if clusters is None:
        others = None
        if words is not None:  # the original's evaluation scores words -inf or -cap
            words = _no_chance(words, cap) if original else soft_cap(words, cap)
            others = jax.nn.logsumexp(words, axis=-1)[None]
        smooth = bool(config.label_smoothing_in_eval and config.label_smoothing)
        return _How(How(cap, None, others, original=original, most=has_words, sums=smooth), words)
    with jax.default_matmul_precision("highest"):
        first = jax.nn.log_softmax(first_pass_logits(words, inputs.query, clusters, cap))
    added, split = None, first.shape[-1] - tiles.num_clusters
    if original or regular:
        added = jnp.einsum("qw,kw->kq", inputs.query, clusters, precision="highest")
    sweep = How(
        cap, first[:, split:].T, None, added, config.use_correction, original, has_words, regular
    )
    return _How(sweep, first[:, :split] if split else None)


def _float32(inputs: HeadInputs) -> HeadInputs:
    """The inputs in float32, except the item table, which is converted tile by tile."""
    kept = {"items": inputs.items, "rows": inputs.rows}
    made = jax.tree.map(lambda x: x.astype(jnp.float32), inputs._replace(items=None, rows=None))  # pyright: ignore[reportArgumentType]
    return made._replace(**kept)


def _no_chance(words: jax.Array, cap: float | None) -> jax.Array:
    """Scores of words in the original's evaluation: -inf, or -cap."""
    return jnp.full(words.shape, -cap if cap else -jnp.inf, jnp.float32)


def _entropy(
    head: Head, inputs: HeadInputs, how: _How, found: Found, words: jax.Array | None,
    labels: jax.Array, item: jax.Array,
) -> jax.Array:  # fmt: skip
    """Cross entropy of each label, float32 [Q]; `words` are the words' log-probabilities."""
    config = head.config
    if config.label_smoothing_in_eval and inputs.clusters is not None:
        inputs = inputs._replace(items=inputs.items.astype(jnp.float32))
        return head.cross_entropy(inputs, labels, item, training=False)
    inside = item & (labels >= 0) & (labels < config.num_items)
    own = found.log_prob
    if words is not None:
        known = ~item & (labels >= 0) & (labels < words.shape[-1])
        word = jnp.take_along_axis(words, jnp.where(known, labels, 0)[:, None], axis=-1)[:, 0]
        own, inside = jnp.where(item, own, word), inside | known
    if how.sweep.sums:
        count = config.num_items
        total = found.sum - count * found.total.value(how.sweep.others)
        if words is not None:
            total, count = total + jnp.sum(words, axis=-1), count + words.shape[-1]
        smoothing = config.label_smoothing / max(count - 1, 1)
        if count > 1:
            own = (1.0 - config.label_smoothing) * own + smoothing * (total - own)
    return jnp.where(inside, -own, 0.0)


def _squares(head: Head, inputs: HeadInputs, found: Found) -> jax.Array:
    """Squared logsumexp of the original's evaluation scores, [Q]; zeros without a z-loss."""
    config = head.config
    if not config.z_loss_weight:
        return jnp.zeros_like(found.score)
    total = found.total if inputs.clusters is None else found.original_total
    normaliser = total.value()
    if inputs.word_logits is not None and config.soft_cap_logits:
        lowest = -config.soft_cap_logits + jnp.log(float(inputs.word_logits.shape[-1]))
        normaliser = jnp.logaddexp(normaliser, lowest)
    return jnp.square(normaliser)
