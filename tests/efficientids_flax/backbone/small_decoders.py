"""Small decoders that the tests of this folder share."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import (
    AlibiConfig,
    BackboneConfig,
    LatentAttentionConfig,
    LayerSetting,
    MoEConfig,
    RelativeBiasConfig,
    RotaryConfig,
)
from efficientids_flax.config.positions import PositionScalingConfig, RotaryScalingConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.tree import unflatten

LLAMA = BackboneConfig(
    vocab_size=31,
    num_layers=2,
    model_dims=16,
    hidden_dims=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    tied_embeddings=False,
    gated_mlp=True,
    activation="silu",
    rotary=RotaryConfig(),
)
GPT = replace(
    LLAMA,
    num_kv_heads=4,
    fused_qkv=True,
    tied_embeddings=True,
    gated_mlp=False,
    activation="gelu_tanh",
    rotary=None,
    position_embedding="learned",
    max_positions=64,
    norm="layer_norm",
    norm_bias=True,
    mlp_bias=True,
    qkv_bias=True,
    attention_out_bias=True,
)
# One of each option, together where they can be; two layers where what is between them counts.
VARIANTS = {
    "llama": LLAMA,
    "scanned": replace(LLAMA, scan_layers=True, num_layers=3),
    "gpt": GPT,
    "sinusoidal capped": replace(
        GPT,
        num_layers=1,
        position_embedding="sinusoidal",
        embedding_scale="sqrt_dim",
        query_scaling="per_dim_scale",
        attention_logit_cap=5.0,
        final_logit_cap=3.0,
        norm_scale_plus_one=True,
    ),
    "one key head, relative bias": replace(
        LLAMA,
        num_layers=1,
        num_kv_heads=1,
        multi_query=True,
        relative_bias=RelativeBiasConfig(num_buckets=8, max_distance=20),
    ),
    "windows by layer, scanned in blocks": replace(
        LLAMA,
        num_layers=4,
        scan_layers=True,
        layers_per_block=2,
        sliding_window=3,
        layer_types=("sliding", "full") * 2,
        sliding_rotary=RotaryConfig(max_timescale=100.0),
        qk_norm="per_head",
        norm_policy="primer_hybrid",
        norm_scale_plus_one=True,
        query_scaling=0.3,
    ),
    "window everywhere, some not turned": replace(
        LLAMA, sliding_window=4, no_rotary_layers=(1,), norm_policy="post", qk_norm="full"
    ),
    "parallel": replace(
        GPT,
        num_layers=1,
        position_embedding="none",
        rotary=RotaryConfig(fraction=0.4, in_float32=False),
        parallel_residual=True,
    ),
    "llama3, multiplied": replace(
        LLAMA,
        num_layers=1,
        rotary=RotaryConfig(
            scaling=RotaryScalingConfig(kind="llama3", factor=4.0, original_max_positions=8)
        ),
        attention_residual_weight=0.3,
        mlp_residual_weight=0.3,
        embedding_scale=7.0,
        scale_injected_embeddings=True,
        logits_divisor=2.0,
    ),
    "yarn, interleaved": replace(
        LLAMA,
        num_layers=1,
        rotary=RotaryConfig(
            pairing="interleaved",
            scaling=RotaryScalingConfig(kind="yarn", factor=4.0, original_max_positions=64),
        ),
        qk_norm="per_head",
        qk_norm_after_rotary=True,
        norm_policy="post_skip",
    ),
    "each layer its own, scanned in blocks": replace(
        LLAMA,
        num_layers=4,
        scan_layers=True,
        layers_per_block=2,
        layer_settings=tuple(
            LayerSetting(layers=(1, 3), key=key, value=value)
            for key, value in {
                "num_kv_heads": 1,
                "multi_query": True,
                "rotary": None,
                "sliding_window": 3,
                "hidden_dims": 20,
                "gated_mlp": False,
                "activation": "relu",
                "mlp_bias": True,
                "norm_policy": "primer_hybrid",
            }.items()
        ),
    ),
    "words of another width, positions of tokens": replace(
        GPT,
        num_layers=1,
        embedding_dims=10,
        tied_embeddings=False,
        position_offset=2,
        positions_pass_padding=True,
        norm_scale=False,
        norm_bias=False,
        qk_norm="full",
    ),
    "a scale for each head, clipped": replace(
        LLAMA,
        num_layers=1,
        norm="layer_norm",
        parallel_residual=True,
        shared_norm=True,
        qk_norm="each_head",
        qkv_clip=0.5,
        query_position_scaling=PositionScalingConfig(beta=0.5, length=3),
    ),
    "experts for all, one shared": replace(
        LLAMA,
        kernel_axes="out_in",
        moe=MoEConfig(
            num_experts=4,
            layers=(1,),
            hidden_dims=6,
            gated=True,
            activation="silu",
            gating="top_k",
            bias=True,
            router_bias=True,
            choice_bias=True,
            shared_dims=10,
            shared_gate=True,
        ),
    ),
    "latents, a sink for each head": replace(
        LLAMA,
        num_layers=1,
        num_kv_heads=4,
        qkv_bias=True,
        attention_sinks=True,
        rotary=RotaryConfig(pairing="interleaved"),
        latent_attention=LatentAttentionConfig(
            latent_dims=5, rotary_dims=2, value_dims=3, query_dims=7
        ),
    ),
    "linear biases, sums of what is normed": replace(
        GPT,
        num_layers=1,
        position_embedding="none",
        alibi=AlibiConfig(in_bfloat16=True, scale=0.5),
        norm_policy="pre_skip",
        embedding_norm=True,
    ),
    "relative keys, extra logit": replace(
        LLAMA,
        num_layers=1,
        num_kv_heads=4,
        qkv_bias=True,
        rotary=None,
        relative_key_dims=5,
        attention_extra_logit=0.5,
        mlp_padding_first=True,
        logits_clip=0.5,
    ),
}

SHAPE = 3, 10  # of the batches that tests of all variants share: one program each


def made(config: BackboneConfig, seed: int = 0) -> dict[str, Any]:
    """Random parameters by the table: norms and biases too, which initialise to nothing."""
    generator, dtype = np.random.default_rng(seed), jnp.dtype(config.param_dtype)
    values = {
        path: generator.normal(0, 0.3, shape).astype(dtype)
        for path, shape in sorted(parameter_shapes(config).items())
    }
    return jax.device_put(unflatten(values))  # which compiles nothing


@partial(jax.jit, static_argnames=("config", "method"))
def hidden(
    config: BackboneConfig,
    params: Mapping[str, Any],
    ids: jax.Array | None = None,
    *,
    method: str = "__call__",
    **named: Any,
) -> Any:
    """What the decoder makes of a batch."""
    return Decoder(config).apply({"params": params}, ids, method=method, **named)


def token_ids(config: BackboneConfig, batch: int, time: int, seed: int = 0) -> jax.Array:
    """Random words [B, T]."""
    words = np.random.default_rng(seed).integers(0, config.vocab_size, (batch, time))
    return jax.device_put(words.astype(np.int32))
