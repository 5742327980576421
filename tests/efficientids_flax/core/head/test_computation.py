"""The head: loss and scores against the formulas of the original, position by position in float64.

The formulas are those of section 2 of arXiv 2509.03746 as the original computes them:

pass 1 is a softmax over words and clusters, an item's    `test_loss_of_a_label`,
  class is V + cluster                                    `test_words_are_in_the_first_denominator`
pass 2 is over the members of the label's cluster, for    `test_loss_of_a_label`
  items only
avg_xent = sum(xent w) / (sum(w) + 1e-6), words too       `test_average_*`, `test_a_tiny_weight_*`
loss = avg_xent + aux                                     `test_z_loss_*`, `test_losses_of_*`
soft cap on both passes; 0.0 and None are none            `test_loss_of_a_label`, `test_a_cap_of_*`
any negative member is padding, even where a cap made     `test_padding_members_*`
  its logit -cap
smoothing: n = V + K, then the cluster's own size; off    `test_loss_of_a_label`, `test_smoothing_*`
  in evaluation unless asked for
a cluster of one member is finite (the original: NaN)     `test_smoothing_of_one_member_*`
z-loss: of stop-gradient evaluation scores, or under      `test_z_loss_*`
  full softmax of the logits, with a gradient
an item label out of range: 0, but in the denominator     `test_label_out_of_range`
a label behind the words: a cluster, as Praxis has it     `test_label_behind_the_words`
correction does not touch the loss                        `test_correction_is_of_the_scores_alone`
a gradient is finite at any magnitude                     `test_any_*`
training scores no catalogue                              `test_training_makes_no_scores_*`
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.passed import HeadInputs
from efficientids_flax.core.head.second import masked
from tests.efficientids_flax.core.clustering.clustering_cases import clusterings
from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    ITEMS,
    clustering,
    entropy_of,
    full,
    head,
    inputs,
    without,
)

LABELS = np.array([3, 6, 10, 0, 4, 12, 7, 8, 1])
IS_ITEM = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1])
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 0.25, 1.0, 3.0], np.float32)


def entropies(given, **options):
    return np.array(
        [
            entropy_of(given, place, label, item, **options)
            for place, (label, item) in enumerate(zip(LABELS, IS_ITEM, strict=True))
        ]
    )


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize(("p", "q"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_loss_of_a_label(cap, p, q):
    given = inputs(scale=2.0)
    made = head(soft_cap_logits=cap, label_smoothing=p, second_label_smoothing=q)
    got = made.cross_entropy(given, LABELS, IS_ITEM)
    np.testing.assert_allclose(got, entropies(given, cap=cap, p=p, q=q), **CLOSE)


def test_words_are_in_the_first_denominator():
    given = inputs()
    louder = given._replace(word_logits=given.word_logits + 5.0)
    quiet, loud = (np.asarray(head().cross_entropy(x, LABELS, IS_ITEM)) for x in (given, louder))
    assert np.all((loud > quiet + 1.0)[IS_ITEM == 1])


def test_without_words_the_first_pass_is_over_clusters():
    given = inputs(words=0)
    got = head().cross_entropy(given, LABELS)
    want = [entropy_of(given, place, label, 1) for place, label in enumerate(LABELS)]
    np.testing.assert_allclose(got, want, **CLOSE)


def test_average_is_over_words_and_items():
    given = inputs()
    out = head().loss(given, LABELS, WEIGHTS, IS_ITEM)
    want = entropies(given)
    np.testing.assert_allclose(out.per_example_xent, want, **CLOSE)
    np.testing.assert_allclose(out.per_token_xent, want * WEIGHTS, **CLOSE)
    np.testing.assert_allclose(out.per_sequence_xent, (want * WEIGHTS).sum(), **CLOSE)
    np.testing.assert_allclose(out.total_xent, (want * WEIGHTS).sum(), **CLOSE)
    assert out.total_weight == WEIGHTS.sum()
    np.testing.assert_allclose(out.avg_xent, (want * WEIGHTS).sum() / WEIGHTS.sum(), **CLOSE)
    assert out.loss == out.total_loss == out.avg_xent
    assert out.aux_loss == out.aux_loss_weight == out.z_loss == 0


def test_a_tiny_weight_shows_what_is_added_to_the_denominator():
    given = inputs()
    weights = np.where(np.arange(9) == 0, 1e-6, 0)
    out = head().loss(given, LABELS, weights, IS_ITEM)
    np.testing.assert_allclose(out.loss, entropies(given)[0] / 2, **CLOSE)


def test_no_weight_at_all_is_no_loss():
    made = head(z_loss_weight=0.1)
    out = made.loss(inputs(), LABELS, np.zeros(9), IS_ITEM)
    assert out.loss == 0


def test_a_cap_of_zero_is_none():
    given = inputs(scale=3.0)
    with_zero, with_none = (
        head(soft_cap_logits=cap).cross_entropy(given, LABELS) for cap in (0.0, None)
    )
    np.testing.assert_array_equal(with_zero, with_none)


@pytest.mark.parametrize("padding", [-1, -5, np.iinfo(np.int32).min])
def test_padding_members_have_no_probability(padding):
    """With a cap of 0.1 a padding slot with logit -cap would be about as likely as a member."""
    tables = clustering()
    members = np.where(tables.members < 0, padding, tables.members)
    padded = ClusteringInfo(tables.cluster_of, members, tables.slot_of, tables.means)
    given = inputs()
    got = head(padded, soft_cap_logits=0.1).cross_entropy(given, LABELS)
    want = [entropy_of(given, n, label, 1, cap=0.1) for n, label in enumerate(LABELS)]
    np.testing.assert_allclose(got, want, **CLOSE)


def test_smoothing_is_off_in_evaluation_unless_asked_for():
    given, labels = inputs(), LABELS
    made = head(label_smoothing=0.1, second_label_smoothing=0.2)
    smooth = made.cross_entropy(given, labels)
    plain = head().cross_entropy(given, labels)
    asked = without(made, label_smoothing_in_eval=True)
    np.testing.assert_array_equal(made.cross_entropy(given, labels, training=False), plain)
    np.testing.assert_array_equal(asked.cross_entropy(given, labels, training=False), smooth)
    assert not np.allclose(smooth, plain)


def test_smoothing_of_one_member_is_finite():
    """Item 6 is alone in its cluster: the second pass costs nothing, and nothing is shared."""
    alone = np.full(9, 6)
    given = inputs()
    made = head(second_label_smoothing=0.2)
    got, gradient = jax.jit(
        jax.value_and_grad(
            lambda query: made.cross_entropy(given._replace(query=query), alone).sum()
        )
    )(given.query)
    plain = np.asarray(head().cross_entropy(given, alone))
    np.testing.assert_allclose(got, plain.sum(), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_label_out_of_range():
    """Nothing for the label, but its weight counts."""
    given = inputs()
    labels = np.array([ITEMS, -1, *LABELS[2:]])
    out = head().loss(given, labels, np.ones(9), IS_ITEM)
    want = entropies(given)
    want[:2] = 0
    np.testing.assert_allclose(out.per_example_xent, want, **CLOSE)
    np.testing.assert_allclose(out.loss, want.sum() / 9, **CLOSE)


def test_label_behind_the_words():
    """Of padding, say: the class that stands there, as `per_example_xent` is recorded."""
    given = inputs()
    words = given.word_logits.shape[-1]
    padding = np.arange(9) == 2
    labels = np.where(padding, words + 1, LABELS)
    out = head().loss(given, labels, 1.0 - padding, np.where(padding, 0, IS_ITEM))
    products = np.asarray(given.query) @ np.asarray(given.clusters).T
    first = np.concatenate([given.word_logits, products], axis=1)[2]
    want = np.log(np.exp(first.astype(float)).sum()) - first[words + 1]
    np.testing.assert_allclose(np.asarray(out.per_example_xent)[2], want, **CLOSE)


@pytest.mark.parametrize("correction", [False, True])
def test_z_loss_is_of_the_evaluation_scores(correction):
    """Words have -inf there, or -cap, which counts."""
    given, weight = inputs(), 0.01
    for cap in (None, 3.0):
        made = head(soft_cap_logits=cap, use_correction=correction)
        logits = np.asarray(made.evaluation_logits(given), float)
        sums = np.log(np.exp(logits).sum(-1))
        want = weight * (sums**2 * WEIGHTS).sum() / WEIGHTS.sum()
        out = without(made, z_loss_weight=weight).loss(given, LABELS, WEIGHTS, IS_ITEM)
        np.testing.assert_allclose([out.z_loss, out.aux_loss], want, rtol=1e-5)
        np.testing.assert_allclose(out.loss, out.avg_xent + want, rtol=1e-6)
        assert out.aux_loss_weight == 1


def gradient_of_loss(made, given):
    return np.asarray(
        jax.jit(
            jax.grad(
                lambda query: made.loss(given._replace(query=query), LABELS, WEIGHTS, IS_ITEM).loss
            )
        )(given.query)
    )


def test_z_loss_has_a_gradient_under_full_softmax_alone():
    given = inputs()
    plain, with_z = (head(z_loss_weight=weight) for weight in (0.0, 0.1))
    np.testing.assert_array_equal(gradient_of_loss(plain, given), gradient_of_loss(with_z, given))
    plain, with_z = (without(made, full_softmax=True) for made in (plain, with_z))
    difference = gradient_of_loss(with_z, full(given)) - gradient_of_loss(plain, full(given))

    def z_loss(query):
        logits = jnp.concatenate([given.word_logits, query @ given.items.T], axis=-1)
        squares = jnp.square(jnp.log(jnp.exp(logits).sum(-1)))
        return 0.1 * (squares * WEIGHTS).sum() / WEIGHTS.sum()

    wanted = jax.jit(jax.grad(z_loss))(given.query)
    np.testing.assert_allclose(difference, wanted, rtol=1e-4, atol=1e-6)


def test_losses_of_experts_are_added():
    out = head().loss(inputs(), LABELS, WEIGHTS, aux_losses={"a": jnp.array([0.5, 1.0])})
    assert (out.aux_loss, out.aux_loss_weight) == (1.5, 2)
    np.testing.assert_allclose(out.loss, out.avg_xent + 1.5, rtol=1e-6)


@settings(max_examples=4, deadline=None)
@examples(
    tables=clusterings(),
    scale=st.sampled_from([1.0, 100.0]),  # products of two: logits of up to 1e4 and more
    cap=st.sampled_from([None, 5.0]),
    smoothing=st.sampled_from([0.0, 0.3]),
)
def test_any_clustering_and_any_magnitude(tables, scale, cap, smoothing):
    made = ClusteringInfo(**tables)
    rng = np.random.default_rng(0)
    draw = lambda *shape: (rng.normal(size=shape) * scale).astype(np.float32)  # noqa: E731
    given = HeadInputs(
        draw(7, 4), draw(7, 4), draw(made.num_items, 4), draw(made.num_clusters, 4), draw(7, 3)
    )
    labels = rng.integers(0, made.num_items, 7)
    scorer = head(
        made,
        num_items=made.num_items,
        num_clusters=made.num_clusters,
        soft_cap_logits=cap,
        label_smoothing=smoothing,
        second_label_smoothing=smoothing,
    )

    def loss(given):
        return scorer.cross_entropy(given, labels).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss))(given)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    log_probs = scorer.log_probs(given)
    # A rounding of a logit of 1e4 is 5e-4.
    tolerance = 1e-5 if scale == 1.0 or cap else 4e-3
    sums = np.exp(np.asarray(log_probs, float)).sum(-1)
    np.testing.assert_allclose(sums, 1.0, rtol=tolerance)
    plain = without(scorer, label_smoothing=0.0, second_label_smoothing=0.0)
    served = np.take_along_axis(np.asarray(log_probs), 3 + labels[:, None], -1)[:, 0]
    entropy = plain.cross_entropy(given, labels)
    np.testing.assert_allclose(-np.asarray(entropy), served, rtol=1e-5, atol=2e-5)


def shapes_in(jaxpr):
    """Shapes of every value of a program and of those inside of it."""
    for equation in jaxpr.eqns:
        yield from (var.aval.shape for var in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


def test_training_makes_no_scores_of_the_catalogue(monkeypatch):
    """Of one that is not tiny."""
    monkeypatch.setattr(masked, "FASTER", ())
    items, clusters, positions = 101, 10, 37
    tables = ClusteringInfo.from_assignments(np.arange(items) % clusters)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    given = HeadInputs(
        draw(positions, 4), draw(positions, 4), draw(items, 4), draw(clusters, 4),
        draw(positions, 3),
    )  # fmt: skip
    labels, weights = jnp.zeros(positions, int), jnp.ones(positions)

    def largest(made):
        gradient = jax.grad(lambda given: made.loss(given, labels, weights).loss)
        return max(np.prod(shape) for shape in shapes_in(jax.make_jaxpr(gradient)(given).jaxpr))

    made = head(tables, num_items=items, num_clusters=clusters)
    assert largest(made) < positions * items
    assert largest(without(made, z_loss_weight=0.1)) >= positions * items


def test_places_that_nobody_asks_for_are_not_noted():
    names = []
    noting = Head(head().config, clustering(), lambda name, value: names.append(name))
    given = inputs()
    jax.eval_shape(noting.cross_entropy, given, LABELS, IS_ITEM)
    assert set(names) == {"first_pass_logits", "label_clusters", "label_members", "member_logits"}
