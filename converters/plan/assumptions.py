"""Origins of settings as files have them, and what to do about those that were assumed."""

from collections.abc import Mapping
from typing import Any

from converters.errors import MappingError
from efficientids_flax.settings import assumed_lines


def origins_of(
    provenance: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, dict[str, str]]:
    """'model' and 'optimizer' -> dotted key -> origin, of those that have any."""
    return {
        part: {key: cause["from"] for key, cause in causes.items()}
        for part, causes in provenance.items()
        if causes
    }


def refuse_assumed(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `MappingError` for what was assumed of activations and logits (`--strict`)."""
    if lines := assumed_lines({"forward": found.get("forward", {})}):
        raise MappingError("\n  ".join(["--strict: not all settings are known:", *lines]))
