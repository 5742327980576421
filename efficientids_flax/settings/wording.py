"""Assumed settings in words, the same wherever they are reported."""

import json
from collections.abc import Mapping
from typing import Any

from efficientids_flax.settings.optimizer import NEEDED
from efficientids_flax.settings.table import OPEN_FORECAST
from efficientids_flax.tree import flatten

FORWARD = "assumed, and it changes activations and logits"
TRAINING = "assumed, for training alone"
OPTIMIZER = "of the optimizer assumed"
UNKNOWN = "of the optimizer not known"
SAY = (
    "Say what you know to efficientids convert, with --set KEY=VALUE or --experiment NAME"
    " (--list-experiments shows them)"
)
FIND = ", or find it from data: efficientids find-settings {out} --tokens FILE"
SIZED = {row.key for row in OPEN_FORECAST}  # find-settings does not search those of forecasters
UNKNOWABLE = {field for fields in NEEDED.values() for field in fields}  # fields without a default


def setting_text(key: str, value: Any) -> str:
    """A setting as `--set` takes it: `rotary.pairing=half_split`, `sliding_window=null`."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def assumed_lines(assumed: Mapping[str, Mapping[str, Any]], out: str = "OUT") -> list[str]:
    """One line for each kind of assumed settings, then advice; no lines if nothing was assumed.

    Args:
        assumed: 'forward', 'training' and 'optimizer' -> key -> value, from `assumed` and
            `assumed_optimizer`.
        out: directory of the model, for the advice.
    """
    optimizer = assumed.get("optimizer", {})
    unknown = [key for key, value in optimizer.items() if value is None and key in UNKNOWABLE]
    parts = {
        FORWARD: _texts(assumed.get("forward", {})),
        TRAINING: _texts(assumed.get("training", {})),
        UNKNOWN: unknown,
        OPTIMIZER: _texts({key: value for key, value in optimizer.items() if key not in unknown}),
    }
    lines = [f"{what}: {', '.join(texts)}" for what, texts in parts.items() if texts]
    searched = set(assumed.get("forward", {})) - SIZED
    advice = SAY + (FIND.format(out=out) if searched else "")
    return [*lines, advice] if lines else []


def _texts(values: Mapping[str, Any]) -> list[str]:
    parts = flatten(values, separator=".", keep_empty=True)
    return [setting_text(*item) for item in parts.items()]
