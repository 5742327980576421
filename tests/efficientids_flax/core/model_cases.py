"""A tiny model, its batch, and the head's formulas once more, in float64 loops over positions."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.passed import HeadInputs
from efficientids_flax.core.models import EfficientIDSModel
from tests.efficientids_flax.compiled import applied

WORDS, ITEMS, WIDTH, MODEL = 11, 13, 6, 8
# Clusters of 5, 1, 4 and 3 items, in no order.
CLUSTER_OF = np.array([0, 2, 0, 3, 2, 0, 1, 0, 3, 2, 0, 2, 3])
CLUSTERS = 4

# float32 against float64 on logits of some tens: a few roundings of 1e-6.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def clustering(width=WIDTH, means=True):
    values = np.random.default_rng(7).normal(size=(CLUSTERS, width)).astype(np.float32)
    return ClusteringInfo.from_assignments(CLUSTER_OF, values if means else None)


def backbone(**changes):
    sizes = {
        "vocab_size": WORDS, "num_layers": 1, "model_dims": MODEL, "hidden_dims": 12,
        "num_heads": 2, "num_kv_heads": 2, "head_dim": 4,
        "embedding_scale": "sqrt_dim", "position_embedding": "sinusoidal",
    }  # fmt: skip
    return BackboneConfig(**{**sizes, **changes})


def config(**changes):
    known = {
        "backbone": backbone(),
        "num_items": ITEMS,
        "item_embedding_dim": WIDTH,
        "num_clusters": CLUSTERS,
    }
    return EfficientIDSConfig(**{**known, **changes})


def model(*, freeze_lm=False, remat=None, **changes):
    return EfficientIDSModel(config(**changes), clustering(), freeze_lm=freeze_lm, remat=remat)


def batch(rows=2, time=6, seed=0):
    """Words and items mixed, in the original's fields; the last two positions are padding."""
    rng = np.random.default_rng(seed)
    shape = (rows, time)
    is_item, label_is_item = rng.integers(0, 2, shape), rng.integers(0, 2, shape)
    weights = rng.integers(0, 2, shape).astype(np.float32) + 0.5
    weights[:, -2:] = 0
    paddings = np.zeros(shape, np.float32)
    paddings[:, -2:] = 1
    return {
        "ids": np.where(is_item, rng.integers(0, ITEMS, shape), rng.integers(0, WORDS, shape)),
        "labels": np.where(
            label_is_item, rng.integers(0, ITEMS, shape), rng.integers(0, WORDS, shape)
        ),
        "weights": weights,
        "paddings": paddings,
        "input_item_weights": is_item,
        "label_item_weights": label_is_item,
    }


def parameters(made, seed=0):
    """Parameters of a model, none of them at an initial zero or one."""
    ids = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(
        lambda key: made.init(key, ids, inputs_indicator=ids), jax.random.key(0)
    )
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.4 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes["params"]))


def run(made, params, given, method, **options):
    """A method of a model on a batch, jitted: ids that a check would refuse go through."""
    return applied(made, {"params": params}, given, method=method, **options)


def seen(made, params, given):
    """Intermediates of the loss, by name."""
    return run(made, params, given, "loss", mutable=["intermediates"])[1]["intermediates"]


# The head alone.


class CompiledHead(Head):
    """A head with one program for each method: op by op a test would compile dozens."""

    def cross_entropy(self, inputs, labels, is_item=None, training=True):
        method = partial(super().cross_entropy, training=training)
        return jax.jit(method)(inputs, labels, is_item)

    def log_probs(self, inputs):
        return jax.jit(super().log_probs)(inputs)

    def evaluation_logits(self, inputs):
        return jax.jit(super().evaluation_logits)(inputs)

    def scores(self, inputs, correction=None):
        return jax.jit(partial(super().scores, correction=correction))(inputs)

    def loss(self, *args, training=True, **named):
        return jax.jit(partial(super().loss, training=training))(*args, **named)


def head(made=None, **changes):
    known = {"num_items": ITEMS, "item_embedding_dim": WIDTH, "num_clusters": CLUSTERS}
    return CompiledHead(HeadConfig(**{**known, **changes}), made or clustering())


def inputs(positions=9, words=WORDS, scale=1.0, seed=1, width=WIDTH):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.normal(size=shape) * scale).astype(np.float32)

    return HeadInputs(
        hidden=draw(positions, width),
        query=draw(positions, width),
        items=draw(ITEMS, width),
        clusters=draw(CLUSTERS, width),
        word_logits=draw(positions, words) if words else None,
    )


def full(given):
    return given._replace(clusters=None)


def capped(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def normalised(logits):
    """Log of a softmax, float64."""
    logits = np.asarray(logits, np.float64)
    high = logits.max()
    return logits - high - np.log(np.exp(logits - high).sum())


def smoothed(log_probs, label, p):
    """Cross entropy with 1 - p on the label and p shared by the others."""
    count = len(log_probs)
    target = np.full(count, p / (count - 1) if count > 1 else 0.0)
    target[label] = 1 - p if count > 1 else 1.0
    return -(target * log_probs).sum()


def entropy_of(given, place, label, is_item, *, cap=None, p=0.0, q=0.0, cluster_of=CLUSTER_OF):
    """Cross entropy of one label by the formula of section 2, float64."""
    query = np.asarray(given.query[place], np.float64)
    items, clusters = np.asarray(given.items, float), np.asarray(given.clusters, float)
    words = [] if given.word_logits is None else np.asarray(given.word_logits[place], float)
    first = normalised(capped(np.concatenate([words, clusters @ query]), cap))
    if not is_item:
        return smoothed(first, label, p)
    cluster = cluster_of[label]
    members = np.flatnonzero(cluster_of == cluster)
    second = normalised(capped(items[members] @ query, cap))
    own = list(members).index(label)
    return smoothed(first, len(words) + cluster, p) + smoothed(second, own, q)


def without(made, **changes):
    """A head with other options."""
    return replace(made, config=replace(made.config, **changes))
