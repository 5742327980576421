"""Norms, activations, embeddings, sinusoids and relative bias against their formulas."""

import math
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder, layers
from efficientids_flax.backbone.layers import (
    ACTIVATIONS,
    Embedding,
    LmHead,
    Mlp,
    Norm,
    sinusoids,
    soft_cap,
)
from efficientids_flax.backbone.positions.relative_bias import distance_bucket
from efficientids_flax.config import RelativeBiasConfig
from efficientids_flax.config.parts import Activation
from tests.efficientids_flax.backbone.small_decoders import GPT, LLAMA

X = np.random.default_rng(0).normal(1, 2, (2, 3, 16)).astype(np.float32)
SCALE = np.linspace(0.5, 1.5, 16, dtype=np.float32)
BIAS = np.linspace(-1, 1, 16, dtype=np.float32)


@pytest.mark.parametrize("plus_one", [False, True])
def test_rms_norm(plus_one):
    config = replace(LLAMA, norm_scale_plus_one=plus_one)
    found = Norm(config).apply({"params": {"scale": SCALE - plus_one}}, X)
    wanted = X / np.sqrt(np.square(X).mean(-1, keepdims=True) + 1e-6) * SCALE
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("plus_one", [False, True])
def test_layer_norm(plus_one):
    config = replace(GPT, norm_scale_plus_one=plus_one, norm_epsilon=1e-3)
    found = Norm(config).apply({"params": {"scale": SCALE - plus_one, "bias": BIAS}}, X)
    centred = X - X.mean(-1, keepdims=True)
    wanted = centred / np.sqrt(X.var(-1, keepdims=True) + 1e-3) * SCALE + BIAS
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("plus_one", [False, True])
def test_norms_initialise_to_no_scale(plus_one):
    config = replace(LLAMA, norm_scale_plus_one=plus_one)
    params = Norm(config).init(jax.random.key(0), X)["params"]
    np.testing.assert_array_equal(params["scale"], np.full(16, 1 - plus_one))


@pytest.mark.parametrize("config", [LLAMA, GPT])
def test_what_layers_have_in_common_is_traced_once(config):
    """The functions that the backward pass computes again are the same objects in all layers."""

    def traced(num_layers: int) -> int:
        decoder, ids = Decoder(replace(config, num_layers=num_layers)), np.zeros((1, 4), np.int32)
        params = jax.eval_shape(decoder.init, jax.random.key(0), ids)
        equations = jax.make_jaxpr(decoder.apply)(params, ids).eqns
        again = [one.params["jaxpr"] for one in equations if one.primitive.name.startswith("remat")]
        assert len(again) > 2 * num_layers
        return len({id(jaxpr) for jaxpr in again})

    assert traced(3) == traced(2)


def test_a_norm_over_two_axes_is_that_of_the_flat_one():
    heads = X.reshape(2, 3, 4, 4)
    found = Norm(LLAMA, 2).apply({"params": {"scale": SCALE.reshape(4, 4)}}, heads)
    flat = Norm(LLAMA).apply({"params": {"scale": SCALE}}, X)
    np.testing.assert_allclose(np.reshape(found, X.shape), flat, rtol=1e-6)


