"""Measures the latency of one recommendation with a language model of half a billion parameters.

python -m benchmarks.latency [--items 100000] [--history 16] [--rounds 20] [--dtype float32]
    [--adapter items]

The backbone has the shape of Qwen2 0.5B (24 layers of width 896, 151,936 words) and random weights.
Items have width 64 and are in clusters of log-normal sizes. The adapter maps items to the
backbone's width, or the hidden state to theirs. Two things take turns: finding the ten most
probable items after one history, and the search alone, given query and words. Prints median and
99th percentile of each in ms, and the share of the search.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clusterings import clustering
from efficientids_flax.config import AdapterConfig, BackboneConfig, EfficientIDSConfig, RotaryConfig
from efficientids_flax.core.head.search import search
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.inference import Ranker
from efficientids_flax.tree import flatten, unflatten

K, WIDTH, LAYERS = 10, 64, 24


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("items", 100_000), ("history", 16), ("rounds", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--adapter", choices=("items", "query"), default="items")
    given = parser.parse_args()
    ranker = made(given.items, given.dtype, everywhere=given.adapter == "items")
    sizes = sum(leaf.size for leaf in jax.tree.leaves(ranker.params["pretrained_lm"]))
    rng = np.random.default_rng(1)
    histories = rng.integers(0, given.items, (given.rounds + 2, given.history)).tolist()
    query = jnp.asarray(ranker.queries(histories[:1]))
    words = jnp.zeros((1, ranker.model.config.backbone.vocab_size))
    alone = jax.jit(
        lambda index, query, words: search(index, query, K, kind="log_probs", word_logits=words)
    )
    whole: list[float] = []
    part: list[float] = []
    for history in histories:
        start = time.perf_counter()
        ranker.recommend([history], K)
        between = time.perf_counter()
        jax.block_until_ready(alone(ranker.index, query, words))
        whole.append((between - start) * 1e3)
        part.append((time.perf_counter() - between) * 1e3)
    print(f"{sizes / 1e6:.0f} million parameters, {given.items} items, {given.history} of history")
    for name, times in (("recommend", whole[2:]), ("search alone", part[2:])):
        print(f"{name}: p50 {np.median(times):.1f} ms, p99 {np.percentile(times, 99):.1f} ms")
    print(f"share of the search: {np.median(part[2:]) / np.median(whole[2:]):.1%}")


def made(items: int, dtype: Any, *, everywhere: bool) -> Ranker:
    """A ranker with a random model."""
    backbone = BackboneConfig(
        vocab_size=151_936, num_layers=LAYERS, model_dims=896, hidden_dims=4864, num_heads=14,
        num_kv_heads=2, head_dim=64, rotary=RotaryConfig(), gated_mlp=True, activation="silu",
        dtype=dtype, param_dtype=dtype,
    )  # fmt: skip
    count = round(items**0.5)
    tables = clustering(items, count, "log-normal")
    config = EfficientIDSConfig(
        num_items=items, num_clusters=count, item_embedding_dim=WIDTH, backbone=backbone,
        trainable_cluster_embeddings=True, input_adapter_everywhere=everywhere,
        output_adapter=None if everywhere else AdapterConfig(),
    )  # fmt: skip
    model = EfficientIDSModel(config, tables)
    nothing = np.zeros((1, 2), np.int32)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), nothing)
    rng = np.random.default_rng(0)

    def drawn(shape: Any) -> jax.Array:
        # Repeat one block: the values do not matter, and drawing them takes long.
        block = rng.normal(size=1 << 16).astype(np.float32) * 0.02
        return jnp.asarray(np.resize(block, shape.shape), shape.dtype)

    leaves = {path: drawn(shape) for path, shape in flatten(shapes["params"]).items()}
    centres = rng.normal(size=(count, WIDTH)).astype(np.float32)
    table = centres[tables.cluster_of] + 0.25 * rng.normal(size=(items, WIDTH))
    leaves["item_embedding/kernel"] = jnp.asarray(table.T, dtype)
    leaves["cluster_embedding/kernel"] = jnp.asarray(centres.T, dtype)
    return Ranker(model, unflatten(leaves))


if __name__ == "__main__":
    main()
