"""The head's tables and wirings, and its use alone on any hidden states.

input adapter everywhere: it maps both tables to D, h is the query    `test_adapter_everywhere`
output adapter: h goes through it, tables stay raw                    `test_output_adapter`
`scale_before_logits` multiplies h by D^-0.5, before any adapter      `test_scale_*`
cluster vectors: a parameter, or the clustering's means               `test_*_cluster_vectors`
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config import AdapterConfig
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.head.softmax import HierarchicalSoftmax
from tests.efficientids_flax.compiled import applied
from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    CLUSTER_OF,
    CLUSTERS,
    ITEMS,
    MODEL,
    WIDTH,
    WORDS,
    clustering,
    entropy_of,
)


def hidden(width=MODEL, *leading):
    shape = (*(leading or (2, 3)), width)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def alone(**changes):
    known = {
        "num_items": ITEMS,
        "num_clusters": CLUSTERS,
        "item_embedding_dim": WIDTH,
        "clustering_info": clustering(),
    }
    return HierarchicalSoftmax(**{**known, **changes})


def wired(**changes):
    sizes = {"num_items": ITEMS, "num_clusters": CLUSTERS, "item_embedding_dim": WIDTH}
    made = HeadConfig(**{**sizes, **changes})
    return HierarchicalSoftmax(config=made, clustering_info=clustering(), model_dims=MODEL)


def started(module, *args):
    """Parameters away from their initial zeros."""
    params = jax.jit(module.init)(jax.random.key(0), *args)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype), jax.device_get(params)
    )


def head_inputs(module, params, given):
    return applied(module, {"params": params}, given, method="inputs")


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer(params, x):
    layers = params["layers_0"]
    return gelu(np.asarray(x, float) @ np.asarray(layers["kernel"]) + np.asarray(layers["bias"]))


def test_adapter_everywhere():
    module, given = wired(trainable_cluster_embeddings=True), hidden()
    params = started(module, given)
    got = head_inputs(module, params, given)
    assert set(params) == {"item_embedding", "cluster_embedding", "item_input_adapter"}
    adapter = params["item_input_adapter"]
    np.testing.assert_allclose(
        got.items, layer(adapter, params["item_embedding"]["kernel"].T), **CLOSE
    )
    np.testing.assert_allclose(
        got.clusters, layer(adapter, params["cluster_embedding"]["kernel"].T), **CLOSE
    )
    np.testing.assert_array_equal(got.query, given)


def test_output_adapter():
    module = wired(input_adapter_everywhere=False, output_adapter=AdapterConfig())
    given = hidden()
    params = started(module, given)
    got = head_inputs(module, params, given)
    np.testing.assert_allclose(got.query, layer(params["item_output_adapter"], given), **CLOSE)
    np.testing.assert_array_equal(got.items, params["item_embedding"]["kernel"].T)
    np.testing.assert_array_equal(got.clusters, clustering().means)


@pytest.mark.parametrize("everywhere", [True, False])
def test_scale_goes_before_any_adapter(everywhere):
    adapter = None if everywhere else AdapterConfig()
    options = {"input_adapter_everywhere": everywhere, "output_adapter": adapter}
    plain, scaling = wired(**options), wired(**options, scale_before_logits=True)
    given = hidden()
    params = started(plain, given)
    got = head_inputs(scaling, params, given).query
    np.testing.assert_allclose(got, head_inputs(plain, params, given * MODEL**-0.5).query, **CLOSE)


def test_fixed_cluster_vectors_are_the_means_of_the_clustering():
    module, given = wired(), hidden()
    params = started(module, given)
    assert "cluster_embedding" not in params
    got = head_inputs(module, params, given).clusters
    np.testing.assert_allclose(
        got, layer(params["item_input_adapter"], clustering().means), **CLOSE
    )


def test_trained_cluster_vectors_are_not_those_of_the_clustering():
    module, given = alone(), hidden()
    got = head_inputs(module, started(module, given), given).clusters
    assert got.shape == (CLUSTERS, WIDTH)
    assert not np.allclose(got, clustering().means)


def test_full_softmax_needs_no_clustering():
    made = HeadConfig(num_items=ITEMS, item_embedding_dim=WIDTH, full_softmax=True)
    module, given = HierarchicalSoftmax(config=made, model_dims=MODEL), hidden()
    params = started(module, given)
    assert set(params) == {"item_embedding", "item_input_adapter"}
    log_probs = applied(module, {"params": params}, given)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_alone_it_gives_log_probabilities_of_all_items(leading):
    module = alone()
    given = hidden(MODEL, *leading) if leading else hidden(MODEL, 1)[0]
    log_probs = applied(module, {"params": started(module, given)}, given)
    assert log_probs.shape == (*leading, ITEMS)
    assert log_probs.dtype == jnp.float32
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("width", [WIDTH, MODEL])
def test_hidden_states_of_another_width_go_through_an_adapter(width):
    module, given = alone(), hidden(width)
    params = started(module, given)
    assert ("item_output_adapter" in params) == (width != WIDTH)
    got = head_inputs(module, params, given).query
    want = given if width == WIDTH else layer(params["item_output_adapter"], given)
    np.testing.assert_allclose(got, want, **CLOSE)


def test_alone_it_gives_the_loss_of_targets():
    module, given = alone(), hidden(WIDTH, 5)
    params, targets = started(module, given), jnp.array([3, 6, 0, 12, 3])
    weights = jnp.array([1.0, 2.0, 0.0, 1.0, 1.0])
    out = applied(module, {"params": params}, given, targets, weights)
    made = head_inputs(module, params, given)
    want = np.array([entropy_of(made, n, int(target), 1) for n, target in enumerate(targets)])
    np.testing.assert_allclose(out["loss"], (want * weights).sum() / 5, **CLOSE)
    served = applied(module, {"params": params}, given)
    chosen = np.take_along_axis(np.asarray(served), np.asarray(targets)[:, None], -1)[:, 0]
    np.testing.assert_allclose(-want, chosen, **CLOSE)
    unweighted = applied(module, {"params": params}, given, targets)
    np.testing.assert_allclose(unweighted["loss"], want.mean(), **CLOSE)


def test_words_take_part_where_they_are_given():
    module, given = alone(), hidden(WIDTH, 5)
    params = started(module, given)
    words = hidden(WORDS, 5)
    log_probs = applied(module, {"params": params}, given, word_logits=words)
    assert log_probs.shape == (5, ITEMS)
    assert np.all(np.exp(log_probs).sum(-1) < 0.99)
    made = head_inputs(module, params, given)._replace(word_logits=words)
    is_item = jnp.array([1, 0, 1, 0, 1])
    targets = jnp.array([3, 10, 0, 2, 5])
    out = applied(
        module, {"params": params}, given, targets, word_logits=words, target_is_item=is_item
    )
    want = [entropy_of(made, n, int(t), int(is_item[n])) for n, t in enumerate(targets)]
    np.testing.assert_allclose(out["loss"], np.mean(want), **CLOSE)


def test_correction_of_the_seed_api():
    given = hidden()
    plain, corrected = alone(), alone(use_correction=True)
    params = started(plain, given)
    made = head_inputs(plain, params, given)
    score = lambda module: applied(module, {"params": params}, made, method=_scores)  # noqa: E731
    np.testing.assert_array_equal(
        score(corrected), applied(plain, {"params": params}, made, method=_corrected)
    )
    assert not np.allclose(score(corrected), score(plain))


def _scores(module, made):
    return module.head.scores(made)


def _corrected(module, made):
    return module.head.scores(made, True)


def test_label_smoothing_is_of_training_alone():
    module, given = wired(label_smoothing=0.2), hidden()
    params, targets = started(module, given), jnp.zeros((2, 3), int)
    train, evaluate = (
        applied(module, {"params": params}, given, targets, training=training)["loss"]
        for training in (True, False)
    )
    assert abs(train - evaluate) > 1e-3


def test_the_table_starts_as_given():
    values = np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype(np.float32)
    module = alone(item_embedding_init=values)
    params = jax.jit(module.init)(jax.random.key(0), hidden())["params"]
    np.testing.assert_array_equal(params["item_embedding"]["kernel"], values.T)
    hash(module)  # as a static argument of jit


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_items": None}, "num_items: missing"),
        ({"item_embedding_dim": None}, "item_embedding_dim: missing"),
        ({"clustering_info": None}, "clustering_info: missing"),
        ({"num_items": 12}, "num_items: the clustering has 13, the model 12"),
        ({"num_clusters": 5}, "num_clusters: the clustering has 4, the model 5"),
        (
            {"item_embedding_init": np.zeros((3, WIDTH), np.float32)},
            "found 3 items of width 6, the table has 13 of width 6",
        ),
    ],
)
def test_what_does_not_fit_is_told_when_it_is_built(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        alone(**changes)


def test_means_that_do_not_fit_fixed_cluster_vectors():
    made = HeadConfig(num_items=ITEMS, item_embedding_dim=WIDTH)
    for tables, sentence in (
        (clustering(means=False), "means: the clustering has none"),
        (clustering(width=5), "means: the clustering's have width 5, item_embedding_dim is 6"),
    ):
        with pytest.raises(ValueError, match=sentence):
            HierarchicalSoftmax(config=made, clustering_info=tables, model_dims=MODEL)
    with pytest.raises(ValueError, match="clustering_info: missing"):
        HierarchicalSoftmax(config=made, model_dims=MODEL)


def test_a_field_that_contradicts_the_configuration():
    made = HeadConfig(num_items=ITEMS, item_embedding_dim=WIDTH)
    with pytest.raises(ValueError, match="num_items: found 9, the configuration says 13"):
        HierarchicalSoftmax(9, config=made, clustering_info=clustering(), model_dims=MODEL)


def test_clusters_are_where_the_clustering_says():
    """Item by item: moving one cluster's vector moves the scores of its members alone."""
    module, given = alone(), hidden(WIDTH, 4)
    params = started(module, given)
    moved = jax.tree.map(np.copy, params)
    moved["cluster_embedding"]["kernel"][:, 2] += 1.0
    before, after = (
        applied(module, {"params": p}, head_inputs(module, p, given), method=_scores)
        for p in (params, moved)
    )
    differs = np.any(np.abs(before - after) > 1e-3, axis=0)
    np.testing.assert_array_equal(differs, CLUSTER_OF == 2)
