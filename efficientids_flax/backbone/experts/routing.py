"""Assignment of tokens to experts: the gating functions of Praxis (praxis/gshard_utils.py).

Every expert has C places in each group. A gating function decides which token gets which place, and
the weight of the expert's output for it.

Letters: G groups, S tokens of a group, X experts, C places of an expert.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.config import MoEConfig

TAKEN = -0.7 * float(np.finfo(np.float32).max)  # logit of an expert that must not be drawn again
NEGLIGIBLE = 1e-9  # a second expert with less weight is not used (policy 'random')


class Routing(NamedTuple):
    """The assignment of tokens to places.

    Attributes:
        dispatch: [G, S, X, C], 1 where the token has the place, else 0.
        combine: [G, S, X, C], weight of the expert's output for the token; 0 elsewhere.
        loss: float32 [], load-balance loss, unweighted; 0 if experts choose.
    """

    dispatch: jax.Array
    combine: jax.Array
    loss: jax.Array


def route(
    logits: jax.Array,
    paddings: jax.Array,
    config: MoEConfig,
    dtype: jnp.dtype = jnp.dtype(jnp.float32),  # noqa: B008 (a constant)
    key: jax.Array | None = None,
) -> Routing:
    """Assign tokens to places by the configured gating, 'top2' or experts' choice.

    Args:
        logits: float32 [G, S, X], from the router.
        paddings: [G, S], 1 for tokens that do not count.
        config: gating and capacity.
        dtype: dtype of the weights; 'expert_choice' also compares tokens in it.
        key: random key, for the policy 'sampling'.

    Raises:
        ValueError: 'sampling' without a key; or a gating without places, 'dense_top2'.
    """
    if config.gating == "expert_choice":
        return _choose(logits, config, dtype)
    if config.gating == "expert_choice_v2":
        return _choose_unpadded(logits, paddings, config, dtype)
    if config.gating == "top2":
        return _top2(logits, paddings, config, dtype, key)
    raise ValueError(f"gating: {config.gating} gives no places, see dense_weights")


def dense_weights(logits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Weights [G, S, X] of the two best experts (more if there are ties); they sum to one.

    Gating 'dense_top2': every expert sees every token, so there are no places, no loss and no cap
    (`TransformerFeedForwardMoe._combine_top2_expert_outputs`).

    Args:
        logits: [G, S, X].
        dtype: dtype of the weights, and of the comparison.
    """
    gates = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(dtype)
    best = jnp.max(gates, axis=-1, keepdims=True)
    second = jnp.max(jnp.where(gates < best, gates, 0), axis=-1, keepdims=True)
    gates = jnp.where(gates >= second, gates, 0)
    return gates / (jnp.sum(gates, axis=-1, keepdims=True) + 1e-12)


