"""What the families with experts have in common: their `MoEConfig` from keys, and the way back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from efficientids_flax.backbone.presets.families.family import Values
from efficientids_flax.backbone.presets.families.values import ACTIVATIONS
from efficientids_flax.config import BackboneConfig, MoEConfig

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
        layers: which of them; None: all.
        **fixed: field of `MoEConfig` -> its value in all models of the family.
    """

    def derive(values: Values, problems: list[str]) -> Values:
        every = range(values["num_hidden_layers"])
        chosen = tuple(every if layers is None else layers(values, problems))
        activation = ACTIVATIONS.get(values["hidden_act"])
        if not chosen or activation is None:  # which is refused elsewhere
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
        # Mixtral's rotation does not read a width that is null or missing.
        return found | {"head_dim": config.head_dim}

    return derive, express


def every_nth(keys: Mapping[str, str], experts: str, **fixed: Any) -> dict[str, Any]:
    """The same where every `decoder_sparse_step`-th layer has them, but those of `mlp_only_layers`.

    Args:
        keys, fixed: see `mixture`.
        experts: key of their number; 0 is none.
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
    """The same for families whose layers all have experts."""
    derive, express = mixture(keys, **fixed)
    return {"derive": derive, "express": express}
