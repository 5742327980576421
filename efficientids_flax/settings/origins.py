"""Where the value of a setting came from, and which values are assumptions that can be wrong.

Origins are words: 'dump' (the job's own description), 'tree' (names, shapes, dtypes of parameters),
'experiment NAME' (a published experiment that was recognised or named), 'given' (by the user),
'found' (from data), 'assumed' (no source).
"""

from collections.abc import Mapping
from typing import Any, Literal

from efficientids_flax.settings.table import (
    AnyConfig,
    OpenSetting,
    open_settings,
    value_at,
    with_values,
)
from efficientids_flax.tree import flatten

DUMP = "dump"
"""From the job's own description."""
TREE = "tree"
"""Certain from names, shapes and dtypes of the parameters."""
EXPERIMENT = "experiment"
"""From a published experiment; the whole origin is 'experiment NAME'."""
GIVEN = "given"
"""From the user."""
FOUND = "found"
"""Found from data."""
ASSUMED = "assumed"
"""From no source."""


def origin_of(origins: Mapping[str, str], key: str) -> str:
    """The origin of a dotted key: its own, or that of the record it is in; else 'assumed'.

    If only parts of a record have origins, the record has theirs if all are the same, else
    'assumed'.
    """
    if above := _said(origins, key):
        return above
    parts = {origin for place, origin in origins.items() if place.startswith(f"{key}.")}
    return parts.pop() if len(parts) == 1 else ASSUMED


def origins_of_leaves(
    values: Mapping[str, Any], *origins: Mapping[str, str], unsaid: str = ASSUMED
) -> dict[str, str]:
    """The origin of each leaf of a configuration.

    Args:
        values: the configuration's `to_dict()`.
        *origins: dotted key -> origin, in order of precedence. A key covers all keys below it.
        unsaid: the origin of leaves that no mapping covers.

    Returns:
        Dotted key of a leaf -> its origin.
    """
    leaves = flatten(values, separator=".", keep_empty=True)
    return {
        key: next((said for place in origins if (said := _said(place, key))), unsaid)
        for key in leaves
    }


def _said(origins: Mapping[str, str], key: str) -> str | None:
    """The origin of a dotted key, or of the nearest record that contains it; None if none has."""
    cuts = (key[:place] for place in range(len(key), 0, -1) if key[place : place + 1] in ("", "."))
    return next((origins[place] for place in cuts if place in origins), None)


def assumed(
    config: AnyConfig,
    origins: Mapping[str, str],
    affects: Literal["forward", "training"] = "forward",
) -> dict[str, Any]:
    """The assumed settings that can change this model's results.

    Args:
        config: the model's configuration.
        origins: dotted key -> origin; absent keys are assumed.
        affects: 'forward': settings of activations and logits; 'training': settings that affect
            training alone.

    Returns:
        Dotted key of a row -> assumed value, as JSON, in the order of the table. For a record, only
        the parts that the row's values name: `{"pairing": "half_split"}`.
    """
    found = {}
    for key, row in open_settings(config).items():
        if row.affects != affects or not is_assumed(config, key, row, origins):
            continue
        now = value_at(config, key)
        others = [value for value in row.values if value != now]
        if not others or any(with_values(config, {key: value}) is not None for value in others):
            found[key] = {part: now[part] for part in named_parts(row, now)} or now
    return found


def is_assumed(config: AnyConfig, key: str, row: OpenSetting, origins: Mapping[str, str]) -> bool:
    """Whether an open setting is assumed; for a record, whether any part that its row names is."""
    places = [f"{key}.{part}" for part in named_parts(row, value_at(config, key))] or [key]
    return any(origin_of(origins, place) == ASSUMED for place in places)


def named_parts(row: OpenSetting, value: Any) -> list[str]:
    """The parts of a record that the values of its row name ('pairing'); none for other values."""
    if not isinstance(value, Mapping):
        return []
    named = {part for other in row.values if isinstance(other, Mapping) for part in other}
    return [part for part in value if part in named]
