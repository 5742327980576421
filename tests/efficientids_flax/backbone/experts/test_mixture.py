"""Routing and experts: against loops over tokens, properties, and what the real Praxis routed."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone.experts import routing
from efficientids_flax.backbone.experts.mixture import Experts, sentence_means
from efficientids_flax.backbone.experts.routing import capacity, dense_weights, num_groups
from efficientids_flax.config import BackboneConfig, MoEConfig
from tests.efficientids_flax.compiled import applied
from tests.paths import RECORDINGS

SHAPES = ((1, 1, 1), (1, 7, 1), (2, 9, 3), (1, 8, 5), (3, 4, 5), (2, 2, 2))  # G, S, X
route = jax.jit(routing.route, static_argnames=("config", "dtype"))
in_float32 = jax.jit(partial(dense_weights, dtype=jnp.dtype(jnp.float32)))
sentences = jax.jit(sentence_means)
ROUNDING = 1e-6  # a few float32 roundings of weights of at most 1

# What was recorded of a router -> its configuration (parity_tests/record/models/decoders.py).
RECORDED = {
    "MoeTop2": {
        "num_groups": 2, "capacity_factor": 1.0, "expert_capacity": 3, "gating_logit_cap": 1.2,
    },
    "MoeRandom": {
        "num_groups": 10, "min_group_size": 5, "capacity_factor": 0.0, "expert_capacity": 2,
        "second_expert_policy": "random",
    },
    "MoeSampling": {"second_expert_policy": "sampling"},
    "MoeExpertChoice": {"gating": "expert_choice", "num_groups": 2},
    "MoeExpertChoiceV2": {
        "gating": "expert_choice_v2", "capacity_factor": 1.5, "gating_logit_cap": 0.5,
    },
    "MoeSentence": {"gating_level": "sentence"},
    "MoeRepeat": {},
}  # fmt: skip


def moe(experts: int, **values) -> MoEConfig:
    return MoEConfig(num_experts=experts, layers=(0,), hidden_dims=7, **values)


def backbone(config: MoEConfig, **values) -> BackboneConfig:
    return BackboneConfig(
        vocab_size=9, num_layers=1, model_dims=6, hidden_dims=8, num_heads=2, num_kv_heads=2,
        head_dim=3, moe=config, **values,
    )  # fmt: skip


@st.composite
def routers(draw):
    """(logits [G, S, X], paddings [G, S], capacity factor, places)."""
    groups, tokens, experts = draw(st.sampled_from(SHAPES))
    random = np.random.RandomState(draw(st.integers(0, 2**31)))
    logits = (2 * random.randn(groups, tokens, experts)).astype(np.float32)
    padded = random.rand(groups, tokens) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    factor = draw(st.sampled_from([0.5, 2.0]))
    return logits, padded.astype(np.float32), factor, draw(st.sampled_from([1, 3]))


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max())
    return values / values.sum()


def seats_of_top2(logits: np.ndarray, padded: np.ndarray, places: int) -> np.ndarray:
    """[S, X, C] of one group, one token after the other: all first choices, then the second."""
    tokens, experts = logits.shape
    combine = np.zeros((tokens, experts, places))
    taken = np.zeros(experts, int)
    gates = [softmax(row) for row in logits]
    wishes = [sorted(range(experts), key=lambda x, g=g: (-g[x], x))[:2] for g in gates]
    for rank in range(min(2, experts)):
        begun = np.zeros(experts, int)
        for token in range(tokens):
            if padded[token]:
                continue
            expert = wishes[token][rank]
            seat = taken[expert] + begun[expert]
            begun[expert] += 1
            if seat < places:
                total = sum(gates[token][x] for x in wishes[token])
                combine[token, expert, seat] = gates[token][expert] / total
        taken += np.minimum(begun, np.maximum(places - taken, 0))
    return combine


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_top2_seats_tokens_in_order(router):
    logits, paddings, factor, least = router
    config = moe(logits.shape[-1], capacity_factor=factor, expert_capacity=least)
    found = route(logits, paddings, config)
    places = capacity(logits.shape[1], config)
    wanted = [seats_of_top2(row, pad, places) for row, pad in zip(logits, paddings, strict=True)]
    np.testing.assert_allclose(found.combine, np.stack(wanted), atol=ROUNDING)


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_top2_weights(router):
    logits, paddings, factor, least = router
    config = moe(logits.shape[-1], capacity_factor=factor, expert_capacity=least)
    found = route(logits, paddings, config)
    dispatch, combine = np.asarray(found.dispatch), np.asarray(found.combine)
    seats = dispatch.sum((2, 3))
    assert dispatch.sum(1).max() <= 1  # one token a place
    assert seats.max() <= 2
    assert not combine[dispatch == 0].any()
    weights = combine.sum((2, 3))
    both = seats == min(2, logits.shape[-1])
    np.testing.assert_allclose(weights[both], 1, atol=ROUNDING)
    assert (weights <= 1 + ROUNDING).all()
    assert not weights[(seats == 0) | (paddings == 1)].any()


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_with_room_for_all_no_token_is_dropped(router):
    logits, paddings, _, _ = router
    config = moe(logits.shape[-1], capacity_factor=None, expert_capacity=2 * logits.shape[1])
    found = route(logits, paddings, config)
    weights = np.asarray(found.combine).sum((2, 3))
    np.testing.assert_allclose(weights, 1 - paddings, atol=ROUNDING)


def test_a_router_without_opinion_has_loss_one():
    found = route(np.zeros((2, 8, 4), np.float32), np.zeros((2, 8), np.float32), moe(4))
    np.testing.assert_allclose(found.loss, 1, rtol=ROUNDING)


def test_a_router_that_sends_all_to_one_has_the_largest_loss():
    logits, paddings = np.zeros((1, 8, 4), np.float32), np.zeros((1, 8), np.float32)
    logits[..., 2] = 50.0
    np.testing.assert_allclose(route(logits, paddings, moe(4)).loss, 4, rtol=ROUNDING)


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_each_expert_chooses_its_best_tokens(router):
    logits, paddings, factor, _ = router
    groups, tokens, experts = logits.shape
    config = moe(experts, gating="expert_choice", capacity_factor=factor)
    found = route(logits, paddings, config)
    places = int(tokens // experts * factor) or tokens  # none at all: all, as Praxis slices
    gates = np.stack([[softmax(row) for row in group] for group in logits])
    for group in range(groups):
        for expert in range(experts):
            taken = np.asarray(found.combine)[group, :, expert].sum(-1)
            best = np.argsort(gates[group, :, expert])[-places:]
            assert set(np.flatnonzero(taken)) == set(best)
            np.testing.assert_allclose(taken[best], gates[group, best, expert], atol=ROUNDING)
    assert np.asarray(found.dispatch).sum(1).max() == 1
    assert found.loss == 0


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_each_expert_chooses_among_tokens_that_are_no_padding(router):
    logits, paddings, factor, least = router
    groups, tokens, experts = logits.shape
    config = moe(experts, gating="expert_choice_v2", capacity_factor=factor, expert_capacity=least)
    found = route(logits, paddings, config)
    combine, places = np.asarray(found.combine), capacity(tokens, config)
    gates = np.stack([[softmax(row) for row in group] for group in logits])
    for group in range(groups):
        valid = np.flatnonzero(paddings[group] == 0)
        for expert in range(experts):
            taken = combine[group, :, expert].sum(-1)
            best = valid[np.argsort(gates[group, valid, expert])][-places:]
            assert set(np.flatnonzero(taken)) == set(best)
            np.testing.assert_allclose(taken[best], gates[group, best, expert], atol=ROUNDING)
    assert np.asarray(found.dispatch).sum(1).max(initial=0) <= 1


@settings(deadline=None, max_examples=20)  # the first of each shape compiles
@given(routers())
def test_dense_weights_are_those_of_the_two_best(router):
    logits = router[0]
    weights = np.asarray(in_float32(logits))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=ROUNDING)
    for row, found in zip(
        logits.reshape(-1, logits.shape[-1]), weights.reshape(-1, logits.shape[-1]), strict=True
    ):
        best = np.argsort(row)[-2:]
        assert set(np.flatnonzero(found)) == set(best)
        np.testing.assert_allclose(found[best], softmax(row[best]), atol=ROUNDING)


def test_second_experts_of_no_weight_are_not_asked():
    logits = np.array([[[0.0, 30.0, -9.0], [1.0, 2.0, 0.0]]])  # e^-30 is below 1e-9
    asked = {
        policy: np.asarray(
            route(logits, np.zeros((1, 2)), moe(3, second_expert_policy=policy)).dispatch
        ).sum((2, 3))
        for policy in ("all", "random")
    }
    assert asked["all"].tolist() == [[2, 2]]
    assert asked["random"].tolist() == [[1, 2]]


def test_sampled_second_experts_follow_the_gates():
    logits = jnp.broadcast_to(jnp.asarray([3.0, 1.0, 0.0, -1.0]), (1, 4000, 4))
    config = moe(4, second_expert_policy="sampling", capacity_factor=None, expert_capacity=8000)
    dispatch = jax.jit(lambda key: route(logits, jnp.zeros((1, 4000)), config, key=key).dispatch)
    share = np.asarray(dispatch(jax.random.key(0))).sum((0, 1, 3)) / 4000
    # Three standard deviations of a share of 4000 draws are at most 0.024.
    np.testing.assert_allclose(share, [1, *softmax(np.array([1.0, 0, -1]))], atol=0.024)


def test_sampling_needs_random_numbers():
    with pytest.raises(ValueError, match="'sampling' draws the second expert at random: give rngs"):
        route(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2)), moe(3, second_expert_policy="sampling"))


@pytest.mark.parametrize("name", RECORDED)
def test_routes_as_praxis_does(name):
    """Praxis' own router logits give its own weights, places and loss."""
    (place,) = RECORDINGS.glob(f"*/{name}/arrays.npz")
    with np.load(place) as file:
        arrays = {key: file[key] for key in file.files}
    (prefix,) = {key.partition("router_logits")[0] for key in arrays if "router_logits" in key}
    logits = arrays[f"{prefix}router_logits"]
    padded = arrays["inputs/paddings"]
    key = arrays.get(f"{prefix}routing/prng_key")
    config = moe(logits.shape[-1], **RECORDED[name])
    repeated = logits.ndim == 4
    for layer in range(len(logits) if repeated else 1):
        seen = {
            path.removeprefix(prefix): value[layer] if repeated else value
            for path, value in arrays.items()
            if path.startswith(prefix)
        }
        groups = seen["router_logits"]
        with jax.threefry_partitionable(False):  # as JAX 0.4 draws
            found = route(
                groups, padded.reshape(groups.shape[:2]), config, key=key,
            )  # fmt: skip
        combine, dispatch = np.asarray(found.combine), np.asarray(found.dispatch)
        if "routing/gate" in seen:
            assert np.array_equal(np.moveaxis(dispatch, 1, 3), seen["routing/choice"])
            np.testing.assert_allclose(combine.sum(1), seen["routing/gate"], atol=ROUNDING)
        else:
            assert np.array_equal(dispatch != 0, seen["routing/dispatch"] != 0)
            np.testing.assert_allclose(combine, seen["routing/combine"], atol=ROUNDING)
        np.testing.assert_allclose(found.loss, seen["routing/loss"], rtol=1e-6)


