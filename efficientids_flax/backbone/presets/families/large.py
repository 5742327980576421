"""gpt-oss and DeepSeek-V3: mixtures of experts with special attention and weight formats."""

import math
from collections.abc import Mapping
from typing import Any

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.layers import every_other
from efficientids_flax.backbone.presets.families.parts import (
    BIASES,
    DEFAULTS,
    FIELDS,
    GATED,
    LOSSES,
    mixture,
)
from efficientids_flax.config import BackboneConfig, ClippedGateConfig, LatentAttentionConfig


def _gpt_oss() -> dict[str, Any]:
    keys = {"num_experts": "num_local_experts", "experts_per_token": "num_experts_per_tok",
            "hidden_dims": "intermediate_size"}  # fmt: skip
    gates = {"limit": "swiglu_limit", "gain": "swiglu_alpha"}

    def derive(values: Values, problems: list[str]) -> Values:
        clipped = {name: values[key] for name, key in gates.items()}
        inner = mixture(keys, scores="chosen_softmax", router_bias=True, bias=True,
                        clipped_gate=clipped)[0]  # fmt: skip
        return inner({**values, "hidden_act": "silu"}, problems)

    def express(config: BackboneConfig) -> Values:
        gate = (config.moe and config.moe.clipped_gate) or ClippedGateConfig()
        own = {key: getattr(gate, name) for name, key in gates.items()}
        return {**mixture(keys)[1](config), **own}

    return {"derive": derive, "express": express}


def _mscale(values: Values) -> float:
    """The factor of queries with scaled rotary positions (`yarn_apply_mscale`)."""
    settings = values.get("rope_scaling") or values.get("rope_parameters") or {}
    kind = settings.get("rope_type") or settings.get("type") or "default"
    factor, weight = settings.get("factor"), settings.get("mscale_all_dim")
    if not (isinstance(weight, int | float) and isinstance(factor, int | float)):
        return 1.0  # values that are not numbers are refused elsewhere
    if kind == "default" or not weight or factor <= 1:
        return 1.0
    return (0.1 * weight * math.log(factor) + 1.0) ** 2


def _deepseek() -> dict[str, Any]:
    keys = {
        "num_experts": "n_routed_experts", "experts_per_token": "num_experts_per_tok",
        "hidden_dims": "moe_intermediate_size", "renormalize": "norm_topk_prob",
        "weights_scale": "routed_scaling_factor", "choice_groups": "n_group",
        "groups_per_token": "topk_group",
    }  # fmt: skip
    latent = {
        "latent_dims": "kv_lora_rank", "query_dims": "q_lora_rank",
        "rotary_dims": "qk_rope_head_dim", "value_dims": "v_head_dim",
    }  # fmt: skip
    inner, outer = mixture(
        keys,
        lambda values, _: range(values["first_k_dense_replace"], values["num_hidden_layers"]),
        scores="sigmoid",
        choice_bias=True,
    )

    def derive(values: Values, problems: list[str]) -> Values:
        width = values["qk_nope_head_dim"] + values["qk_rope_head_dim"]
        found = dict(inner(values, problems))
        if (moe := found.get("moe")) is not None and values["n_shared_experts"]:
            shared = values["n_shared_experts"] * values["moe_intermediate_size"]
            found["moe"] = type(moe).from_dict({**moe.to_dict(), "shared_dims": shared})
        try:
            settings = {name: values[key] for name, key in latent.items()}
            found["latent_attention"] = LatentAttentionConfig.from_dict(settings)
        except (TypeError, ValueError) as error:
            problems.append(f"latent attention: {error}")
        own = {"head_dim": values["qk_rope_head_dim"], "qk_head_dim": width}
        problems += [
            f"{key}: expected {size}, which follows from the other widths, found {values[key]}"
            for key, size in own.items()
            if values[key] not in (None, size)
        ]
        scale = _mscale(values)
        return {
            **found,
            "head_dim": width,
            "num_kv_heads": values["num_attention_heads"],
            "query_scaling": width**-0.5 * scale if scale != 1 else "inverse_sqrt_head_dim",
        }

    def express(config: BackboneConfig) -> Values:
        own, moe = config.latent_attention, config.moe
        found = {**outer(config), "first_k_dense_replace": config.num_layers}
        found.pop("head_dim")
        if moe is not None:
            shared = (moe.shared_dims or 0) // moe.hidden_dims
            found |= {"first_k_dense_replace": moe.layers[0], "n_shared_experts": shared}
        if own is not None:
            found |= {key: getattr(own, name) for name, key in latent.items()}
            found["qk_nope_head_dim"] = config.head_dim - own.rotary_dims
        turned = config.rotary is not None and config.rotary.pairing == "interleaved"
        return {**found, "rope_interleave": turned, "num_nextn_predict_layers": 0}

    return {"derive": derive, "express": express}


# fmt: off
FAMILIES: Mapping[str, Family] = {
    "gpt_oss": Family(
        DEFAULTS | {"vocab_size": 201_088, "hidden_size": 2880, "intermediate_size": 2880,
                    "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8,
                    "head_dim": 64, "rms_norm_eps": 1e-5, "max_position_embeddings": 131_072,
                    "sliding_window": 128, "layer_types": None, "attention_bias": True,
                    "num_local_experts": 128, "num_experts_per_tok": 4, "swiglu_alpha": 1.702,
                    "swiglu_limit": 7.0},
        FIELDS | BIASES, GATED | {"attention_sinks": True, "norm_scale_in_float32": True},
        ignored=LOSSES, generic={"num_experts": "num_local_experts"}, theta=150_000.0,
        rotary_default={"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                        "truncate": False, "original_max_position_embeddings": 4096},
        layer_types=every_other, quantized=("mxfp4",), **_gpt_oss(),
    ),
    "deepseek_v3": Family(
        DEFAULTS | {"vocab_size": 129_280, "hidden_size": 7168, "intermediate_size": 18_432,
                   "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
                   "max_position_embeddings": 4096, "attention_bias": False,
                   "moe_intermediate_size": 2048, "n_shared_experts": 1, "n_routed_experts": 256,
                   "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "q_lora_rank": 1536,
                   "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
                   "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
                   "first_k_dense_replace": 3, "norm_topk_prob": True, "rope_interleave": True,
                   "num_nextn_predict_layers": 1, "head_dim": None, "qk_head_dim": None},
        {field: key for field, key in FIELDS.items() if field != "head_dim"} | BIASES, GATED,
        ignored=LOSSES[:1],  # head_dim in a file is the rotated width
        extra=("num_nextn_predict_layers", "head_dim", "qk_head_dim"),
        generic={"num_local_experts": "n_routed_experts",
                 "num_mtp_layers": "num_nextn_predict_layers"},
        pairing="interleaved", pairing_key="rope_interleave", **_deepseek(),
    ),
}
# fmt: on
