"""Sampled softmax: a full softmax in training whose sum over the items is estimated from some.

With `c_j` draws of item j among the negatives, and `E[c_j]` expected, the sum over all items

    exp(own) + sum over negatives j other than the label of exp(logit_j) / E[c_j]

is right on average for any draws, and so is its gradient: the label is there for sure, each other
item `E[c_j]` times. (The estimate of importance sampling, Bengio and Senecal 2008; log E[c_j] is
the log-Q of Yi et al. 2019, which they subtract from the label's logit too.) The loss is its
logarithm less the label's logit, so that more negatives bring it to that of the full softmax; with
each item once it is that.

Letters: P positions, S negatives, W width of query and table, V words, I items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.config.recommender import HeadConfig, Popularity, SampledSoftmaxConfig
from efficientids_flax.core.head.passed import HeadInputs

NONE = -1e30  # the logit of what is not there; finite, so that differences of two are numbers
NEGATIVES = "negatives"  # stream of random numbers


class Labels(NamedTuple):
    """What the label of each position is.

    Attributes:
        ids: int [P], in [0, I), or of words in [0, V).
        is_item, is_word: bool [P]; neither: there is no label, and no loss.
    """

    ids: jax.Array
    is_item: jax.Array
    is_word: jax.Array


class Negatives(NamedTuple):
    """Items that stand for all.

    Attributes:
        ids: int [S].
        log_expected: float32 [1, S] or [P, S], log E[c_j]; infinite where there is no negative.
    """

    ids: jax.Array
    log_expected: jax.Array


def sampled_losses(
    head: HeadConfig,
    config: SampledSoftmaxConfig,
    inputs: HeadInputs,
    labels: Labels,
    key: jax.Array | None,
) -> jax.Array:
    """Cross entropy of each label of a batch, float32 [...].

    Args:
        head: all options.
        config: which negatives.
        inputs: of the head; leading axes [...].
        labels: [...] each.
        key: see `negatives_of`.
    """
    words = inputs.word_logits
    flat = Labels(*(part.reshape(-1) for part in labels))
    if words is not None:
        words = words.reshape(-1, words.shape[-1])
    count = 0 if words is None else words.shape[-1]
    flat = flat._replace(is_word=flat.is_word & (flat.ids >= 0) & (flat.ids < count))
    return sampled_cross_entropy(
        inputs.query.reshape(-1, inputs.query.shape[-1]),
        inputs.items,
        flat,
        negatives_of(config, head.num_items, flat, key),
        head.soft_cap_logits,
        words,
    ).reshape(labels.ids.shape)


def negatives_of(
    config: SampledSoftmaxConfig, items: int, labels: Labels, key: jax.Array | None
) -> Negatives:
    """Negatives for all positions of a batch.

    Args:
        config: which ones.
        items: I; of more negatives under 'uniform', each is there once.
        labels: of the batch, which 'in_batch' takes.
        key: of the draw; None where nothing is drawn.

    Raises:
        ValueError: no key where one is needed.
    """
    if config.negatives == "in_batch":
        others = jnp.sum(labels.is_item) - labels.is_item[:, None]
        expected = jnp.log(jnp.maximum(others, 1).astype(jnp.float32))
        chances = log_chances(config.popularity, labels.ids, items)
        chances = jnp.where(labels.is_item, chances, jnp.inf)
        return Negatives(labels.ids, expected + chances)
    if config.negatives == "uniform" and config.count >= items:
        return Negatives(jnp.arange(items), jnp.zeros((1, items)))
    if key is None:
        raise ValueError(
            f"sampled_softmax: the negatives of a training step are drawn from the stream"
            f" '{NEGATIVES}' of random numbers, which is missing: apply(..., rngs="
            f"{{'{NEGATIVES}': key}})"
        )
    if config.negatives == "uniform":
        ids = jax.random.randint(key, (config.count,), 0, items)
    else:  # by the inverse of the sum of `log_chances`
        drawn = jax.random.uniform(key, (config.count,)) * jnp.log(items + 1.0)
        ids = jnp.clip(jnp.floor(jnp.exp(drawn)).astype(jnp.int32) - 1, 0, items - 1)
    expected = jnp.log(jnp.float32(config.count)) + log_chances(config.negatives, ids, items)
    return Negatives(ids, expected[None])


def log_chances(popularity: Popularity, ids: jax.Array, items: int) -> jax.Array:
    """Log-probability of each of these items, float32 like `ids`.

    Args:
        popularity: 'uniform', or 'log_uniform': log((i + 2) / (i + 1)) / log(I + 1), which is close
            to Zipf's law for ids in order of popularity, the most popular first.
        ids: int [...].
        items: I.
    """
    if popularity == "uniform":
        return jnp.full(ids.shape, -jnp.log(jnp.float32(items)))
    shares = jnp.log1p(1.0 / (ids.astype(jnp.float32) + 1.0))
    return jnp.log(shares) - jnp.log(jnp.log(jnp.float32(items) + 1.0))


def sampled_cross_entropy(
    query: jax.Array,
    items: jax.Array,
    labels: Labels,
    negatives: Negatives,
    cap: float | None = None,
    words: jax.Array | None = None,
) -> jax.Array:
    """Cross entropy of each label, the sum over the items estimated: float32 [P].

    Args:
        query: [P, W].
        items: [I, W].
        labels: of the positions.
        negatives: those that are the label of a position are left out there.
        cap: soft cap on the logits; None and 0 are none.
        words: [P, V], logits without a cap, all of which are in the sum; None: there are none.
    """
    index = jnp.where(labels.is_item, labels.ids, 0)
    own = soft_cap(jnp.sum(query * items[index], axis=-1).astype(jnp.float32), cap)
    others = soft_cap((query @ items[negatives.ids].T).astype(jnp.float32), cap)
    hit = (negatives.ids == labels.ids[:, None]) & labels.is_item[:, None]
    left_out = hit | jnp.isposinf(negatives.log_expected)
    others = jnp.where(left_out, NONE, others - jnp.where(left_out, 0.0, negatives.log_expected))
    parts = [jnp.where(labels.is_item, own, NONE)[:, None], others]
    if words is not None:
        logits = soft_cap(words.astype(jnp.float32), cap)
        word = jnp.where(labels.is_word, labels.ids, 0)[:, None]
        own = jnp.where(labels.is_item, own, jnp.take_along_axis(logits, word, axis=1)[:, 0])
        parts.append(logits)
    total = jax.nn.logsumexp(jnp.concatenate(parts, axis=1), axis=1)
    return jnp.where(labels.is_item | labels.is_word, total - own, 0.0)
