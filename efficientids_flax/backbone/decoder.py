"""The decoder: ids or embeddings in, hidden states and logits out.

Computes what Praxis' `TransformerLm` computes (praxis/layers/transformer_models.py) for a
`BackboneConfig`. Letters: B batch, T time, D model width, V words, L layers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.attention import Attention, LayerKind, attention_mask
from efficientids_flax.backbone.experts import LOSSES, Experts
from efficientids_flax.backbone.layers import (
    Embedding,
    LmHead,
    Mlp,
    Norm,
    compute_dtype,
    sinusoids,
    soft_cap,
)
from efficientids_flax.config import BackboneConfig


class LayerBody(nn.Module):
    """Attention and MLP, each with its norms around it.

    Attributes:
        config: of the decoder.
        index: number of the layer; of a scanned layer, its place in the block.
    """

    config: BackboneConfig
    index: int

    @nn.compact
    def run(
        self,
        x: jax.Array,
        masks: dict[LayerKind, jax.Array],
        positions: jax.Array,
        paddings: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """[B, T, D] -> [B, T, D]; `masks` has one mask a kind of layer."""
        config = self.config
        sliding = layer_kind(config, self.index) == "sliding"
        rotary = config.sliding_rotary if sliding and config.sliding_rotary else config.rotary
        if self.index in config.no_rotary_layers:
            rotary = None
        attention = Attention(config, rotary, name="attention")
        mask = masks["sliding" if sliding else "full"]
        x = self._residual(
            "attention",
            x,
            lambda inner: attention(inner, mask, positions, deterministic),
            config.attention_residual_weight,
            deterministic,
        )
        routed = config.moe is not None and self.index in config.moe.layers
        mlp = Experts(config, name="moe") if routed else Mlp(config, name="mlp")
        return self._residual(
            "mlp",
            x,
            lambda inner: mlp(inner, paddings, deterministic),
            config.mlp_residual_weight,
            deterministic,
        )

    def _residual(
        self,
        name: str,
        x: jax.Array,
        function: Callable[[jax.Array], jax.Array],
        weight: float,
        deterministic: bool,
    ) -> jax.Array:
        """`x` plus what a sublayer makes of it, normed as the policy says."""
        config = self.config
        dropout = nn.Dropout(config.residual_dropout)
        if config.norm_policy == "primer_hybrid":
            inner = Norm(config, name=f"pre_{name}_norm")(x)
            inner = Norm(config, name=f"post_{name}_norm")(function(inner))
            return x + weight * dropout(inner, deterministic=deterministic)
        norm = Norm(config, name=f"{name}_norm")
        inner = function(norm(x) if config.norm_policy == "pre" else x)
        if config.norm_policy == "post":
            inner = norm(inner)
        x = x + weight * dropout(inner, deterministic=deterministic)
        return norm(x) if config.norm_policy == "post_skip" else x


class Layer(LayerBody):
    """A layer of its own."""

    def __call__(self, x: jax.Array, *args: Any) -> jax.Array:
        """[B, T, D] -> [B, T, D]; see `LayerBody.run`."""
        return self.run(x, *args)


class ScannedLayer(LayerBody):
    """A layer as one step of a scan."""

    def __call__(self, x: jax.Array, *args: Any) -> tuple[jax.Array, None]:
        """The carry [B, T, D], and nothing to collect."""
        return self.run(x, *args), None


class ScannedBlock(nn.Module):
    """Several layers in a row as one step of a scan."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, *args: Any) -> tuple[jax.Array, None]:
        """The carry [B, T, D], and nothing to collect."""
        for place in range(self.config.layers_per_block):
            x = Layer(self.config, place, name=f"block_{place}")(x, *args)
        return x, None


