"""A mixture of experts that drops no tokens (gating 'top_k'), as in HuggingFace's families.

Letters: B batch, T time, R = B T tokens, K experts of a token, X experts, D model width, F hidden
width of an expert.
"""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.experts.choice import balance_loss, choose
from efficientids_flax.backbone.experts.grouped import Expert, Weights, feed
from efficientids_flax.backbone.experts.mixture import LOSSES
from efficientids_flax.backbone.kernels import parameter, product
from efficientids_flax.backbone.layers import (
    ACTIVATIONS,
    INTERMEDIATES,
    Dense,
    Mlp,
    compute_dtype,
    made_again,
    param_dtype,
)
from efficientids_flax.config import BackboneConfig, MoEConfig
from efficientids_flax.config.parts import KernelAxes
from efficientids_flax.sharding import Share, each_device

# Parameter of the experts -> its axes under 'in_out' and under 'out_in'.
KERNELS = {"up": ("X D F", "X F D"), "gate": ("X D F", "X F D"), "down": ("X F D", "X D F")}
BIASES = {"up": "X F", "gate": "X F", "down": "X D"}


class TopKExperts(nn.Module):
    """Sends each token to its best experts, and adds up their outputs.

    A token's result does not depend on other tokens. Padding goes to no expert. On a mesh each
    device runs its share of the experts, on its own rows of the batch.

    Sows the weighted load-balance loss into the collection `aux_losses`, and as intermediates
    `router_logits` [B, T, X] and `chosen` [B, T, K].
    """

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, paddings: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B, T, D] -> [B, T, D], zeros for padding [B, T]."""
        config, moe, dtype = self.config, self.config.moe, compute_dtype(self.config)
        assert moe is not None
        x, valid = jnp.asarray(x, dtype), 1.0 - jnp.asarray(paddings, jnp.float32)
        logits, choice_bias = Router(config, name="router")(x)
        self.sow(INTERMEDIATES, "router_logits", logits)
        experts, weights = choose(logits, moe, choice_bias)
        self.sow(INTERMEDIATES, "chosen", experts)
        loss = balance_loss(logits, experts, valid)
        self.sow(LOSSES, "load_balance", loss.astype(dtype) * moe.load_balance_loss_weight)
        experts = jnp.where(valid[..., None] > 0, experts, moe.num_experts)
        own, letters = self._weights(moe)
        mixed = each_device(
            partial(_mixed, moe, config.kernel_axes),
            (x, experts, weights, own),
            ("B T D", "B T K", "B T K", letters),
            "B T D",
            ("X", "F"),
        )
        if moe.shared_dims is not None:
            shared = replace(config, hidden_dims=moe.shared_dims, moe=None, mlp_padding_first=False)
            found = Mlp(shared, name="shared")(x, paddings, deterministic)
            if moe.shared_gate:
                found = found * jax.nn.sigmoid(Dense(1, False, config, name="shared_gate")(x))
            mixed = mixed + found
        return mixed * valid[..., None].astype(dtype)

    def _weights(self, moe: MoEConfig) -> tuple[Weights, dict[str, str]]:
        """Parameters of the experts, and the axis letters of each."""
        names = ("up", "gate", "down") if moe.gated else ("up", "down")
        found: Weights = {}
        letters: dict[str, str] = {}
        for name in names:
            found[name], bias = ExpertProjection(self.config, name, name=name)()
            letters[name] = KERNELS[name][self.config.kernel_axes == "out_in"]
            if bias is not None:
                found[f"{name}_bias"], letters[f"{name}_bias"] = bias, BIASES[name]
        return found, letters


class Router(nn.Module):
    """A logit for each expert, in float32, and an optional bias for the selection."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """[B, T, D] -> ([B, T, X], [X] or None)."""
        config, moe = self.config, self.config.moe
        assert moe is not None
        stored, zeros = param_dtype(config), nn.initializers.zeros
        shape = (config.model_dims, moe.num_experts)
        turned = config.kernel_axes == "out_in"
        shape = shape[::-1] if turned else shape
        kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), shape, stored)
        if moe.scores == "sigmoid":  # computed in float32 throughout
            x = x.astype(jnp.float32)
        logits = product(x, kernel.astype(x.dtype), jnp.float32, config.kernel_axes)
        if moe.router_bias:
            bias = parameter(self, "bias", zeros, (moe.num_experts,), stored)
            logits = logits + bias.astype(jnp.float32)
        if not moe.choice_bias:
            return logits, None
        added = parameter(self, "choice_bias", zeros, (moe.num_experts,), stored)
        return logits, jax.lax.stop_gradient(added.astype(jnp.float32))


class ExpertProjection(nn.Module):
    """Kernels and biases of all experts for one of their products.

    Attributes:
        config: the layer's.
        place: 'up', 'gate' or 'down'.
    """

    config: BackboneConfig
    place: str

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        """(kernels, biases or None) as stored."""
        moe, stored = self.config.moe, param_dtype(self.config)
        assert moe is not None
        sizes = {"X": moe.num_experts, "D": self.config.model_dims, "F": moe.hidden_dims}
        turned = self.config.kernel_axes == "out_in"
        ins, outs = (2, 1) if turned else (1, 2)
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", ins, outs, (0,))
        shape = tuple(sizes[axis] for axis in KERNELS[self.place][turned].split())
        kernel = parameter(self, "kernel", init, shape, stored)
        if not moe.bias:
            return kernel, None
        shape = tuple(sizes[axis] for axis in BIASES[self.place].split())
        return kernel, parameter(self, "bias", nn.initializers.zeros, shape, stored)


@lru_cache(maxsize=64)
def expert_of(moe: MoEConfig) -> Expert:
    """The function that one expert computes; between the two products it uses float32."""
    activation, clipped = ACTIVATIONS[moe.activation], moe.clipped_gate

    @made_again
    def hidden(up: jax.Array, gate: jax.Array | None = None) -> jax.Array:
        dtype, up = up.dtype, up.astype(jnp.float32)
        if gate is None:
            found = activation(up)
        elif clipped is None:
            found = activation(gate.astype(jnp.float32)) * up
        else:
            gate = jnp.minimum(gate.astype(jnp.float32), clipped.limit)
            up = jnp.clip(up, -clipped.limit, clipped.limit)
            found = gate * jax.nn.sigmoid(gate * clipped.gain) * (up + 1)
        return found.astype(dtype)

    return Expert(("up", "gate") if moe.gated else ("up",), hidden)


def _mixed(
    moe: MoEConfig,
    axes: KernelAxes,
    shares: dict[str, Share],
    x: jax.Array,
    experts: jax.Array,
    weights: jax.Array,
    own: Weights,
) -> jax.Array:
    """Output of one device's experts for its rows: [B, T, D].

    Args:
        moe: configuration of the experts.
        axes: how kernels are stored.
        shares: the device's share of the experts, and of their hidden width.
        x: [B, T, D].
        experts, weights: [B, T, K], over all experts; ids out of range mean no expert.
        own: parameters of the device's experts.
    """
    tokens, chosen = x.reshape(-1, x.shape[-1]), experts.shape[-1]
    count = moe.num_experts // shares["X"][1]
    places = experts.reshape(-1) - shares["X"][0] * count
    here = (places >= 0) & (places < count)
    places = jnp.where(here, places, count)
    if "down_bias" in own and shares["F"][1] > 1:  # only one shard of the width adds the bias
        own = {**own, "down_bias": own["down_bias"] * (shares["F"][0] == 0)}
    order = jnp.argsort(places, stable=True)
    sizes = jnp.bincount(places, length=count)
    mean = places.shape[0] / moe.num_experts
    found = feed(expert_of(moe), tokens, order // chosen, sizes, own, axes, mean)
    back = jnp.argsort(order)
    parts = found[back].reshape(*tokens.shape[:1], chosen, -1)
    share = jnp.where(here.reshape(-1, chosen), weights.reshape(-1, chosen), 0).astype(x.dtype)
    return jnp.einsum("rkd,rk->rd", parts, share).reshape(x.shape)
