"""Mixture of experts in place of an MLP (Praxis `TransformerFeedForwardMoe`).

Letters: B batch, T time, G groups, S tokens of a group, X experts, C places of an expert, D model
width, F hidden width of an expert.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.experts.routing import dense_weights, num_groups, route
from efficientids_flax.backbone.kernels import parameter
from efficientids_flax.backbone.layers import (
    ACTIVATIONS,
    INTERMEDIATES,
    compute_dtype,
    param_dtype,
)
from efficientids_flax.config import BackboneConfig
from efficientids_flax.sharding import constrain

LOSSES = "aux_losses"  # collection of the load-balance losses
RANDOM = "routing"  # name of the rng stream, for `second_expert_policy='sampling'`


class Experts(nn.Module):
    """Sends each token to some experts and adds up their outputs.

    An expert's capacity depends on the size of the group. So a token's result depends on the other
    tokens of the batch, and decoding step by step differs from reading a row at once.

    Sows the weighted load-balance loss into the collection `aux_losses`, and as intermediates
    `router_logits` [G, S, X]; `dispatch` and `combine` [G, S, X, C] and `load_balance` [] of the
    routing; `activated` and `hidden` (the input of the last projection), [X, G, C, F]. With gating
    'dense_top2' groups are rows, places are times, and there is no routing.
    """

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, paddings: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B, T, D] -> [B, T, D]; dropped tokens and padding [B, T] give zeros.

        Raises:
            ValueError: the groups do not divide the tokens; or the second expert is sampled, and
                the rng stream 'routing' is missing.
        """
        moe, dtype = self.config.moe, compute_dtype(self.config)
        assert moe is not None
        x = x.astype(dtype)
        dense = moe.gating == "dense_top2"
        groups = x.shape[0] if dense else num_groups(x.shape[0] * x.shape[1], moe)
        tokens = x.reshape(groups, -1, x.shape[-1])
        routed = x if moe.gating_level == "token" else sentence_means(x, paddings)
        router = self._kernel("router", self.config.model_dims, moe.num_experts)
        logits = jnp.einsum("gsd,dx->gsx", routed.reshape(tokens.shape), router)
        self.sow(INTERMEDIATES, "router_logits", logits)
        if dense:
            weights = dense_weights(logits, dtype)
            inputs = jnp.broadcast_to(tokens, (moe.num_experts, *tokens.shape))
            mixed = jnp.einsum("xgsd,gsx->gsd", self._experts(inputs, deterministic), weights)
            loss = jnp.zeros((), jnp.float32)
        else:
            sampled = moe.second_expert_policy == "sampling" and moe.gating == "top2"
            key = self.make_rng(RANDOM) if sampled and self.has_rng(RANDOM) else None
            padded = paddings.reshape(groups, -1)
            routing = route(logits.astype(jnp.float32), padded, moe, dtype, key)
            self.sow(INTERMEDIATES, "dispatch", routing.dispatch)
            self.sow(INTERMEDIATES, "combine", routing.combine)
            self.sow(INTERMEDIATES, "load_balance", routing.loss)
            inputs = jnp.einsum("gsxc,gsd->xgcd", routing.dispatch, tokens)
            outputs = self._experts(inputs, deterministic)
            mixed = jnp.einsum("xgcd,gsxc->gsd", outputs, routing.combine)
            loss = routing.loss
        self.sow(LOSSES, "load_balance", loss.astype(dtype) * moe.load_balance_loss_weight)
        mixed = constrain(mixed.reshape(x.shape), "B T D")
        return mixed * (1.0 - paddings)[..., None].astype(dtype)

    def _experts(self, inputs: jax.Array, deterministic: bool) -> jax.Array:
        """Each expert's MLP on its tokens: [X, G, C, D] -> [X, G, C, D]."""
        config, moe = self.config, self.config.moe
        assert moe is not None
        wide = (moe.num_experts, config.model_dims, moe.hidden_dims)
        hidden = jnp.einsum("xgcd,xdf->xgcf", inputs, self._kernel("up", *wide))
        gate = hidden
        if moe.gated:
            gate = jnp.einsum("xgcd,xdf->xgcf", inputs, self._kernel("gate", *wide))
        activated = ACTIVATIONS[moe.activation](gate)
        self.sow(INTERMEDIATES, "activated", activated)
        hidden = activated * hidden if moe.gated else activated
        hidden = constrain(hidden, "X G C F")
        self.sow(INTERMEDIATES, "hidden", hidden)
        hidden = nn.Dropout(config.mlp_dropout)(hidden, deterministic=deterministic)
        down = self._kernel("down", moe.num_experts, moe.hidden_dims, config.model_dims)
        return jnp.einsum("xgcf,xfd->xgcd", hidden, down)

    def _kernel(self, name: str, *shape: int) -> jax.Array:
        return Kernel(shape, self.config, name=name)().astype(compute_dtype(self.config))


class Kernel(nn.Module):
    """A bare kernel as a module, so that its path is `<name>/kernel`."""

    shape: tuple[int, ...]
    config: BackboneConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """The kernel, in the parameters' dtype."""
        init = nn.initializers.xavier_uniform()
        return parameter(self, "kernel", init, self.shape, param_dtype(self.config))


def sentence_means(x: jax.Array, paddings: jax.Array) -> jax.Array:
    """Replace every token by the mean of its row's tokens, and padding [B, T] by zeros.

    Praxis' routing by sentences (`_get_sentence_embeddings`). Its stack of layers does not pass on
    segments, so a sentence is the whole row without padding, packed or not.

    [B, T, D] -> [B, T, D].
    """
    valid = (1.0 - paddings).astype(x.dtype)[..., None]
    count = jnp.maximum(jnp.sum(1.0 - paddings, axis=1), 1.0).astype(x.dtype)
    mean = jnp.sum(x * valid, axis=1) / count[:, None]
    return mean[:, None] * valid
