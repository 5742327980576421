"""Times the recommender's gradient step at two sizes of the catalogue.

    python -m benchmarks.gradient_step

The original's own step took 1.2 s at 20,000 items in 150 clusters and 2.5 s at 100,000 in 320, on
two cores on which a float32 matrix product runs at 80 to 100 GFLOP/s. That rate is measured here in
the same run, between the steps, and the original's time is scaled by it: the ratio is that of one
machine.
"""

import time
from collections.abc import Callable
from statistics import median

import click
import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import LossOutput
from efficientids_flax.core.models import EfficientIDSModel

# items, clusters -> seconds of the original's step at RATE
SIZES = {(20_000, 150): 1.2, (100_000, 320): 2.5}
RATE = 90e9  # FLOP/s of the cores that the original was measured on
BATCH, TIME, WORDS = 8, 128, 1024
SIDE = 2048  # of the matrices that measure the rate


def config_of(items: int, clusters: int) -> EfficientIDSConfig:
    """D 256, 4 layers, 8 heads, V 1024, E 128, one-layer input adapter everywhere."""
    backbone = BackboneConfig(
        vocab_size=WORDS,
        num_layers=4,
        model_dims=256,
        hidden_dims=1024,
        num_heads=8,
        num_kv_heads=8,
        head_dim=32,
        scan_layers=True,
        norm="layer_norm",
        norm_bias=True,
        norm_scale_plus_one=True,
        embedding_scale="sqrt_dim",
        position_embedding="sinusoidal",
        fused_qkv=True,
        query_scaling="per_dim_scale",
        attention_logit_cap=50.0,
        mlp_bias=True,
        activation="gelu_tanh",
        lm_head_bias=True,
    )
    return EfficientIDSConfig(
        backbone=backbone, num_items=items, item_embedding_dim=128, num_clusters=clusters
    )


def clustering_of(items: int, clusters: int, width: int) -> ClusteringInfo:
    """A random partition into clusters of nearly one size."""
    rng = np.random.default_rng(0)
    cluster_of = rng.permutation(items) % clusters
    slots = -(-items // clusters)
    slot_of = np.zeros(items, np.int32)
    members = np.full((clusters, slots), -1, np.int32)
    for cluster in range(clusters):
        own = np.flatnonzero(cluster_of == cluster)
        members[cluster, : len(own)] = own
        slot_of[own] = np.arange(len(own))
    means = rng.normal(size=(clusters, width)).astype(np.float32)
    return ClusteringInfo(cluster_of.astype(np.int32), members, slot_of, means)


def step_of(items: int, clusters: int) -> Callable[[], None]:
    """A compiled step of loss and every gradient, on a batch whose labels are all items."""
    config = config_of(items, clusters)
    clustering = clustering_of(items, clusters, config.item_embedding_dim)
    model = EfficientIDSModel(config=config, clustering_info=clustering)
    rng = np.random.default_rng(1)
    shape = (BATCH, TIME)
    batch = {
        "ids": jnp.asarray(rng.integers(0, items, shape, dtype=np.int32)),
        "labels": jnp.asarray(rng.integers(0, items, shape, dtype=np.int32)),
        "paddings": jnp.zeros(shape),
        **{
            name: jnp.ones(shape)
            for name in ("weights", "input_item_weights", "label_item_weights")
        },
    }
    params = jax.jit(lambda: model.init(jax.random.key(0), batch, method=model.loss))()

    def loss(params: dict) -> jax.Array:
        found = model.apply(params, batch, method=model.loss)
        assert isinstance(found, LossOutput)
        return found.loss

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
    return lambda: jax.block_until_ready(compiled(params))


def product() -> Callable[[], None]:
    """A compiled float32 matrix product of 2 SIDE^3 operations."""
    matrix = jnp.ones((SIDE, SIDE))
    compiled = jax.jit(lambda x: x @ x).lower(matrix).compile()
    return lambda: jax.block_until_ready(compiled(matrix))


def seconds(function: Callable[[], None]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rounds", type=click.IntRange(1), default=9)
def main(rounds: int) -> None:
    """Print the median step, the rate of the cores, and the ratio to the original."""
    multiply = product()
    multiply()
    for (items, clusters), original in SIZES.items():
        step = step_of(items, clusters)
        step()
        times = [(seconds(step), seconds(multiply)) for _ in range(rounds)]
        ours, unit = (median(values) for values in zip(*times, strict=True))
        rate = 2 * SIDE**3 / unit
        scaled = original * RATE / rate
        click.echo(
            f"{items:>7} items, {clusters} clusters: {ours:.3f} s a step, at {rate / 1e9:.0f} "
            f"GFLOP/s; the original {scaled:.2f} s, {scaled / ours:.1f} times as long"
        )


if __name__ == "__main__":
    main()
