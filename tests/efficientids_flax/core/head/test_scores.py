"""The head's scores and probabilities, against the formulas in float64.

scores h (e + c), words -inf, cap last (words: -cap)      `test_scores`
correction subtracts the cluster's logsumexp, stable      `test_scores`, `test_corrected_*`
correction does not touch the loss                        `test_correction_is_of_the_scores_alone`
full softmax: no cluster vectors; words are real in       `test_full_softmax_*`
  training, -inf in evaluation
probabilities sum to one, the loss is one of them         `test_one_log_probability_*`
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    CLUSTER_OF,
    ITEMS,
    WORDS,
    capped,
    full,
    head,
    inputs,
    normalised,
)

LABELS = np.array([3, 6, 10, 0, 4, 12, 7, 8, 1])
IS_ITEM = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1])


def brute_scores(given):
    """h (e_i + c_cluster(i)), and the log-sum-exp of each item's cluster, float64."""
    query, items = np.asarray(given.query, float), np.asarray(given.items, float)
    own = query @ items.T
    sums = np.stack(
        [np.log(np.exp(own[:, cluster == CLUSTER_OF]).sum(-1)) for cluster in CLUSTER_OF], axis=-1
    )
    return own + query @ np.asarray(given.clusters, float)[CLUSTER_OF].T, sums


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("correction", [False, True])
def test_scores(cap, correction):
    given = inputs(scale=1.5)
    made = head(soft_cap_logits=cap, use_correction=correction)
    scores, sums = brute_scores(given)
    want = capped(scores - sums if correction else scores, cap)
    np.testing.assert_allclose(made.scores(given), want, rtol=2e-5, atol=2e-5)
    logits = made.evaluation_logits(given)
    assert logits.shape == (9, WORDS + ITEMS)
    assert np.all(logits[:, :WORDS] == (-np.inf if cap is None else -cap))
    np.testing.assert_array_equal(logits[:, WORDS:], made.scores(given))


def test_correction_can_be_asked_for():
    given = inputs()
    np.testing.assert_array_equal(
        head().scores(given, correction=True), head(use_correction=True).scores(given)
    )


def test_correction_is_of_the_scores_alone():
    given, labels = inputs(), jnp.asarray(LABELS)
    plain, corrected = (
        head(use_correction=on).cross_entropy(given, labels) for on in (False, True)
    )
    np.testing.assert_array_equal(plain, corrected)


def test_corrected_scores_are_log_probabilities():
    given = inputs()
    difference = head().scores(given, correction=True) - head().log_probs(given)[:, WORDS:]
    np.testing.assert_allclose(
        difference, np.broadcast_to(difference[:, :1], (9, ITEMS)), atol=2e-5
    )
    plain = head().scores(given) - head().log_probs(given)[:, WORDS:]
    assert np.ptp(plain, axis=1).min() > 0.1


def test_corrected_scores_do_not_overflow():
    """exp(1e4) does; the original then loses the whole cluster."""
    given = inputs(scale=100.0)
    assert np.isfinite(head(use_correction=True).scores(given)).all()


@pytest.mark.parametrize("cap", [None, 3.0])
def test_full_softmax_is_one_softmax_over_words_and_items(cap):
    given = full(inputs())
    made = head(full_softmax=True, soft_cap_logits=cap, label_smoothing=0.1)
    got = made.cross_entropy(given, jnp.asarray(LABELS), jnp.asarray(IS_ITEM))
    logits = np.concatenate([given.word_logits, given.query @ given.items.T], axis=1)
    for place, (label, item) in enumerate(zip(LABELS, IS_ITEM, strict=True)):
        log_probs = normalised(capped(logits[place].astype(float), cap))
        target = np.full(WORDS + ITEMS, 0.1 / (WORDS + ITEMS - 1))
        target[WORDS + label if item else label] = 0.9
        np.testing.assert_allclose(got[place], -(target * log_probs).sum(), **CLOSE)


def test_full_softmax_has_no_cluster_vectors():
    given = full(inputs())
    np.testing.assert_allclose(
        head(full_softmax=True).scores(given), given.query @ given.items.T, **CLOSE
    )


def test_full_softmax_takes_the_words_out_of_its_evaluation():
    given = full(inputs())
    labels, items = jnp.asarray(LABELS), jnp.asarray(IS_ITEM)
    made = head(full_softmax=True)
    got = made.cross_entropy(given, labels, items, training=False)
    own = np.asarray(given.query @ given.items.T, float)
    want = [-normalised(own[n])[label] for n, label in enumerate(LABELS)]
    np.testing.assert_allclose(got[IS_ITEM == 1], np.array(want)[IS_ITEM == 1], **CLOSE)
    assert np.all(np.isposinf(got[IS_ITEM == 0]))
    out = made.loss(given, labels, jnp.asarray(IS_ITEM), items, training=False)
    assert np.isfinite(out.loss)  # words without weight


def test_full_softmax_evaluation_with_a_cap_has_words_at_minus_cap():
    given = full(inputs())
    labels, items = jnp.asarray(LABELS), jnp.asarray(IS_ITEM)
    got = head(full_softmax=True, soft_cap_logits=3.0).cross_entropy(given, labels, items, False)
    own = capped(np.asarray(given.query @ given.items.T, float), 3.0)
    logits = np.concatenate([np.full((9, WORDS), -3.0), own], axis=1)
    classes = np.where(IS_ITEM, WORDS + LABELS, LABELS)
    want = [-normalised(logits[n])[label] for n, label in enumerate(classes)]
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize("words", [0, WORDS])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("is_full", [False, True])
def test_one_log_probability_serves_loss_and_serving(words, cap, is_full):
    given = inputs(words=words, scale=2.0)
    given = full(given) if is_full else given
    made = head(full_softmax=is_full, soft_cap_logits=cap)
    log_probs = made.log_probs(given)
    assert log_probs.shape == (9, words + ITEMS)
    np.testing.assert_allclose(np.exp(np.asarray(log_probs, float)).sum(-1), 1.0, rtol=1e-5)
    is_item = jnp.asarray(IS_ITEM) if words else jnp.ones(9)
    classes = np.where(is_item, words + LABELS, LABELS)
    served = np.take_along_axis(np.asarray(log_probs), classes[:, None], -1)[:, 0]
    entropy = made.cross_entropy(given, jnp.asarray(LABELS), is_item)
    np.testing.assert_allclose(-entropy, served, **CLOSE)
