"""Formats sizes, tables, metrics and errors for messages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 240  # characters shown of another library's error


def size_text(nbytes: float) -> str:
    """Bytes in a readable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} TB"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, with aligned columns."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def readable(text: str, most: int | None = None) -> str:
    """A text that is safe for a terminal: control characters, as in names from files, are escaped.

    Args:
        text: text from any source.
        most: number of characters shown, the rest is only counted; None: all.
    """
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)
    if most is None or len(shown) <= most:
        return shown
    return f"{shown[:most]} ... and {len(shown) - most} more characters"


def metrics_text(found: Mapping[str, Any]) -> str:
    """One line a metric: name and value."""
    width = max(map(len, found), default=0)
    return "\n".join(
        f"{name:{width}}  {value:.6g}" if isinstance(value, float) else f"{name:{width}}  {value}"
        for name, value in found.items()
    )


def first_of(rows: Sequence[int], most: int = 5) -> str:
    """The first numbers, and how many more there are."""
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"{', '.join(map(str, rows[:most]))}{more}"


def in_a_line(error: BaseException) -> str:
    """An error's message in one line, without the details that tensorstore adds."""
    text = str(error) or type(error).__name__
    text = re.sub(r"\s*\[(source locations|tensorstore_spec)=.*", "", text, flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    half = LONGEST // 2  # the beginning names the subject, the end the system's error
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"
