"""One layer of the decoder, as a module of its own or as a step of a scan.

Letters: B batch, T time, D model width.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn

from efficientids_flax.backbone.attention import Attention, Surroundings, rotary_of
from efficientids_flax.backbone.cache import LayerCache
from efficientids_flax.backbone.experts import LOSSES, Experts, TopKExperts
from efficientids_flax.backbone.inputs import rows_at
from efficientids_flax.backbone.layers import INTERMEDIATES, Mlp, Norm
from efficientids_flax.backbone.masks import layer_kind
from efficientids_flax.config import BackboneConfig
from efficientids_flax.sharding import constrain


class LayerBody(nn.Module):
    """Attention and MLP, each with its norms and residual.

    Attributes:
        config: the decoder's.
        index: number of the layer; for a scanned layer, its place in the block.
    """

    config: BackboneConfig
    index: int

    @nn.compact
    def run(
        self,
        x: jax.Array,
        around: Surroundings,
        deterministic: bool = True,
        cache: LayerCache | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """[B, T, D] -> ([B, T, D], the cache with the new keys; None without a cache).

        With `at` int [B, M] the output is [B, M, D], only at these places: see `keeps_apart`.
        """
        config = self.config.of_layer(self.index)
        kind = layer_kind(self.config, self.index)
        turned = self.index not in config.no_rotary_layers
        rotary = rotary_of(config, self.index) if turned else None
        attention = Attention(config, kind, rotary, name="attention")
        routed = config.moe is not None and self.index in config.moe.layers
        mlp = _experts(config) if routed else Mlp(config, name="mlp")
        grown = cache

        def attend(inner: jax.Array) -> jax.Array:
            nonlocal grown
            if cache is None:
                return attention(inner, around, deterministic, at)
            out, grown = attention.extend(inner, around, cache, at)
            return out

        def feed(inner: jax.Array) -> jax.Array:
            return mlp(inner, paddings, deterministic)

        given, weight, dtype = x, config.attention_residual_weight, x.dtype
        # If half precision is computed in float32, the residual is rounded once, at the end.
        x, normed = self._add("attention", x, given, attend, weight, deterministic, at=at)
        given, paddings = rows_at(given, at), rows_at(around.paddings, at)
        self.sow(INTERMEDIATES, "attention_residual", x.astype(dtype))
        experts = config.moe if routed else None
        if experts.padding_first if experts else config.mlp_padding_first:
            x = x * (1.0 - paddings)[..., None].astype(x.dtype)
        given, weight = given if config.parallel_residual else x, config.mlp_residual_weight
        if experts and experts.residual_weight is not None:
            weight = experts.residual_weight
        shared = normed if config.shared_norm else None
        x, _ = self._add("mlp", x, given, feed, weight, deterministic, shared)
        return constrain(x.astype(dtype), "B T D"), grown

    def _add(
        self,
        name: Literal["attention", "mlp"],
        x: jax.Array,
        given: jax.Array,
        function: Callable[[jax.Array], jax.Array],
        weight: float,
        deterministic: bool,
        normed: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Residual step: (`x` plus the sublayer's output for `given`, the sublayer's input).

        Norms are applied as the policy says; `normed` is the sublayer's input if it was normed
        already. With `at` the sublayer reads all tokens, and returns only these places.
        """
        config = self.config.of_layer(self.index)
        policy, double = config.norm_policy, config.norm_policy == "primer_hybrid"
        routed = config.moe is not None and self.index in config.moe.layers
        own = config.of_norm("moe" if routed and name == "mlp" else name)
        norm = Norm(own, name=f"pre_{name}_norm" if double else f"{name}_norm")
        if normed is None:
            normed = norm(given) if policy in ("pre", "pre_skip", "primer_hybrid") else given
        inner = function(normed)
        x, normed = rows_at(x, at), rows_at(normed, at)
        if double:
            inner = Norm(own, name=f"post_{name}_norm")(inner)
        elif policy == "post":
            inner = norm(inner)
        inner = nn.Dropout(config.residual_dropout)(inner, deterministic=deterministic)
        if name == "mlp" and config.mlp_adds_input:
            inner = normed + inner
            self.sow(INTERMEDIATES, "mlp_output", inner)
        x = (normed if policy == "pre_skip" else x) + weight * inner
        return norm(x) if policy == "post_skip" else x, normed


