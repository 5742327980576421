"""Classifies the keys of a `config.json` by a family's table: read, ignored, or refused."""

from collections.abc import Collection, Mapping
from typing import Any

from efficientids_flax.backbone.presets.families import CAUSAL, IRRELEVANT, REFUSED, Family
from efficientids_flax.backbone.presets.rotary import ROTARY_KEYS, ROTARY_SETTINGS

PER_LAYER = ("layer_types", "no_rope_layers")  # lists
LISTS = (*PER_LAYER, "mlp_only_layers")  # the last can have any length
MAPPINGS = ("attn_config",)
# Keys whose null is a value of its own, not the same as a missing key.
NULLABLE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping",
            "num_key_value_heads", "head_dim", "clip_qkv",
            "q_lora_rank")  # fmt: skip
SIZES = ("vocab_size", "num_layers", "model_dims", "num_heads")  # fields that must be above zero
# Key that marks every n-th layer (so n cannot be 0) -> the list of layers that overrides it.
DIVISORS = {"sliding_window_pattern": "layer_types", "no_rope_layer_interval": "no_rope_layers"}
NUMBERS = ("query_pre_attn_scalar",)  # floats, though their defaults are whole numbers
OTHERS = (CAUSAL, "quantization_config", "compression_config")


def without(values: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    """The values without the keys that the user ignores, also those among rotary settings."""
    return {
        key: without(value, ignored)
        if key in ROTARY_SETTINGS and isinstance(value, Mapping)
        else value
        for key, value in values.items()
        if key not in ignored
    }


def named(values: Mapping[str, Any], family: Family, notes: list[str]) -> dict[str, Any]:
    """The values with generic key names replaced by those of the family's class.

    If both are present, the generic one counts, as in transformers.
    """
    found = dict(values)
    for generic, key in family.generic.items():
        if generic in found:
            value = found.pop(generic)
            if key in found and found[key] != value:
                notes.append(f"config.json: {key} is {found[key]!r}, {generic} = {value!r} is used")
            found[key] = value
    return found


def unread(values: Mapping[str, Any], family: Family) -> list[str]:
    """A note that lists the keys that the family's class does not have; empty if there are none."""
    known = family.read | {*family.ignored, *IRRELEVANT, *REFUSED, *ROTARY_KEYS, *OTHERS}
    keys = [key for key in values if key not in known]
    if not keys:
        return []
    kind = values.get("model_type")
    return [f"config.json: keys that {kind} does not read, as in transformers: {', '.join(keys)}"]


def refused(values: Mapping[str, Any], family: Family) -> list[str]:
    """A problem for each key whose value is not supported."""
    return [
        f"{key}: found {values[key]!r}; only {' or '.join(map(repr, allowed))} is supported; if"
        " you know that it changes nothing, give the key in `ignore_keys`"
        for key, allowed in {**REFUSED, **family.only}.items()
        if key in values and values[key] not in allowed
    ]


def complete(values: Mapping[str, Any], family: Family, problems: list[str]) -> dict[str, Any]:
    """The values with defaults for missing keys; adds a problem for each value of a wrong type."""
    given = dict(values)
    sizes = {family.fields[name] for name in SIZES}
    if not given.get("rope_scaling"):  # false, "" and [] count as missing, as in transformers
        given.pop("rope_scaling", None)
    problems += [
        f"{key}: expected a mapping, found {given[key]!r:.60}"
        for key in ROTARY_SETTINGS
        if given.get(key) is not None and not isinstance(given[key], Mapping)
    ]
    problems += [
        f"{key}: expected a number above 0, found 0"
        for key, instead in DIVISORS.items()
        if key in {*family.defaults, *family.ignored} and given.get(key) == 0
        if not given.get(instead)
    ]
    for key, default in family.defaults.items():
        if key not in given or (given[key] is None and key not in NULLABLE):
            given[key] = False if key in given and isinstance(default, bool) else default
        value: Any = given[key]
        if value is None:
            continue
        if key in LISTS:
            kind, fits = "list", isinstance(value, list)
        elif key in MAPPINGS:
            kind, fits = "mapping", isinstance(value, Mapping)
        elif isinstance(default, bool | str):
            kind, fits = type(default).__name__, isinstance(value, type(default))
        elif isinstance(default, Mapping):
            kind, fits = "mapping", isinstance(value, Mapping)
        elif isinstance(default, list | tuple):
            kind, fits = "list", isinstance(value, list)
        elif isinstance(default, int) and key not in NUMBERS:
            kind = "positive whole number" if key in sizes else "whole number"
            fits = type(value) is int and (value > 0 or key not in sizes)
        else:
            kind = "number"
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits:
            problems.append(f"{key}: expected a {kind}, found {value!r:.60}")
        elif (
            isinstance(value, list)
            and key in PER_LAYER
            and type(count := given[family.fields["num_layers"]]) is int
            and len(value) < count
        ):
            problems.append(f"{key}: expected {count} entries, found {len(value)}")
    return given
