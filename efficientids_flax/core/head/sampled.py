"""Sampled softmax: in training, estimate the denominator of a full softmax from a few negatives.

Let `E[c_j]` be the expected number of times that item j is among the negatives. The estimate of the
sum of exp(logit) over all items is

    exp(own) + sum over negatives j other than the label of exp(logit_j) / E[c_j]

It is unbiased for any sampling distribution, and so is its gradient: the label is always included,
and any other item `E[c_j]` times on average. (Importance sampling, Bengio and Senecal 2008;
log E[c_j] is the log-Q correction of Yi et al. 2019, who subtract it from the label's logit too.)
The loss is the logarithm of the estimate minus the label's logit. With more negatives it approaches
the loss of the full softmax; with every item once it equals it.

Letters: P positions, S negatives, W width of query and table, V words, I items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.config.recommender import HeadConfig, Popularity, SampledSoftmaxConfig
from efficientids_flax.core.head.passed import HeadInputs

NONE = -1e30  # logit of absent classes; finite, so that the difference of two is not NaN
NEGATIVES = "negatives"  # name of the rng stream


class Labels(NamedTuple):
    """The label of each position.

    Attributes:
        ids: int [P], item ids in [0, I), or word ids in [0, V).
        is_item, is_word: bool [P]; if both are False, the position has no label and no loss.
    """

    ids: jax.Array
    is_item: jax.Array
    is_word: jax.Array


class Negatives(NamedTuple):
    """The sampled items.

    Attributes:
        ids: int [S].
        log_expected: float32 [1, S] or [P, S], log E[c_j]; infinite where an entry is unused.
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
        config: how negatives are chosen.
        inputs: the head's inputs, with leading axes [...].
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
        config: how negatives are chosen.
        items: I. If 'uniform' asks for at least I negatives, every item is taken once.
        labels: labels of the batch; 'in_batch' uses these as negatives.
        key: random key; None if nothing is drawn.

    Raises:
        ValueError: a key is needed and missing.
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
    else:  # inverse of the cumulative distribution of `log_chances`
        drawn = jax.random.uniform(key, (config.count,)) * jnp.log(items + 1.0)
        ids = jnp.clip(jnp.floor(jnp.exp(drawn)).astype(jnp.int32) - 1, 0, items - 1)
    expected = jnp.log(jnp.float32(config.count)) + log_chances(config.negatives, ids, items)
    return Negatives(ids, expected[None])


def log_chances(popularity: Popularity, ids: jax.Array, items: int) -> jax.Array:
    """Sampling log-probability of each item, float32 with the shape of `ids`.

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
    """Cross entropy of each label with the estimated sum over the items: float32 [P].

    Args:
        query: [P, W].
        items: [I, W].
        labels: label of each position.
        negatives: a negative that equals a position's label is left out at that position.
        cap: soft cap on the logits; None or 0: no cap.
        words: [P, V], logits before the soft cap; all of them are in the sum. None: no words.
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
