"""What the tables of several families have in common."""

import math

from efficientids_flax.backbone.presets.families.family import Values


def own_width_problems(values: Values) -> list[str]:
    """A problem where `head_dim` says another width than D / N, which the class takes elsewhere."""
    width = values["hidden_size"] // values["num_attention_heads"]
    if values["head_dim"] in (None, width):
        return []
    return [f"head_dim: expected hidden_size / heads = {width}, found {values['head_dim']}"]


def fraction_of(turned: int, width: int) -> float:
    """The share of a head's width, such that `int(width * share)` is the number that turns."""
    share = turned / width
    return share if int(width * share) == turned else math.nextafter(share, 1)


def inverse_of(number: float) -> float:
    """1 / number, such that 1 / it is the number again where there is such a one."""
    nearest = 1 / number
    near = (nearest, math.nextafter(nearest, 0), math.nextafter(nearest, math.inf))
    return next((value for value in near if 1 / value == number), nearest)


# fmt: off
FIELDS = {
    "vocab_size":         "vocab_size",
    "num_layers":         "num_hidden_layers",
    "model_dims":         "hidden_size",
    "hidden_dims":        "intermediate_size",
    "num_heads":          "num_attention_heads",
    "num_kv_heads":       "num_key_value_heads",
    "head_dim":           "head_dim",
    "norm_epsilon":       "rms_norm_eps",
    "activation":         "hidden_act",
    "tied_embeddings":    "tie_word_embeddings",
    "attention_dropout":  "attention_dropout",
}
BIASES = {"qkv_bias": "attention_bias", "attention_out_bias": "attention_bias"}
DEFAULTS = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_dropout": 0.0,
}
GATED = {"gated_mlp": True}
LAYER_NORM = {"norm": "layer_norm", "norm_bias": True, "mlp_bias": True, "fused_qkv": True}
# fmt: on
