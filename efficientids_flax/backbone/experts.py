"""Mixture of experts with top-2 routing (Praxis `TransformerFeedForwardMoe`).

Letters: G groups, S tokens of a group, X experts, C places of an expert, D model width, F hidden
width of an expert.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.layers import ACTIVATIONS, compute_dtype, param_dtype, soft_cap
from efficientids_flax.config import BackboneConfig, MoEConfig

LOSSES = "aux_losses"  # collection of the load-balance losses


class Experts(nn.Module):
    """Routes each token to its two best experts, as far as they have room."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, paddings: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B, T, D] -> [B, T, D]; tokens that find no room give zeros, as does padding [B, T]."""
        config, moe = self.config, self.config.moe
        assert moe is not None
        if moe.gating != "top2" or moe.second_expert_policy != "all" or moe.gating_level != "token":
            raise ValueError(
                f"experts are routed by top2 over tokens with both experts; found gating "
                f"{moe.gating}, {moe.gating_level}, second expert {moe.second_expert_policy}"
            )
        dtype = compute_dtype(config)
        groups = _num_groups(x.shape[0] * x.shape[1], moe)
        tokens = x.reshape(groups, -1, x.shape[-1]).astype(dtype)
        padded = paddings.reshape(groups, -1)
        shapes = {
            "router": (config.model_dims, moe.num_experts),
            "up": (moe.num_experts, config.model_dims, moe.hidden_dims),
            "gate": (moe.num_experts, config.model_dims, moe.hidden_dims),
            "down": (moe.num_experts, moe.hidden_dims, config.model_dims),
        }
        names = [name for name in shapes if name != "gate" or moe.gated]
        kernel = {name: Kernel(shapes[name], config, name=name)().astype(dtype) for name in names}
        logits = jnp.einsum("gsd,dx->gsx", tokens, kernel["router"]).astype(jnp.float32)
        combine, loss = route(soft_cap(logits, moe.gating_logit_cap), padded, moe)
        self.sow(LOSSES, "load_balance", loss * moe.load_balance_loss_weight)
        dispatch = (combine != 0).astype(dtype)
        inputs = jnp.einsum("gsxc,gsd->xgcd", dispatch, tokens)
        hidden = jnp.einsum("xgcd,xdf->xgcf", inputs, kernel["up"])
        activation = ACTIVATIONS[moe.activation]
        if moe.gated:
            hidden = activation(jnp.einsum("xgcd,xdf->xgcf", inputs, kernel["gate"])) * hidden
        else:
            hidden = activation(hidden)
        hidden = nn.Dropout(config.mlp_dropout)(hidden, deterministic=deterministic)
        outputs = jnp.einsum("xgcf,xfd->xgcd", hidden, kernel["down"])
        mixed = jnp.einsum("xgcd,gsxc->gsd", outputs, combine.astype(dtype)).reshape(x.shape)
        return mixed * (1.0 - paddings)[..., None].astype(dtype)


class Kernel(nn.Module):
    """A bare kernel, so that it lies at `<name>/kernel`."""

    shape: tuple[int, ...]
    config: BackboneConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """The kernel, of the parameters' dtype."""
        init = nn.initializers.xavier_uniform()
        return self.param("kernel", init, self.shape, param_dtype(self.config))


def route(logits: jax.Array, paddings: jax.Array, config: MoEConfig) -> tuple[jax.Array, jax.Array]:
    """Weights with which tokens are sent to and taken from the experts' places.

    Places are given in the order of the tokens, all first choices before all second ones; who comes
    too late is dropped (praxis/gshard_utils.py, `top2_gating_on_logits`).

    Args:
        logits: float32 [G, S, X].
        paddings: [G, S], 1 where a token does not count.
        config: capacity.

    Returns:
        (float32 [G, S, X, C], load-balance loss []).
    """
    experts = logits.shape[-1]
    capacity = _capacity(logits.shape[1], config)
    valid = 1.0 - paddings.astype(jnp.float32)
    gates = jax.nn.softmax(logits, axis=-1)
    first = jax.nn.one_hot(jnp.argmax(gates, axis=-1), experts) * valid[..., None]
    rest = gates * (1.0 - first)
    second = jax.nn.one_hot(jnp.argmax(rest, axis=-1), experts) * valid[..., None]
    weight_1 = jnp.sum(gates * first, axis=-1)
    weight_2 = jnp.sum(rest * second, axis=-1)
    total = weight_1 + weight_2 + 1e-9
    density = jnp.mean(first, axis=1)
    proxy = jnp.mean(gates * valid[..., None], axis=1)
    loss = jnp.mean(proxy * density) * experts * experts

    place_1 = jnp.cumsum(first, axis=1) - first
    kept_1 = first * (place_1 < capacity)
    place_2 = jnp.cumsum(second, axis=1) - second + jnp.sum(kept_1, axis=1, keepdims=True)
    kept_2 = second * (place_2 < capacity)

    def placed(weight: jax.Array, kept: jax.Array, place: jax.Array) -> jax.Array:
        index = jnp.sum(place * kept, axis=-1).astype(jnp.int32)
        return (weight / total)[..., None, None] * jnp.einsum(
            "gsx,gsc->gsxc", kept, jax.nn.one_hot(index, capacity)
        )

    return placed(weight_1, kept_1, place_1) + placed(weight_2, kept_2, place_2), loss


def _capacity(tokens: int, config: MoEConfig) -> int:
    """C: at least what is configured, and the group's share rounded up to a multiple of four."""
    share = int(tokens * config.capacity_factor / config.num_experts)
    if config.expert_capacity >= share:
        return config.expert_capacity
    return -(-share // 4) * 4


def _num_groups(tokens: int, config: MoEConfig) -> int:
    groups = config.num_groups
    if config.min_group_size is not None and tokens / groups < config.min_group_size:
        groups = -(-tokens // config.min_group_size)
    if tokens % groups:
        raise ValueError(f"{groups} groups of experts do not divide {tokens} tokens")
    return groups
