"""Writes rotary positions as keys of a `config.json`, in styles 4 and 5 at once.

The other version of `transformers` reads a file with the keys of one style without an error, but as
another model. See `efficientids_flax.backbone.presets.rotary`, which reads what is written here.
"""

from typing import Any

from efficientids_flax.backbone.presets import SCALING_KEYS, Family
from efficientids_flax.config import RotaryConfig

Json = dict[str, Any]
ORIGINAL, LONGEST = "original_max_position_embeddings", "max_position_embeddings"


def rotary_keys(
    full: RotaryConfig | None, sliding: RotaryConfig | None, family: Family, longest: int | None
) -> Json:
    """The keys for rotary positions.

    Args:
        full: settings of the layers with full attention; None if there are none.
        sliding: settings of the layers with a window; None if there are none.
        family: how the family stores its settings.
        longest: `max_position_embeddings`, if known.
    """
    if family.rotary == "none":
        return {}
    if family.rotary == "by_layer_type":
        full = full or RotaryConfig(max_timescale=family.theta)
        sliding = sliding or RotaryConfig(max_timescale=family.local_theta)
        return {
            "rope_theta": full.max_timescale,
            "rope_local_base_freq": sliding.max_timescale,
            "rope_scaling": _scaling(full),
            "rope_parameters": {
                "full_attention": _parameters(full),
                "sliding_attention": _parameters(sliding),
            },
            **_lengths(full, family, longest),
        }
    one = full or sliding
    if one is None:
        return {}
    found: Json = {"rope_scaling": _scaling(one), "rope_parameters": _parameters(one)}
    found["rotary_emb_base" if family.fraction_key == "rotary_pct" else "rope_theta"] = (
        one.max_timescale
    )
    if family.fraction_key is not None:
        found[family.fraction_key] = one.fraction
        found["rope_parameters"]["partial_rotary_factor"] = one.fraction
    if family.rotary_kinds == ("longrope",) and one.scaling is not None:
        # Style 4 of Phi-3 accepts exactly three keys, and takes the factor from the two lengths.
        settings = found["rope_scaling"]
        settings = {name: settings[name] for name in settings if name not in (ORIGINAL, "factor")}
        found["rope_scaling"] = {"type": settings.pop("rope_type"), **settings}
    return found | _lengths(one, family, longest)


def _scaling(rotary: RotaryConfig) -> Json | None:
    """The settings of the scaling, without the base; None without scaling."""
    scaling = rotary.scaling
    if scaling is None:
        return None
    found: Json = {"rope_type": scaling.kind}
    for key, field in SCALING_KEYS[scaling.kind].items():
        value = getattr(scaling, field)
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    if scaling.kind in ("llama3", "yarn", "longrope"):
        found[ORIGINAL] = scaling.original_max_positions
    return found


def _parameters(rotary: RotaryConfig) -> Json:
    scaling = _scaling(rotary) or {"rope_type": "default"}
    return {"rope_theta": rotary.max_timescale, **scaling}


def _lengths(rotary: RotaryConfig, family: Family, longest: int | None) -> Json:
    """The lengths for the scaling, if they are keys of the whole configuration."""
    scaling = rotary.scaling
    if scaling is None or scaling.original_max_positions is None:
        return {}
    original = scaling.original_max_positions
    if scaling.kind == "dynamic":
        return {LONGEST: original}
    if ORIGINAL not in family.defaults:
        return {}
    stretched = round(original * scaling.factor)
    return {ORIGINAL: original, LONGEST: stretched if longest is None else longest}
