"""Rotary positions of a HuggingFace `config.json`, in the style of transformers 4 or 5.

Style 4 has `rope_theta` and `rope_scaling`; style 5 has both in `rope_parameters`, which Gemma3 has
for each kind of layer. See `modeling_rope_utils.py` of transformers 5.23.
"""

from collections.abc import Mapping
from typing import Any, Literal

from efficientids_flax.backbone.presets.families import Family, Values
from efficientids_flax.config import PositionScalingConfig, RotaryConfig, RotaryScalingConfig

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
    "proportional": {"factor": "factor", "partial_rotary_factor": "share"},
}
_NEEDED = {
    "linear": ("factor",), "dynamic": ("factor",), "yarn": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"), "proportional": (),
}
# fmt: on
_OR_DEFAULT = ("beta_fast", "beta_slow")  # 0 means the default
_PLACED = ("type", "rope_type", "rope_theta", "partial_rotary_factor")
ORIGINAL, LONGEST = "original_max_position_embeddings", "max_position_embeddings"
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
    """(rotary positions of full layers or of all, those of sliding layers if they differ).

    Args:
        values: content of `config.json`, with defaults filled in.
        family: says where the settings are.
        problems: receives a problem for each unsupported setting, by name.
        notes: receives notes on settings that are not read.
    """
    if family.rotary == "none":
        return None, None
    scaling, parameters = values.get("rope_scaling"), values.get("rope_parameters")
    if family.rotary == "flat":
        settings = _flat(values, family)
        theta_key = "rotary_emb_base" if family.fraction_key == "rotary_pct" else "rope_theta"
        settings.setdefault("rope_theta", values.get(theta_key) or family.theta)
        return _read_one(settings, values, family, "rope_parameters", problems, notes), None
    nested = dict(parameters or {})
    names = {"full_attention", "sliding_attention"}
    others = [key for key in nested if key not in names]
    wrong = [key for key in others if isinstance(nested[key], Mapping)]
    wrong += [key for key in names & nested.keys() if not isinstance(nested[key] or {}, Mapping)]
    if wrong or (others and len(others) == len(nested)):
        problems.append(
            f"rope_parameters: expected {' and '.join(sorted(names))}, found {', '.join(nested)}"
        )
        return None, None
    if others:
        notes.append(f"rope_parameters: not read, as no layer uses them: {', '.join(others)}")
    if scaling and parameters is None and "rope_type" not in scaling:
        kind = scaling.get("type") or "default"
        if kind != "default":  # the class adds `rope_type: default`, which contradicts `type`
            problems.append(
                f"rope_scaling.type: '{kind}' without rope_type, which transformers 5 computes as"
                f" 'default' here and transformers 4 as '{kind}'; say in rope_type which it is"
            )
    full = {**(nested.get("full_attention") or {}), **(scaling or {})}
    full.setdefault("rope_theta", values.get("rope_theta") or family.theta)
    sliding = dict(nested.get("sliding_attention") or {})
    local = values.get(family.local_theta_key) if family.local_theta_key else None
    sliding.setdefault("rope_theta", local or family.local_theta)
    return (
        _read_one(full, values, family, "rope_parameters.full_attention", problems, notes),
        _read_one(sliding, values, family, "rope_parameters.sliding_attention", problems, notes),
    )


def read_position_scaling(
    values: Values, family: Family, problems: list[str]
) -> PositionScalingConfig | None:
    """How queries grow with their position, if the family has this among its rotary settings.

    Args:
        values, family, problems: see `read_rotary`.
    """
    key = family.position_scaling_key
    if key is None:
        return None
    settings = _flat(values, family)
    needed = {
        key: settings.get(key),
        ORIGINAL: _original(_kind(settings, family), settings, values),
    }
    missing = {name: value for name, value in needed.items() if not isinstance(value, int | float)}
    if missing:
        problems += [
            f"rope_parameters.{name}: expected a number, found {value!r}"
            for name, value in missing.items()
        ]
        return None
    beta, length = needed.values()
    return PositionScalingConfig(float(beta), length) if beta else None


