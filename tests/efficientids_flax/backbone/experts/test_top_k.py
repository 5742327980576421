"""Experts without dropping: against a loop over tokens, and against all experts for all tokens."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.experts import LOSSES, TopKExperts, grouped
from efficientids_flax.backbone.experts.choice import balance_loss, choose
from efficientids_flax.config import BackboneConfig, ClippedGateConfig, MoEConfig
from efficientids_flax.config.parts import KernelAxes

EXPERTS, WIDTH, HIDDEN = 6, 8, 5
PLAIN = MoEConfig(
    num_experts=EXPERTS, layers=(0,), hidden_dims=HIDDEN, gated=True, activation="silu",
    gating="top_k",
)  # fmt: skip
# A few dozen float32 sums of numbers around one, in another order.
ROUNDING = 1e-5
MIXTURES = {
    "softmax": PLAIN,
    "of the chosen, clipped": replace(
        PLAIN, scores="chosen_softmax", bias=True, router_bias=True,
        clipped_gate=ClippedGateConfig(limit=0.5),
    ),
    "sigmoid in groups, shared": replace(
        PLAIN, scores="sigmoid", renormalize=True, weights_scale=2.5, choice_bias=True,
        choice_groups=3, groups_per_token=2, experts_per_token=3, shared_dims=7, shared_gate=True,
    ),
    "one, without a gate": replace(PLAIN, gated=False, experts_per_token=1),
}  # fmt: skip


def layer(moe: MoEConfig, axes: KernelAxes = "out_in") -> TopKExperts:
    config = BackboneConfig(
        vocab_size=9, num_layers=1, model_dims=WIDTH, hidden_dims=4, num_heads=2, num_kv_heads=2,
        head_dim=4, gated_mlp=True, activation="silu", kernel_axes=axes, moe=moe,
    )  # fmt: skip
    return TopKExperts(config)


def parameters(module: TopKExperts, seed: int = 0) -> dict:
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, 1, WIDTH)), jnp.zeros((1, 1))
    )["params"]
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
    )


def run(module: TopKExperts, params: dict, x: np.ndarray, paddings: np.ndarray, **named) -> Any:
    made = jax.jit(lambda *given: module.apply({"params": given[0]}, *given[1:], **named))
    return made(params, x, paddings)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(moe: MoEConfig, params: dict, token: np.ndarray) -> np.ndarray:
    """What the mixture makes of one token, said anew in NumPy; kernels are 'out_in'."""

    def project(values, place, expert):
        found = params[place]["kernel"][expert] @ values
        return found + params[place]["bias"][expert] if moe.bias else found

    logits = params["router"]["kernel"] @ token + params["router"].get("bias", 0)
    scores = {
        "softmax": np.exp(logits) / np.exp(logits).sum(),
        "chosen_softmax": np.exp(logits),
        "sigmoid": sigmoid(logits),
    }[moe.scores]
    wanted = scores + params["router"].get("choice_bias", 0)
    groups = wanted.reshape(moe.choice_groups, -1)
    if moe.choice_groups > 1:
        score = np.sort(groups, axis=-1)[:, -2:].sum(-1)
        for group in np.argsort(-score)[moe.groups_per_token :]:
            groups[group] = -np.inf
    chosen = np.argsort(-wanted)[: moe.experts_per_token]
    weights = scores[chosen]
    if moe.renormalize or moe.scores == "chosen_softmax":
        weights = weights / weights.sum()
    out = np.zeros(WIDTH)
    for expert, weight in zip(chosen, weights * moe.weights_scale, strict=True):
        up = project(token, "up", expert)
        hidden = np.maximum(up, 0) if moe.activation == "relu" else up * sigmoid(up)
        if moe.gated:
            gate = project(token, "gate", expert)
            hidden = gate * sigmoid(gate) * up
            if moe.clipped_gate is not None:
                gate, up = np.minimum(gate, 0.5), np.clip(up, -0.5, 0.5)
                hidden = gate * sigmoid(1.702 * gate) * (up + 1)
        out += weight * project(hidden, "down", expert)
    if moe.shared_dims is not None:
        own = params["shared"]
        gate = own["gate"]["kernel"] @ token
        found = own["down"]["kernel"] @ (gate * sigmoid(gate) * (own["up"]["kernel"] @ token))
        out += found * sigmoid(params["shared_gate"]["kernel"][0] @ token)
    return out


@pytest.mark.parametrize("name", MIXTURES)
def test_a_token_gets_what_its_experts_make_of_it(name):
    moe = MIXTURES[name]
    module = layer(moe)
    params = parameters(module)
    x = np.random.default_rng(1).normal(size=(2, 9, WIDTH)).astype(np.float32)
    paddings = np.zeros((2, 9), np.float32)
    paddings[1, :4] = 1
    found = jax.jit(module.apply)({"params": params}, x, paddings)
    wanted = [[expected(moe, params, token.astype(np.float64)) for token in row] for row in x]
    np.testing.assert_allclose(found, np.array(wanted) * (1 - paddings)[..., None], atol=ROUNDING)


def everything(expert, weights, x, index, sizes):
    """Each expert for every row, and of that each row's own: what `grouped` avoids."""
    owners = np.repeat(np.arange(len(sizes)), sizes)
    rows = x[index[: len(owners)]]

    def one(own):
        first = [rows @ own[name] + own.get(f"{name}_bias", 0) for name in expert.first]
        return expert.hidden(*first) @ own["down"]

    return jax.vmap(one)(weights)[owners, np.arange(len(owners))]


