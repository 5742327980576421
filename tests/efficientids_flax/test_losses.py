"""The loss of a language model, against its definition written out in NumPy."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from efficientids_flax.config import BackboneConfig
from efficientids_flax.losses import (
    language_model_loss,
    language_model_metrics,
    smoothed_cross_entropy,
    z_loss,
)

LLAMA = BackboneConfig(
    vocab_size=31,
    num_layers=1,
    model_dims=8,
    hidden_dims=8,
    num_heads=1,
    num_kv_heads=1,
    head_dim=8,
)

# Its checks of values see none here.
loss_of = jax.jit(language_model_loss, static_argnums=0, static_argnames="train")

BATCH = {
    "labels": np.array([[1, 4, 0], [2, 2, 30]], np.int32),
    "weights": np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 2.0]], np.float32),
}


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (2, 3, 31)).astype(np.float32)


def entropies(logits, labels, smoothing):
    """By the sum over classes, in float64."""
    logits = logits.astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    count = logits.shape[-1]
    target = np.full(logits.shape, smoothing / (count - 1))
    np.put_along_axis(target, labels[..., None], 1 - smoothing, -1)
    return -(target * log_probs).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_everything_that_praxis_reports(logits, smoothing):
    config = replace(LLAMA, label_smoothing=smoothing)
    found = loss_of(config, logits, BATCH, {"moe": (0.25, np.ones(2))})
    wanted = entropies(logits, BATCH["labels"], smoothing)
    weights = BATCH["weights"]
    average = (wanted * weights).sum() / (weights.sum() + 1e-6)
    close = {"rtol": 1e-5, "atol": 1e-6}  # float32 sums of 31 terms
    np.testing.assert_allclose(found.per_example_xent, wanted, **close)
    np.testing.assert_allclose(found.per_token_xent, wanted * weights, **close)
    np.testing.assert_allclose(found.per_sequence_xent, (wanted * weights).sum(-1), **close)
    np.testing.assert_allclose(found.total_xent, (wanted * weights).sum(), **close)
    np.testing.assert_allclose(found.avg_xent, average, **close)
    np.testing.assert_allclose(found.total_loss, average + 2.25, **close)
    assert (found.total_weight, found.aux_loss, found.aux_loss_weight) == (5.5, 2.25, 3.0)
    hits = logits.argmax(-1) == BATCH["labels"]
    np.testing.assert_allclose(found.accuracy, (hits * weights).sum() / 5.5, rtol=1e-6)
    np.testing.assert_array_equal(found.per_example_argmax, logits.argmax(-1))
    np.testing.assert_allclose(np.exp(found.log_probs).sum(-1), 1, rtol=1e-5)


def test_evaluation_smooths_only_where_configured(logits):
    config = replace(LLAMA, label_smoothing=0.2, label_smoothing_in_eval=False)
    found = loss_of(config, logits, BATCH, train=False)
    np.testing.assert_allclose(
        found.per_example_xent, entropies(logits, BATCH["labels"], 0), rtol=1e-5
    )
    both = replace(config, label_smoothing_in_eval=True)
    found = loss_of(both, logits, BATCH, train=False)
    np.testing.assert_allclose(
        found.per_example_xent, entropies(logits, BATCH["labels"], 0.2), rtol=1e-5
    )


def test_z_loss_joins_the_auxiliary_losses(logits):
    config = replace(LLAMA, z_loss_weight=0.01)
    found = loss_of(config, logits, BATCH)
    squares = np.log(np.exp(logits.astype(np.float64)).sum(-1)) ** 2
    wanted = 0.01 * (squares * BATCH["weights"]).sum() / BATCH["weights"].sum()
    np.testing.assert_allclose(found.z_loss, wanted, rtol=1e-5)
    beside = np.asarray(found.total_loss) - np.asarray(found.avg_xent)
    np.testing.assert_allclose(beside, wanted, rtol=1e-4)
    assert found.aux_loss_weight == 1


def test_metrics_have_values_and_weights(logits):
    found = loss_of(LLAMA, logits, BATCH)
    metrics = language_model_metrics(found, BATCH)
    assert metrics["num_predictions"] == (5.5, 1)
    assert metrics["total_loss"] == (found.total_loss, 5.5)
    assert metrics["log_pplx"] == metrics["avg_xent"] == (found.avg_xent, 5.5)
    assert metrics["aux_loss"] == (0, 1)
    value, weight = metrics["fraction_of_correct_next_step_preds"]
    assert (value, weight) == (found.accuracy, 5.5)


def test_a_batch_without_weight_is_finite_in_value_and_gradient(logits):
    config = replace(LLAMA, z_loss_weight=0.1, label_smoothing=0.1)
    batch = BATCH | {"weights": np.zeros((2, 3), np.float32)}

    def loss(logits):
        found = language_model_loss(config, logits, batch)
        return found.total_loss + found.accuracy

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(logits))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": [[1, 4, 0], [2, 2, 99]]}, r"labels: found 99 at \[1, 2\], .*\[0, 31\), a word"),
        ({"labels": np.full((2, 3), 2**32 + 6)}, "labels: found 4294967302 at .* and 2 more"),
        ({"labels": np.zeros((2, 3))}, r"labels: found \[2, 3\] of float32, expected integers"),
        ({"labels": np.zeros(3, int)}, r"labels: found \[3\] of int32, expected \[2, 3\], that of"),
        ({"weights": np.ones((1, 1))}, r"weights: found \[1, 1\] of float32, expected \[2, 3\]"),
        ({"weights": np.full((2, 3), np.nan)}, "weights: found nan at .*finite and at least 0"),
        ({"weights": None}, "weights: missing"),
        ({"labels": None, "weights": np.ones(3)}, r"(?s)2 problems:.*labels: missing.*weights: fo"),
    ],
)
def test_mistakes_are_told(logits, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        language_model_loss(LLAMA, jnp.asarray(logits), BATCH | changes)


def test_logits_of_another_vocabulary(logits):
    for wrong in (logits[..., :30], logits[0]):
        with pytest.raises(ValueError, match=r"logits: found .*, expected \[B, T, 31\]"):
            language_model_loss(LLAMA, jnp.asarray(wrong), BATCH)
    with pytest.raises(ValueError, match=r"logits: found \[2, 3, 31\] of int32, expected floats"):
        language_model_loss(LLAMA, jnp.asarray(logits).astype(int), BATCH)


def test_labels_without_weight_may_hold_anything(logits):
    assert BATCH["weights"][0, 2] == 0
    found, other = (
        language_model_loss(LLAMA, jnp.asarray(logits), BATCH | {"labels": labels}).total_loss
        for labels in (BATCH["labels"], np.where(BATCH["weights"] > 0, BATCH["labels"], -7))
    )
    assert found == other


def test_under_jit_shapes_are_checked_and_values_are_not(logits):
    loss = jax.jit(lambda batch: language_model_loss(LLAMA, jnp.asarray(logits), batch).total_loss)
    assert np.isfinite(loss(BATCH | {"labels": np.full((2, 3), 99)}))
    with pytest.raises(ValueError, match="weights: found"):
        loss(BATCH | {"weights": np.ones((2, 1))})


def test_half_precision_logits_are_summed_in_float32(logits):
    half = logits.astype(jnp.bfloat16)
    found = loss_of(LLAMA, half, BATCH)
    assert found.log_probs.dtype == jnp.bfloat16
    exact = loss_of(LLAMA, half.astype(np.float32), BATCH)
    assert found.avg_xent == exact.avg_xent


@given(
    st.integers(2, 9),
    st.floats(0, 0.9),
    st.lists(st.booleans(), min_size=9, max_size=9),
    st.integers(0, 2**31 - 1),
)
@settings(max_examples=40, deadline=None)
def test_smoothing_over_the_classes_that_exist_is_smoothing_over_fewer_classes(
    count, smoothing, exists, seed
):
    exists = np.array(exists[:count])
    exists[seed % count] = True
    logits = np.random.default_rng(seed).normal(0, 2, (1, 1, count)).astype(np.float32)
    few = log_softmax(logits[..., exists], axis=-1)
    padded = np.full((1, 1, count), -1e9, np.float32)
    padded[..., exists] = few
    places = np.flatnonzero(exists)
    label = seed % len(places)
    wanted = smoothed_cross_entropy(
        jax.device_put(few), jax.device_put(np.full((1, 1), label)), smoothing
    )
    found = smoothed_cross_entropy(
        jax.device_put(padded),
        jax.device_put(np.full((1, 1), places[label])),
        smoothing,
        jax.device_put(exists[None, None]),
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_labels_outside_of_the_classes_give_nothing():
    log_probs = np.full((1, 2, 3), -np.log(3))
    found = jax.jit(partial(smoothed_cross_entropy, smoothing=0.1))(log_probs, np.array([[-1, 3]]))
    np.testing.assert_array_equal(found, [[0, 0]])


def test_z_loss_is_stable_where_exp_is_not():
    assert jax.jit(z_loss)(np.full((1, 1, 2), 1000.0), np.ones((1, 1))) == pytest.approx(
        (1000 + np.log(2)) ** 2, rel=1e-6
    )


@pytest.mark.parametrize("weight", [0.0, 1e-2])
def test_averages_over_all_positions(logits, weight):
    """As Praxis' GShard softmax: sums of losses by the size of the batch, padding counted."""
    config = replace(LLAMA, loss_average="positions", z_loss_weight=weight)
    found = loss_of(config, logits, BATCH)
    weights, count = BATCH["weights"], 6
    wanted = (entropies(logits, BATCH["labels"], 0.0) * weights).sum() / count
    squares = np.log(np.exp(logits.astype(np.float64)).sum(-1)) ** 2
    np.testing.assert_allclose(found.avg_xent, wanted, rtol=1e-5)
    np.testing.assert_allclose(found.z_loss, weight * (squares * weights).sum() / count, rtol=1e-5)
    assert found.avg_xent_weight == count
    assert found.aux_loss_weight == 1  # reported at a weight of 0 too
    metrics = language_model_metrics(found, BATCH)
    assert metrics["avg_xent"][1] == metrics["log_pplx"][1] == count
    assert metrics["total_loss"][1] == weights.sum()
