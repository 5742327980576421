"""Low-rank additions: nothing at first, then the same as changed kernels; trained by themselves."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.lora import merge_lora
from efficientids_flax.backbone.projection import Form, Projection
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, LoraConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.parameters import parameter_axes, parameter_shapes, shape_problems
from efficientids_flax.sharding import PARAMETERS, partition
from efficientids_flax.train import Trainer
from efficientids_flax.train.optimizer.create import create_optimizer
from efficientids_flax.tree import flatten, unflatten
from tests.efficientids_flax.backbone.small_decoders import (
    GPT,
    LLAMA,
    VARIANTS,
    hidden,
    made,
    token_ids,
)

EVERYWHERE = LoraConfig(rank=3, alpha=2.0, targets=("*",))
CHOSEN = {  # every form of kernel, scanned and not
    "fused": GPT,
    "scanned": VARIANTS["windows by layer, scanned in blocks"],
    "one key head": VARIANTS["one key head, relative bias"],
}


def adapted(config: BackboneConfig, lora: LoraConfig = EVERYWHERE) -> BackboneConfig:
    return replace(config, lora=lora)


@pytest.mark.parametrize("name", CHOSEN)
def test_merged_kernels_compute_the_same(name: str) -> None:
    config = adapted(CHOSEN[name])
    params, ids = made(config), token_ids(config, 2, 7)
    assert (
        shape_problems(config, {path: leaf.shape for path, leaf in flatten(params).items()}) == []
    )
    plain, without = merge_lora(params, config)
    assert without == CHOSEN[name]
    assert shape_problems(without, {path: x.shape for path, x in flatten(plain).items()}) == []
    found, wanted = hidden(config, params, ids), hidden(without, plain, ids)
    # Products of 24 numbers, in another order, through 4 layers.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.max(np.abs(wanted)))
    base = unflatten({path: x for path, x in flatten(params).items() if "lora" not in path})
    unchanged = np.asarray(hidden(without, base, ids))
    assert np.max(np.abs(unchanged - wanted)) > 0.01  # the additions do something


@pytest.mark.parametrize("form", ["in", "fused", "out"])
def test_at_first_they_change_no_bit(form: Form) -> None:
    """One projection: two whole programs, compiled apart, would round in their own ways."""
    shape, given = {
        "in": ((16, 4, 6), (2, 5, 16)),
        "fused": ((3, 16, 4, 6), (2, 5, 16)),
        "out": ((16, 4, 6), (2, 5, 4, 6)),
    }[form]
    x = jax.random.normal(jax.random.key(1), given)
    plain, more = (Projection(shape, form, (), False, c) for c in (LLAMA, adapted(LLAMA)))
    params = jax.jit(more.init)(jax.random.key(0), x)["params"]
    assert np.any(params["lora_a"])
    found = more.apply({"params": params}, x)
    np.testing.assert_array_equal(found, plain.apply({"params": {"kernel": params["kernel"]}}, x))
    moved = {**params, "lora_b": params["lora_b"] + 1}
    assert np.any(more.apply({"params": moved}, x) != found)


def test_merged_by_hand() -> None:
    config = adapted(GPT)
    leaves = flatten(made(config))
    merged = flatten(merge_lora(made(config), config)[0])
    place = "layers_1/attention/qkv"
    a, b, kernel = (np.asarray(leaves[f"{place}/{x}"]) for x in ("lora_a", "lora_b", "kernel"))
    found = merged[f"{place}/kernel"]
    for part in range(3):
        wanted = kernel[part] + 2 / 3 * (a[part] @ b[part].reshape(3, -1)).reshape(16, 4, 6)
        np.testing.assert_allclose(found[part], wanted, rtol=1e-5, atol=1e-6)
    place = "layers_0/attention/out"
    a, b, kernel = (np.asarray(leaves[f"{place}/{x}"]) for x in ("lora_a", "lora_b", "kernel"))
    wanted = kernel + 2 / 3 * (a.reshape(24, 3) @ b).T.reshape(16, 4, 6)
    np.testing.assert_allclose(merged[f"{place}/kernel"], wanted, rtol=1e-5, atol=1e-6)


def test_targets() -> None:
    some = adapted(LLAMA, LoraConfig(rank=2, targets=("attention/query", "mlp/*")))
    found = {
        path.removeprefix("layers_0/"): shape
        for path, shape in parameter_shapes(some).items()
        if path.startswith("layers_0/") and "lora" in path
    }
    assert found == {
        "attention/query/lora_a": (16, 2), "attention/query/lora_b": (2, 4, 6),
        "mlp/up/lora_a": (16, 2), "mlp/up/lora_b": (2, 24),
        "mlp/gate/lora_a": (16, 2), "mlp/gate/lora_b": (2, 24),
        "mlp/down/lora_a": (24, 2), "mlp/down/lora_b": (2, 16),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"lora.targets: 'attention/qkv' fits none of attention/q"):
        adapted(LLAMA, LoraConfig(rank=2, targets=("attention/qkv",)))
    with pytest.raises(ValueError, match="rank: expected above 0, found 0"):
        LoraConfig(rank=0)
    with pytest.raises(ValueError, match="targets: expected at least one"):
        LoraConfig(rank=1, targets=())
    assert BackboneConfig.from_dict(some.to_dict()) == some


def test_they_are_split_as_the_kernels_are() -> None:
    axes = parameter_axes(adapted(LLAMA, LoraConfig(rank=2)))
    spec = {path: partition(axes[path], PARAMETERS, {"fsdp": 2, "tensor": 2}) for path in axes}
    assert tuple(spec["layers_0/attention/query/lora_a"]) == ("fsdp", None)
    assert tuple(spec["layers_0/attention/query/lora_b"]) == (None, "tensor", None)
    assert tuple(spec["layers_0/attention/out/lora_a"]) == ("tensor", None, None)


def test_what_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="the configuration has no lora"):
        merge_lora(made(LLAMA), LLAMA)
    with pytest.raises(ValueError, match="parameters are missing: layers_0/attention/key/lora_a"):
        merge_lora(made(LLAMA), adapted(LLAMA))


def test_they_are_trained_beside_a_frozen_model() -> None:
    """Items, adapters and additions learn, and can be merged."""
    backbone = replace(adapted(LLAMA), scan_layers=True)
    config = EfficientIDSConfig(
        backbone=backbone, num_items=9, item_embedding_dim=5, full_softmax=True
    )
    ids = np.arange(24).reshape(4, 6) % 9
    batch = {
        "ids": ids, "labels": (ids + 1) % 9, "weights": np.ones((4, 6), np.float32),
        "input_item_weights": ids % 2, "label_item_weights": (ids + 1) % 2,
    }  # fmt: skip
    lm = {
        path: np.asarray(leaf).astype(jnp.bfloat16)
        for path, leaf in flatten(made(replace(backbone, lora=None))).items()
    }
    model = EfficientIDSModel(config=config, freeze_lm=True)
    trainer = Trainer(model, create_optimizer(1e-2, weight_decay=0.1), progress="none")
    given = {f"pretrained_lm/{path}": leaf for path, leaf in lm.items()}
    state = trainer.create_train_state(jax.random.key(0), batch, params=unflatten(given))
    assert flatten(state.frozen).keys() == given.keys()
    first = {path: np.asarray(leaf) for path, leaf in flatten(state.trained).items()}
    assert {leaf.dtype for leaf in first.values()} == {np.dtype("float32")}
    state = trainer.train(state, [batch], num_steps=4)
    for path, leaf in flatten(state.frozen).items():
        assert np.asarray(leaf).tobytes() == np.asarray(given[path]).tobytes(), path
    for path, leaf in flatten(state.trained).items():
        assert np.any(np.asarray(leaf) != first[path]), path
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]

    whole = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), state.params)
    plain, without = merge_lora(whole, config)
    assert without == replace(config, backbone=replace(LLAMA, scan_layers=True))
    merged = merge_lora(whole["pretrained_lm"], backbone)[0]
    jax.tree.map(np.testing.assert_array_equal, plain["pretrained_lm"], merged)
    assert not any("lora" in path for path in flatten(plain))
