"""What was measured at each step: in memory, and as lines of `history.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
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

    def add(self, row: Mapping[str, Any]) -> None:
        """Add to what there is of a step."""
        self._put(row)
        if self._file is not None:
            self._file.write(_line(row))

    def add_steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Add steps in a row.

        Args:
            first: the number of the first one.
            names: of the metrics.
            rows: their values, float [steps, metrics].
        """
        form = "".join(f', "{name}": %r' for name in map(_escaped, names))
        lines = []
        for step, values in enumerate(rows, first):
            row = {"step": step, **dict(zip(names, values, strict=True))}
            self._put(row)
            # A third of json's time: this is done at every log point.
            finite = all(map(math.isfinite, values))
            lines.append(f'{{"step": {step}{form % tuple(values)}}}\n' if finite else _line(row))
        if self._file is not None:
            self._file.write("".join(lines))

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
    for row in _read(directory / NAME):
        history.add(row)
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


def _escaped(name: str) -> str:
    """A name inside of JSON's quotes and of a form for `%`."""
    return json.dumps(name)[1:-1].replace("%", "%%")


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON, which has no NaN and no infinity."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite) + "\n"
