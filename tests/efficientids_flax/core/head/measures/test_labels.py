"""What an evaluation measures, beside the readable head: entropy, rank, best class, normaliser."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import HeadInputs
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.measures import counts, measure, table_of, tiles, tiles_of
from efficientids_flax.core.metrics import NEVER, correct_predictions, ranks

ITEMS, WIDTH, WORDS, PLACES = 90, 6, 5, 40
SIZES = [1, 2, 40, 30, 17]
CLUSTERS = ClusteringInfo.from_assignments(
    np.random.default_rng(1).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
)

CASES = {
    "plain": {},
    "words": {"words": True},
    "cap": {"soft_cap_logits": 2.0, "words": True, "use_correction": True},
    "correction": {"use_correction": True},
    "z_loss": {"z_loss_weight": 0.1, "words": True, "soft_cap_logits": 3.0},
    "smoothed": {"label_smoothing": 0.1, "label_smoothing_in_eval": True, "words": True},
}


@pytest.fixture(autouse=True)
def _several_tiles_that_are_not_full(monkeypatch):
    monkeypatch.setattr(tiles, "SLOTS", 40)
    monkeypatch.setattr(tiles, "WHOLE", 40)
    monkeypatch.setattr(tiles, "LONGEST_COLUMN", 4)  # a program has a step for each slot of it


def case(options, full):
    """A head with its inputs, labels and whether they are items."""
    given = dict(options)
    words, rng = given.pop("words", False), np.random.default_rng(0)
    config = HeadConfig(
        ITEMS, WIDTH, num_clusters=None if full else len(SIZES), full_softmax=full, **given
    )
    tables = None if full else CLUSTERS
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    items = normal(ITEMS, WIDTH)
    items[[8, 11]] = 0.0
    inputs = HeadInputs(
        normal(PLACES, WIDTH), normal(PLACES, WIDTH), items,
        None if full else normal(len(SIZES), WIDTH), normal(PLACES, WORDS) if words else None,
    )  # fmt: skip
    is_item = rng.integers(0, 2, PLACES) if words else np.ones(PLACES, int)
    labels = np.where(is_item > 0, rng.integers(0, ITEMS, PLACES), rng.integers(0, WORDS, PLACES))
    return SimpleNamespace(
        head=Head(config, tables), inputs=inputs, labels=labels, is_item=is_item,
        words=WORDS if words else 0,
    )  # fmt: skip


@cache
def program(config, full, scoring, high):
    """`measure` of a head, for all tests of it; `high`: the constant that one of them changes."""
    assert high == counts.HIGH
    tables = None if full else CLUSTERS
    head, parts = Head(config, tables), tiles_of(tables, ITEMS)

    def run(inputs, labels, is_item, exclude):
        return measure(
            head, inputs, parts, labels, is_item, table=table_of(inputs.items, parts),
            scoring=scoring, exclude=exclude,
        )  # fmt: skip

    return jax.jit(run)


def measured(made, scoring="log_probs", exclude=None):
    run = program(made.head.config, made.inputs.clusters is None, scoring, counts.HIGH)
    return jax.device_get(run(made.inputs, made.labels, made.is_item, exclude))


def log_probs_of(made, inputs):
    return np.asarray(jax.jit(made.head.log_probs)(inputs))


def ranks_of(scores, labels):
    return np.asarray(jax.jit(ranks)(scores, labels))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_is_what_the_head_computes(name, full):
    made = case(CASES[name], full)
    head = made.head

    @jax.jit
    def by_the_head(inputs, labels, is_item):
        log_probs, logits = head.log_probs(inputs), head.evaluation_logits(inputs)
        plain = head.cross_entropy(inputs, labels, is_item, training=False)
        found = {}
        for scoring, scores in (("log_probs", log_probs), ("original", logits)):
            rank = ranks(scores[..., made.words :], jnp.where(is_item > 0, labels, -1))
            best = correct_predictions(scores, labels, is_item, num_words=made.words)
            entropy = plain
            if scoring == "log_probs" and full and made.words:  # as in training
                classes = jnp.where(is_item > 0, labels + made.words, labels)
                entropy = -jnp.take_along_axis(log_probs, classes[:, None], axis=-1)[:, 0]
                if head.config.label_smoothing:
                    rest = (log_probs.sum(-1) + entropy) / (log_probs.shape[-1] - 1)
                    entropy = 0.9 * entropy - 0.1 * rest
            found[scoring] = rank, best, entropy
        return found, jax.nn.logsumexp(logits, axis=-1) ** 2

    expected, squares = by_the_head(made.inputs, made.labels, made.is_item)
    assert np.any(made.is_item > 0)
    for scoring, (rank, best, entropy) in expected.items():
        found = measured(made, scoring=scoring)
        np.testing.assert_array_equal(found.rank, rank, scoring)
        np.testing.assert_array_equal(found.best, best, scoring)
        np.testing.assert_allclose(found.entropy, entropy, rtol=2e-5, atol=1e-5, err_msg=scoring)
        if head.config.z_loss_weight:
            np.testing.assert_allclose(found.squares, squares, rtol=1e-5, err_msg=scoring)


@pytest.mark.parametrize("full", [True, False])
def test_items_that_are_left_out_do_not_stand_before_the_label(full):
    made = case({}, full)
    rng = np.random.default_rng(2)
    exclude = rng.integers(-1, ITEMS + 5, (PLACES, 60))
    exclude[:, :2] = made.labels[:, None]
    scores = np.array(log_probs_of(made, made.inputs))
    exclude[:, 2:4] = np.argsort(-scores, axis=-1)[:, :2]
    found = measured(made, exclude=exclude)
    for row, (ids, label) in enumerate(zip(exclude, made.labels, strict=True)):
        out = np.unique(ids[(ids >= 0) & (ids < ITEMS) & (ids != label)])
        scores[row, out] = -np.inf
    np.testing.assert_array_equal(found.rank, ranks_of(scores, made.labels))
    assert (found.rank < measured(made).rank).any()


@pytest.mark.parametrize("full", [True, False])
def test_equal_items_stand_in_the_order_of_their_ids(full):
    made = case({}, full)
    made.inputs = made.inputs._replace(
        items=np.zeros_like(made.inputs.items),
        clusters=None if full else np.zeros_like(made.inputs.clusters),
    )
    rank = measured(made, scoring="original").rank
    np.testing.assert_array_equal(rank, made.labels)


@pytest.mark.parametrize("full", [True, False])
def test_tiles_of_many_slots_are_counted_in_two_passes(full, monkeypatch):
    made = case({}, full)
    made.inputs.items[::2] = 0.0  # which are equal
    wanted = measured(made).rank
    monkeypatch.setattr(counts, "HIGH", 1)
    np.testing.assert_array_equal(measured(made).rank, wanted)


@pytest.mark.parametrize("scoring", ["log_probs", "original"])
@pytest.mark.parametrize("words", [True, False])
def test_scores_that_are_no_numbers_find_nothing(scoring, words):
    made = case({"words": words}, True)
    made.inputs = made.inputs._replace(query=made.inputs.query * np.float32(np.nan))
    found = measured(made, scoring=scoring)
    assert (found.rank == NEVER).all()
    assert not found.best.any()
    assert np.isnan(found.entropy[made.is_item > 0]).all()


@pytest.mark.parametrize("full", [True, False])
def test_logits_that_are_far_from_each_other(full):
    """Powers of what is above the first item of a cluster by more than 88 are infinite."""
    made = case({}, full)
    made.inputs = made.inputs._replace(query=100.0 * made.inputs.query)
    query, items = (np.asarray(x, np.float64) for x in (made.inputs.query, made.inputs.items))
    cluster_of = np.zeros(ITEMS, int) if full else np.asarray(CLUSTERS.cluster_of)
    logits, first = query @ items.T, np.zeros((PLACES, 1))
    if not full:
        first = query @ np.asarray(made.inputs.clusters, np.float64).T
    log_probs = np.empty_like(logits)
    beyond = []
    for cluster in range(first.shape[1]):
        own = logits[:, cluster_of == cluster]
        beyond.append((own.max(axis=1) - own[:, 0] > 89).any())
        normaliser = np.logaddexp.reduce(own, axis=1) + np.logaddexp.reduce(first, axis=1)
        added = first[:, cluster] - normaliser
        log_probs[:, cluster_of == cluster] = own + added[:, None]
    assert any(beyond)
    found = measured(made)
    own = np.take_along_axis(log_probs, made.labels[:, None], axis=1)
    # Roundings of logits of up to a thousand.
    np.testing.assert_allclose(found.entropy, -own[:, 0], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(found.rank, ranks_of(log_probs, made.labels))


def test_an_item_that_is_no_number_spoils_its_cluster_alone():
    made = case({}, False)
    wanted = measured(made)
    spoiled = int(np.flatnonzero(CLUSTERS.cluster_of == 3)[4])
    made.inputs.items[spoiled] = np.nan
    found = measured(made)
    others = np.asarray(CLUSTERS.cluster_of)[made.labels] != 3
    np.testing.assert_array_equal(found.entropy[others], wanted.entropy[others])
    assert (found.rank[others] <= wanted.rank[others]).all()
    assert (found.rank[~others] == NEVER).all()
    assert np.isnan(found.entropy[~others]).all()
    assert others.any() and not others.all()


def test_half_precision_is_ranked_in_float32():
    made = case({}, True)
    made.inputs = jax.tree.map(lambda x: x.astype(jnp.bfloat16), made.inputs)
    precise = jax.tree.map(lambda x: x.astype(np.float32), made.inputs)
    wanted = ranks_of(log_probs_of(made, precise), made.labels)
    np.testing.assert_array_equal(measured(made).rank, wanted)
