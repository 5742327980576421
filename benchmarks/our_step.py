"""Times the gradient step of one of our models; counterpart of parity_tests/record/step_time.py.

Prints "ready" and the number of parameters once compiled; then runs one step for each input line
and prints its seconds.
"""

import json
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import LossOutput
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.losses import language_model_loss

Batch = dict[str, jax.Array]
Loss = Callable[[dict, Batch], jax.Array]


def config_of(size: dict[str, int]) -> BackboneConfig:
    """Same model as `step_time.language_model`: Praxis' defaults with GELU, fused projections."""
    return BackboneConfig(
        vocab_size=size["vocab_size"], num_layers=size["num_layers"],
        model_dims=size["model_dims"], hidden_dims=size["hidden_dims"],
        num_heads=size["num_heads"], num_kv_heads=size["num_heads"],
        head_dim=size["model_dims"] // size["num_heads"], scan_layers=True, norm="layer_norm",
        norm_bias=True, norm_scale_plus_one=True, embedding_scale="sqrt_dim",
        position_embedding="sinusoidal", fused_qkv=True, qkv_bias=True, attention_out_bias=True,
        query_scaling="per_dim_scale", mlp_bias=True, activation="gelu_tanh", lm_head_bias=True,
    )  # fmt: skip


def clustering_of(items: int, clusters: int, width: int) -> ClusteringInfo:
    """A random partition into clusters of nearly equal size."""
    rng = np.random.default_rng(0)
    cluster_of = rng.permutation(items) % clusters
    means = rng.normal(size=(clusters, width)).astype(np.float32)
    return ClusteringInfo.from_assignments(cluster_of, means)


def language_model(size: dict[str, int], batch: Batch) -> tuple[dict, Loss]:
    """Parameters and loss of a decoder."""
    config = config_of(size)
    decoder = Decoder(config)

    def logits(module: Decoder, ids: jax.Array, paddings: jax.Array) -> jax.Array:
        return module.logits(module(ids, paddings=paddings))

    params = decoder.init(jax.random.key(0), batch["ids"], batch["paddings"], method=logits)

    def loss(params: dict, batch: Batch) -> jax.Array:
        found = decoder.apply(params, batch["ids"], batch["paddings"], method=logits)
        assert isinstance(found, jax.Array)
        return language_model_loss(config, found, batch, train=True).total_loss

    return dict(params), loss


def recommender(size: dict[str, int], batch: Batch) -> tuple[dict, Loss]:
    """Parameters and loss of a recommender with fixed cluster vectors."""
    items, clusters, width = (size[name] for name in ("num_items", "num_clusters", "item_dims"))
    config = EfficientIDSConfig(
        backbone=config_of(size), num_items=items, num_clusters=clusters, item_embedding_dim=width
    )
    model = EfficientIDSModel(config, clustering_of(items, clusters, width))
    params = jax.jit(lambda: model.init(jax.random.key(0), batch, method=model.loss))()

    def loss(params: dict, batch: Batch) -> jax.Array:
        found = model.apply(params, batch, method=model.loss)
        assert isinstance(found, LossOutput)
        return found.loss

    return dict(params), loss


def main() -> None:
    """Compile, then time one step per input line."""
    size = json.loads(sys.argv[1])
    rng = np.random.default_rng(0)
    shape = (size["batch"], size["time"])
    items = "num_items" in size
    most = size["num_items"] if items else size["vocab_size"]
    ids = rng.integers(0, most, (shape[0], shape[1] + 1)).astype(np.int32)
    batch = {
        "ids": jnp.asarray(ids[:, :-1]), "labels": jnp.asarray(ids[:, 1:]),
        "paddings": jnp.zeros(shape), "weights": jnp.ones(shape),
    }  # fmt: skip
    if items:
        batch |= {name: jnp.ones(shape) for name in ("input_item_weights", "label_item_weights")}
    params, loss = (recommender if items else language_model)(size, batch)
    step = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready(step(params, batch))
    count = sum(leaf.size for leaf in jax.tree_util.tree_leaves(params))
    print("ready", count, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        jax.block_until_ready(step(params, batch))
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
