"""The recommender without words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.tree import flatten
from tests.efficientids_flax.compiled import applied
from tests.efficientids_flax.core.model_cases import CLUSTERS, ITEMS, clustering

HISTORY = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def simple(**changes):
    known = {
        "num_items": ITEMS,
        "num_clusters": CLUSTERS,
        "item_embedding_dim": 6,
        "model_dims": 8,
        "clustering_info": clustering(),
        "num_layers": 1,
        "num_heads": 2,
    }
    return SimpleEfficientIDSModel(**{**known, **changes})


@pytest.fixture(scope="module")
def started():
    made = simple()
    return made, jax.jit(made.init)(jax.random.key(0), HISTORY)


def test_sizes_of_the_seed_api():
    made = SimpleEfficientIDSModel(ITEMS, CLUSTERS, clustering_info=clustering())
    shapes = jax.eval_shape(made.init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    found = {path: leaf.shape for path, leaf in flatten(shapes).items()}
    assert found == parameter_shapes(made.config)
    assert found["item_embedding/kernel"] == (384, ITEMS)
    assert found["cluster_embedding/kernel"] == (384, CLUSTERS)
    assert found["item_input_adapter/layers_0/kernel"] == (384, 512)


def test_scores_use_the_history_and_not_the_future(started):
    made, variables = started
    scores = applied(made, variables, HISTORY)["scores"]
    assert scores.shape == (2, 5, ITEMS)
    other = HISTORY.copy()
    other[:, 1] = 8
    moved = np.abs(applied(made, variables, other)["scores"] - scores).max(axis=(0, 2)) > 1e-4
    np.testing.assert_array_equal(moved, [False, True, True, True, True])


def test_the_order_of_the_history_matters(started):
    made, variables = started
    scores = applied(made, variables, np.array([[3, 1, 4], [1, 3, 4]]))["scores"]
    assert np.abs(scores[0, 2] - scores[1, 2]).max() > 1e-4


def test_training_predicts_the_next_item(started):
    made, variables = started
    out = applied(made, variables, HISTORY, training=True)
    labels, weights = np.roll(HISTORY, -1, axis=1), np.array([[1, 1, 1, 1, 0]] * 2)
    same = applied(made, variables, HISTORY, labels=labels, weights=weights, training=True)
    np.testing.assert_allclose(out["loss"], same["loss"], rtol=1e-6)
    log_probs = applied(made, variables, {"ids": HISTORY}, method="log_probs")
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
    chosen = np.take_along_axis(np.asarray(log_probs), labels[..., None], -1)[:, :4]
    np.testing.assert_allclose(out["loss"], -chosen.mean(), rtol=1e-5)


def test_padding_takes_no_part(started):
    made, variables = started
    paddings = np.array([[0, 0, 0, 1, 1]] * 2)
    other = np.where(paddings, 12, HISTORY)
    one, two = (
        applied(made, variables, ids, paddings=paddings, training=True)["loss"]
        for ids in (HISTORY, other)
    )
    np.testing.assert_array_equal(one, two)


def test_best_items(started):
    made, variables = started
    scores = applied(made, variables, HISTORY)["scores"]
    best = applied(made, variables, HISTORY, top_k=4)
    np.testing.assert_array_equal(best["items"], np.argsort(-scores, -1)[..., :4])


def test_full_softmax_refuses_clusters():
    with pytest.raises(ValueError, match="num_clusters: found 4, a full softmax has no clusters"):
        simple(full_softmax=True)


def test_full_softmax_needs_no_clustering():
    made = simple(full_softmax=True, clustering_info=None, num_clusters=None)
    variables = jax.jit(made.init)(jax.random.key(0), HISTORY)
    assert "cluster_embedding" not in variables["params"]
    log_probs = applied(made, variables, {"ids": HISTORY}, method="log_probs")
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)


def test_the_table_starts_as_given():
    values = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    made = simple(item_embedding_init=values)

    @jax.jit
    def kernel():  # the other parameters are not drawn then
        return made.init(jax.random.key(0), HISTORY)["params"]["item_embedding"]["kernel"]

    np.testing.assert_array_equal(kernel(), values.T)


def test_dropout_is_of_training_alone(started):
    made, (_, variables) = simple(dropout=0.5), started
    losses = [
        applied(made, variables, HISTORY, training=True, rngs={"dropout": jax.random.key(seed)})[
            "loss"
        ]
        for seed in (0, 1)
    ]
    assert losses[0] != losses[1]
    applied(made, variables, HISTORY)  # asks for no random numbers


def test_learns_a_cycle(started):
    """Item i is followed by i + 3 (mod I): from a uniform guess, ln 13 = 2.56, to almost sure."""
    made, variables = started
    step = 3
    rows = (np.arange(ITEMS)[:, None] + step * np.arange(6)) % ITEMS
    optimizer = optax.adam(2e-2)

    @jax.jit
    def update(params, state):
        loss, gradient = jax.value_and_grad(
            lambda p: made.apply({"params": p}, rows, training=True)["loss"]
        )(params)
        change, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, change), state, loss

    params, loss = variables["params"], None
    state = jax.jit(optimizer.init)(params)
    for _ in range(100):
        params, state, loss = update(params, state)
    assert loss is not None and loss < 0.1
    log_probs = applied(made, {"params": params}, {"ids": rows}, method="log_probs")
    trained = slice(None), slice(None, -1)  # the last position has no label
    np.testing.assert_array_equal(log_probs.argmax(-1)[trained], ((rows + step) % ITEMS)[trained])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clustering_info": None}, "clustering_info: missing"),
        ({"num_clusters": 5}, "num_clusters: the clustering has 4, the model 5"),
        ({"num_items": 14}, "num_items: the clustering has 13, the model 14"),
        ({"num_heads": 3}, "num_heads: found 3, expected a divisor of model_dims = 8"),
        ({"num_heads": 8}, "heads of even width"),
    ],
)
def test_what_does_not_fit_is_told_when_it_is_built(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        simple(**changes)


def test_items_out_of_range_are_told(started):
    made, variables = started
    with pytest.raises(ValueError, match=r"item_ids: found 13 at \[0, 0\], expected in \[0, 13\)"):
        made.apply(variables, np.array([[13, 0]]))