@pytest.mark.parametrize("gating", ["top2", "expert_choice", "expert_choice_v2", "dense_top2"])
@pytest.mark.parametrize("gated", [False, True])
def test_adds_up_what_the_experts_make_of_each_token(gating, gated):
    """A loop over the tokens and the experts that the routing names."""
    if gating == "dense_top2" and gated:
        return
    config = moe(3, gating=gating, gated=gated, activation="tanh", capacity_factor=1.0)
    random = np.random.RandomState(0)
    x = random.randn(2, 6, 6).astype(np.float32)
    paddings = np.array([[0] * 6, [0] * 4 + [1] * 2], np.float32)
    module = Experts(backbone(config))
    params = jax.jit(module.init)(jax.random.key(1), x, paddings)["params"]
    with jax.default_matmul_precision("highest"):
        got, seen = applied(
            module, {"params": params}, x, paddings, mutable=["intermediates", "aux_losses"]
        )
    kernels = {name: np.asarray(value["kernel"], np.float64) for name, value in params.items()}
    logits = x.reshape(1, 12, 6) @ kernels["router"]
    np.testing.assert_allclose(
        seen["intermediates"]["router_logits"][0],
        logits.reshape(-1, 12 if gating != "dense_top2" else 6, 3),
        rtol=1e-5,
        atol=1e-6,
    )
    if gating == "dense_top2":
        weights = np.asarray(in_float32(logits.astype(np.float32)))
    else:
        weights = np.asarray(
            route(logits.astype(np.float32), paddings.reshape(1, 12), config).combine
        ).sum(-1)
    wanted = np.zeros((12, 6))
    for token, row in enumerate(x.reshape(12, 6)):
        for expert in np.flatnonzero(weights[0, token]):
            hidden = row @ kernels["up"][expert]
            activated = np.tanh(row @ kernels["gate"][expert] if gated else hidden)
            hidden = activated * hidden if gated else activated
            wanted[token] += weights[0, token, expert] * (hidden @ kernels["down"][expert])
    wanted *= (1 - paddings).reshape(12, 1)
    np.testing.assert_allclose(np.asarray(got).reshape(12, 6), wanted, atol=1e-5)