class Decoder(nn.Module):
    """A language model without its loss.

    Attributes:
        config: what it computes.
        remat: name of a policy of `jax.checkpoint_policies` by which layers are rematerialised in
            the backward pass, such as 'nothing_saveable'; None keeps all activations.
    """

    config: BackboneConfig
    remat: str | None = None

    def setup(self) -> None:
        config = self.config
        if config.parallel_residual or config.qk_norm != "none":
            raise ValueError("parallel_residual and qk_norm are not computed by this decoder yet")
        if config.vocab_size:
            self.lm_head = LmHead(config)
            if not config.tied_embeddings:
                self.embedder = Embedding(config.vocab_size, config)
        if config.position_embedding == "learned":
            assert config.max_positions is not None
            self.position_embedding = Embedding(config.max_positions, config)
        if config.final_norm:
            self.final_norm = Norm(config)
        self.input_dropout = nn.Dropout(config.input_dropout)
        if config.scan_layers:
            self.layers = self._scanned()
        else:
            layer = self._remat(Layer)
            self.layers = [layer(config, index) for index in range(config.num_layers)]

    def embed(self, ids: jax.Array) -> jax.Array:
        """Word embeddings with the configuration's scale: int [B, T] -> [B, T, D]."""
        tied = self.config.tied_embeddings
        return self._scaled(self.lm_head.embed(ids) if tied else self.embedder(ids))

    def __call__(
        self,
        ids: jax.Array | None = None,
        *,
        inputs_embeds: jax.Array | None = None,
        paddings: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        inputs_indicator: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Hidden states after the final norm.

        Args:
            ids: int [B, T]; or
            inputs_embeds: [B, T, D] in place of word embeddings, positions not added yet.
            paddings: [B, T], 1 where there is padding; None for none.
            segment_ids: int [B, T] of packed sequences; None makes one of all that is not padding.
            positions: int [B, T] in the segment; None counts from 0 over the row.
            inputs_indicator: [B, T], 1 on the prefix, for `attention_mask='prefix'`.
            deterministic: no dropout.

        Returns:
            [B, T, D], of the compute dtype.

        Raises:
            ValueError: not just one of `ids` and `inputs_embeds`.
        """
        config = self.config
        if (ids is None) == (inputs_embeds is None):
            raise ValueError("give either ids or inputs_embeds")
        if ids is not None:
            x = self.embed(ids)
        else:
            assert inputs_embeds is not None
            x = inputs_embeds.astype(compute_dtype(config))
            x = self._scaled(x) if config.scale_injected_embeddings else x
        batch, time = x.shape[:2]
        if paddings is None:
            paddings = jnp.zeros((batch, time), jnp.float32)
        if segment_ids is None:
            segment_ids = (1 - paddings).astype(jnp.int32)
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), (batch, time))
        if config.position_embedding == "learned":
            x = x + self.position_embedding(positions)
        elif config.position_embedding == "sinusoidal":
            x = x + sinusoids(positions, config).astype(x.dtype)
        x = self.input_dropout(x, deterministic=deterministic)
        kinds: set[LayerKind] = {layer_kind(config, i) for i in range(config.num_layers)}
        masks = {
            kind: attention_mask(segment_ids, config, kind, inputs_indicator) for kind in kinds
        }
        rest = (masks, positions, paddings.astype(jnp.float32), deterministic)
        if isinstance(self.layers, Sequence):
            for layer in self.layers:
                x = layer(x, *rest)
        else:
            x, _ = self.layers(x, *rest)
        return self.final_norm(x) if config.final_norm else x

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, V], scaled and capped as configured."""
        config = self.config
        if config.scale_before_logits:
            hidden = hidden * config.model_dims**-0.5
        logits = self.lm_head(hidden) / config.logits_divisor
        return soft_cap(logits, config.final_logit_cap)

    def _scaled(self, x: jax.Array) -> jax.Array:
        scale = self.config.embedding_scale
        if scale == "none":
            return x
        factor = math.sqrt(self.config.model_dims) if scale == "sqrt_dim" else scale
        return x * jnp.asarray(factor, x.dtype)

    def _remat(self, module: Any) -> Any:
        """The module, rematerialised if asked for; `deterministic` is its fifth argument."""
        if self.remat is None:
            return module
        policy = getattr(jax.checkpoint_policies, self.remat)
        return nn.remat(
            module, policy=policy, prevent_cse=not self.config.scan_layers, static_argnums=(5,)
        )

    def _scanned(self) -> Any:
        """All layers as one module with parameters on a leading axis."""
        config = self.config
        one = config.layers_per_block == 1
        scan: Any = nn.scan(
            self._remat(ScannedLayer if one else ScannedBlock),
            variable_axes={"params": 0, LOSSES: 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,  # type: ignore[arg-type]
            length=config.num_layers // config.layers_per_block,
        )
        return scan(config, 0) if one else scan(config)


def layer_kind(config: BackboneConfig, index: int) -> LayerKind:
    """'sliding' or 'full', of one layer."""
    if config.layer_types:
        return config.layer_types[index]
    return "sliding" if config.sliding_window is not None else "full"
