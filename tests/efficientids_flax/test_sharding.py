"""Rules of sharding: which axis of an array lies along which axis of a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.parameters import parameter_axes, parameter_shapes
from efficientids_flax.sharding import (
    ACTIVATIONS,
    PARAMETERS,
    batch_sharding,
    constrain,
    make_mesh,
    parameter_shardings,
    partition,
    shard_parameters,
)
from efficientids_flax.tree import flatten

BACKBONE = BackboneConfig(
    vocab_size=32, num_layers=2, model_dims=16, hidden_dims=24, num_heads=4, num_kv_heads=2,
    head_dim=6, scan_layers=True,
)  # fmt: skip
RECOMMENDER = EfficientIDSConfig(backbone=BACKBONE, num_items=40, item_embedding_dim=8)
SIZES = {"data": 2, "fsdp": 2, "tensor": 2}

# fmt: off
PLACES = {
    "pretrained_lm/lm_head/kernel":                (("D", 16), ("V", 32)),
    "pretrained_lm/layers/attention/query/kernel": (("L", 2), ("D", 16), ("N", 4), ("H", 6)),
    "pretrained_lm/layers/attention/key/kernel":   (("L", 2), ("D", 16), ("J", 2), ("H", 6)),
    "pretrained_lm/layers/mlp/down/kernel":        (("L", 2), ("F", 24), ("D", 16)),
    "pretrained_lm/layers/mlp_norm/scale":         (("L", 2), ("D", 16)),
    "item_embedding/kernel":                       (("E", 8), ("I", 40)),
    "item_input_adapter/layers_0/kernel":          (("E", 8), ("D", 16)),
}
SPECS = {
    "pretrained_lm/lm_head/kernel":                PartitionSpec("fsdp", "tensor"),
    "pretrained_lm/layers/attention/query/kernel": PartitionSpec(None, "fsdp", "tensor", None),
    "pretrained_lm/layers/attention/key/kernel":   PartitionSpec(None, "fsdp", "tensor", None),
    "pretrained_lm/layers/mlp/down/kernel":        PartitionSpec(None, "tensor", "fsdp"),
    "pretrained_lm/layers/mlp_norm/scale":         PartitionSpec(None, "fsdp"),
    "item_embedding/kernel":                       PartitionSpec("fsdp", "tensor"),
    "item_input_adapter/layers_0/kernel":          PartitionSpec("fsdp", None),  # one use each
}
# fmt: on


@pytest.mark.parametrize("path", PLACES)
def test_each_parameter_has_its_place(path):
    axes = parameter_axes(RECOMMENDER)[path]
    assert axes == PLACES[path]
    assert partition(axes, PARAMETERS, SIZES) == SPECS[path]


def test_axes_and_shapes_are_one_table():
    axes = parameter_axes(RECOMMENDER)
    shapes = {path: tuple(size for _, size in named) for path, named in axes.items()}
    assert shapes == parameter_shapes(RECOMMENDER)


def test_an_axis_that_is_not_divided_evenly_stays_whole():
    assert partition([("D", 15), ("V", 32)], PARAMETERS, SIZES) == PartitionSpec(None, "tensor")
    # One head of keys and values is on every device.
    assert partition([("J", 1), ("H", 8)], PARAMETERS, SIZES) == PartitionSpec(None, None)
    # A batch of 2 is split among `data` alone.
    assert partition([("B", 2)], ACTIVATIONS, SIZES) == PartitionSpec("data")
    assert partition([("B", 4)], ACTIVATIONS, SIZES) == PartitionSpec(("data", "fsdp"))


def test_a_mesh_of_other_axes_leaves_all_whole():
    assert partition([("D", 16), ("V", 32)], PARAMETERS, {"x": 4}) == PartitionSpec(None, None)


def test_mesh_takes_what_is_left_over():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"data": -1, "fsdp": -1}, "only one size of a mesh may be -1; found data, fsdp"),
        ({"tensor": 0}, "at least 1, or -1 for one of them; found tensor = 0"),
        ({"data": 1, "tensor": 7}, r"data 1 \* fsdp 1 \* tensor 7 does not make \d+ devices"),
    ],
)
def test_impossible_meshes_are_refused(sizes, text):
    with pytest.raises(ValueError, match=text):
        make_mesh(**sizes)


def test_constrain_needs_a_letter_for_each_axis():
    with pytest.raises(ValueError, match=r"axes 'B T' do not fit an array of shape \(2, 3, 4\)"):
        constrain(jnp.zeros((2, 3, 4)), "B T")


def test_without_a_mesh_nothing_is_constrained():
    text = jax.jit(lambda x: constrain(x, "B T")).lower(jnp.zeros((2, 3))).as_text()
    assert "sharding" not in text.partition("func")[2]


def test_state_of_the_optimizer_lies_as_its_parameter_does():
    mesh = make_mesh(devices=jax.devices()[:1])
    sharding = parameter_shardings(RECOMMENDER, mesh)
    leaf = jax.ShapeDtypeStruct((8, 40), np.float32)
    own = sharding("params/item_embedding/kernel", leaf)
    assert sharding("state/optimizer/adam/m/item_embedding/kernel", leaf) == own
    # Adafactor's factors have another shape; counts have no parameter.
    factor = jax.ShapeDtypeStruct((8,), np.float32)
    whole = PartitionSpec()
    assert sharding("state/optimizer/x/vr/item_embedding/kernel", factor).spec == whole
    count = jax.ShapeDtypeStruct((), np.int32)
    assert sharding("state/optimizer/adam/count", count).spec == whole


def test_shard_parameters_keeps_the_values():
    mesh = make_mesh(devices=jax.devices()[:1])
    tree = {"lm_head": {"kernel": np.arange(512.0, dtype=np.float32).reshape(16, 32)}}
    placed = shard_parameters(tree, BACKBONE, mesh)
    assert flatten(placed)["lm_head/kernel"].sharding.mesh == mesh
    np.testing.assert_array_equal(placed["lm_head"]["kernel"], tree["lm_head"]["kernel"])
    assert batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
