"""What was measured at each step: in memory, and as lines of `history.jsonl`."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

Row = dict[str, Any]
NAME = "history.jsonl"


class History:
    """Rows of metrics by step, written as they come.

    Attributes:
        rows: one dict a step, in order; each has `step`.
    """

    def __init__(self, directory: Path | None = None, start: int = 0) -> None:
        """Begin, or go on after a step.

        Args:
            directory: where the file lies; None: in memory alone.
            start: step that was restored; later lines of the file are dropped, since they are
                measured again.
        """
        self.rows: list[Row] = []
        self._by_step: dict[int, Row] = {}
        self._file: TextIO | None = None
        if directory is None:
            return
        path = directory / NAME
        directory.mkdir(parents=True, exist_ok=True)
        kept = [row for row in _read(path) if row["step"] <= start] if start else []
        part = path.with_suffix(".part")
        part.write_text("".join(map(_line, kept)))
        part.replace(path)
        self._file = path.open("a")
        for row in kept:
            self._put(row)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; what belongs to a step that is there joins its row."""
        for row in rows:
            self._put(row)
            if self._file is not None:
                self._file.write(_line(row))

    def flush(self) -> None:
        """Let readers see what was added."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, row: Mapping[str, Any]) -> None:
        step = row["step"]
        if step in self._by_step:
            self._by_step[step].update(row)
        else:
            self._by_step[step] = dict(row)
            self.rows.append(self._by_step[step])


def read_history(directory: Path) -> list[Row]:
    """The rows of a run's `history.jsonl`, one a step."""
    history = History()
    history.add(_read(directory / NAME))
    return history.rows


def _read(path: Path) -> list[Row]:
    """Lines of the file; a last one that a killed process left unfinished is dropped."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON, which has no NaN and no infinity."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite) + "\n"
