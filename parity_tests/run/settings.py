"""Combines the settings for a comparison: the conversion's, the recording's and the user's."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.errors import MappingError
from converters.paxml.infer import read_flags
from efficientids_flax.config import OptimizerConfig
from efficientids_flax.parameters import ModelConfig
from efficientids_flax.settings import ASSUMED, GIVEN, origin_of
from efficientids_flax.stored import Config
from efficientids_flax.tree import flatten, unflatten
from parity_tests.compare import HALF_DTYPES
from parity_tests.recording import Recording, RecordingError

OPTIMIZER = "optimizer."
RECORDED = "recording"  # origin of settings from the recording's own description
NO_YARDSTICK = (
    "what half precision may be off by is told by the recording's own distance from float32, which"
    " one in {found} does not have. Give a recording in {dtype}, best with its values in float32"
    " beside it (float32/<key>, see docs/reference/recording-format.md)"
)
ROUNDED = (
    "the rounding of {found} is far beyond what float32 may be off by. Give a recording in float32"
)


def in_dtype(recording: Recording, dtype: str | None) -> Recording:
    """Change the dtype in which a recording is compared.

    Args:
        recording: as it was read.
        dtype: dtype of our computation; None: as recorded.

    Raises:
        RecordingError: the recording has nothing to compare with in that dtype.
    """
    if dtype is None:
        return recording
    passes = tuple(replace(one, dtype=dtype) for one in recording.passes)
    steps = {recording.dtype} if recording.steps else set()
    for found in sorted({one.dtype for one in recording.passes} | steps):
        if found != dtype and (dtype in HALF_DTYPES or found in HALF_DTYPES):
            reason = NO_YARDSTICK if dtype in HALF_DTYPES else ROUNDED
            raise RecordingError(
                f"dtype: found {dtype}, the recording {recording.path} is in {found}:"
                f" {reason.format(found=found, dtype=dtype)}, or leave the dtype out"
            )
    return replace(recording, passes=passes, dtype=dtype)


def settled(
    config: Config, recording: Recording, given: Mapping[str, Any] | None = None
) -> tuple[ModelConfig, OptimizerConfig | None, list[str]]:
    """Make the configurations to run with.

    Settings that the conversion assumed are taken from the recording's own description. The user's
    values take precedence over everything.

    Args:
        config: configurations from the conversion.
        recording: the recording, with its `settings`.
        given: dotted key -> value or its JSON text, as with `--set`.

    Returns:
        (model, optimizer, sentences on values that differ from the conversion's).

    Raises:
        MappingError: unknown keys, or invalid values.
    """
    assert config.model is not None
    origins = config.origins
    notes: list[str] = []
    model = _with(config.model, origins.get("model", {}), recording, given or {}, "", notes)
    optimizer = config.optimizer
    if optimizer is not None:
        optimizer = _with(
            optimizer, origins.get("optimizer", {}), recording, given or {}, OPTIMIZER, notes
        )
    return model, optimizer, notes


def settings_with_origins(
    config: Config,
    model: ModelConfig,
    optimizer: OptimizerConfig | None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, tuple[Any, str]]:
    """Each setting of a comparison, with its origin.

    Args:
        config: configurations from the conversion.
        model, optimizer: the configurations that the comparison runs with, from `settled`.
        given: dotted keys that the user gave.

    Returns:
        Dotted key -> (value, origin). The origin is the conversion's, 'given' or 'recording', or ''
        if the conversion names none. Keys of the learner begin with `optimizer.`.
    """
    found: dict[str, tuple[Any, str]] = {}
    for part, prefix, now in (("model", "", model), ("optimizer", OPTIMIZER, optimizer)):
        if now is None:
            continue
        before = _leaves(getattr(config, part))
        origins = config.origins.get(part, {})
        for key, value in _leaves(now).items():
            origin = origin_of(origins, key) if origins else ""
            if any(f"{prefix}{key}.".startswith(f"{name}.") for name in given or ()):
                origin = GIVEN
            elif key not in before or before[key] != value:
                origin = RECORDED
            found[f"{prefix}{key}"] = value, origin
    return found


def _leaves(config: Any) -> dict[str, Any]:
    return flatten(config.to_dict(), separator=".", keep_empty=True)


def _with(
    config: Any,
    origins: Mapping[str, str],
    recording: Recording,
    given: Mapping[str, Any],
    prefix: str,
    notes: list[str],
) -> Any:
    problems: list[str] = []
    flags = read_flags(type(config), given, problems, prefix=prefix)
    if problems:
        raise MappingError("\n  ".join(problems))
    values = flatten(config.to_dict(), separator=".", keep_empty=True)
    taken = []
    for key, value in _told(recording, prefix).items():
        same = key in values and _plain(values[key]) == _plain(value)
        if key in flags or same or value is None:
            continue
        parts = [place for place in values if place.startswith(f"{key}.")] or [key]
        if all(origin_of(origins, place) == ASSUMED for place in parts):
            _put(values, key, value)
            taken.append(f"{prefix}{key} = {json.dumps(value)}")
    if taken:
        told = "from the recording's description, since the conversion had no source for it"
        notes.append(f"{', '.join(taken)}: {told}")
    for key, value in flags.items():
        _put(values, key, value)
        notes.append(f"{prefix}{key} = {json.dumps(value)}: given")
    try:
        return type(config).from_dict(unflatten(values, separator="."))
    except ValueError as error:
        raise MappingError(f"the settings are not valid: {error}") from error


def _told(recording: Recording, prefix: str) -> dict[str, Any]:
    """The recording's settings for the model (no prefix) or for the optimizer."""
    return {
        key.removeprefix(prefix): value
        for key, value in recording.settings.items()
        if key.startswith(OPTIMIZER) == bool(prefix)
    }


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a stronger value; a whole record replaces its parts, and a part a record that is None."""
    for other in [k for k in values if k.startswith(f"{key}.") or key.startswith(f"{k}.")]:
        del values[other]
    values[key] = value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