def _flat(values: Values, family: Family) -> dict[str, Any]:
    """Rotary settings of all layers: those of style 4, else of style 5, else the default."""
    parameters = values.get("rope_parameters")
    missing = family.rotary_default if parameters is None else {}
    return dict(values.get("rope_scaling") or parameters or missing)


def _kind(settings: Mapping[str, Any], family: Family) -> str:
    kind = str(settings.get("rope_type") or settings.get("type") or "default")
    return family.rotary_aliases.get(kind, kind)


def _original(
    kind: str, settings: Mapping[str, Any], values: Values, nested: bool = False
) -> int | None:
    """The length of training; None if it is missing and the kind of scaling does not need it.

    A top-level key of the configuration has precedence over the one among the settings.
    """
    if kind not in ("llama3", "yarn", "longrope"):
        return settings.get(ORIGINAL)
    given = (None if nested else values.get(ORIGINAL), settings.get(ORIGINAL))
    return next((length for length in given if length is not None), values[LONGEST])


def _read_one(
    settings: dict[str, Any],
    values: Values,
    family: Family,
    name: str,
    problems: list[str],
    notes: list[str],
) -> RotaryConfig | None:
    found: list[str] = []
    kind = _kind(settings, family)
    fraction = settings.get("partial_rotary_factor")
    if fraction is None:
        fraction = values.get(family.fraction_key or "partial_rotary_factor")
    fraction = family.fraction if fraction is None else fraction
    read = {*_PLACED, ORIGINAL, *SCALING_KEYS.get(kind, ()), family.position_scaling_key}
    whole = family.fraction_key is None and family.fraction == 1
    if kind == "proportional" and whole:  # the fraction is the share of pairs in the whole width
        fraction, settings = 1.0, {**settings, "partial_rotary_factor": fraction}
    elif family.fraction_key is None and fraction != 1:
        if kind == "default":  # the class does not read it
            fraction, read = 1.0, read - {"partial_rotary_factor"}
        else:
            found.append(
                f"{name}.partial_rotary_factor: found {fraction}, this family rotates whole heads"
            )
    unread = [key for key in settings if key not in read]
    nested = [key for key in unread if isinstance(settings[key], Mapping)]
    found += [f"{name}.{key}: expected a value, found a mapping" for key in nested]
    if unread:
        notes.append(f"{name}: settings that {kind} does not read: {', '.join(unread)}")
    kinds = family.rotary_kinds or tuple(SCALING_KEYS)
    kinds = tuple(each for each in kinds if each != "proportional" or whole)
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
            pairing=_pairing(values, family),
            max_timescale=settings["rope_theta"],
            fraction=fraction,
            in_float32=family.in_float32,
            by_frequency=True,
            scaling=scaling,
        )
    except ValueError as error:
        problems.append(f"{name}: {error}")
        return None


def _pairing(values: Values, family: Family) -> Literal["half_split", "interleaved"]:
    """Which numbers of a head form a rotated pair."""
    if family.pairing_key is None:
        return family.pairing
    return "interleaved" if values[family.pairing_key] else "half_split"


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
    if kind == "yarn":  # as transformers reads them
        given = {name: value for name, value in given.items() if value or name not in _OR_DEFAULT}
        given |= {"truncate": bool(settings["truncate"])} if "truncate" in settings else {}
    longest = values[LONGEST]
    nested = family.rotary == "by_layer_type"
    scaled = kind in ("llama3", "yarn", "longrope")
    original = _original(kind, settings, values, nested) if scaled else longest
    if scaled and not (isinstance(original, int | float) and original > 0):
        problems.append(f"{name}.{ORIGINAL}: expected a number above 0, found {original!r:.60}")
        return None
    if nested:
        given.pop("truncate", None)  # transformers does not read it from nested settings
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
