"""Families with LayerNorm instead of RMSNorm, and the MLP after attention."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.layers import every_layer
from efficientids_flax.backbone.presets.families.parts import BIASES, DEFAULTS, FIELDS, GATED
from efficientids_flax.config import BackboneConfig


def _opt(values: Values, problems: list[str]) -> Values:
    """Norms before or after the residual sums, and a separate width of word embeddings."""
    before, width = values["do_layer_norm_before"], values["word_embed_proj_dim"]
    return {
        "norm_policy": "pre" if before else "post_skip",
        "final_norm": before and not values["_remove_final_layer_norm"],
        "embedding_dims": None if width == values["hidden_size"] else width,
    }


def _opt_back(config: BackboneConfig) -> Values:
    before = config.norm_policy == "pre"
    return {
        "do_layer_norm_before": before,
        "_remove_final_layer_norm": before and not config.final_norm,
        "word_embed_proj_dim": config.embedding_dims or config.model_dims,
    }


# fmt: off
_FIELDS = {field: key for field, key in FIELDS.items() if field != "norm_epsilon"}
_DEFAULTS = {key: value for key, value in DEFAULTS.items() if key != "rms_norm_eps"}
_NORM = {"norm": "layer_norm", "norm_bias": True}

FAMILIES: Mapping[str, Family] = {
    "starcoder2": Family(
        _DEFAULTS | {"vocab_size": 49_152, "hidden_size": 3072, "intermediate_size": 12_288,
                     "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2,
                     "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 4096,
                     "norm_epsilon": 1e-5, "sliding_window": None, "residual_dropout": 0.0,
                     "embedding_dropout": 0.0, "use_bias": True, "tie_word_embeddings": True},
        _FIELDS | {"norm_epsilon": "norm_epsilon", "qkv_bias": "use_bias",
                   "attention_out_bias": "use_bias", "mlp_bias": "use_bias",
                   "residual_dropout": "residual_dropout", "input_dropout": "embedding_dropout"},
        _NORM, extra=("head_dim",), layer_types=every_layer,
    ),
    "nemotron": Family(
        _DEFAULTS | {"vocab_size": 256_000, "hidden_size": 6144, "intermediate_size": 24_576,
                     "num_attention_heads": 48, "hidden_act": "relu2", "norm_eps": 1e-5,
                     "max_position_embeddings": 4096, "attention_bias": False, "mlp_bias": False},
        _FIELDS | BIASES | {"norm_epsilon": "norm_eps", "mlp_bias": "mlp_bias"},
        _NORM | {"norm_scale_plus_one": True},
        fraction_key="partial_rotary_factor", fraction=0.5,
    ),
    "olmo": Family(
        _DEFAULTS | {"vocab_size": 50_304, "attention_bias": False, "clip_qkv": None},
        _FIELDS | BIASES | {"qkv_clip": "clip_qkv"},
        GATED | {"norm": "layer_norm", "norm_scale": False, "norm_epsilon": 1e-5},
        extra=("head_dim",), in_float32=True,
    ),
    "opt": Family(
        {"vocab_size": 50_272, "hidden_size": 768, "num_hidden_layers": 12, "ffn_dim": 3072,
         "max_position_embeddings": 2048, "do_layer_norm_before": True,
         "_remove_final_layer_norm": False, "word_embed_proj_dim": None, "dropout": 0.1,
         "attention_dropout": 0.0, "num_attention_heads": 12, "activation_function": "relu",
         "enable_bias": True, "layer_norm_elementwise_affine": True, "tie_word_embeddings": True},
        {"vocab_size": "vocab_size", "num_layers": "num_hidden_layers",
         "model_dims": "hidden_size", "hidden_dims": "ffn_dim",
         "num_heads": "num_attention_heads", "max_positions": "max_position_embeddings",
         "activation": "activation_function", "tied_embeddings": "tie_word_embeddings",
         "qkv_bias": "enable_bias", "attention_out_bias": "enable_bias",
         "mlp_bias": "enable_bias", "norm_scale": "layer_norm_elementwise_affine",
         "norm_bias": "layer_norm_elementwise_affine", "residual_dropout": "dropout",
         "attention_dropout": "attention_dropout"},
        {"norm": "layer_norm", "norm_epsilon": 1e-5, "position_embedding": "learned",
         "position_offset": 2, "positions_pass_padding": True},
        ignored=("layerdrop", "init_std"), derive=_opt, express=_opt_back, rotary="none",
    ),
}
# fmt: on