class Layer(LayerBody):
    """A layer that is not scanned."""

    def __call__(
        self,
        x: jax.Array,
        around: Surroundings,
        deterministic: bool = True,
        at: jax.Array | None = None,
    ) -> jax.Array:
        """[B, T, D] -> [B, T, D], or [B, M, D] at the places `at`."""
        return self.run(x, around, deterministic, at=at)[0]

    def extend(
        self,
        x: jax.Array,
        around: Surroundings,
        cache: LayerCache,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, LayerCache]:
        """The same for tokens that follow those in a cache."""
        x, grown = self.run(x, around, True, cache, at)
        assert grown is not None
        return x, grown


class ScannedLayer(LayerBody):
    """A layer as one step of a scan, with carry [B, T, D] and this layer's cache, if any."""

    def __call__(
        self,
        x: jax.Array,
        caches: tuple[LayerCache, ...] | None,
        around: Surroundings,
        deterministic: bool = True,
    ) -> tuple[jax.Array, tuple[LayerCache, ...] | None]:
        """(carry, cache); see `LayerBody.run`."""
        x, grown = self.run(x, around, deterministic, caches[0] if caches else None)
        return x, None if grown is None else (grown,)


class ScannedBlock(nn.Module):
    """Several consecutive layers as one step of a scan."""

    config: BackboneConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        caches: tuple[LayerCache, ...] | None,
        around: Surroundings,
        deterministic: bool = True,
    ) -> tuple[jax.Array, tuple[LayerCache, ...] | None]:
        """(carry [B, T, D], caches of the layers; None without caches)."""
        grown = []
        for place in range(self.config.layers_per_block):
            layer = Layer(self.config, place, name=f"block_{place}")
            if caches is None:
                x = layer(x, around, deterministic)
            else:
                x, one = layer.extend(x, around, caches[place])
                grown.append(one)
        return x, None if caches is None else tuple(grown)


def _experts(config: BackboneConfig) -> Experts | TopKExperts:
    """The layer's mixture of experts."""
    assert config.moe is not None
    kind = TopKExperts if config.moe.gating == "top_k" else Experts
    return kind(config, name="moe")


def keeps_apart(config: BackboneConfig, index: int) -> bool:
    """Whether a layer can be computed for some tokens only (besides all keys and values).

    Not if experts have a limited capacity, for which all tokens compete; nor if keys depend on
    relative distances, which are computed for all queries.
    """
    own = config.of_layer(index)
    routed = own.moe is not None and index in own.moe.layers
    return own.relative_key_dims is None and not (
        routed and own.moe is not None and own.moe.gating != "top_k"
    )


def make_layers(config: BackboneConfig, remat: str | None) -> Any:
    """Make all layers of a decoder; call it in `setup`.

    Args:
        config: the decoder's.
        remat: name of a policy of `jax.checkpoint_policies`; None: no rematerialisation.

    Returns:
        A list of `Layer`; if layers are scanned, one module with parameters stacked on a leading
        axis.
    """
    if not config.scan_layers:
        layer = _rematerialised(Layer, remat, config, 3)
        return [layer(config, index) for index in range(config.num_layers)]
    one = config.layers_per_block == 1
    scan: Any = nn.scan(
        _rematerialised(ScannedLayer if one else ScannedBlock, remat, config, 4),
        variable_axes={"params": 0, LOSSES: 0, INTERMEDIATES: 0},
        split_rngs={"params": True, "dropout": True, "routing": True},
        in_axes=(0, nn.broadcast, nn.broadcast),  # type: ignore[arg-type]
        length=config.num_layers // config.layers_per_block,
    )
    return scan(config, 0) if one else scan(config)


def _rematerialised(module: Any, remat: str | None, config: BackboneConfig, static: int) -> Any:
    """The module, rematerialised if asked for; `static` is its argument `deterministic`."""
    if remat is None:
        return module
    policy = getattr(jax.checkpoint_policies, remat)
    return nn.remat(
        module, policy=policy, prevent_cse=not config.scan_layers, static_argnums=(static,)
    )
