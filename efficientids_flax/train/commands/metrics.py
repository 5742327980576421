"""Metrics as text."""

from collections.abc import Mapping
from typing import Any


def metrics_text(found: Mapping[str, Any]) -> str:
    """One line a metric: name and value."""
    width = max(map(len, found), default=0)
    return "\n".join(
        f"{name:{width}}  {value:.6g}" if isinstance(value, float) else f"{name:{width}}  {value}"
        for name, value in found.items()
    )
