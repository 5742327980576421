"""Attention against a loop over heads, and the kernels of `jax.nn` against our own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.attention import Attention, Surroundings
from efficientids_flax.backbone.attention.dot_product import MASKED
from efficientids_flax.backbone.masks import positions_from_paddings
from efficientids_flax.config.positions import PositionScalingConfig
from tests.efficientids_flax.backbone.small_decoders import (
    GPT,
    LLAMA,
    VARIANTS,
    hidden,
    made,
    token_ids,
)

BATCH, TIME = 2, 5


def attended(config, params, x, mask):
    positions = jnp.broadcast_to(jnp.arange(TIME), (BATCH, TIME))
    around = Surroundings(
        {"full": mask}, {}, positions, positions, jnp.zeros((BATCH, TIME)), jnp.zeros((), int)
    )
    return Attention(config, "full", None).apply({"params": params}, x, around)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("scaling", ["inverse_sqrt_head_dim", "none", 0.7, "per_dim_scale"])
def test_attention_is_what_a_loop_over_heads_says(kv_heads, cap, scaling):
    config = replace(
        LLAMA, num_kv_heads=kv_heads, attention_logit_cap=cap, query_scaling=scaling,
        qkv_bias=True, attention_out_bias=True,
    )  # fmt: skip
    generator = np.random.default_rng(0)

    def draw(*shape):
        return generator.normal(0, 0.5, shape).astype(np.float32)

    heads = {"query": 4, "key": kv_heads, "value": kv_heads}
    params = {
        name: {"kernel": draw(16, count, 6), "bias": draw(count, 6)}
        for name, count in heads.items()
    } | {"out": {"kernel": draw(16, 4, 6), "bias": draw(16)}}
    factor = {"inverse_sqrt_head_dim": 6**-0.5, "none": 1.0}.get(scaling, scaling)
    if scaling == "per_dim_scale":
        params["per_dim_scale"] = draw(6)
        factor = np.log1p(np.exp(params["per_dim_scale"])) / np.log(2) / np.sqrt(6)
    x = draw(BATCH, TIME, 16)
    mask = generator.random((BATCH, 1, TIME, TIME)) < 0.6
    mask |= np.eye(TIME, dtype=bool)

    wanted = np.zeros((BATCH, TIME, 16)) + params["out"]["bias"]
    for head in range(4):
        shared = head * kv_heads // 4
        query, key, value = (
            x @ params[name]["kernel"][:, place] + params[name]["bias"][place]
            for name, place in (("query", head), ("key", shared), ("value", shared))
        )
        logits = (query * factor) @ np.swapaxes(key, 1, 2)
        logits = logits if cap is None else cap * np.tanh(logits / cap)
        weights = np.exp(logits) * mask[:, 0]
        mixed = weights / weights.sum(-1, keepdims=True) @ value
        wanted += mixed @ params["out"]["kernel"][:, head].T
    found = attended(config, params, x, mask)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_queries_keys_and_values_are_clipped():
    config = replace(LLAMA, qkv_clip=0.1)
    params = made(LLAMA)["layers_0"]["attention"]
    x, mask = np.ones((BATCH, TIME, 16), np.float32), np.ones((BATCH, 1, TIME, TIME), bool)
    value = np.clip(np.einsum("d,djh->jh", x[0, 0], params["value"]["kernel"]), -0.1, 0.1)
    wanted = np.einsum("nh,dnh->d", np.repeat(value, 2, 0), params["out"]["kernel"])
    found = attended(config, params, x, mask)  # all values are the same
    np.testing.assert_allclose(found[1, 2], wanted, rtol=1e-5, atol=1e-6)


def test_queries_grow_with_the_length_of_the_text():
    """As if the query's kernel were that of its position."""
    growth = PositionScalingConfig(beta=0.5, length=2)
    config = replace(LLAMA, query_position_scaling=growth)
    params = made(LLAMA)["layers_0"]["attention"]
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, 16)).astype(np.float32)
    mask = np.ones((BATCH, 1, TIME, TIME), bool)
    found = np.asarray(attended(config, params, x, mask))
    for place, factor in enumerate((1, 1, 1 + 0.5 * np.log(2), 1 + 0.5 * np.log(2))):
        grown = {**params, "query": {"kernel": factor * params["query"]["kernel"]}}
        wanted = np.asarray(attended(LLAMA, grown, x, mask))
        np.testing.assert_allclose(found[:, place], wanted[:, place], rtol=1e-5, atol=1e-6)


def test_a_query_that_sees_nothing_takes_the_mean_as_praxis_does():
    params = made(LLAMA)["layers_0"]["attention"]
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, 16)).astype(np.float32)
    blind = np.asarray(attended(LLAMA, params, x, np.zeros((BATCH, 1, TIME, TIME), bool)))
    assert np.isfinite(MASKED)
    np.testing.assert_allclose(blind, np.broadcast_to(blind[:, :1], blind.shape), rtol=1e-5)


def test_biases_of_a_fused_kernel_have_its_axes_even_of_size_one():
    config = replace(GPT, num_heads=1, num_kv_heads=1)
    shapes = jax.tree.map(jnp.shape, made(config)["layers_0"]["attention"]["qkv"])
    assert shapes == {"kernel": (3, 16, 1, 6), "bias": (3, 1, 6)}


def test_fused_kernels_are_three():
    params = made(GPT)
    layers = dict(params)
    for index in range(GPT.num_layers):
        attention = dict(params[f"layers_{index}"]["attention"])
        fused = attention.pop("qkv")
        for place, name in enumerate(("query", "key", "value")):
            attention[name] = jax.tree.map(lambda leaf, place=place: leaf[place], fused)
        layers[f"layers_{index}"] = params[f"layers_{index}"] | {"attention": attention}
    ids = token_ids(GPT, 2, 6)
    found = hidden(replace(GPT, fused_qkv=False), layers, ids)
    np.testing.assert_allclose(found, hidden(GPT, params, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["llama", "scanned", "one key head, relative bias", "windows by layer, scanned in blocks"],
)
def test_the_kernel_of_xla_is_our_own_attention(name):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, 2, 7)
    paddings = np.array([[1, 1, 0, 0, 0, 0, 0], [0] * 7])
    batch = {"paddings": paddings, "positions": positions_from_paddings(paddings)}
    wanted = hidden(config, params, ids, **batch)
    kernel = replace(config, attention_implementation="xla")
    found = hidden(kernel, params, ids, **batch)
    np.testing.assert_allclose(found[paddings == 0], wanted[paddings == 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention_logit_cap": 5.0}, "'xla' does not support attention_logit_cap, found 5.0"),
        ({"attention_dropout": 0.1}, "'xla' does not support attention_dropout, found 0.1"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(LLAMA, attention_implementation="xla", **changes)


def test_cudnn_needs_half_precision_and_a_gpu():
    with pytest.raises(ValueError, match="needs dtype bfloat16 or float16, found float32"):
        replace(LLAMA, attention_implementation="cudnn")
    bias = VARIANTS["one key head, relative bias"]
    with pytest.raises(ValueError, match="'cudnn' does not support relative_bias"):
        replace(bias, attention_implementation="cudnn", dtype="bfloat16")
    config = replace(LLAMA, attention_implementation="cudnn", dtype="bfloat16")
    if jax.default_backend() != "gpu":
        with pytest.raises(RuntimeError, match="'cudnn' needs a GPU, and JAX runs on cpu"):
            hidden(config, made(LLAMA), token_ids(config, 1, 4))