def test_sows_its_loss_weighted_and_what_it_computes():
    config = moe(4, load_balance_loss_weight=0.25, num_groups=2)
    x, paddings = np.ones((2, 6, 6), np.float32), np.zeros((2, 6), np.float32)
    module = Experts(backbone(config))
    params = jax.jit(module.init)(jax.random.key(0), x, paddings)["params"]
    zeros = {"params": jax.tree.map(np.zeros_like, params)}
    _, seen = applied(module, zeros, x, paddings, mutable=["intermediates", "aux_losses"])
    np.testing.assert_allclose(seen["aux_losses"]["load_balance"][0], 0.25, rtol=ROUNDING)
    places = capacity(6, config)
    shapes = {name: value[0].shape for name, value in seen["intermediates"].items()}
    assert shapes == {
        "router_logits": (2, 6, 4), "dispatch": (2, 6, 4, places), "combine": (2, 6, 4, places),
        "load_balance": (), "activated": (4, 2, places, 7), "hidden": (4, 2, places, 7),
    }  # fmt: skip


def test_the_router_learns_from_loss_and_output():
    config = backbone(moe(3))
    x = jax.random.normal(jax.random.key(2), (2, 5, 6))
    module = Experts(config)
    params = jax.jit(module.init)(jax.random.key(0), x, jnp.zeros((2, 5)))["params"]

    def outcome(params, part):
        y, seen = module.apply({"params": params}, x, jnp.zeros((2, 5)), mutable=["aux_losses"])
        return jnp.sum(jnp.square(y)) if part == "output" else seen["aux_losses"]["load_balance"][0]

    for part in ("output", "loss"):
        gradient = jax.jit(jax.grad(outcome), static_argnums=1)(params, part)["router"]["kernel"]
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 1e-6


