"""Reads the user's `--set` values: dotted keys of a configuration, checked and parsed."""

import json
from collections.abc import Mapping
from typing import Any

from efficientids_flax.config.record import Record, dotted_keys, fits, schema, unknown_key

OPTIMIZER = "optimizer."  # prefix of the flags that `infer_optimizer` reads


def read_flags(
    config: type[Record], overrides: Mapping[str, Any], problems: list[str], prefix: str = ""
) -> dict[str, Any]:
    """Check and parse the flags for a configuration; values may be JSON (`true`, `1e-6`, `[1, 3]`).

    Args:
        config: class of the configuration.
        overrides: key -> value.
        problems: receives unknown keys.
        prefix: prefix of the keys to read; without one, the optimizer's keys are skipped.
    """
    known = dotted_keys(config)
    flags = {}
    for key, value in overrides.items():
        if not key.startswith(prefix) or (not prefix and key.startswith(OPTIMIZER)):
            continue
        name = key.removeprefix(prefix)
        if name not in known:
            names = {*known, *(f"{OPTIMIZER}{beta}" for beta in ("beta1", "beta2") if not prefix)}
            problems.append(f"--set {prefix}{unknown_key(name, names)}")
            continue
        flags[name] = _parse(_hint(config, name), value)
    return flags


def _parse(hint: Any, value: Any) -> Any:
    """The value that a flag's text stands for, unless the text itself fits the type."""
    if not isinstance(value, str) or fits(hint, value):
        return value
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError:
        return value


def _hint(config: type[Record], key: str) -> Any:
    """The annotated type of a dotted key."""
    name, _, rest = key.partition(".")
    hint = schema(config)[name]
    if not rest:
        return hint
    inner = [option for option in (hint, *getattr(hint, "__args__", ())) if _is_record(option)]
    return _hint(inner[0], rest)


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Record)