# No rows at all, one expert for all, rows of none behind, experts without rows, full and small
# blocks with a rest.
@pytest.mark.parametrize(
    ("sizes", "places"),
    [([0, 0, 0], 2), ([0, 37, 0], 37), ([5, 0, 3], 12), ([1, 2, 1], 4), ([70, 9, 33], 112)],
)
def test_sorted_rows_and_their_gradients(sizes, places):
    generator = np.random.default_rng(len(sizes) + places)

    def normal(*shape):
        return generator.normal(0, 0.5, shape).astype(np.float32)

    count, width, hidden = len(sizes), 4, 3
    weights = {
        "up": normal(count, width, hidden),
        "up_bias": normal(count, hidden),
        "down": normal(count, hidden, width),
    }
    x, index = normal(11, width), jax.device_put(generator.integers(0, 11, places))

    expert = grouped.Expert(("up",), jnp.tanh)

    used = sum(sizes)
    aim = normal(places, width)

    def ours(x, weights):
        found = grouped.feed(expert, x, index, jnp.asarray(sizes), weights, "in_out")
        return jnp.sum(found * aim), found

    def theirs(x, weights):
        found = everything(expert, weights, x, index, sizes)
        return jnp.sum(found * aim[:used]), found

    grads, found = jax.jit(jax.grad(ours, (0, 1), has_aux=True))(x, weights)
    found = np.asarray(found)
    assert not found[used:].any()
    if not used:
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))
        return
    of_theirs, wanted = jax.jit(jax.grad(theirs, (0, 1), has_aux=True))(x, weights)
    np.testing.assert_allclose(found[:used], wanted, atol=ROUNDING)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(of_theirs), strict=True):
        np.testing.assert_allclose(got, want, atol=ROUNDING)


def test_both_ways_of_products_agree(monkeypatch):
    """What runs on accelerators, run here; and kernels that lie the other way."""
    moe = MIXTURES["of the chosen, clipped"]
    params = parameters(layer(moe))
    x = np.random.default_rng(2).normal(size=(1, 7, WIDTH)).astype(np.float32)
    paddings = np.zeros((1, 7), np.float32)
    wanted = run(layer(moe), params, x, paddings)
    turned = jax.tree.map(lambda leaf: leaf, params)
    for name in ("up", "gate", "down"):
        turned[name]["kernel"] = np.swapaxes(params[name]["kernel"], 1, 2)
    turned["router"]["kernel"] = params["router"]["kernel"].T
    found = run(layer(moe, "in_out"), turned, x, paddings)
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)
    monkeypatch.setattr(grouped.jax, "default_backend", lambda: "gpu")
    found = run(layer(moe, "in_out"), turned, x, paddings)
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)


def test_even_routing_has_the_least_balance_loss():
    logits, experts = np.zeros((1, 6, 3)), np.array([[[0, 1], [1, 2], [2, 0]] * 2])
    valid, early = np.ones((1, 6)), np.arange(6) < 3
    loss = jax.jit(balance_loss)
    np.testing.assert_allclose(loss(logits, experts, valid), 2, rtol=1e-6)
    biased = logits + np.array([9.0, 0, 0])
    assert loss(biased, np.zeros_like(experts), valid) > 5
    # Padding counts for nothing.
    even_early = np.where(early[:, None], logits, biased)
    np.testing.assert_allclose(loss(even_early, experts, valid * early), 2, rtol=1e-6)


def test_the_balance_loss_is_weighted_and_handed_on():
    module = layer(replace(PLAIN, load_balance_loss_weight=0.25))
    x, paddings = np.ones((1, 4, WIDTH), np.float32), np.zeros((1, 4), np.float32)
    kept = [LOSSES, "intermediates"]
    _, found = run(module, parameters(module), x, paddings, mutable=kept)
    logits = found["intermediates"]["router_logits"][0]
    chosen = found["intermediates"]["chosen"][0]
    loss = jax.jit(balance_loss)(logits, chosen, np.ones((1, 4)))
    np.testing.assert_allclose(found[LOSSES]["load_balance"][0], 0.25 * loss)


def test_weights_of_the_chosen():
    logits = np.log(np.array([[[0.1, 0.4, 0.2, 0.3]]]))
    moe, choosing = replace(PLAIN, num_experts=4), jax.jit(choose, static_argnums=1)
    for changed, wanted in (
        ({}, [0.4, 0.3]),
        ({"renormalize": True}, [4 / 7, 3 / 7]),
        ({"scores": "chosen_softmax", "weights_scale": 2.0}, [8 / 7, 6 / 7]),
    ):
        found = choosing(logits, replace(moe, **changed))
        np.testing.assert_array_equal(found.experts, [[[1, 3]]])
        np.testing.assert_allclose(found.weights, [[wanted]], rtol=1e-6)
    found = choosing(logits, moe, np.array([9.0, 0, 0, 0]))
    np.testing.assert_array_equal(found.experts, [[[0, 1]]])  # chosen by the bias ...
    np.testing.assert_allclose(found.weights, [[[0.1, 0.4]]], rtol=1e-6)  # ... weighted without


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"experts_per_token": 7}, "experts_per_token: expected at most 6, found 7"),
        ({"choice_groups": 4}, "4 groups, 1 of them chosen, do not fit 6 experts"),
        ({"choice_groups": 2, "groups_per_token": 3}, "2 groups, 3 of them"),
        ({"choice_groups": 6}, "experts_per_token: expected at most 1"),
        ({"shared_gate": True}, "shared_gate: needs shared_dims"),
        ({"clipped_gate": ClippedGateConfig(), "gated": False}, "clipped_gate: needs gated"),
        ({"clipped_gate": partial(ClippedGateConfig, limit=0.0)}, "limit: expected above 0"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **{k: v() if callable(v) else v for k, v in changed.items()})
