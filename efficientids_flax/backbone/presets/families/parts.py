"""Parts shared by the tables of several families."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from efficientids_flax.backbone.presets.families.family import Values
from efficientids_flax.backbone.presets.families.values import ACTIVATIONS
from efficientids_flax.config import BackboneConfig, MoEConfig


def own_width_problems(values: Values) -> list[str]:
    """A problem if `head_dim` is not D / N, which the class uses in other places."""
    width = values["hidden_size"] // values["num_attention_heads"]
    if values["head_dim"] in (None, width):
        return []
    return [f"head_dim: expected hidden_size / heads = {width}, found {values['head_dim']}"]


def odd_turn_problems(values: Values, width: int | None, missing: float) -> list[str]:
    """A problem if the rotated width of a head is odd, which the class cannot compute.

    Args:
        values: content of the `config.json`.
        width: width of a head; None: D / N.
        missing: the default share.
    """
    size: int = width or values["hidden_size"] // values["num_attention_heads"]
    settings = values.get("rope_scaling") or values.get("rope_parameters") or {}
    key = "partial_rotary_factor"
    given = (settings.get(key), values.get(key))
    share = next((share for share in given if share is not None), missing)
    if not isinstance(share, int | float):  # refused elsewhere
        return []
    turned = int(size * share)
    return [f"{key}: {share} of the width {size} is {turned}, which is odd"] if turned % 2 else []


def fraction_of(turned: int, width: int) -> float:
    """The share of a head's width such that `int(width * share)` is the rotated width."""
    share = turned / width
    return share if int(width * share) == turned else math.nextafter(share, 1)


def inverse_of(number: float) -> float:
    """1 / number, rounded so that its inverse is exactly the number, if possible."""
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

LOSSES = ("output_router_logits", "router_aux_loss_coef")  # an auxiliary loss of training
Derive = Callable[[Values, list[str]], Values]
Express = Callable[[BackboneConfig], Values]


def mixture(
    keys: Mapping[str, str],
    layers: Callable[[Values, list[str]], Iterable[int]] | None = None,
    **fixed: Any,
) -> tuple[Derive, Express]:
    """`derive` and `express` of a family whose layers have experts.

    Args:
        keys: field of `MoEConfig` -> key that holds it.
        layers: returns the layers with experts; None: all layers.
        **fixed: field of `MoEConfig` -> its value in all models of the family.
    """

    def derive(values: Values, problems: list[str]) -> Values:
        every = range(values["num_hidden_layers"])
        chosen = tuple(every if layers is None else layers(values, problems))
        activation = ACTIVATIONS.get(values["hidden_act"])
        if not chosen or activation is None:  # an unknown activation is refused elsewhere
            return {}
        settings = {
            "layers": chosen, "gated": True, "activation": activation, "gating": "top_k",
            "load_balance_loss_weight": 0.0, **{name: values[key] for name, key in keys.items()},
        }  # fmt: skip
        try:
            return {"moe": MoEConfig.from_dict({**settings, **fixed})}
        except (TypeError, ValueError) as error:
            problems.append(f"experts: {error}")
            return {}

    def express(config: BackboneConfig) -> Values:
        moe = config.moe
        found = {} if moe is None else {key: getattr(moe, name) for name, key in keys.items()}
        # Mixtral's rotation needs the head width: it cannot be null or missing.
        return found | {"head_dim": config.head_dim}

    return derive, express


def every_nth(keys: Mapping[str, str], experts: str, **fixed: Any) -> dict[str, Any]:
    """`mixture` with experts in every `decoder_sparse_step`-th layer not in `mlp_only_layers`.

    Args:
        keys, fixed: see `mixture`.
        experts: key of the number of experts; 0: there are none.
    """

    def layers(values: Values, problems: list[str]) -> Iterable[int]:
        step, dense = values["decoder_sparse_step"], values["mlp_only_layers"] or ()
        if step < 1:
            problems.append(f"decoder_sparse_step: expected at least 1, found {step}")
            return ()
        if not values[experts]:
            return ()
        every = range(values["num_hidden_layers"])
        return [layer for layer in every if layer not in dense and (layer + 1) % step == 0]

    derive, inner = mixture(keys, layers, **fixed)

    def express(config: BackboneConfig) -> Values:
        routed = config.moe.layers if config.moe else ()
        dense = [layer for layer in range(config.num_layers) if layer not in routed]
        return {**inner(config), "decoder_sparse_step": 1, "mlp_only_layers": dense}

    return {"derive": derive, "express": express}


def alike(keys: Mapping[str, str], **fixed: Any) -> dict[str, Any]:
    """`mixture` with experts in all layers."""
    derive, express = mixture(keys, **fixed)
    return {"derive": derive, "express": express}
