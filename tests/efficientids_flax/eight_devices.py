"""Losses and gradients on meshes of eight devices against one device, as JSON.

Run by test_sharded_models.py in a process of its own, which has the eight devices. Prints, for each
mesh and model, the largest difference relative to the largest magnitude, and how much of the
parameters the fullest device holds.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as Spec

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, MoEConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.head import build_index, computation, search
from efficientids_flax.core.head import full_softmax as chunks
from efficientids_flax.core.head.second import masked
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.evaluation import exposure, list_metrics
from efficientids_flax.losses import language_model_loss
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.sharding import batch_sharding, make_mesh, shard_parameters
from efficientids_flax.tree import unflatten

MESHES = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"data": 2, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
    "expert": {"data": 1, "expert": 4, "tensor": 2},
}
# The recommender has a decoder: what is only the language model's needs one mesh of all kinds.
WANTED = {
    "language_model": ("all",),
    "mixture": ("expert",),
    "recommender": ("data", "fsdp", "tensor", "all"),
    "full_softmax": ("all",),
}
# Where the members of clusters are taken cluster by cluster, as on the one device they are compared
# with; elsewhere all items at once, which is faster for so few.
BY_CLUSTER = ("data", "all")
BACKBONE = BackboneConfig(
    vocab_size=40, num_layers=2, model_dims=32, hidden_dims=64, num_heads=8, num_kv_heads=4,
    head_dim=8, scan_layers=True, gated_mlp=True, activation="silu", embedding_scale="sqrt_dim",
)  # fmt: skip
MIXTURE = replace(
    BACKBONE,
    moe=MoEConfig(
        num_experts=8, layers=(0, 1), hidden_dims=64, gated=True, activation="silu", bias=True,
        gating="top_k", shared_dims=16,
    ),
)  # fmt: skip
ITEMS, CLUSTERS, WIDTH = 48, 6, 16
BATCH, TIME = 8, 6


def language_model(config=BACKBONE):
    decoder = Decoder(config)

    def logits(module, ids, paddings):
        return module.logits(module(ids, paddings=paddings))

    def loss(params, batch):
        found = decoder.apply({"params": params}, batch["ids"], batch["paddings"], method=logits)
        return language_model_loss(config, found, batch, train=True).total_loss, found

    return config, loss, parameters(config), make_batch(config.vocab_size)


def full_softmax():
    computation.WHOLE_LOGITS = 0  # in chunks, of few items each
    chunks.SHORTEST_CHUNK, chunks.LOGITS_AT_ONCE = 5, 1
    return recommender(full_softmax=True, z_loss_weight=0.01)


def recommender(**changes):
    config = EfficientIDSConfig(
        backbone=BACKBONE, num_items=ITEMS, item_embedding_dim=WIDTH, num_clusters=CLUSTERS,
        **changes,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    cluster_of = rng.permutation(ITEMS) % CLUSTERS
    members = np.argsort(cluster_of, kind="stable").reshape(CLUSTERS, -1)
    slot_of = np.argsort(members.reshape(-1)) % members.shape[1]
    means = rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
    clustering = ClusteringInfo(cluster_of, members, slot_of, means)
    if config.full_softmax:
        clustering = None
    model = EfficientIDSModel(config=config, clustering_info=clustering)

    def loss(params, batch):
        found = model.apply({"params": params}, batch, method=model.loss)
        return found.loss, found.per_token_xent

    return config, loss, parameters(config), make_batch(BACKBONE.vocab_size)


def parameters(config):
    """Random ones, on the host: to draw a model's own and to move them are programs too."""
    rng, shapes = np.random.default_rng(2), parameter_shapes(config)
    drawn = {path: rng.normal(0, 0.2, shapes[path]) for path in sorted(shapes)}
    return unflatten({path: values.astype(np.float32) for path, values in drawn.items()})


def make_batch(words):
    rng = np.random.default_rng(1)
    shape = (BATCH, TIME)
    paddings = np.zeros(shape, np.float32)
    paddings[:, -1] = rng.random(BATCH) < 0.5
    return {
        "ids": rng.integers(0, words, shape, dtype=np.int32),
        "labels": rng.integers(0, words, shape, dtype=np.int32),
        "paddings": paddings,
        "weights": 1 - paddings,
        "input_item_weights": (rng.random(shape) < 0.5).astype(np.float32),
        "label_item_weights": (rng.random(shape) < 0.5).astype(np.float32),
    }


def difference(got, want):
    return float(np.abs(np.asarray(got) - want).max() / max(np.abs(want).max(), 1e-6))


def share(params):
    """Of all numbers, those that the fullest device holds."""
    held = {}
    for leaf in jax.tree.leaves(params):
        for shard in leaf.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.size
    return max(held.values()) / sum(leaf.size for leaf in jax.tree.leaves(params))


def lists():
    """Whether metrics of lists are to the bit those of one device, where rows are split."""
    rng = np.random.default_rng(0)
    top = rng.integers(-1, ITEMS, (32, 10)).astype(np.int32)
    held_out = rng.integers(-1, ITEMS, (32, 3)).astype(np.int32)

    def measured(top, held_out):
        return list_metrics(top, held_out, (1, 5)), exposure(top, ITEMS, (1, 5))

    want = jax.device_get(measured(top, held_out))
    mesh = make_mesh(data=8)
    with jax.set_mesh(mesh):
        got = jax.device_get(measured(*jax.device_put((top, held_out), batch_sharding(mesh))))
    return all(
        np.array_equal(one, other, equal_nan=True)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    )


def searched():
    """Whether the best items are those of one device, where the index is split among eight."""
    rng = np.random.default_rng(0)
    items = rng.integers(-2, 3, (512, 4)).astype(np.float32)  # many scores are equal
    clustering = ClusteringInfo.from_assignments(np.arange(512) % 8)
    index, query = build_index(items, items[:8], clustering), items[8:11]
    find = jax.jit(partial(search, k=10))
    want = jax.device_get(find(index, query))
    split, whole = (NamedSharding(make_mesh(data=8), Spec(*axes)) for axes in (("data",), ()))
    placed = jax.tree.map(
        lambda part: jax.device_put(part, whole if part.shape[0] % 8 else split), index
    )
    got = jax.device_get(find(placed, query))
    return all(np.array_equal(one, other) for one, other in zip(got, want, strict=True))


MODELS = {
    "language_model": language_model,
    "mixture": partial(language_model, MIXTURE),
    "recommender": recommender,
    "full_softmax": full_softmax,
}


def main():
    found: dict[str, Any] = {"lists": lists(), "searched": searched()}
    for name, make in MODELS.items():
        masked.FASTER = ()
        config, loss, params, batch = make()
        step = jax.value_and_grad(loss, has_aux=True)
        want = jax.tree.map(np.asarray, jax.jit(step)(params, batch))
        for mesh_name in WANTED[name]:
            sizes = MESHES[mesh_name]
            mesh = make_mesh(**sizes)
            placed = shard_parameters(params, config, mesh)
            rows = jax.device_put(batch, batch_sharding(mesh))
            masked.FASTER = () if mesh_name in BY_CLUSTER else ((WIDTH * 2, ITEMS * BATCH * TIME),)
            with jax.set_mesh(mesh):
                got = jax.jit(step)(placed, rows)
            worst = jax.tree.map(difference, got, want)
            found[f"{name}/{mesh_name}"] = {
                "worst": float(np.max(jax.tree.leaves(worst))),  # NaN stays one
                "share": share(placed),
                "rows": got[0][1].sharding.shard_shape(got[0][1].shape)[0],
            }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    assert jax.device_count() == 8
    main()