def test_sampled_experts_take_the_stream_routing():
    config = moe(3, second_expert_policy="sampling")
    x = jax.random.normal(jax.random.key(2), (2, 5, 6))
    module = Experts(backbone(config))
    rngs = {"params": jax.random.key(0), "routing": jax.random.key(1)}
    variables = jax.jit(module.init)(rngs, x, jnp.zeros((2, 5)))
    results = [
        applied(module, variables, x, jnp.zeros((2, 5)), rngs={"routing": jax.random.key(seed)})
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    with pytest.raises(ValueError, match=r"rngs=\{'routing': key\}"):
        module.apply(variables, x, jnp.zeros((2, 5)))


def test_sentence_means_pass_over_padding():
    x = np.array([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]], [[1.0], [2.0], [3.0]]])
    paddings = np.array([[0.0, 0, 1], [0, 0, 0], [1, 1, 1]])
    found = np.asarray(sentences(x, paddings))[..., 0]
    assert found.tolist() == [[2, 2, 0], [7, 7, 7], [0, 0, 0]]


@pytest.mark.parametrize(
    ("values", "tokens", "groups"),
    [
        ({"num_groups": 3}, 12, 3),
        ({"num_groups": 6, "min_group_size": 4}, 12, 3),
        ({"num_groups": 6, "min_group_size": 2}, 12, 6),
        ({"num_groups": 6, "min_group_size": 5}, 12, 3),  # rounded up, so groups are smaller
    ],
)
def test_groups(values, tokens, groups):
    assert num_groups(tokens, moe(2, **values)) == groups


def test_groups_must_divide_the_tokens():
    with pytest.raises(ValueError, match=r"moe\.num_groups: 5 groups of experts do not divide 12"):
        num_groups(12, moe(2, num_groups=5))


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({}, 8),  # 12 * 2 / 4 = 6, rounded up to a multiple of four
        ({"capacity_factor": 1.0}, 4),
        ({"expert_capacity": 6}, 6),
        ({"expert_capacity": 5}, 8),
        ({"capacity_factor": None, "expert_capacity": 1}, 1),
    ],
)
def test_capacity(values, places):
    assert capacity(12, moe(4, **values)) == places


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"gating": "dense_top2", "gated": True}, "gated: experts of the gating dense_top2 have"),
        ({"gating": "expert_choice", "capacity_factor": None}, "capacity_factor: expected above 0"),
        ({"capacity_factor": 0.0}, "capacity_factor: expected above 0 for the gating top2 without"),
        ({"expert_capacity": -1}, "expert_capacity: expected at least 0, found -1"),
        ({"gating_logit_cap": -2.0}, "gating_logit_cap: expected at least 0, found -2.0"),
        ({"layers": ()}, "layers: expected ascending layer numbers"),
    ],
)
def test_a_configuration_that_cannot_be(values, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(moe(3), **values)
