"""Rotary positions of a HuggingFace `config.json`, in the style of transformers 4 or 5.

Style 4 has `rope_theta` and `rope_scaling`; style 5 has `rope_parameters` with both, in Gemma3 one
a kind of layer. See `modeling_rope_utils.py` of transformers 5.23.
"""

from collections.abc import Mapping
from typing import Any

from efficientids_flax.backbone.presets.families import Family, Values
from efficientids_flax.config import RotaryConfig, RotaryScalingConfig

# fmt: off
SCALING_KEYS = {
    # kind       key of the settings -> field of `RotaryScalingConfig`
    "linear":   {"factor": "factor"},
    "dynamic":  {"factor": "factor"},
    "llama3":   {"factor": "factor", "low_freq_factor": "low_freq_factor",
                 "high_freq_factor": "high_freq_factor"},
    "yarn":     {"factor": "factor", "attention_factor": "attention_factor",
                 "beta_fast": "beta_fast", "beta_slow": "beta_slow", "mscale": "mscale",
                 "mscale_all_dim": "mscale_all_dim", "truncate": "truncate"},
    "longrope": {"factor": "factor", "attention_factor": "attention_factor",
                 "short_factor": "short_factors", "long_factor": "long_factors"},
}
_NEEDED = {
    "linear": ("factor",), "dynamic": ("factor",), "yarn": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
# fmt: on
_PLACED = ("type", "rope_type", "rope_theta", "partial_rotary_factor")
ORIGINAL = "original_max_position_embeddings"
ROTARY_SETTINGS = ("rope_scaling", "rope_parameters")  # mappings
# Keys of the whole configuration that are read here, in all families.
ROTARY_KEYS = (
    "rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "rotary_emb_base",
    "rotary_pct", "partial_rotary_factor", "max_position_embeddings",
    "original_max_position_embeddings",
)  # fmt: skip


def read_rotary(
    values: Values, family: Family, problems: list[str], notes: list[str]
) -> tuple[RotaryConfig | None, RotaryConfig | None]:
    """Rotary positions of all layers, and those of sliding layers where they differ.

    Args:
        values: content of `config.json`, defaults filled in.
        family: how its settings lie.
        problems: where what is not supported is added, by name.
        notes: where it is said which settings are passed over.
    """
    if family.rotary == "none":
        return None, None
    scaling, parameters = values.get("rope_scaling"), values.get("rope_parameters")
    wrong = [
        f"{key}: expected a mapping, found {value!r}"
        for key, value in (("rope_scaling", scaling), ("rope_parameters", parameters))
        if value is not None and not isinstance(value, Mapping)
    ]
    if wrong:
        problems += wrong
        return None, None
    if family.rotary == "flat":
        settings = dict(scaling or parameters or {})
        theta_key = "rotary_emb_base" if family.fraction_key == "rotary_pct" else "rope_theta"
        settings.setdefault("rope_theta", values.get(theta_key) or family.theta)
        return _read_one(settings, values, family, "rope_parameters", problems, notes), None
    nested = dict(parameters or {})
    names = {"full_attention", "sliding_attention"}
    if nested.keys() - names or not all(isinstance(v, Mapping) for v in nested.values() if v):
        problems.append(
            f"rope_parameters: expected {' and '.join(sorted(names))}, found {', '.join(nested)}"
        )
        return None, None
    full = {**(nested.get("full_attention") or {}), **(scaling or {})}
    full.setdefault("rope_theta", values.get("rope_theta") or family.theta)
    sliding = dict(nested.get("sliding_attention") or {})
    sliding.setdefault("rope_theta", values.get("rope_local_base_freq") or family.local_theta)
    return (
        _read_one(full, values, family, "rope_parameters.full_attention", problems, notes),
        _read_one(sliding, values, family, "rope_parameters.sliding_attention", problems, notes),
    )


def _read_one(
    settings: dict[str, Any],
    values: Values,
    family: Family,
    name: str,
    problems: list[str],
    notes: list[str],
) -> RotaryConfig | None:
    found: list[str] = []
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if family.rotary_kinds == ("longrope",) and kind in ("su", "yarn"):
        kind = "longrope"  # what older Phi-3 files call it
    fraction = settings.get("partial_rotary_factor")
    if fraction is None:
        fraction = values.get(family.fraction_key or "partial_rotary_factor")
    fraction = family.fraction if fraction is None else fraction
    read = {*_PLACED, ORIGINAL, *SCALING_KEYS.get(kind, ())}
    if family.fraction_key is None and fraction != 1:
        if kind == "default":  # the class does not look at it
            fraction, read = 1.0, read - {"partial_rotary_factor"}
        else:
            found.append(f"{name}.partial_rotary_factor: this family turns all, found {fraction}")
    unread = [key for key in settings if key not in read]
    nested = [key for key in unread if isinstance(settings[key], Mapping)]
    found += [f"{name}.{key}: expected a value, found a mapping" for key in nested]
    if unread:
        notes.append(f"{name}: settings that {kind} does not read: {', '.join(unread)}")
    kinds = family.rotary_kinds or tuple(SCALING_KEYS)
    scaling = None
    if kind != "default" and kind not in kinds:
        known = ", ".join(("default", *kinds))
        found.append(f"{name}.rope_type: '{kind}' is not supported; known are {known}")
    elif kind != "default":
        missing = [key for key in _NEEDED[kind] if settings.get(key) is None]
        found += [f"{name}.{key}: {kind} scaling needs it" for key in missing]
        if not found:
            scaling = _scaling(kind, settings, values, family, name, found)
    problems += found
    if found:
        return None
    try:
        return RotaryConfig(
            pairing=family.pairing,
            max_timescale=settings["rope_theta"],
            fraction=fraction,
            in_float32=family.in_float32,
            by_frequency=True,
            scaling=scaling,
        )
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None


def _scaling(
    kind: str,
    settings: Mapping[str, Any],
    values: Values,
    family: Family,
    name: str,
    problems: list[str],
) -> RotaryScalingConfig | None:
    given = {
        field: value
        for key, field in SCALING_KEYS[kind].items()
        if (value := settings.get(key)) is not None
    }
    original = longest = values["max_position_embeddings"]
    nested = family.rotary == "by_layer_type"
    if kind in ("llama3", "yarn", "longrope"):
        # A key of the configuration itself comes before the one among the settings.
        original = (
            (None if nested else values.get("original_max_position_embeddings"))
            or settings.get("original_max_position_embeddings")
            or longest
        )
    if nested:
        given.pop("truncate", None)  # transformers does not find it among nested settings
    given["reread_when_long"] = family.rotary_kinds == ("longrope",)
    try:
        if kind in ("yarn", "longrope"):
            given.setdefault("factor", longest / original)
        return RotaryScalingConfig.from_dict(
            {"kind": kind, "original_max_positions": original, **given}
        )
    except (ValueError, TypeError) as error:
        problems.append(f"{name}: {error}")
        return None