def test_each_head_is_normed_alone_by_a_scale_of_its_own():
    heads, scales = X.reshape(2, 3, 4, 4), SCALE.reshape(4, 4)
    found = Norm(LLAMA, 1, 2).apply({"params": {"scale": scales}}, heads)
    for head in range(4):
        alone = Norm(LLAMA).apply({"params": {"scale": scales[head]}}, heads[:, :, head])
        np.testing.assert_allclose(found[:, :, head], alone, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rms_norm", "layer_norm"])
def test_a_norm_without_scale_has_no_parameters(kind):
    config = replace(LLAMA, norm=kind, norm_scale=False)
    found = Norm(config).apply({}, X)
    values = X - X.mean(-1, keepdims=True) if kind == "layer_norm" else X
    wanted = values / np.sqrt((values**2).mean(-1, keepdims=True) + config.norm_epsilon)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_half_precision_scales_before_or_after_the_cast(monkeypatch):
    monkeypatch.setattr(layers, "compute_dtype", layers.stream_dtype)  # as on a GPU
    x, scale = X.astype(jnp.bfloat16), SCALE.astype(jnp.bfloat16)
    exact = Norm(LLAMA).apply({"params": {"scale": scale.astype(np.float32)}}, x.astype(np.float32))
    half = replace(LLAMA, dtype="bfloat16")
    config = replace(half, norm_scale_in_float32=True)
    late = Norm(config).apply({"params": {"scale": scale}}, x)
    np.testing.assert_array_equal(late, jnp.asarray(exact, jnp.bfloat16))  # rounded once
    early = Norm(half).apply({"params": {"scale": scale}}, x)
    unscaled = Norm(half).apply({"params": {"scale": np.ones(16, np.float32)}}, X.astype(x.dtype))
    np.testing.assert_array_equal(early, unscaled * scale)
    assert np.mean(np.asarray(early) != np.asarray(late)) > 0.1


def test_every_activation_of_the_configuration_is_computed():
    assert set(ACTIVATIONS) == set(get_args(Activation))


POINTS = np.array([-7.0, -1.5, -0.1, 0.0, 0.4, 2.0, 9.0, 12.0])
POSITIVE = np.maximum(POINTS, 0)
GELU = np.array([x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in POINTS])
SOFTPLUS = np.log1p(np.exp(POINTS))
# fmt: off
FORMULAS = {
    "identity":     POINTS,
    "relu":         POSITIVE,
    "relu6":        np.minimum(POSITIVE, 6),
    "squared_relu": POSITIVE**2,
    "cubed_relu":   POSITIVE**3,
    "sine_relu":    np.sin(POSITIVE),
    "leaky_relu":   np.where(POINTS < 0, 0.01 * POINTS, POINTS),
    "gelu":         GELU,
    "gelu_10":      np.clip(GELU, -10, 10),
    "quick_gelu":   POINTS / (1 + np.exp(-1.702 * POINTS)),
    "gelu_tanh":    POINTS / 2 * (1 + np.tanh((2 / np.pi)**0.5 * (POINTS + 0.044715 * POINTS**3))),
    "silu":         POINTS / (1 + np.exp(-POINTS)),
    "hard_silu":    POINTS * np.clip(POINTS + 3, 0, 6) / 6,
    "mish":         POINTS * np.tanh(SOFTPLUS),
    "laplace":      [(1 + math.erf((x - 0.707107) / 0.282095 / math.sqrt(2))) / 2 for x in POINTS],
    "sigmoid":      1 / (1 + np.exp(-POINTS)),
    "tanh":         np.tanh(POINTS),
    "elu":          np.where(POINTS < 0, np.exp(POINTS) - 1, POINTS),
    "exp":          np.exp(POINTS),
    "softplus":     SOFTPLUS,
    "sqrt_softplus": np.sqrt(SOFTPLUS),
}
# fmt: on


@pytest.mark.parametrize("name", get_args(Activation))
def test_activations(name):
    found = ACTIVATIONS[name](jnp.asarray(POINTS, jnp.float32))
    np.testing.assert_allclose(found, FORMULAS[name], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_mlp(gated):
    config = replace(LLAMA, gated_mlp=gated, mlp_bias=True, activation="relu", hidden_dims=5)
    generator = np.random.default_rng(1)
    params = {
        name: {
            "kernel": generator.normal(size=shape).astype(np.float32),
            "bias": generator.normal(size=shape[1]).astype(np.float32),
        }
        for name, shape in {"up": (16, 5), "gate": (16, 5), "down": (5, 16)}.items()
    }
    if not gated:
        del params["gate"]
    paddings = np.array([[0, 0, 1], [0, 1, 1]], np.float32)
    found = Mlp(config).apply({"params": params}, X, paddings)
    made = {
        name: X @ part["kernel"] + part["bias"] for name, part in params.items() if name != "down"
    }
    hidden = np.maximum(made["gate"], 0) * made["up"] if gated else np.maximum(made["up"], 0)
    wanted = hidden @ params["down"]["kernel"] + params["down"]["bias"]
    np.testing.assert_allclose(found, wanted * (1 - paddings)[..., None], rtol=1e-4, atol=1e-4)


def test_ids_outside_of_the_vocabulary_are_zeros():
    table = np.random.default_rng(0).normal(size=(31, 16)).astype(np.float32)
    ids = jnp.array([[-1, 0, 30, 31]])
    wanted = np.stack([np.zeros(16), table[0], table[30], np.zeros(16)])[None]
    found = Embedding(31, LLAMA).apply({"params": {"embedding": table}}, ids)
    np.testing.assert_array_equal(found, wanted)
    head = LmHead(LLAMA).apply({"params": {"kernel": table.T}}, ids, method="embed")
    np.testing.assert_array_equal(head, wanted)


def test_sinusoids():
    found = sinusoids(jnp.array([[0, 5, 11]]), 7, high=100.0)
    angles = np.array([0, 5, 11])[:, None] / 100.0 ** (np.arange(3) / 2)
    wanted = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((3, 1))], axis=-1)
    np.testing.assert_allclose(found[0], wanted, atol=2e-6)


def test_soft_caps_bound_and_keep_the_order():
    logits = jnp.linspace(-40, 40, 201)
    found = soft_cap(logits, 5.0)
    assert jnp.abs(found).max() <= 5
    assert (jnp.diff(found[70:131]) > 0).all()
    np.testing.assert_allclose(found[100:103], logits[100:103], rtol=0.01, atol=1e-6)
    assert soft_cap(logits, None) is logits


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_of_distances(bidirectional):
    config = RelativeBiasConfig(num_buckets=16, max_distance=40, bidirectional=bidirectional)
    count = 8 if bidirectional else 16

    def bucket(distance):
        behind, offset = max(-distance, 0), 0
        if bidirectional:
            behind, offset = abs(distance), count if distance > 0 else 0
        if behind < count // 2:
            return offset + behind
        far = math.log(behind / (count // 2)) / math.log(40 / (count // 2))
        return offset + min(count // 2 + int(far * (count - count // 2)), count - 1)

    # float32 logarithms may fall on the other side where the quotient is whole: only at 40 here
    distances = [distance for distance in range(-80, 81) if abs(distance) != 40]
    found = distance_bucket(jnp.array(distances), config)
    np.testing.assert_array_equal(found, [bucket(distance) for distance in distances])


def test_half_precision_is_computed_in_float32_on_cpus(monkeypatch):
    half = replace(LLAMA, dtype="bfloat16")
    assert (layers.compute_dtype(half), layers.stream_dtype(half)) == (jnp.float32, jnp.bfloat16)
    assert layers.compute_dtype(replace(LLAMA, dtype="float64")) == jnp.float64
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert layers.compute_dtype(half) == jnp.bfloat16
