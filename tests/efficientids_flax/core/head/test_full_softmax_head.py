"""One softmax over words and items: labels out of range, and the z-loss of an evaluation."""

import jax.numpy as jnp
import numpy as np

from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    ITEMS,
    WORDS,
    capped,
    full,
    head,
    inputs,
    normalised,
)

WEIGHT, CAP = 0.01, 3.0


def logits_of(given, cap=None):
    """[words ++ items] of each position, float64."""
    items = np.asarray(given.query, float) @ np.asarray(given.items, float).T
    return capped(np.concatenate([np.asarray(given.word_logits, float), items], axis=-1), cap)


def test_a_label_out_of_range_is_nothing_and_no_other_item():
    given = inputs(positions=4)
    labels, is_item = jnp.array([ITEMS, -1, 2, 2]), jnp.array([1, 1, 1, 0])
    out = head(full_softmax=True).loss(full(given), labels, jnp.ones(4), is_item)
    rows = [normalised(row) for row in logits_of(given)]
    want = [0, 0, -rows[2][WORDS + 2], -rows[3][2]]
    np.testing.assert_allclose(out.per_example_xent, want, **CLOSE)
    np.testing.assert_allclose(out.loss, sum(want) / 4, **CLOSE)


def test_the_z_loss_of_an_evaluation_has_words_at_minus_the_cap():
    """And in training as they are."""
    given, labels, weights = inputs(positions=4), jnp.array([1, 2, 3, 4]), jnp.ones(4)
    made = head(full_softmax=True, soft_cap_logits=CAP, z_loss_weight=WEIGHT)
    for training in (True, False):
        logits = logits_of(given, CAP)
        if not training:
            logits[:, :WORDS] = -CAP
        want = WEIGHT * np.mean(np.log(np.exp(logits).sum(-1)) ** 2)
        out = made.loss(full(given), labels, weights, training=training)
        np.testing.assert_allclose(out.z_loss, want, rtol=1e-5)
