"""How sizes, tables and metrics look in messages."""

from collections.abc import Mapping, Sequence
from typing import Any


def size_text(nbytes: float) -> str:
    """Bytes in a unit that is easy to read."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} TB"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns as wide as they need."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def metrics_text(found: Mapping[str, Any]) -> str:
    """One line a metric: name and value."""
    width = max(map(len, found), default=0)
    return "\n".join(
        f"{name:{width}}  {value:.6g}" if isinstance(value, float) else f"{name:{width}}  {value}"
        for name, value in found.items()
    )