def capacity(tokens: int, config: MoEConfig) -> int:
    """C for 'top2' and 'expert_choice_v2': the configured one or, if larger, the group's share
    rounded up to a multiple of four.
    """
    share = int(tokens * (config.capacity_factor or 0) / config.num_experts)
    if config.expert_capacity >= share:
        return config.expert_capacity
    return -(-share // 4) * 4


def num_groups(tokens: int, config: MoEConfig) -> int:
    """G: as configured, or as many as possible with `min_group_size` tokens each.

    Raises:
        ValueError: the groups do not divide the tokens.
    """
    groups = config.num_groups
    if config.min_group_size is not None and tokens / groups < config.min_group_size:
        groups = -(-tokens // config.min_group_size)
    if tokens % groups:
        raise ValueError(
            f"moe.num_groups: {groups} groups of experts do not divide {tokens} tokens (num_groups"
            f" {config.num_groups}, min_group_size {config.min_group_size})"
        )
    return groups


def _top2(
    logits: jax.Array,
    paddings: jax.Array,
    config: MoEConfig,
    dtype: jnp.dtype,
    key: jax.Array | None,
) -> Routing:
    """`top2_gating_on_logits` with `legacy_mtf_behavior`, as Praxis always calls it.

    Places are given in the order of the tokens, all first choices before all second ones. Tokens
    that find no place left are dropped, without renormalising the weight of their other expert.
    """
    experts, places = logits.shape[-1], capacity(logits.shape[1], config)
    logits = soft_cap(logits, config.gating_logit_cap)
    valid = (1.0 - paddings.astype(jnp.float32))[..., None]
    gates = jax.nn.softmax(logits, axis=-1)
    first = jax.nn.one_hot(jnp.argmax(gates, axis=-1), experts) * valid
    rest = gates * (1.0 - first)
    scores = rest
    if config.second_expert_policy == "sampling":
        scores = jnp.where(first > 0, TAKEN, logits) + _gumbel(key, logits.shape)
    second = jax.nn.one_hot(jnp.argmax(scores, axis=-1), experts) * valid
    weight_1, weight_2 = jnp.sum(gates * first, axis=-1), jnp.sum(rest * second, axis=-1)
    total = weight_1 + weight_2 + 1e-9
    weight_1, weight_2 = weight_1 / total, weight_2 / total
    # The share of tokens has no gradient, the mean gate has one. Padding is in neither.
    loss = jnp.mean(jnp.mean(gates * valid, axis=1) * jnp.mean(first, axis=1)) * experts**2
    if config.second_expert_policy == "random":
        # Praxis keeps it with probability weight / threshold; its layer leaves the threshold at 0,
        # which is read as 1e-9. Below that Praxis draws; here such an expert is never used.
        second = second * (weight_2 >= NEGLIGIBLE)[..., None]

    place_1 = jnp.cumsum(first, axis=1) - first
    kept_1 = first * (place_1 < places)
    place_2 = jnp.cumsum(second, axis=1) - second + jnp.sum(kept_1, axis=1, keepdims=True)
    kept_2 = second * (place_2 < places)

    def placed(weight: jax.Array, kept: jax.Array, place: jax.Array) -> jax.Array:
        index = jnp.sum(place * kept, axis=-1).astype(jnp.int32)
        return jnp.einsum("gsx,gsc->gsxc", weight[..., None] * kept, jax.nn.one_hot(index, places))

    combine = placed(weight_1, kept_1, place_1) + placed(weight_2, kept_2, place_2)
    return Routing((combine != 0).astype(dtype), combine.astype(dtype), loss)


def _choose(logits: jax.Array, config: MoEConfig, dtype: jnp.dtype) -> Routing:
    """`expert_choice_gating_on_logits`: each expert takes its best tokens, padding included.

    With fewer tokens than experts, Praxis computes 0 places, and then takes all tokens.
    """
    assert config.capacity_factor is not None
    tokens = logits.shape[1]
    gates = jax.nn.softmax(logits, axis=-1).astype(dtype)
    places = int(tokens // config.num_experts * config.capacity_factor)
    chosen = _best(gates, places)
    dispatch = jnp.einsum("gxcs->gsxc", jax.nn.one_hot(chosen, tokens, dtype=dtype))
    return Routing(dispatch, dispatch * gates[..., None], jnp.zeros((), jnp.float32))


def _choose_unpadded(
    logits: jax.Array, paddings: jax.Array, config: MoEConfig, dtype: jnp.dtype
) -> Routing:
    """`expert_choice_gating_on_logits_v2`: padding sorts last and gets no place; without a cap."""
    tokens, places = logits.shape[1], capacity(logits.shape[1], config)
    valid = (1.0 - paddings.astype(jnp.float32))[..., None]
    gates = jax.nn.softmax(logits, axis=-1)
    chosen = jax.nn.one_hot(_best(gates * valid, places), tokens)
    kept = jnp.einsum("gxcs->gsx", chosen) * valid
    place = ((jnp.cumsum(kept, axis=1) - kept) * kept).astype(jnp.int32)
    combine = (gates * kept).astype(dtype)[..., None] * jax.nn.one_hot(place, places, dtype=dtype)
    return Routing((combine != 0).astype(dtype), combine, jnp.zeros((), jnp.float32))


def _best(scores: jax.Array, count: int) -> jax.Array:
    """Indices of each expert's best tokens, the best last; later tokens win ties.

    [G, S, X] -> int [G, X, count]; all S if `count` is 0 or above S, as with Praxis' slice.
    """
    order = jnp.argsort(jnp.moveaxis(scores, 1, 2), axis=-1, stable=True)
    return order[..., -count:]


def _gumbel(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """Gumbel noise: the argmax of logits plus noise is a draw from their softmax.

    The same key gives Praxis' numbers under `jax.threefry_partitionable(False)`, JAX 0.4's default.
    """
    if key is None:
        raise ValueError(
            "moe.second_expert_policy 'sampling' draws the second expert at random: give"
            " rngs={'routing': key} (what Praxis drew in another run cannot be repeated)"
        )
    return -jnp.log(-jnp.log(jax.random.uniform(jax.random.split(key)[1], shape)))
